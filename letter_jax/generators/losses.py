"""The ranking-guided generation loss (LETTER, section 3.3), over the vocabulary or over the catalogue."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from letter_jax.semantic_ids import item_trie
from letter_jax.semantic_ids.item_trie import ItemTrie
from letter_jax.semantic_ids.vocabulary import Vocabulary
from letter_jax.system.errors import InputError


def ranking_guided_loss(
  logits: jax.Array, targets: jax.Array, weights: jax.Array, temperature: float
) -> tuple[jax.Array, jax.Array]:
  """Cross-entropy of logits / tau: tau < 1 emphasises hard negatives, 1 is TIGER's loss.

  Args:
    logits: float [..., V].
    targets: int32 [...], tokens.
    weights: float32 [...], 0 where there is no target.
    temperature: tau, above 0.

  Returns:
    (sum over tokens, number of tokens), float32 scalars.

  Raises:
    InputError: shapes that do not belong together, or a temperature that is not above 0.
  """
  _require_temperature(temperature)
  _require(
    logits.shape[:-1] == targets.shape == weights.shape,
    'targets and weights [...] for logits [..., V]',
    logits,
    targets,
    weights,
  )
  log_probs = jax.nn.log_softmax(logits.astype(jnp.float32) / temperature, axis=-1)
  # A comparison instead of a gather: its gradient is element-wise too, not a scatter.
  chosen = jnp.arange(logits.shape[-1]) == targets[..., None]
  return -jnp.sum(jnp.where(chosen, log_probs, 0).sum(-1) * weights), jnp.sum(weights)


def vocabulary_loss(
  logits: jax.Array, items_BxS: jax.Array, codes_NxL: jax.Array, vocabulary: Vocabulary, temperature: float
) -> tuple[jax.Array, jax.Array]:
  """`ranking_guided_loss` of the tokens of items: the softmax is taken over the whole vocabulary.

  Args:
    logits: float [B, S, L, V], teacher-forced.
    items_BxS: int32, items to predict, negative where there is none.
    codes_NxL: int32, the semantic IDs of the catalogue.
    vocabulary: the tokens of the codes.
    temperature: tau.

  Returns:
    (sum over tokens, number of tokens), float32 scalars.
  """
  tokens_BxSxL = vocabulary.item_tokens(items_BxS[..., None], codes_NxL)
  weights_BxSxL = jnp.broadcast_to((items_BxS >= 0)[..., None], tokens_BxSxL.shape).astype(jnp.float32)
  return ranking_guided_loss(logits, tokens_BxSxL, weights_BxSxL, temperature)


def catalogue_loss(
  logits: Sequence[jax.Array],
  items_BxS: jax.Array,
  codes_NxL: jax.Array,
  nodes_NxL: jax.Array,
  trie: ItemTrie,
  temperature: float,
) -> tuple[jax.Array, jax.Array]:
  """`ranking_guided_loss` with each token's softmax over only the codes that continue some item's semantic ID.

  The product of an ID's conditional probabilities is then a distribution over the catalogue's IDs: the model need not
  learn which IDs exist, only which comes next. The search has to normalise over the same codes (without tau, as in the
  paper).

  Args:
    logits: teacher-forced logits of the K codes of each level, float [B, S, K] each.
    items_BxS: int32, items to predict, negative where there is none.
    codes_NxL: int32, the semantic IDs that the trie was built from.
    nodes_NxL: int32, `item_trie.nodes_of_items(trie)`.
    trie: of `codes_NxL`.
    temperature: tau, above 0.

  Returns:
    (sum over tokens, number of tokens), float32 scalars.

  Raises:
    InputError: shapes that do not belong together, or a temperature that is not above 0.
  """
  _require_temperature(temperature)
  _require(
    len(logits) == trie.levels and all(of_level.shape[:-1] == items_BxS.shape for of_level in logits),
    f'logits [B, S, K] of {trie.levels} levels for items [B, S]',
    *logits,
    items_BxS,
  )
  _require(codes_NxL.shape == nodes_NxL.shape, 'codes and nodes [N, L]', codes_NxL, nodes_NxL)
  item_BxS = jnp.maximum(items_BxS, 0)
  total_BxS = jnp.zeros(items_BxS.shape, jnp.float32)
  for level, logits_BxSxK in enumerate(logits):
    _, code_BxSxC, valid_BxSxC = item_trie.children(trie, level, nodes_NxL[item_BxS, level])
    legal_BxSxC = jnp.take_along_axis(
      logits_BxSxK.astype(jnp.float32) / temperature, code_BxSxC, axis=-1, mode='promise_in_bounds'
    )
    log_prob_BxSxC = jax.nn.log_softmax(jnp.where(valid_BxSxC, legal_BxSxC, -jnp.inf), axis=-1)
    chosen_BxSxC = valid_BxSxC & (code_BxSxC == codes_NxL[item_BxS, level][..., None])
    total_BxS -= jnp.sum(jnp.where(chosen_BxSxC, log_prob_BxSxC, 0), axis=-1)
  weights_BxS = (items_BxS >= 0).astype(jnp.float32)
  return jnp.sum(total_BxS * weights_BxS), jnp.sum(weights_BxS) * trie.levels


def _require(holds: bool, expected: str, *arrays: jax.Array) -> None:
  if not holds:
    raise InputError(f'the shapes are {", ".join(str(list(array.shape)) for array in arrays)}; expected {expected}')


def _require_temperature(temperature: float) -> None:
  if not isinstance(temperature, jax.core.Tracer) and not 0 < temperature < float('inf'):
    raise InputError(f'temperature is {temperature}; expected a number above 0')


def renormalises(softmax: str) -> bool:
  """Whether the search of a model has to normalise over the codes that continue a real item's semantic ID.

  Args:
    softmax: of the training, 'vocabulary' (`vocabulary_loss`) or 'catalogue' (`catalogue_loss`).

  Raises:
    ValueError: any other value.
  """
  if softmax not in ('vocabulary', 'catalogue'):
    raise ValueError(f"softmax is {softmax!r}; expected 'vocabulary' or 'catalogue', as the model was trained")
  return softmax == 'catalogue'
