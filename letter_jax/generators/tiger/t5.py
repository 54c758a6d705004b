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

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import normal, zeros

from letter_jax.configuration import T5Config
from letter_jax.generators.tiger.layers import DecoderLayer, EncoderLayer, KeysValues, relative_buckets
from letter_jax.ops.dense import dense
from letter_jax.ops.dropout import Dropout
from letter_jax.ops.masking import MASKED
from letter_jax.semantic_ids.vocabulary import PAD, Vocabulary


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
    # Rows first, then the cast: so the gradients of a row are added up in float32.
    return self.embedding[tokens].astype(self.dtype)

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
