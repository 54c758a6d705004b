"""A language model as the model of a constrained beam search.

A user's prompt is laid out on the device: prefix, the codes of each item with separators in between, suffix. Histories
are padded in the middle. Padding is masked and has no position, so the last place has the last token of the prompt.

Shapes: B users, C items of a history, T tokens of the prompt, L levels, K codes, W beams.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from letter_jax.decoding.beam_search import Step
from letter_jax.decoding.user_search import Search
from letter_jax.generators.lc_rec.llama import Llama
from letter_jax.generators.lc_rec.prompts import DecodingPrompt
from letter_jax.generators.losses import renormalises
from letter_jax.semantic_ids.vocabulary import Vocabulary


def llama_search(model: Llama, vocabulary: Vocabulary, prompt: DecodingPrompt, softmax: str) -> Search:
  """The search of a language model; it takes whole parameters, and histories that are flush left.

  Args:
    model: the Linen module.
    vocabulary: its tokens.
    prompt: the parts of a prompt.
    softmax: `config.generator.softmax` of the training: 'vocabulary' or 'catalogue'.
  """

  parts = tuple(tuple(part.tolist()) for part in prompt)
  return Search(_Begin(model, vocabulary, parts, softmax), renormalises(softmax))


@dataclasses.dataclass(frozen=True)
class _Begin:
  model: Llama
  vocabulary: Vocabulary
  prompt: tuple[tuple[int, ...], ...]  # the parts of a `DecodingPrompt`
  softmax: str

  def __call__(self, params: Any, items_BxC: jax.Array, codes_NxL: jax.Array) -> tuple[Step, None]:
    prompt = DecodingPrompt(*(np.array(part, np.int32) for part in self.prompt))
    tokens_BxT, valid_BxT = prompt_tokens(prompt, self.vocabulary, items_BxC, codes_NxL)
    return llama_step(self.model, params, self.vocabulary, tokens_BxT, valid_BxT, self.softmax), None


def llama_step(
  model: Llama, params: Any, vocabulary: Vocabulary, tokens_BxT: jax.Array, valid_BxT: jax.Array, softmax: str
) -> Step:
  """The `step` of `beam_search` for the prompts of B users; the first cache is None.

  The prompt is read here, once per user; its keys and values stay in the closure, shared by the beams, and only those
  of the generated tokens are reordered with the beams.

  Args:
    model: the Linen module.
    params: all its parameters.
    vocabulary: its tokens.
    tokens_BxT: int32, one prompt a row.
    valid_BxT: bool, False on padding.
    softmax: with 'vocabulary' the step gives log-probabilities among all tokens; with 'catalogue' the logits of the
      level's codes, for a search that renormalises.
  """
  apply: Callable[..., Any] = functools.partial(model.apply, {'params': params})
  scores = Llama.logits if softmax == 'catalogue' else Llama.code_log_probs
  length_B = jnp.sum(valid_BxT, axis=1, dtype=jnp.int32)
  positions_BxT = jnp.maximum(jnp.cumsum(valid_BxT, axis=1, dtype=jnp.int32) - 1, 0)
  first_BxD, shared = apply(tokens_BxT, valid_BxT, positions_BxT, method=Llama.prefill)

  def step(level: int, codes_BxW: jax.Array | None, cache: Any) -> tuple[jax.Array, Any]:
    hidden_BxWxD = first_BxD[:, None]
    if codes_BxW is not None:
      tokens_BxW = codes_BxW + vocabulary.tokens_of_level(level - 1).start
      hidden_BxWxD, cache = apply(tokens_BxW, length_B + level - 1, cache, shared, valid_BxT, method=Llama.decode_step)
    return apply(hidden_BxWxD, vocabulary.tokens_of_level(level), method=scores), cache

  return step


def prompt_tokens(
  prompt: DecodingPrompt, vocabulary: Vocabulary, items_BxC: jax.Array, codes_NxL: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """The prompts of B users.

  Args:
    prompt: the parts of a prompt.
    vocabulary: the tokens of the codes.
    items_BxC: int32, one history a row, negative after its last item.
    codes_NxL: int32, the semantic IDs of the catalogue.

  Returns:
    int32 [B, T], tokens, and bool [B, T], False on padding.
  """
  B, C = items_BxC.shape
  separator = jnp.broadcast_to(jnp.asarray(prompt.separator), (B, C, len(prompt.separator)))
  items_BxCxI = jnp.concatenate([separator, vocabulary.item_tokens(items_BxC[..., None], codes_NxL)], axis=-1)
  valid_BxCxI = jnp.repeat((items_BxC >= 0)[..., None], items_BxCxI.shape[-1], axis=-1)
  # No separator before the first item.
  valid_BxCxI = valid_BxCxI.at[:, 0, : len(prompt.separator)].set(False)

  def framed(prefix: np.ndarray, middle_BxCxI: jax.Array, suffix: np.ndarray) -> jax.Array:
    for_all = lambda part: jnp.broadcast_to(jnp.asarray(part), (B, len(part)))
    return jnp.concatenate([for_all(prefix), middle_BxCxI.reshape(B, -1), for_all(suffix)], axis=1)

  tokens_BxT = framed(prompt.prefix, items_BxCxI, prompt.suffix)
  valid_BxT = framed(np.ones_like(prompt.prefix, bool), valid_BxCxI, np.ones_like(prompt.suffix, bool))
  return tokens_BxT, valid_BxT


def longest_history(prompt: DecodingPrompt, levels: int, context: int) -> int:
  """The number of items that a prompt has room for, followed by the codes of a response.

  Args:
    prompt: the parts of a prompt.
    levels: L, tokens of an item and of the response.
    context: tokens that the model has room for.
  """
  free = context - len(prompt.prefix) - len(prompt.suffix) - levels + len(prompt.separator)
  return free // (levels + len(prompt.separator))
