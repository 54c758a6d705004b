"""LLaMA-family decoder (LLaMA 2 and 3, Qwen2, Qwen3) with the numerics of Hugging Face, for packed rows and for search.

RMSNorm, rotary positions on half-rotated heads, grouped-query attention, SwiGLU (Touvron et al. 2023; Ainslie et al.
2023). The vocabulary is the text's V tokens followed by N new ones, the codes of semantic IDs. The new ones have
separate tables, which are trained even if the text's are frozen. Adapters are those of `lora`.

Shapes: B rows or users, T tokens of a row, W beams, D d_model, H heads, G kv heads, R = H / G heads that share one,
F d_head, V text vocabulary, N new tokens. A row holds several examples; segment ids keep them apart.
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
from letter_jax.ops.dense import dense
from letter_jax.ops.dropout import Dropout
from letter_jax.ops.masking import MASKED

STDDEV = 0.02  # initial, of a model that is trained from scratch


@dataclasses.dataclass(frozen=True)
class RopeScaling:
  """Rotary frequencies of a model that was extended to a longer context.

  Attributes:
    kind: 'linear' divides all frequencies by `factor`; 'llama3' divides those of wavelengths above original_context /
      low_frequency_factor, keeps those of wavelengths below original_context / high_frequency_factor, and interpolates
      in between.
  """

  kind: str
  factor: float
  low_frequency_factor: float = 1.0
  high_frequency_factor: float = 4.0
  original_context: int = 8192


@dataclasses.dataclass(frozen=True)
class Architecture:
  """Sizes and variants of a model.

  Attributes:
    text_vocabulary: V, tokens of the text's tokenizer.
    new_tokens: N > 0; they are V, V + 1, ...
    kv_heads: G, a divisor of `heads`.
    qkv_bias: biases on queries, keys and values (Qwen2).
    qk_norm: RMSNorm over each head of queries and keys (Qwen3).
    tied: logits are products with the embeddings, without a separate head.
    context: maximal number of positions.
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
  # 0 for frequencies that are divided, 1 for those that are kept.
  turns = scaling.original_context * frequencies / (2 * math.pi)
  low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
  kept = jnp.clip((turns - low) / (high - low), 0, 1)
  return frequencies * (kept + (1 - kept) / scaling.factor)


def _rotate(x: jax.Array, rotation: tuple[jax.Array, jax.Array]) -> jax.Array:
  """x [..., heads, F] rotated by (cos, sin), float32 [..., F / 2] each."""
  cos, sin = (part[..., None, :] for part in rotation)
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


class Linear(nn.Module):
  """x @ kernel, plus the bias if `bias`, plus the adapter if this module is one of LoRA's targets."""

  features: int
  lora: LoRAConfig | None
  stddev: float = STDDEV
  bias: bool = False

  @nn.compact
  def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
    """[..., inputs] -> [..., features]."""
    kernel = self.param('kernel', normal(self.stddev), (x.shape[-1], self.features))
    y = dense(x, kernel.astype(x.dtype))
    if self.has_variable('params', 'scale'):  # int8 kernel, see `lora.quantize_int8`
      y = (y * self.get_variable('params', 'scale')).astype(x.dtype)
    if self.bias:
      y = y + self.param('bias', nn.initializers.zeros, (self.features,)).astype(x.dtype)
    if self.lora is not None and self.name in self.lora.targets:
      # Uniform within 1 / sqrt(inputs), and zeros: the adapter adds nothing at first (Hu et al. 2021; as in peft).
      a = self.param('lora_a', variance_scaling(1 / 3, 'fan_in', 'uniform'), (x.shape[-1], self.lora.rank))
      b = self.param('lora_b', nn.initializers.zeros, (self.lora.rank, self.features))
      low = dense(Dropout(self.lora.dropout)(x, deterministic), a.astype(x.dtype))
      y = y + self.lora.factor * dense(low, b.astype(x.dtype))
    return y


class Attention(nn.Module):
  """Projections of grouped-query attention, and the scores of cached decoding; `dtype` is that of the activations."""

  architecture: Architecture
  lora: LoRAConfig | None
  dtype: jnp.dtype

  def setup(self) -> None:
    sizes = self.architecture
    linear = functools.partial(Linear, lora=self.lora)
    self.query = linear(sizes.heads * sizes.d_head, bias=sizes.qkv_bias)
    self.key = linear(sizes.kv_heads * sizes.d_head, bias=sizes.qkv_bias)
    self.value = linear(sizes.kv_heads * sizes.d_head, bias=sizes.qkv_bias)
    self.out = linear(sizes.d_model, stddev=STDDEV / math.sqrt(2 * sizes.layers))
    if sizes.qk_norm:
      norm = functools.partial(nn.RMSNorm, sizes.norm_epsilon, self.dtype)
      self.query_norm, self.key_norm = norm(), norm()

  def project(
    self, x: jax.Array, rotation: tuple[jax.Array, jax.Array], deterministic: bool
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    """x [B, M, D] -> queries [B, M, G, R, F], keys and values [B, M, G, F]; rotation is (cos, sin) [B, M, F / 2]."""
    sizes = self.architecture
    query, key, value = (
      module(x, deterministic).reshape(*x.shape[:-1], -1, sizes.d_head) for module in (self.query, self.key, self.value)
    )
    if sizes.qk_norm:
      query, key = self.query_norm(query), self.key_norm(key)
    query, key = _rotate(query, rotation), _rotate(key, rotation)
    return query.reshape(*x.shape[:-1], sizes.kv_heads, -1, sizes.d_head), key, value

  def scores(self, equation: str, query: jax.Array, key: jax.Array, mask: jax.Array | bool) -> jax.Array:
    """Scaled and masked, float32; keys are not repeated for the R heads that share them."""
    scores = jnp.einsum(equation, query, key, preferred_element_type=jnp.float32)
    return jnp.where(mask, scores * self.architecture.d_head**-0.5, MASKED)

  def joined(self, mixed: jax.Array, deterministic: bool) -> jax.Array:
    """The output projection of all heads' outputs: [B, M, ..., F] (M tokens or beams) -> [B, M, D]."""
    return self.out(mixed.reshape(*mixed.shape[:2], -1), deterministic)


class FeedForward(nn.Module):
  """SwiGLU."""

  architecture: Architecture
  lora: LoRAConfig | None

  def setup(self) -> None:
    sizes = self.architecture
    self.gate, self.up = Linear(sizes.d_ff, self.lora), Linear(sizes.d_ff, self.lora)
    self.down = Linear(sizes.d_model, self.lora, STDDEV / math.sqrt(2 * sizes.layers))

  def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
    """[..., D] -> [..., D]."""
    return self.down(jax.nn.silu(self.gate(x, deterministic)) * self.up(x, deterministic), deterministic)


class Layer(nn.Module):
  """A decoder layer: attention and feed-forward, each with its norm before it and a residual.

  `dtype` is that of the activations.
  """

  architecture: Architecture
  lora: LoRAConfig | None
  dtype: jnp.dtype

  def setup(self) -> None:
    norm = functools.partial(nn.RMSNorm, self.architecture.norm_epsilon, self.dtype)
    self.attention_norm, self.attention = norm(), Attention(self.architecture, self.lora, self.dtype)
    self.feed_forward_norm, self.feed_forward = norm(), FeedForward(self.architecture, self.lora)

  def __call__(
    self,
    x_BxTxD: jax.Array,
    rotation: tuple[jax.Array, jax.Array],
    mask_BxTxT: jax.Array,
    keep: bool,
    deterministic: bool,
  ) -> tuple[jax.Array, tuple[jax.Array, jax.Array] | None]:
    """All tokens of a row: x and, if `keep`, the row's (keys, values), [B, G, T, F] each."""
    query, key, value = self.attention.project(self.attention_norm(x_BxTxD), rotation, deterministic)
    mixed = jax.nn.dot_product_attention(
      query.reshape(*query.shape[:2], -1, query.shape[-1]), key, value, mask=mask_BxTxT[:, None]
    )
    x = x_BxTxD + self.attention.joined(mixed, deterministic)
    x = x + self.feed_forward(self.feed_forward_norm(x), deterministic)
    # Heads in front of positions, so that the search's products with them are plain batched matrix products.
    return x, (jnp.swapaxes(key, 1, 2), jnp.swapaxes(value, 1, 2)) if keep else None

  def decode(
    self,
    x_BxWxD: jax.Array,
    cache: tuple[jax.Array, jax.Array],
    prompt: tuple[jax.Array, jax.Array],
    rotation: tuple[jax.Array, jax.Array],
    valid_BxT: jax.Array,
  ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """The newest token of each beam: x, and the cache with the token's key and value appended.

    Args:
      cache: (keys, values) of the beam's earlier tokens, [B, W, T', G, F] each.
      prompt: (keys, values) that a user's beams share, [B, G, T, F] each.
    """
    query, key, value = self.attention.project(self.attention_norm(x_BxWxD), rotation, True)
    keys, values = (jnp.concatenate([before, new[:, :, None]], axis=2) for before, new in zip(cache, (key, value)))
    T = prompt[0].shape[2]
    # Queries of all beams in one product: the prompt's keys and values are read once, not once per beam.
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


def _stack(layers: int, remat: bool) -> Any:
  """A `Layer` that is compiled once and scanned over stacked parameters, [layers, ...] each."""
  layer = Layer
  if remat:
    layer = nn.remat(layer, static_argnums=(4, 5), prevent_cse=False, methods=('__call__',))
  shared = dict(length=layers, variable_axes={'params': 0}, split_rngs={'params': True, 'dropout': True})
  return nn.scan(
    layer,
    methods={
      '__call__': dict(in_axes=nn.broadcast, out_axes=0, **shared),
      # Axes of the beams' cache: B and W stay first for the search, which reorders W.
      'decode': dict(in_axes=(2, 0, nn.broadcast, nn.broadcast), out_axes=2, **shared),
    },
  )


class Llama(nn.Module):
  """The decoder.

  Attributes:
    architecture: sizes.
    lora: adapters, or None.
    dtype: of the activations; statistics of norms, softmax and logits are float32, parameters keep their dtype.
    remat: recompute a layer's activations in the backward pass instead of storing them.
  """

  architecture: Architecture
  lora: LoRAConfig | None = None
  dtype: jnp.dtype = jnp.float32
  remat: bool = False

  def setup(self) -> None:
    sizes = self.architecture
    text, new = (sizes.text_vocabulary, sizes.d_model), (sizes.new_tokens, sizes.d_model)
    self.embedding = self.param('embedding', normal(STDDEV), text)
    self.new_embedding = self.param('new_embedding', normal(STDDEV), new)
    if not sizes.tied:
      self.head = self.param('head', normal(STDDEV), text[::-1])
      self.new_head = self.param('new_head', normal(STDDEV), new)
    self.layers = _stack(sizes.layers, self.remat)(sizes, self.lora, self.dtype)
    self.norm = nn.RMSNorm(sizes.norm_epsilon, self.dtype)

  def __call__(
    self, tokens_BxT: jax.Array, segments_BxT: jax.Array, positions_BxT: jax.Array, deterministic: bool = True
  ) -> jax.Array:
    """Hidden states after the last norm, [B, T, D]; a token attends to earlier tokens of its segment and to itself.

    Args:
      tokens_BxT: int32, the examples of a row, concatenated.
      segments_BxT: int32, the example that a token belongs to, from 1; 0 on padding.
      positions_BxT: int32, within the example, from 0.
    """
    return self._whole(tokens_BxT, segments_BxT, positions_BxT, False, deterministic)[0]

  def logits(self, hidden: jax.Array, columns: slice = slice(None)) -> jax.Array:
    """float32 [..., columns of V + N] of hidden states [..., D]; only the tables that have such columns are read."""
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
    return jnp.concatenate([text_logits, new_logits], axis=-1)  # one of them may have no columns

  def code_log_probs(self, hidden: jax.Array, columns: slice) -> jax.Array:
    """Log-probabilities of the new tokens `columns`, normalised over all V + N, float32 [..., columns]."""
    V, sizes = self.architecture.text_vocabulary, self.architecture
    normaliser = jnp.logaddexp(
      jax.nn.logsumexp(self.logits(hidden, slice(0, V)), axis=-1),
      jax.nn.logsumexp(self.logits(hidden, slice(V, sizes.vocabulary)), axis=-1),
    )
    return self.logits(hidden, columns) - normaliser[..., None]

  def prefill(self, tokens_BxT: jax.Array, valid_BxT: jax.Array, positions_BxT: jax.Array) -> tuple[jax.Array, Any]:
    """The last token's hidden state [B, D] and the prompt's keys and values, which all beams of a user share.

    Args:
      tokens_BxT: int32, one prompt a row.
      valid_BxT: bool, False on padding, which may be anywhere but at the end.
      positions_BxT: int32, within the prompt, without counting padding.
    """
    hidden_BxTxD, prompt = self._whole(tokens_BxT, valid_BxT.astype(jnp.int32), positions_BxT, True, True)
    return hidden_BxTxD[:, -1], prompt

  def decode_step(
    self, tokens_BxW: jax.Array, position_B: jax.Array, cache: Any, prompt: Any, valid_BxT: jax.Array
  ) -> tuple[jax.Array, Any]:
    """Hidden states [B, W, D] of the beams' newest tokens, and the cache with these tokens appended.

    Args:
      tokens_BxW: int32.
      position_B: int32, their position.
      cache: None at first; then keys and values [B, W, layers, tokens so far, G, F], for the search to reorder.
      prompt: from `prefill`.
      valid_BxT: as for `prefill`.
    """
    sizes = self.architecture
    if cache is None:
      cache = (jnp.zeros((*tokens_BxW.shape, sizes.layers, 0, sizes.kv_heads, sizes.d_head), self.dtype),) * 2
    x, cache = self.layers.decode(
      self._embed(tokens_BxW), cache, prompt, self._rotation(position_B[:, None]), valid_BxT
    )
    return self.norm(x), cache

  def _whole(
    self, tokens_BxT: jax.Array, segments_BxT: jax.Array, positions_BxT: jax.Array, keep: bool, deterministic: bool
  ) -> tuple[jax.Array, Any]:
    T = tokens_BxT.shape[1]
    mask_BxTxT = (
      (segments_BxT[:, :, None] == segments_BxT[:, None, :]) & (segments_BxT[:, None, :] > 0) & jnp.tri(T, dtype=bool)
    )
    x, kept = self.layers(self._embed(tokens_BxT), self._rotation(positions_BxT), mask_BxTxT, keep, deterministic)
    return self.norm(x), kept

  def _embed(self, tokens: jax.Array) -> jax.Array:
    """[...] -> [..., D]. Takes rows from both tables, which is cheaper than concatenating the tables."""
    V = self.architecture.text_vocabulary
    text = self.embedding[jnp.minimum(tokens, V - 1)]
    new = self.new_embedding[jnp.maximum(tokens - V, 0)]
    return jnp.where((tokens < V)[..., None], text.astype(self.dtype), new.astype(self.dtype))

  def _rotation(self, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(cos, sin), float32 [..., F / 2] each."""
    angles = positions[..., None].astype(jnp.float32) * rotary_frequencies(self.architecture)
    return jnp.cos(angles), jnp.sin(angles)
