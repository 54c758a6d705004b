"""T5 as the model of a constrained beam search."""

import jax
import jax.numpy as jnp

from letter_jax.generators.t5 import T5
from letter_jax.generators.vocabulary import PAD, Vocabulary


def t5_step(model: T5, params, vocabulary: Vocabulary, tokens_BxR: jax.Array, valid_BxR: jax.Array):
  """The `step` and the first `cache` that `beam_search` wants, for B users' histories.

  The encoder runs here, once per user; its keys and values stay in the closure, shared by the beams, and only the
  self-attention's keys and values travel with them.

  Args:
    tokens_BxR: int32, one history a row, PAD behind it.
    valid_BxR: bool, False on padding.
  """
  variables = {'params': params}
  encoded = model.apply(variables, tokens_BxR, valid_BxR.astype(jnp.int32), method=T5.encode)
  cross = model.apply(variables, encoded, method=T5.cross_keys_values)

  def step(level: int, codes_BxW, cache):
    if level == 0:
      tokens_BxW = jnp.full((tokens_BxR.shape[0], 1), PAD, jnp.int32)
    else:
      tokens_BxW = codes_BxW + vocabulary.level(level - 1).start
    logits_BxWxV, cache = model.apply(variables, tokens_BxW, level, cache, cross, valid_BxR, method=T5.decode_step)
    log_probs_BxWxV = jax.nn.log_softmax(logits_BxWxV, axis=-1)
    return log_probs_BxWxV[..., vocabulary.level(level)], cache

  return step, [None] * model.config.layers
