"""A language model as the model of a constrained beam search.

A user's prompt is laid out on the device: prefix, the codes of each item with separators between, suffix. Histories
are padded in the middle; what is padded is masked and has no position, so the last place is the prompt's last token.

Shapes: B users, C items of a history, T tokens of the prompt, L levels, K codes, W beams.
"""

import jax
import jax.numpy as jnp
import numpy as np

from letter_jax.decoding.beam_search import Allowed, Beams, beam_search
from letter_jax.generators.lc_rec.llama import Llama
from letter_jax.generators.lc_rec.prompts import DecodingPrompt
from letter_jax.generators.losses import renormalises
from letter_jax.semantic_ids.item_trie import ItemTrie
from letter_jax.semantic_ids.vocabulary import Vocabulary


def search_items(
  model: Llama,
  vocabulary: Vocabulary,
  prompt: DecodingPrompt,
  params,
  items_BxC: jax.Array,
  codes_NxL: jax.Array,
  trie: ItemTrie,
  beam: int,
  softmax: str,
  allowed: Allowed | None = None,
) -> Beams:
  """The `beam` best next items for each history; pure. With the first three arguments given it is a `Search`.

  Args:
    params: the whole model's.
    items_BxC: int32, one history a row, negative behind its last item.
    codes_NxL: int32, the semantic IDs that the trie was built from.
    softmax: `config.generator.softmax` of the training: 'vocabulary' or 'catalogue'.
    allowed: as in `beam_search`.
  """
  variables = {'params': params}
  tokens_BxT, valid_BxT = prompt_tokens(prompt, vocabulary, items_BxC, codes_NxL)
  length_B = jnp.sum(valid_BxT, axis=1, dtype=jnp.int32)
  positions_BxT = jnp.maximum(jnp.cumsum(valid_BxT, axis=1, dtype=jnp.int32) - 1, 0)
  first_BxD, shared = model.apply(variables, tokens_BxT, valid_BxT, positions_BxT, method=Llama.prefill)

  def step(level: int, codes_BxW, cache):
    hidden_BxWxD = first_BxD[:, None]
    if level:
      tokens_BxW = codes_BxW + vocabulary.tokens_of_level(level - 1).start
      hidden_BxWxD, cache = model.apply(
        variables, tokens_BxW, length_B + level - 1, cache, shared, valid_BxT, method=Llama.decode_step
      )
    if softmax == 'catalogue':
      return model.apply(variables, hidden_BxWxD, vocabulary.tokens_of_level(level), method=Llama.logits), cache
    return model.apply(variables, hidden_BxWxD, vocabulary.tokens_of_level(level), method=Llama.code_log_probs), cache

  return beam_search(step, None, trie, beam, items_BxC.shape[0], renormalise=renormalises(softmax), allowed=allowed)


def prompt_tokens(
  prompt: DecodingPrompt, vocabulary: Vocabulary, items_BxC: jax.Array, codes_NxL: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """int32 and bool [B, T]: tokens, and where there is one."""
  B, C = items_BxC.shape
  separator = jnp.broadcast_to(jnp.asarray(prompt.separator), (B, C, len(prompt.separator)))
  items_BxCxI = jnp.concatenate([separator, vocabulary.item_tokens(items_BxC[..., None], codes_NxL)], axis=-1)
  there_BxC = items_BxC >= 0
  valid_BxCxI = jnp.repeat(there_BxC[..., None], items_BxCxI.shape[-1], axis=-1)
  # No separator before the first item.
  valid_BxCxI = valid_BxCxI.at[:, 0, : len(prompt.separator)].set(False)
  around = lambda tokens: jnp.broadcast_to(jnp.asarray(tokens), (B, len(tokens)))
  tokens_BxT = jnp.concatenate([around(prompt.prefix), items_BxCxI.reshape(B, -1), around(prompt.suffix)], axis=1)
  valid_BxT = jnp.concatenate(
    [around(np.ones_like(prompt.prefix, bool)), valid_BxCxI.reshape(B, -1), around(np.ones_like(prompt.suffix, bool))],
    axis=1,
  )
  return tokens_BxT, valid_BxT


def longest_history(prompt: DecodingPrompt, levels: int, context: int) -> int:
  """Items that a prompt has room for, with the codes of a response behind it."""
  free = context - len(prompt.prefix) - len(prompt.suffix) - levels + len(prompt.separator)
  return free // (levels + len(prompt.separator))
