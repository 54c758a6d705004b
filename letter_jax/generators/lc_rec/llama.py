"""LLaMA-family decoder (LLaMA 2 and 3, Qwen2, Qwen3) with the numerics of Hugging Face, for packed rows and for search.

RMSNorm, rotary positions on half-rotated heads, grouped-query attention, SwiGLU (Touvron et al. 2023; Ainslie et al.
2023). The vocabulary is the text's V tokens and behind them N new ones, the codes of semantic IDs, in tables of their
own: these are trained where the text's stay as they were. Adapters are those of `lora`.

Shapes: B rows or users, T tokens of a row, W beams, D d_model, H heads, G kv heads, R = H / G heads that share one,
F d_head, V text vocabulary, N new tokens. A row holds several examples side by side; segment ids keep them apart.
"""

import dataclasses
import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import normal, variance_scaling

from letter_jax.configuration import LoRAConfig
from letter_jax.generators.norms import RMSNorm
from letter_jax.ops.dense import dense
from letter_jax.ops.dropout import Dropout

MASKED = -1e9  # finite, so that a row of padding gives numbers and not NaN
STDDEV = 0.02  # of a model that starts from nothing


@dataclasses.dataclass(frozen=True)
class RopeScaling:
  """Frequencies of a model that was stretched to a longer context.

  Attributes:
    kind: 'linear' divides all of them by `factor`; 'llama3' those of waves longer than original_context /
      low_frequency_factor, leaves those shorter than original_context / high_frequency_factor and blends between.
  """

  kind: str
  factor: float
  low_frequency_factor: float = 1.0
  high_frequency_factor: float = 4.0
  original_context: int = 8192


@dataclasses.dataclass(frozen=True)
class Architecture:
  """Sizes and kinds of a model.

  Attributes:
    text_vocabulary: V, tokens of the text's tokenizer.
    new_tokens: N > 0; they are V, V + 1, ...
    kv_heads: G, a divisor of `heads`.
    qkv_bias: biases on queries, keys and values (Qwen2).
    qk_norm: RMSNorm over each head of queries and keys (Qwen3).
    tied: logits are products with the embeddings; there is no head.
    context: positions that the model was made for.
  """

  text_vocabulary: int
  new_tokens: int
  d_model: int
  d_ff: int
  layers: int
  heads: int
  kv_heads: int
  d_head: int
  norm_epsilon: float = 1e-6
  rope_theta: float = 10000.0
  rope_scaling: RopeScaling | None = None
  qkv_bias: bool = False
  qk_norm: bool = False
  tied: bool = False
  context: int = 2048

  @property
  def vocabulary(self) -> int:
    """V + N."""
    return self.text_vocabulary + self.new_tokens


def rotary_frequencies(architecture: Architecture) -> jax.Array:
  """float32 [F / 2], radians per position."""
  frequencies = architecture.rope_theta ** -(jnp.arange(0, architecture.d_head, 2) / architecture.d_head)
  scaling = architecture.rope_scaling
  if scaling is None:
    return frequencies
  if scaling.kind == 'linear':
    return frequencies / scaling.factor
  # 0 for waves that are stretched, 1 for those that stay.
  turns = scaling.original_context * frequencies / (2 * math.pi)
  low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
  kept = jnp.clip((turns - low) / (high - low), 0, 1)
  return frequencies * (kept + (1 - kept) / scaling.factor)


def _rotate(x, rotation):
  """x [..., heads, F] turned by rotation = (cos, sin), float32 [..., F / 2] each."""
  cos, sin = (part[..., None, :] for part in rotation)
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


class Linear(nn.Module):
  """x @ kernel, a bias where there is one, and the adapter where LoRA names this module among its targets."""

  features: int
  lora: LoRAConfig | None
  stddev: float = STDDEV
  bias: bool = False

  @nn.compact
  def __call__(self, x, deterministic: bool):
    kernel = self.param('kernel', normal(self.stddev), (x.shape[-1], self.features))
    y = dense(x, kernel.astype(x.dtype))
    if self.has_variable('params', 'scale'):  # of an int8 kernel, see `lora.quantize_int8`
      y = (y * self.get_variable('params', 'scale')).astype(x.dtype)
    if self.bias:
      y = y + self.param('bias', nn.initializers.zeros, (self.features,)).astype(x.dtype)
    if self.lora is not None and self.name in self.lora.targets:
      # Uniform within 1 / sqrt(inputs), and zeros: the adapter starts as nothing (Hu et al. 2021, as peft draws it).
      a = self.param('lora_a', variance_scaling(1 / 3, 'fan_in', 'uniform'), (x.shape[-1], self.lora.rank))
      b = self.param('lora_b', nn.initializers.zeros, (self.lora.rank, self.features))
      low = dense(Dropout(self.lora.dropout)(x, deterministic), a.astype(x.dtype))
      y = y + self.lora.factor * dense(low, b.astype(x.dtype))
    return y


class Attention(nn.Module):
  architecture: Architecture
  lora: LoRAConfig | None

  def setup(self):
    sizes = self.architecture
    linear = functools.partial(Linear, lora=self.lora)
    self.query = linear(sizes.heads * sizes.d_head, bias=sizes.qkv_bias)
    self.key = linear(sizes.kv_heads * sizes.d_head, bias=sizes.qkv_bias)
    self.value = linear(sizes.kv_heads * sizes.d_head, bias=sizes.qkv_bias)
    self.out = linear(sizes.d_model, stddev=STDDEV / math.sqrt(2 * sizes.layers))
    if sizes.qk_norm:
      self.query_norm, self.key_norm = RMSNorm(sizes.norm_epsilon), RMSNorm(sizes.norm_epsilon)

  def project(self, x, rotation, deterministic: bool):
    """x [B, M, D] -> queries [B, M, G, R, F], keys and values [B, M, G, F]; rotation is (cos, sin) [B, M, F / 2]."""
    sizes = self.architecture
    query, key, value = (
      module(x, deterministic).reshape(*x.shape[:-1], -1, sizes.d_head) for module in (self.query, self.key, self.value)
    )
    if sizes.qk_norm:
      query, key = self.query_norm(query), self.key_norm(key)
    query, key = _rotate(query, rotation), _rotate(key, rotation)
    return query.reshape(*x.shape[:-1], sizes.kv_heads, -1, sizes.d_head), key, value

  def scores(self, equation: str, query, key, mask):
    """float32; keys are not repeated for the R heads that share them."""
    scores = jnp.einsum(equation, query, key, preferred_element_type=jnp.float32)
    return jnp.where(mask, scores * self.architecture.d_head**-0.5, MASKED)

  def joined(self, mixed, deterministic: bool):
    """Heads' outputs [B, M, ..., F], M tokens or beams, through the output projection: [B, M, D]."""
    return self.out(mixed.reshape(*mixed.shape[:2], -1), deterministic)


class FeedForward(nn.Module):
  architecture: Architecture
  lora: LoRAConfig | None

  def setup(self):
    sizes = self.architecture
    self.gate, self.up = Linear(sizes.d_ff, self.lora), Linear(sizes.d_ff, self.lora)
    self.down = Linear(sizes.d_model, self.lora, STDDEV / math.sqrt(2 * sizes.layers))

  def __call__(self, x, deterministic: bool):
    return self.down(jax.nn.silu(self.gate(x, deterministic)) * self.up(x, deterministic), deterministic)


class Layer(nn.Module):
  architecture: Architecture
  lora: LoRAConfig | None

  def setup(self):
    epsilon = self.architecture.norm_epsilon
    self.attention_norm, self.attention = RMSNorm(epsilon), Attention(self.architecture, self.lora)
    self.feed_forward_norm, self.feed_forward = RMSNorm(epsilon), FeedForward(self.architecture, self.lora)

  def __call__(self, x_BxTxD, rotation, mask_BxTxT, keep: bool, deterministic: bool):
    """All tokens of a row; returns x and, where they are to be kept, the row's (keys, values), [B, G, T, F] each."""
    query, key, value = self.attention.project(self.attention_norm(x_BxTxD), rotation, deterministic)
    mixed = jax.nn.dot_product_attention(
      query.reshape(*query.shape[:2], -1, query.shape[-1]), key, value, mask=mask_BxTxT[:, None]
    )
    x = x_BxTxD + self.attention.joined(mixed, deterministic)
    x = x + self.feed_forward(self.feed_forward_norm(x), deterministic)
    # Heads in front of positions, so that the search's products with them are plain batched matrix products.
    return x, (jnp.swapaxes(key, 1, 2), jnp.swapaxes(value, 1, 2)) if keep else None

  def decode(self, x_BxWxD, cache, prompt, rotation, valid_BxT):
    """The newest token of each beam; returns x and the cache with its key and value appended.

    Args:
      cache: (keys, values) of the beam's own tokens before, [B, W, T', G, F] each.
      prompt: (keys, values) that a user's beams share, [B, G, T, F] each.
    """
    query, key, value = self.attention.project(self.attention_norm(x_BxWxD), rotation, True)
    keys, values = (jnp.concatenate([before, new[:, :, None]], axis=2) for before, new in zip(cache, (key, value)))
    T = prompt[0].shape[2]
    # Queries of all beams side by side: the prompt's keys and values are read once, not once per beam.
    scores = jnp.concatenate(
      [
        self.attention.scores('bwgrf,bgkf->bgrwk', query, prompt[0], valid_BxT[:, None, None, None]),
        self.attention.scores('bwgrf,bwkgf->bgrwk', query, keys, True),
      ],
      axis=-1,
    )
    weights = jax.nn.softmax(scores, axis=-1).astype(x_BxWxD.dtype)
    mixed = jnp.einsum('bgrwk,bgkf->bwgrf', weights[..., :T], prompt[1]) + jnp.einsum(
      'bgrwk,bwkgf->bwgrf', weights[..., T:], values
    )
    x = x_BxWxD + self.attention.joined(mixed, True)
    return x + self.feed_forward(self.feed_forward_norm(x), True), (keys, values)


def _stack(layers: int, remat: bool):
  """`Layer` as one that is compiled once and runs over stacked parameters, [layers, ...] each."""
  layer = Layer
  if remat:
    layer = nn.remat(layer, static_argnums=(4, 5), prevent_cse=False, methods=('__call__',))
  shared = dict(length=layers, variable_axes={'params': 0}, split_rngs={'params': True, 'dropout': True})
  return nn.scan(
    layer,
    methods={
      '__call__': dict(in_axes=nn.broadcast, out_axes=0, **shared),
      # Axes of the beams' cache: B and W stay in front for the search, which reorders W.
      'decode': dict(in_axes=(2, 0, nn.broadcast, nn.broadcast), out_axes=2, **shared),
    },
  )


class Llama(nn.Module):
  """The decoder.

  Attributes:
    architecture: sizes.
    lora: adapters, or None.
    dtype: of the activations; norms, softmax and logits are float32, parameters what they are given as.
    remat: compute a layer's activations again in the backward pass instead of keeping them.
  """

  architecture: Architecture
  lora: LoRAConfig | None = None
  dtype: jnp.dtype = jnp.float32
  remat: bool = False

  def setup(self):
    sizes = self.architecture
    text, new = (sizes.text_vocabulary, sizes.d_model), (sizes.new_tokens, sizes.d_model)
    self.embedding = self.param('embedding', normal(STDDEV), text)
    self.new_embedding = self.param('new_embedding', normal(STDDEV), new)
    if not sizes.tied:
      self.head = self.param('head', normal(STDDEV), text[::-1])
      self.new_head = self.param('new_head', normal(STDDEV), new)
    self.layers = _stack(sizes.layers, self.remat)(sizes, self.lora)
    self.norm = RMSNorm(sizes.norm_epsilon)

  def __call__(self, tokens_BxT, segments_BxT, positions_BxT, deterministic: bool = True) -> jax.Array:
    """Hidden states after the last norm, [B, T, D]; a token sees those before it in its segment, and itself.

    Args:
      tokens_BxT: int32, examples of a row one after the other.
      segments_BxT: int32, the example that a token belongs to, from 1; 0 on padding.
      positions_BxT: int32, within the example, from 0.
    """
    return self._whole(tokens_BxT, segments_BxT, positions_BxT, False, deterministic)[0]

  def logits(self, hidden: jax.Array, columns: slice = slice(None)) -> jax.Array:
    """float32 [..., columns of V + N] of hidden states [..., D]; only the tables that `columns` touch are read."""
    start, stop, _ = columns.indices(self.architecture.vocabulary)
    product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
    if self.architecture.tied:
      new = self.new_embedding
      text_logits = product('...d,vd->...v', hidden, self.embedding[start:stop].astype(hidden.dtype))
    else:
      new = self.new_head
      text_logits = product('...d,dv->...v', hidden, self.head[:, start:stop].astype(hidden.dtype))
    first, last = (max(column - self.architecture.text_vocabulary, 0) for column in (start, stop))
    new_logits = product('...d,vd->...v', hidden, new[first:last].astype(hidden.dtype))
    return jnp.concatenate([text_logits, new_logits], axis=-1)  # of which one may have no columns

  def code_log_probs(self, hidden: jax.Array, columns: slice) -> jax.Array:
    """Log-probabilities of some new tokens, normalised over all V + N, float32 [..., columns]."""
    V, sizes = self.architecture.text_vocabulary, self.architecture
    # Of the other tokens the sum alone is wanted.
    others = jnp.logaddexp(
      jax.nn.logsumexp(self.logits(hidden, slice(0, V)), axis=-1),
      jax.nn.logsumexp(self.logits(hidden, slice(V, sizes.vocabulary)), axis=-1),
    )
    return self.logits(hidden, columns) - others[..., None]

  def prefill(self, tokens_BxT, valid_BxT, positions_BxT) -> tuple[jax.Array, Any]:
    """The hidden state of the last place [B, D] and the prompt's keys and values, which all beams of a user share.

    Args:
      tokens_BxT: int32, one prompt a row.
      valid_BxT: bool, False on padding, which may stand anywhere but at the last place.
      positions_BxT: int32, within the prompt, padding not counted.
    """
    hidden_BxTxD, prompt = self._whole(tokens_BxT, valid_BxT.astype(jnp.int32), positions_BxT, True, True)
    return hidden_BxTxD[:, -1], prompt

  def decode_step(self, tokens_BxW, position_B, cache, prompt, valid_BxT) -> tuple[jax.Array, Any]:
    """Hidden states [B, W, D] of the beams' newest tokens, and the cache grown by them.

    Args:
      tokens_BxW: int32.
      position_B: int32, their position.
      cache: None at first; then keys and values [B, W, layers, tokens so far, G, F], for the search to reorder.
      prompt, valid_BxT: of `prefill`.
    """
    sizes = self.architecture
    if cache is None:
      cache = (jnp.zeros((*tokens_BxW.shape, sizes.layers, 0, sizes.kv_heads, sizes.d_head), self.dtype),) * 2
    x, cache = self.layers.decode(
      self._embed(tokens_BxW), cache, prompt, self._rotation(position_B[:, None]), valid_BxT
    )
    return self.norm(x), cache

  def _whole(self, tokens_BxT, segments_BxT, positions_BxT, keep: bool, deterministic: bool):
    T = tokens_BxT.shape[1]
    mask_BxTxT = (
      (segments_BxT[:, :, None] == segments_BxT[:, None, :]) & (segments_BxT[:, None, :] > 0) & jnp.tri(T, dtype=bool)
    )
    x, kept = self.layers(self._embed(tokens_BxT), self._rotation(positions_BxT), mask_BxTxT, keep, deterministic)
    return self.norm(x), kept

  def _embed(self, tokens):
    """Rows are taken from both tables: cheaper than putting the tables together. Gradients add up in their dtype."""
    V = self.architecture.text_vocabulary
    text = self.embedding[jnp.minimum(tokens, V - 1)]
    new = self.new_embedding[jnp.maximum(tokens - V, 0)]
    return jnp.where((tokens < V)[..., None], text.astype(self.dtype), new.astype(self.dtype))

  def _rotation(self, positions):
    angles = positions[..., None].astype(jnp.float32) * rotary_frequencies(self.architecture)
    return jnp.cos(angles), jnp.sin(angles)
