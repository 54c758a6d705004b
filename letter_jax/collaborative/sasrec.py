"""SASRec (Kang and McAuley 2018): causal self-attention over a user's items; scores are dot products with item rows.

Shapes: B rows, T cells, N items, D width.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from letter_jax.configuration import SASRecConfig
from letter_jax.ops.dropout import Dropout
from letter_jax.ops.masking import MASKED


class Block(nn.Module):
  """A transformer block with the normalisation before attention and feed-forward."""

  config: SASRecConfig

  @nn.compact
  def __call__(self, x_BxTxD: jax.Array, mask_Bx1xTxT: jax.Array, deterministic: bool) -> jax.Array:
    config = self.config
    head = config.dim // config.heads
    B, T, _ = x_BxTxD.shape
    normed = nn.LayerNorm()(x_BxTxD)
    query, key, value = (
      nn.Dense(config.dim, name=name)(normed).reshape(B, T, config.heads, head) for name in ('query', 'key', 'value')
    )
    scores = jnp.einsum('bqhf,bkhf->bhqk', query, key) / head**0.5
    weights = jax.nn.softmax(jnp.where(mask_Bx1xTxT, scores, MASKED), axis=-1)
    mixed = jnp.einsum('bhqk,bkhf->bqhf', Dropout(config.dropout)(weights, deterministic), value)
    attended = nn.Dense(config.dim, name='out')(mixed.reshape(B, T, config.dim))
    x = x_BxTxD + Dropout(config.dropout)(attended, deterministic)
    hidden = Dropout(config.dropout)(jax.nn.gelu(nn.Dense(4 * config.dim)(nn.LayerNorm()(x))), deterministic)
    return x + Dropout(config.dropout)(nn.Dense(config.dim)(hidden), deterministic)


class SASRec(nn.Module):
  """The model: item and position embeddings, causal blocks, scores by the item embeddings.

  Attributes:
    config: sizes and dropout.
    num_items: N.
    positions: number of items of the longest sequence.
  """

  config: SASRecConfig
  num_items: int
  positions: int

  def setup(self) -> None:
    small = nn.initializers.normal(0.02)
    self.item_embeddings = self.param('item_embeddings', small, (self.num_items, self.config.dim))
    self.position_embeddings = self.param('position_embeddings', small, (self.positions, self.config.dim))
    self.blocks = [Block(self.config, name=f'block_{i}') for i in range(self.config.layers)]
    self.norm = nn.LayerNorm()
    self.dropout = Dropout(self.config.dropout)

  def __call__(self, items_BxT: jax.Array, segments_BxT: jax.Array, deterministic: bool = True) -> jax.Array:
    """Float32 [B, T, D]: prediction of the item after each position, from the items of its segment up to it.

    Args:
      items_BxT: int32, several sequences in a row, each in time order; negative on padding.
      segments_BxT: int32, number of the sequence that a cell belongs to (neighbours differ), 0 on padding.
    """
    same_BxTxT = segments_BxT[:, :, None] == segments_BxT[:, None, :]
    causal_TxT = jnp.tril(jnp.ones(same_BxTxT.shape[1:], bool))
    mask_BxTxT = same_BxTxT & causal_TxT
    position_BxT = jnp.minimum(mask_BxTxT.sum(axis=2) - 1, self.positions - 1)
    embedded = jnp.where(items_BxT[..., None] >= 0, self.item_embeddings[jnp.maximum(items_BxT, 0)], 0)
    x = self.dropout(embedded * self.config.dim**0.5 + self.position_embeddings[position_BxT], deterministic)
    for block in self.blocks:
      x = block(x, mask_BxTxT[:, None], deterministic)
    return self.norm(x)

  def scores(self, items_BxT: jax.Array) -> jax.Array:
    """Float32 [B, N]: scores of all items as the next one; histories are flush left, negative after the last item."""
    valid_BxT = items_BxT >= 0
    last_B = jnp.maximum(valid_BxT.sum(axis=1) - 1, 0)
    x_BxTxD = self(items_BxT, valid_BxT.astype(jnp.int32))
    x_BxD = jnp.take_along_axis(x_BxTxD, last_B[:, None, None], axis=1)[:, 0]
    # They rank, and are added to exact log-probabilities: no rounding to bfloat16 or TF32 as in a training.
    return jnp.matmul(x_BxD, self.item_embeddings.T, precision=jax.lax.Precision.HIGHEST)
