"""A language model's constrained search against likelihoods of whole prompts, one item at a time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from letter_jax.configuration import LoRAConfig
from letter_jax.generators.lc_rec.llama import Architecture, Llama
from letter_jax.generators.lc_rec.prompts import DecodingPrompt
from letter_jax.generators.lc_rec.search import llama_search, longest_history, prompt_tokens
from letter_jax.semantic_ids.item_trie import ItemTrie
from letter_jax.semantic_ids.vocabulary import Vocabulary
from tests.small_data import distinct_codes

LEVELS, K, TEXT, ITEMS = 3, 4, 11, 9
VOCABULARY = Vocabulary(LEVELS, K, TEXT)
PROMPT = DecodingPrompt(*(np.array(tokens, np.int32) for tokens in ([1, 5, 3], [7, 2], [4])))
CODES = distinct_codes(ITEMS, LEVELS, K)
HISTORIES = np.array([[4, 0, 7, 2], [8, -1, -1, -1], [3, 3, -1, -1]])
MODEL = Llama(
  Architecture(
    text_vocabulary=TEXT, new_tokens=LEVELS * K, d_model=16, d_ff=24, layers=2, heads=4, kv_heads=2, d_head=4
  ),
  LoRAConfig(rank=2, dropout=0.0),
)


def tokens_of(items):
  return [TEXT + level * K + int(code) for item in items for level, code in enumerate(CODES[item])]


def written(history):
  """The prompt of a history, spelled out."""
  items = [item for item in history if item >= 0]
  middle = [
    token for place, item in enumerate(items) for token in ([*PROMPT.separator] if place else []) + tokens_of([item])
  ]
  return [*PROMPT.prefix, *middle, *PROMPT.suffix]


@pytest.fixture(scope='module')
def params():
  tokens = jnp.zeros((1, 1), jnp.int32)
  shapes = jax.eval_shape(MODEL.init, jax.random.key(0), tokens, tokens, tokens)['params']
  random = np.random.default_rng(0)
  return jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape) * 0.5, jnp.float32), shapes)


@pytest.fixture(scope='module')
def logits(params):
  """Of the tokens behind a prompt, whole prompts and one item at a time: {(user, item): [L, vocabulary]}."""

  @jax.jit
  def forward(tokens):
    hidden = MODEL.apply({'params': params}, tokens[None], jnp.ones_like(tokens)[None], jnp.arange(len(tokens))[None])
    return MODEL.apply({'params': params}, hidden[0], method=Llama.logits)

  return {
    (user, item): np.asarray(forward(jnp.array(written(history) + tokens_of([item])[:-1])))[-LEVELS:]
    for user, history in enumerate(HISTORIES)
    for item in range(ITEMS)
  }


def log_softmax(values):
  return values - np.log(np.exp(values - values.max()).sum()) - values.max()


def expected_score(logits, user, item, softmax):
  total = 0.0
  for level in range(LEVELS):
    if softmax == 'vocabulary':
      log_probs = log_softmax(logits[user, item][level].astype(np.float64))
    else:
      alike = [
        code
        for code in range(K)
        if any((CODES[:, :level] == CODES[item, :level]).all(axis=1) & (CODES[:, level] == code))
      ]
      tokens = [TEXT + level * K + code for code in alike]
      log_probs = dict(zip(tokens, log_softmax(logits[user, item][level][tokens].astype(np.float64))))
    total += log_probs[TEXT + level * K + CODES[item, level]]
  return total


def test_prompts_are_laid_out_as_they_are_written():
  tokens_BxT, valid_BxT = prompt_tokens(PROMPT, VOCABULARY, jnp.asarray(HISTORIES), CODES)
  assert valid_BxT[:, -1].all()
  for tokens_T, valid_T, history in zip(np.asarray(tokens_BxT), np.asarray(valid_BxT), HISTORIES):
    assert tokens_T[valid_T].tolist() == written(history)


@pytest.mark.parametrize('softmax', ['vocabulary', 'catalogue'])
@pytest.mark.parametrize('beam', [ITEMS, 3])
def test_scores_are_the_likelihoods_of_whole_prompts(params, logits, softmax, beam):
  search = jax.jit(functools.partial(llama_search(MODEL, VOCABULARY, PROMPT, softmax).beams, beam=beam))
  found = search(params, jnp.asarray(HISTORIES), CODES, ItemTrie.build(CODES))
  for user, (items, scores) in enumerate(zip(np.asarray(found.items_BxW), np.asarray(found.scores_BxW))):
    assert len(set(items.tolist())) == beam
    expected = [expected_score(logits, user, item, softmax) for item in items]
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)
    assert (np.diff(scores) <= 0).all()
    if beam == ITEMS and softmax == 'catalogue':
      np.testing.assert_allclose(np.exp(scores.astype(np.float64)).sum(), 1, rtol=1e-4)


def test_a_history_is_as_long_as_the_context_has_room_for():
  longest = longest_history(PROMPT, LEVELS, context=40)
  need = lambda items: len(written([0] * items)) + LEVELS
  assert need(longest) <= 40 < need(longest + 1)


def test_another_softmax_is_refused():
  with pytest.raises(ValueError, match="softmax is 'both'"):
    llama_search(MODEL, VOCABULARY, PROMPT, 'both')
