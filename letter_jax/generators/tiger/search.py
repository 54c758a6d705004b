"""T5 as the model of a constrained beam search."""

import functools

import jax
import jax.numpy as jnp

from letter_jax.decoding.beam_search import Allowed, Beams, beam_search
from letter_jax.generators.losses import renormalises
from letter_jax.generators.tiger.t5 import T5
from letter_jax.semantic_ids.item_trie import ItemTrie
from letter_jax.semantic_ids.vocabulary import PAD, Vocabulary


def search_items(
  model: T5,
  vocabulary: Vocabulary,
  params,
  items_BxC: jax.Array,
  codes_NxL: jax.Array,
  trie: ItemTrie,
  beam: int,
  softmax: str,
  allowed: Allowed | None = None,
) -> Beams:
  """The `beam` best next items for each history; pure. `functools.partial` of model and vocabulary is a `Search`.

  Args:
    items_BxC: int32, one history a row, negative where there is no item.
    codes_NxL: int32, the semantic IDs that the trie was built from.
    softmax: `config.generator.softmax` of the training: 'vocabulary' or 'catalogue'.
    allowed: as in `beam_search`.
  """
  tokens_BxR = vocabulary.item_tokens(items_BxC, codes_NxL)
  valid_BxR = jnp.repeat(items_BxC >= 0, vocabulary.levels, axis=1)
  step, cache = t5_step(model, params, vocabulary, tokens_BxR, valid_BxR, softmax, items_BxC)
  return beam_search(step, cache, trie, beam, items_BxC.shape[0], renormalise=renormalises(softmax), allowed=allowed)


def t5_step(
  model: T5,
  params,
  vocabulary: Vocabulary,
  tokens_BxR: jax.Array,
  valid_BxR: jax.Array,
  softmax: str = 'vocabulary',
  items_BxC: jax.Array | None = None,
):
  """The `step` and the first `cache` that `beam_search` wants, for B users' histories.

  The encoder runs here, once per user; its keys and values stay in the closure, shared by the beams, and only the
  self-attention's keys and values travel with them.

  Args:
    tokens_BxR: int32, one history a row, PAD behind it.
    valid_BxR: bool, False on padding.
    softmax: 'vocabulary' gives log-probabilities over all tokens; 'catalogue' the logits of the level's codes, for a
      search that renormalises.
    items_BxC: as in `T5.embed_history`.
  """
  variables = {'params': params}
  encoded = model.apply(variables, tokens_BxR, valid_BxR.astype(jnp.int32), items_BxC=items_BxC, method='encode')
  cross = model.apply(variables, encoded, method='cross_keys_values')

  def step(level: int, codes_BxW, cache):
    if level == 0:
      tokens_BxW = jnp.full((tokens_BxR.shape[0], 1), PAD, jnp.int32)
    else:
      tokens_BxW = codes_BxW + vocabulary.tokens_of_level(level - 1).start
    columns = vocabulary.tokens_of_level(level)
    decode = functools.partial(model.apply, variables, tokens_BxW, level, cache, cross, valid_BxR, method='decode_step')
    if softmax == 'catalogue':
      return decode(columns=columns)
    logits_BxWxV, cache = decode()
    return jax.nn.log_softmax(logits_BxWxV, axis=-1)[..., columns], cache

  return step, [()] * model.config.layers
