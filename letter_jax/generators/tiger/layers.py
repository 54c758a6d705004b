"""Layers of T5: relative positions, attention, feed-forward, the encoder's and the decoder's layer.

RMSNorm without mean, no biases, no 1/sqrt(d) in attention, ReLU feed-forward (Raffel et al. 2020). Attention takes its
bias, positions and mask together, from the caller.

Shapes: B rows, R encoder positions of a row, S target slots of a row, T tokens of a target, P positions decoded so far,
W beams, D d_model, H heads, F d_kv.
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import normal

from letter_jax.configuration import T5Config
from letter_jax.ops.dense import dense
from letter_jax.ops.dropout import Dropout

KeysValues = tuple[jax.Array, jax.Array]


def relative_buckets(queries: int, keys: int, bidirectional: bool, buckets: int, distance: int) -> np.ndarray:
  """int32 [queries, keys], T5's bucket of key position - query position (both counted from 0)."""
  relative = np.arange(keys)[None, :] - np.arange(queries)[:, None]
  first: int | np.ndarray = 0
  if bidirectional:
    buckets //= 2
    first = np.where(relative > 0, buckets, 0)
    relative = np.abs(relative)
  else:
    relative = np.maximum(-relative, 0)
  exact = buckets // 2
  # float32, as the original computes it: the edges of the logarithmic buckets depend on it
  nearness = np.log(np.maximum(relative, 1).astype(np.float32) / np.float32(exact))
  ratio = nearness / np.float32(math.log(distance / exact))
  logarithmic = np.minimum(exact + (ratio * np.float32(buckets - exact)).astype(np.int32), buckets - 1)
  return first + np.where(relative < exact, relative, logarithmic)


class Attention(nn.Module):
  """Multi-head attention over keys and values that the caller projects (once, if they are shared)."""

  config: T5Config

  def setup(self) -> None:
    config, inner = self.config, self.config.heads * self.config.d_kv
    self.query = self.param('query', normal((config.d_model * config.d_kv) ** -0.5), (config.d_model, inner))
    self.key = self.param('key', normal(config.d_model**-0.5), (config.d_model, inner))
    self.value = self.param('value', normal(config.d_model**-0.5), (config.d_model, inner))
    self.out = self.param('out', normal(inner**-0.5), (inner, config.d_model))
    self.dropout = Dropout(config.dropout)

  def _heads(self, x: jax.Array, *kernels: jax.Array) -> list[jax.Array]:
    """x [..., D] through the kernels [D, H*F] -> [..., H, F] each, in one matrix product."""
    projected = dense(x, jnp.concatenate(kernels, axis=1).astype(x.dtype))
    return [
      part.reshape(*x.shape[:-1], self.config.heads, self.config.d_kv)
      for part in jnp.split(projected, len(kernels), axis=-1)
    ]

  def queries_keys_values(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """[..., D] -> queries, keys and values, [..., H, F] each."""
    queries, keys, values = self._heads(x, self.query, self.key, self.value)
    return queries, keys, values

  def keys_values(self, x: jax.Array) -> KeysValues:
    """[..., D] -> keys and values, [..., H, F] each."""
    keys, values = self._heads(x, self.key, self.value)
    return keys, values

  def queries(self, x: jax.Array) -> jax.Array:
    """[..., D] -> [..., H, F]."""
    return self._heads(x, self.query)[0]

  def attend(
    self, queries: jax.Array, keys: jax.Array, values: jax.Array, bias: jax.Array, deterministic: bool
  ) -> jax.Array:
    """queries [..., Q, H, F], keys and values [..., K, H, F], bias broadcastable to [..., H, Q, K] -> [..., Q, D]."""
    # Heads before positions, so that both products are plain batched matrix products.
    queries, keys, values = (jnp.swapaxes(part, -3, -2) for part in (queries, keys, values))
    scores = jnp.einsum('...hqf,...hkf->...hqk', queries, keys, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(scores + bias, axis=-1).astype(values.dtype)
    mixed = jnp.swapaxes(self.dropout(weights, deterministic) @ values, -3, -2)
    return dense(mixed.reshape(*mixed.shape[:-2], -1), self.out.astype(mixed.dtype))

  def attend_newest(self, query: jax.Array, cache: Sequence[KeysValues], bias_HxP: jax.Array) -> jax.Array:
    """One position's queries [B, W, H, F] over the P positions of `cache` -> [B, W, D].

    Args:
      cache: (keys, values) of each position, [B, W, H, F] each.

    No two queries share a key, so this is not a matrix product. Element-wise products, summed by a matrix-vector
    product, take a third of the time of batched [1, F] x [F, P] products on CPU, and make no copies.
    """
    F = self.config.d_kv
    scores_BxWxHxP = jnp.stack(
      [
        jnp.matmul((query.astype(jnp.float32) * key).reshape(-1, F), jnp.ones(F), precision='highest').reshape(
          query.shape[:-1]
        )
        for key, _ in cache
      ],
      axis=-1,
    )
    weights = jax.nn.softmax(scores_BxWxHxP + bias_HxP, axis=-1).astype(query.dtype)
    mixed = jnp.asarray(sum(weights[..., position, None] * value for position, (_, value) in enumerate(cache)))
    return dense(mixed.reshape(*mixed.shape[:-2], -1), self.out.astype(mixed.dtype))


class FeedForward(nn.Module):
  """ReLU feed-forward with dropout in between."""

  config: T5Config

  @nn.compact
  def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
    """[..., D] -> [..., D]."""
    config = self.config
    wi = self.param('wi', normal(config.d_model**-0.5), (config.d_model, config.d_ff))
    wo = self.param('wo', normal(config.d_ff**-0.5), (config.d_ff, config.d_model))
    hidden = Dropout(config.dropout)(jax.nn.relu(dense(x, wi.astype(x.dtype))), deterministic)
    return dense(hidden, wo.astype(x.dtype))


class EncoderLayer(nn.Module):
  """Self-attention and feed-forward; `dtype` is that of the activations."""

  config: T5Config
  dtype: jnp.dtype

  def setup(self) -> None:
    self.attention_norm, self.attention = nn.RMSNorm(dtype=self.dtype), Attention(self.config)
    self.feed_forward_norm, self.feed_forward = nn.RMSNorm(dtype=self.dtype), FeedForward(self.config)
    self.dropout = Dropout(self.config.dropout)

  def __call__(self, x: jax.Array, bias: jax.Array, deterministic: bool) -> jax.Array:
    """[B, R, D] -> [B, R, D]; bias is broadcastable to [B, H, R, R]."""
    attended = self.attention.attend(*self.attention.queries_keys_values(self.attention_norm(x)), bias, deterministic)
    x = x + self.dropout(attended, deterministic)
    return x + self.dropout(self.feed_forward(self.feed_forward_norm(x), deterministic), deterministic)


class DecoderLayer(nn.Module):
  """Self-attention, cross-attention and feed-forward; `dtype` is that of the activations."""

  config: T5Config
  dtype: jnp.dtype

  def setup(self) -> None:
    self.self_norm, self.self_attention = nn.RMSNorm(dtype=self.dtype), Attention(self.config)
    self.cross_norm, self.cross_attention = nn.RMSNorm(dtype=self.dtype), Attention(self.config)
    self.feed_forward_norm, self.feed_forward = nn.RMSNorm(dtype=self.dtype), FeedForward(self.config)
    self.dropout = Dropout(self.config.dropout)

  def __call__(
    self, x_BxSxTxD: jax.Array, self_bias: jax.Array, cross: KeysValues, cross_bias: jax.Array, deterministic: bool
  ) -> jax.Array:
    """All target tokens at once; `cross` has the encoder's keys and values for this layer, [B, R, H, F] each."""
    query, key, value = self.self_attention.queries_keys_values(self.self_norm(x_BxSxTxD))
    x = x_BxSxTxD + self.dropout(self.self_attention.attend(query, key, value, self_bias, deterministic), deterministic)
    B, S, T, D = x.shape
    # Queries of all slots in one product: the row's keys and values are read once, not once per slot.
    query = self.cross_attention.queries(self.cross_norm(x).reshape(B, S * T, D))
    attended = self.cross_attention.attend(query, *cross, cross_bias, deterministic).reshape(B, S, T, D)
    return self._fed_forward(x + self.dropout(attended, deterministic), deterministic)

  def newest(
    self, x_BxWxD: jax.Array, bias_HxP: jax.Array, cross: KeysValues, cross_bias: jax.Array, cache: tuple
  ) -> tuple[jax.Array, tuple]:
    """The newest token of every beam: x, and the cache with the token's keys and values appended.

    Args:
      cross: the encoder's keys and values for this layer, [B, R, H, F] each.
      cache: (keys, values) of each earlier position, [B, W, H, F] each.
    """
    query, *key_value = self.self_attention.queries_keys_values(self.self_norm(x_BxWxD))
    cache = (*cache, tuple(key_value))
    x = x_BxWxD + self.self_attention.attend_newest(query, cache, bias_HxP)
    # Queries of all beams in one product: a user's keys and values are read once, not once per beam.
    query = self.cross_attention.queries(self.cross_norm(x))
    x = x + self.cross_attention.attend(query, *cross, cross_bias, True)
    return self._fed_forward(x, True), cache

  def _fed_forward(self, x: jax.Array, deterministic: bool) -> jax.Array:
    return x + self.dropout(self.feed_forward(self.feed_forward_norm(x), deterministic), deterministic)
