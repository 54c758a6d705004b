"""T5 encoder-decoder with the numerics of Hugging Face T5 v1.0, for packed rows and for cached decoding.

RMSNorm without mean, no biases, no 1/sqrt(d) in attention, relative position bias from each stack's first layer, ReLU
feed-forward, tied embedding scaled by d_model ** -0.5 on the output (Raffel et al. 2020).

A position of the encoder is a code or an item (`T5Config.encoder`):

  'tokens'  L positions per item, attention in both directions. A row holds several examples, each with one target slot.
  'items'   one position per item, the sum of its codes' embeddings, and causal attention: a state depends on its item
            and those before it alone, so every position has a target slot, the user's next item. This equals training
            on every prefix of the user separately.

Shapes: B rows, C items of a row, L codes of an item, R encoder positions of a row (C * L or C), S target slots of a
row, T tokens of a target, W beams, D d_model, H heads, F d_kv, V vocabulary. A row holds several users' sequences;
segment ids keep them apart.
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import normal, zeros

from letter_jax.configuration import T5Config
from letter_jax.ops.dense import dense
from letter_jax.ops.dropout import Dropout
from letter_jax.semantic_ids.vocabulary import PAD, Vocabulary

KeysValues = tuple[jax.Array, jax.Array]

MASKED = -1e9  # finite, so that a row of padding does not give NaN


def encoder_positions(
  config: T5Config, vocabulary: Vocabulary, items_BxC: jax.Array, codes_NxL: jax.Array, segments_BxC: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """What the encoder reads for the items of a row.

  Args:
    config: `encoder` says what a position is.
    vocabulary: the tokens of the codes.
    items_BxC: int32, items, negative on padding.
    codes_NxL: int32, the semantic IDs of the catalogue.
    segments_BxC: any dtype, a value of each item.

  Returns:
    tokens: int32 [B, C * L], or [B, C, L] where positions are items; and the segment of each position, [B, R].
  """
  tokens_BxR = vocabulary.item_tokens(items_BxC, codes_NxL)
  if config.encoder == 'items':
    return tokens_BxR.reshape(*items_BxC.shape, vocabulary.levels), segments_BxC
  return tokens_BxR, jnp.repeat(segments_BxC, vocabulary.levels, axis=1)


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


class T5(nn.Module):
  """The encoder-decoder. A subclass that overrides `embed_history` can add its own features of the items.

  Attributes:
    config: sizes.
    vocabulary_size: V.
    dtype: of the activations; parameters, softmax, norms and logits are float32.
    features: (items, F) where the encoder has F features of each item (`features.ItemFeatures`). The parameter
      'item_features' [items, F] is not trained.
  """

  config: T5Config
  vocabulary_size: int
  dtype: jnp.dtype = jnp.float32
  features: tuple[int, int] | None = None

  def setup(self) -> None:
    config = self.config
    bias_shape = (config.relative_buckets, config.heads)
    self.embedding = self.param('embedding', normal(1.0), (self.vocabulary_size, config.d_model))
    self.encoder_bias = self.param('encoder_bias', normal(config.d_model**-0.5), bias_shape)
    self.decoder_bias = self.param('decoder_bias', normal(config.d_model**-0.5), bias_shape)
    self.encoder_layers = [EncoderLayer(config, self.dtype, name=f'encoder_{i}') for i in range(config.layers)]
    self.decoder_layers = [DecoderLayer(config, self.dtype, name=f'decoder_{i}') for i in range(config.layers)]
    self.encoder_norm, self.decoder_norm = nn.RMSNorm(dtype=self.dtype), nn.RMSNorm(dtype=self.dtype)
    self.dropout = Dropout(config.dropout)
    if self.features:
      self.item_features = self.param('item_features', zeros, self.features)
      self.feature_kernel = self.param(
        'feature_kernel', normal(self.features[1] ** -0.5), (self.features[1], config.d_model)
      )

  def __call__(
    self,
    tokens_BxR: jax.Array,
    segments_BxR: jax.Array,
    targets_BxSxT: jax.Array,
    deterministic: bool = True,
    items_BxC: jax.Array | None = None,
  ) -> jax.Array:
    """Teacher-forced logits, float32 [B, S, T, V].

    Args:
      tokens_BxR: int32, the histories of the row's sequences, concatenated; [B, R, L] where positions are items.
      segments_BxR: int32, 1 + number of the sequence that a position belongs to; 0 on padding. Sequence s has slot s,
        unless positions are items, where each has its own slot.
      targets_BxSxT: int32, tokens to predict, slot by slot (PAD in unused slots).
      deterministic: False for dropout, which takes the 'dropout' random numbers.
      items_BxC: as in `embed_history`.
    """
    return self._logits(self._teacher_forced(tokens_BxR, segments_BxR, targets_BxSxT, deterministic, items_BxC))

  def logits_by_position(
    self,
    tokens_BxR: jax.Array,
    segments_BxR: jax.Array,
    targets_BxSxT: jax.Array,
    columns: Sequence[slice],
    deterministic: bool = True,
    items_BxC: jax.Array | None = None,
  ) -> list[jax.Array]:
    """Teacher-forced logits of columns[t] of the vocabulary at each of the T positions t: float32 [B, S, ...] each."""
    x_BxSxTxD = self._teacher_forced(tokens_BxR, segments_BxR, targets_BxSxT, deterministic, items_BxC)
    return [self._logits(x_BxSxTxD[:, :, position], columns[position]) for position in range(len(columns))]

  def _teacher_forced(
    self,
    tokens_BxR: jax.Array,
    segments_BxR: jax.Array,
    targets_BxSxT: jax.Array,
    deterministic: bool,
    items_BxC: jax.Array | None,
  ) -> jax.Array:
    encoded = self.encode(tokens_BxR, segments_BxR, deterministic, items_BxC)
    _, S, T = targets_BxSxT.shape
    inputs = jnp.pad(targets_BxSxT[..., :-1], ((0, 0), (0, 0), (1, 0)), constant_values=PAD)
    if self.config.encoder == 'items':
      seen_BxSxR = _causal(segments_BxR)
    else:
      seen_BxSxR = segments_BxR[:, None, :] == np.arange(1, S + 1)[:, None]
    cross_bias = jnp.repeat(_mask(seen_BxSxR), T, axis=1)[:, None]
    positions = np.arange(T)
    bias = self._position_bias(self.decoder_bias, positions, T, bidirectional=False)
    bias = (bias + _mask(positions[:, None] >= positions))[None]
    x = self.dropout(self._embed(inputs), deterministic)
    for layer, cross in zip(self.decoder_layers, self.cross_keys_values(encoded)):
      x = layer(x, bias, cross, cross_bias, deterministic)
    return self._decoded(x, deterministic)

  def embed_history(self, tokens_BxR: jax.Array, items_BxC: jax.Array | None) -> jax.Array:
    """The encoder's input [B, R, D], before dropout. Training and search both come through here.

    Args:
      tokens_BxR: int32, L tokens for each item, PAD on padding; [B, R, L] where positions are items.
      items_BxC: int32, the items that the tokens belong to; negative on padding. Without features, this T5 reads the
        tokens alone; a subclass may look up features of its own. None if the caller has no items.
    """
    x = self._embed(tokens_BxR)
    if self.config.encoder == 'items':
      x = x.sum(axis=2)
    if self.features and items_BxC is not None:
      known_BxCxF = self.item_features[jnp.maximum(items_BxC, 0)].astype(self.dtype)
      x += dense(known_BxCxF, self.feature_kernel.astype(self.dtype))
    return x

  def encode(
    self, tokens_BxR: jax.Array, segments_BxR: jax.Array, deterministic: bool = True, items_BxC: jax.Array | None = None
  ) -> jax.Array:
    """Encoder states [B, R, D]; a position attends to its own segment only, and an item not to later ones."""
    R = segments_BxR.shape[1]
    # Within a segment, row positions differ as positions in the history do, so all rows share one bias. Its buckets
    # are those of Hugging Face's encoder, also where attention is causal: the exported weights are used by the same.
    bias = self._position_bias(self.encoder_bias, np.arange(R), R, bidirectional=True)
    seen_BxRxR = _causal(segments_BxR) if self.config.encoder == 'items' else _same_segment(segments_BxR)
    bias = bias + _mask(seen_BxRxR)[:, None]
    x = self.dropout(self.embed_history(tokens_BxR, items_BxC), deterministic)
    for layer in self.encoder_layers:
      x = layer(x, bias, deterministic)
    return self.dropout(self.encoder_norm(x), deterministic)

  def cross_keys_values(self, encoded_BxRxD: jax.Array) -> list[KeysValues]:
    """The encoder's (keys, values) for each decoder layer, [B, R, H, F] each; computed once, shared by all beams."""
    return [layer.cross_attention.keys_values(encoded_BxRxD) for layer in self.decoder_layers]

  def decode_step(
    self,
    tokens_BxW: jax.Array,
    position: int,
    cache: Sequence[tuple],
    cross: Sequence[KeysValues],
    valid_BxR: jax.Array,
    columns: slice = slice(None),
  ) -> tuple[jax.Array, list[tuple]]:
    """Logits float32 [B, W, columns] of the token after `tokens_BxW`, and the cache with one more position.

    Args:
      tokens_BxW: int32, the newest token of each beam.
      position: static; number of earlier tokens.
      cache: for each layer a tuple of (keys, values) of each earlier position, [B, W, H, F] each.
      cross: from `cross_keys_values`.
      valid_BxR: bool, encoder positions that are not padding.
      columns: static, the part of the vocabulary to compute.
    """
    cross_bias = _mask(valid_BxR[:, None, None, :])
    bias_HxP = self._position_bias(self.decoder_bias, np.array([position]), position + 1, bidirectional=False)[0, :, 0]
    x = self._embed(tokens_BxW)
    grown = []
    for layer, layer_cross, layer_cache in zip(self.decoder_layers, cross, cache):
      x, layer_cache = layer.newest(x, bias_HxP, layer_cross, cross_bias, layer_cache)
      grown.append(layer_cache)
    return self._logits(self._decoded(x, True), columns), grown

  def _decoded(self, x: jax.Array, deterministic: bool) -> jax.Array:
    return self.dropout(self.decoder_norm(x), deterministic) * self.config.d_model**-0.5

  def _logits(self, x: jax.Array, columns: slice = slice(None)) -> jax.Array:
    return jnp.einsum('...d,vd->...v', x, self.embedding[columns].astype(x.dtype), preferred_element_type=jnp.float32)

  def _embed(self, tokens: jax.Array) -> jax.Array:
    return self.embedding.astype(self.dtype)[tokens]

  def _position_bias(self, table: jax.Array, query_positions: np.ndarray, keys: int, bidirectional: bool) -> jax.Array:
    """float32 [1, H, queries, keys]."""
    buckets = relative_buckets(
      int(query_positions[-1]) + 1, keys, bidirectional, self.config.relative_buckets, self.config.relative_distance
    )[query_positions]
    return jnp.transpose(table[buckets], (2, 0, 1))[None]


def _same_segment(segments_BxR: jax.Array) -> jax.Array:
  """bool [B, R, R], whether two positions belong to the same sequence."""
  return segments_BxR[:, :, None] == segments_BxR[:, None, :]


def _causal(segments_BxR: jax.Array) -> jax.Array:
  """bool [B, R, R], whether the second position belongs to the sequence of the first and is not later."""
  R = segments_BxR.shape[1]
  return _same_segment(segments_BxR) & np.tril(np.ones((R, R), bool))


def _mask(allowed: jax.Array | np.ndarray) -> jax.Array:
  """The bias of a mask, float32: 0 where attention is allowed, else MASKED."""
  return jnp.where(allowed, 0.0, MASKED).astype(jnp.float32)
