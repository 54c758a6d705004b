"""T5 as the model of a constrained beam search.

Shapes: B users, C items of a history, R encoder positions, L levels, K codes, W beams, V tokens.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from letter_jax.decoding.beam_search import Step
from letter_jax.decoding.user_search import Search
from letter_jax.generators.losses import renormalises
from letter_jax.generators.tiger.t5 import T5, encoder_positions
from letter_jax.semantic_ids.vocabulary import PAD, Vocabulary


def t5_search(model: T5, vocabulary: Vocabulary, softmax: str) -> Search:
  """The search of a T5; it takes the parameters of the T5.

  Args:
    model: the Linen module.
    vocabulary: its tokens.
    softmax: `config.generator.softmax` of the training: 'vocabulary' or 'catalogue'.
  """

  return Search(_Begin(model, vocabulary, softmax), renormalises(softmax))


@dataclasses.dataclass(frozen=True)
class _Begin:
  model: T5
  vocabulary: Vocabulary
  softmax: str

  def __call__(self, params: Any, items_BxC: jax.Array, codes_NxL: jax.Array) -> tuple[Step, list]:
    tokens_BxR, valid_BxR = encoder_positions(self.model.config, self.vocabulary, items_BxC, codes_NxL, items_BxC >= 0)
    return t5_step(self.model, params, self.vocabulary, tokens_BxR, valid_BxR, self.softmax, items_BxC)


def t5_step(
  model: T5,
  params: Any,
  vocabulary: Vocabulary,
  tokens_BxR: jax.Array,
  valid_BxR: jax.Array,
  softmax: str = 'vocabulary',
  items_BxC: jax.Array | None = None,
) -> tuple[Step, list]:
  """The `step` and the first `cache` of `beam_search`, for the histories of B users.

  The encoder runs here, once per user; its keys and values stay in the closure, shared by the beams, and only the keys
  and values of the self-attention are reordered with the beams.

  Args:
    model: the Linen module.
    params: its parameters.
    vocabulary: its tokens.
    tokens_BxR: int32, one history a row, PAD after it; [B, R, L] where positions are items.
    valid_BxR: bool, False on padding.
    softmax: with 'vocabulary' the step gives log-probabilities among all tokens; with 'catalogue' the logits of the
      level's codes, for a search that renormalises.
    items_BxC: as in `T5.embed_history`.
  """
  apply: Callable[..., Any] = functools.partial(model.apply, {'params': params})
  encoded = apply(tokens_BxR, valid_BxR.astype(jnp.int32), items_BxC=items_BxC, method='encode')
  cross = apply(encoded, method='cross_keys_values')

  def step(level: int, codes_BxW: jax.Array | None, cache: list) -> tuple[jax.Array, list]:
    if codes_BxW is None:
      tokens_BxW = jnp.full((tokens_BxR.shape[0], 1), PAD, jnp.int32)
    else:
      tokens_BxW = codes_BxW + vocabulary.tokens_of_level(level - 1).start
    columns = vocabulary.tokens_of_level(level)
    decode = functools.partial(apply, tokens_BxW, level, cache, cross, valid_BxR, method='decode_step')
    if softmax == 'catalogue':
      return decode(columns=columns)
    logits_BxWxV, cache = decode()
    return jax.nn.log_softmax(logits_BxWxV, axis=-1)[..., columns], cache

  return step, [()] * model.config.layers
