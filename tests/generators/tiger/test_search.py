import jax
import jax.numpy as jnp
import numpy as np
import pytest

from letter_jax.generators.losses import catalogue_loss
from letter_jax.generators.tiger.search import t5_search
from letter_jax.generators.tiger.t5 import T5
from letter_jax.semantic_ids import item_trie
from letter_jax.semantic_ids.item_trie import ItemTrie
from letter_jax.semantic_ids.vocabulary import Vocabulary
from tests.small_data import TINY_T5, distinct_codes

NUM_ITEMS, LEVELS = 9, 3
VOCABULARY = Vocabulary(LEVELS, codebook_size=4)
CODES_NxL = distinct_codes(NUM_ITEMS, LEVELS, 4)
MODEL = T5(TINY_T5, VOCABULARY.size)
HISTORIES = [[4, 1, 8], [2]]


def padded(width):
  return np.array([history + [-1] * (width - len(history)) for history in HISTORIES], np.int32)


@pytest.fixture(scope='module')
def params():
  tokens = jnp.zeros((1, LEVELS), jnp.int32)
  return jax.jit(MODEL.init)(jax.random.key(0), tokens, tokens, tokens[:, None])['params']


@pytest.fixture(scope='module')
def search(params):
  trie, codes_NxL = ItemTrie.build(CODES_NxL), jnp.asarray(CODES_NxL)
  run = jax.jit(
    lambda items_BxC, softmax: t5_search(MODEL, VOCABULARY, softmax).beams(
      params, items_BxC, codes_NxL, trie, NUM_ITEMS + 2
    ),
    static_argnums=1,
  )
  return lambda width, softmax='vocabulary': jax.tree.map(np.asarray, run(padded(width), softmax))


@pytest.fixture(scope='module')
def log_likelihood_BxN(params):
  """Of every item for every user, by teacher forcing, one user and one item a row, no padding."""

  @jax.jit
  def of_user(tokens_1xR):
    tokens_NxR = jnp.tile(tokens_1xR, (NUM_ITEMS, 1))
    targets_Nx1xL = VOCABULARY.tokens(jnp.asarray(CODES_NxL))[:, None]
    logits = MODEL.apply({'params': params}, tokens_NxR, jnp.ones_like(tokens_NxR), targets_Nx1xL)
    log_probs = jax.nn.log_softmax(logits, axis=-1)
    return jnp.take_along_axis(log_probs, targets_Nx1xL[..., None], axis=-1).sum((1, 2, 3))

  return np.stack(
    [of_user(VOCABULARY.item_tokens(jnp.array([history]), jnp.asarray(CODES_NxL))) for history in HISTORIES]
  )


def test_a_wide_beam_gives_every_items_log_likelihood_in_order(search, log_likelihood_BxN):
  beams = search(3)
  assert (beams.items_BxW[:, NUM_ITEMS:] == -1).all() and (beams.scores_BxW[:, NUM_ITEMS:] == -np.inf).all()
  order_BxN = np.argsort(-log_likelihood_BxN, axis=1)
  np.testing.assert_array_equal(beams.items_BxW[:, :NUM_ITEMS], order_BxN)
  np.testing.assert_allclose(
    beams.scores_BxW[:, :NUM_ITEMS], np.take_along_axis(log_likelihood_BxN, order_BxN, axis=1), rtol=1e-5
  )
  assert len({tuple(row) for row in beams.items_BxW.tolist()}) == len(HISTORIES)


def test_scores_do_not_depend_on_the_width_that_histories_are_padded_to(search):
  narrow, wide = search(3), search(7)
  np.testing.assert_array_equal(narrow.items_BxW, wide.items_BxW)
  np.testing.assert_allclose(narrow.scores_BxW, wide.scores_BxW, rtol=1e-5)


def test_the_search_scores_items_as_the_catalogue_loss_does(search, params):
  trie = ItemTrie.build(CODES_NxL)

  @jax.jit
  def log_likelihood(tokens_1xR, item):
    targets_1x1xL = VOCABULARY.tokens(jnp.asarray(CODES_NxL)[item])[None, None]
    logits = MODEL.apply({'params': params}, tokens_1xR, jnp.ones_like(tokens_1xR), targets_1x1xL)
    logits = [logits[:, :, level, VOCABULARY.tokens_of_level(level)] for level in range(LEVELS)]
    total, _ = catalogue_loss(
      logits, item[None, None], jnp.asarray(CODES_NxL), jnp.asarray(item_trie.nodes_of_items(trie)), trie, 1.0
    )
    return -total

  beams = search(3, 'catalogue')
  for user, history in enumerate(HISTORIES):
    tokens_1xR = VOCABULARY.item_tokens(jnp.array([history]), jnp.asarray(CODES_NxL))
    expected_N = np.array([log_likelihood(tokens_1xR, jnp.int32(item)) for item in range(NUM_ITEMS)])
    assert np.exp(expected_N).sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(beams.items_BxW[user, :NUM_ITEMS], np.argsort(-expected_N))
    np.testing.assert_allclose(beams.scores_BxW[user, :NUM_ITEMS], np.sort(expected_N)[::-1], atol=1e-5)


def test_another_softmax_is_refused():
  with pytest.raises(ValueError, match="softmax is 'catalog'; expected 'vocabulary' or 'catalogue'"):
    t5_search(MODEL, VOCABULARY, 'catalog')
