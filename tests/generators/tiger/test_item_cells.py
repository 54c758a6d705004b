"""An encoder with one position per item: training by users equals training on every prefix, and sees no later item."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from letter_jax.configuration import T5Config
from letter_jax.generators.losses import catalogue_loss, vocabulary_loss
from letter_jax.generators.tiger.search import t5_search
from letter_jax.generators.tiger.t5 import T5, encoder_positions
from letter_jax.generators.tiger.training import cropped
from letter_jax.semantic_ids import item_trie
from letter_jax.semantic_ids.item_trie import ItemTrie
from letter_jax.semantic_ids.vocabulary import Vocabulary
from tests.small_data import TINY_T5, distinct_codes, relative_error

ITEMS, LEVELS, K = 30, 3, 5
CONFIG: T5Config = dataclasses.replace(TINY_T5, encoder='items', layers=2)
CODES_NxL = jnp.asarray(distinct_codes(ITEMS, LEVELS, K))
VOCABULARY = Vocabulary(LEVELS, K)
MODEL = T5(CONFIG, VOCABULARY.size)
TRIE = ItemTrie.build(np.asarray(CODES_NxL))
USERS = [[3, 7, 1, 28, 4, 9], [5, 2, 2], [11, 0, 8, 6], [12, 13]]


@pytest.fixture(scope='module')
def params():
  tokens, segments = encoder_positions(CONFIG, VOCABULARY, jnp.zeros((1, 1), jnp.int32), CODES_NxL, jnp.ones((1, 1)))
  return jax.jit(MODEL.init)(jax.random.key(0), tokens, segments, tokens.reshape(1, 1, -1))['params']


def packed(rows, cells):
  """Items, segments and next items [B, cells] of rows of sequences [(items, next items)]."""
  arrays = [np.full((len(rows), cells), filling, np.int32) for filling in (-1, 0, -1)]
  for row, sequences in enumerate(rows):
    first = 0
    for number, (items, following) in enumerate(sequences, start=1):
      place = slice(first, first + len(items))
      for array, values in zip(arrays, (items, number, following)):
        array[row, place] = values
      first += len(items)
  return tuple(map(jnp.asarray, arrays))


def loss(params, batch, softmax):
  items_BxC, segments_BxC, next_BxC = batch
  tokens, segments = encoder_positions(CONFIG, VOCABULARY, items_BxC, CODES_NxL, segments_BxC)
  targets = VOCABULARY.item_tokens(next_BxC[..., None], CODES_NxL)
  apply = lambda **kwargs: MODEL.apply({'params': params}, tokens, segments, targets, **kwargs)
  if softmax == 'vocabulary':
    return vocabulary_loss(apply(), next_BxC, CODES_NxL, VOCABULARY, 0.8)[0]
  columns = [VOCABULARY.tokens_of_level(level) for level in range(LEVELS)]
  nodes = jnp.asarray(item_trie.nodes_of_items(TRIE))
  logits = apply(columns=columns, method='logits_by_position')
  return catalogue_loss(logits, next_BxC, CODES_NxL, nodes, TRIE, 0.8)[0]


@pytest.mark.parametrize('softmax', ['vocabulary', 'catalogue'])
def test_one_pass_over_users_equals_one_over_every_prefix(params, softmax):
  inputs = [(user[:-1], user[1:]) for user in USERS]
  by_users = packed([inputs[:2], inputs[2:]], 8)
  # Every prefix in a row of its own, with a target at its last item alone.
  prefixes = [(user[:end], [-1] * (end - 1) + [user[end]]) for user in USERS for end in range(1, len(user))]
  by_prefixes = packed([[prefix] for prefix in prefixes], 5)
  value_and_gradient = jax.jit(jax.value_and_grad(loss), static_argnums=2)
  (users, users_gradient), (each, each_gradient) = (
    value_and_gradient(params, batch, softmax) for batch in (by_users, by_prefixes)
  )
  assert float(users) == pytest.approx(float(each), rel=1e-5)
  assert float(users) > 1
  for name, ours, expected in zip(
    jax.tree_util.tree_leaves_with_path(users_gradient), jax.tree.leaves(users_gradient), jax.tree.leaves(each_gradient)
  ):
    assert relative_error(ours, expected) < 1e-5, name[0]


def test_crops_are_rows_in_which_each_piece_is_a_history_of_its_own(params):
  """Every target stays, and none sees what is before a cut."""
  inputs = [(user[:-1], user[1:]) for user in USERS]
  items, segments, following = packed([inputs[:2], inputs[2:]], 8)
  key = jax.random.key(4)
  cuts = np.asarray(jax.random.bernoulli(key, 0.5, segments.shape))
  pieces = []
  for row, of_row in enumerate((inputs[:2], inputs[2:])):
    first = 0
    for history, targets in of_row:
      starts = [0, *(at for at in range(1, len(history)) if cuts[row, first + at]), len(history)]
      pieces += [(history[start:end], targets[start:end]) for start, end in zip(starts, starts[1:])]
      first += len(history)
  assert len(pieces) > len(USERS) + 2
  value_and_gradient = jax.jit(jax.value_and_grad(loss), static_argnums=2)
  cropped_segments = cropped(segments, 0.5, key)
  np.testing.assert_array_equal(cropped_segments == 0, segments == 0)
  ours, gradient = value_and_gradient(params, (items, cropped_segments, following), 'catalogue')
  whole, _ = value_and_gradient(params, (items, segments, following), 'catalogue')
  expected, expected_gradient = value_and_gradient(params, packed([[piece] for piece in pieces], 5), 'catalogue')
  assert float(ours) == pytest.approx(float(expected), rel=1e-5) != float(whole)
  for leaf, of_pieces in zip(*map(jax.tree.leaves, (gradient, expected_gradient)), strict=True):
    assert relative_error(leaf, of_pieces) < 1e-5


@pytest.mark.slow
def test_a_prediction_depends_on_its_own_past_alone(params):
  """The gradient of the logits at one position with respect to the encoder's inputs of the row."""
  items_BxC, segments_BxC, next_BxC = packed([[(user[:-1], user[1:]) for user in USERS[:2]]], 8)
  tokens, segments = encoder_positions(CONFIG, VOCABULARY, items_BxC, CODES_NxL, segments_BxC)
  targets = VOCABULARY.item_tokens(next_BxC[..., None], CODES_NxL)

  class Shifted(T5):
    """The same model, with something added to its inputs."""

    def embed_history(self, tokens_BxR, items_BxC):
      return super().embed_history(tokens_BxR, None) + items_BxC

  def logits(shift, place):
    model = Shifted(CONFIG, VOCABULARY.size)
    return model.apply({'params': params}, tokens, segments, targets, items_BxC=shift)[0, place].sum()

  by_place = jax.jit(jax.vmap(jax.grad(logits), (None, 0)))
  reached = by_place(jnp.zeros((1, 8, CONFIG.d_model)), jnp.arange(7))
  depends = np.asarray(jnp.abs(reached).max(axis=-1) > 0)[:, 0]
  expected = np.zeros((7, 8), bool)
  expected[:5, :5] = np.tril(np.ones((5, 5), bool))  # the first user's five positions
  expected[5:, 5:7] = np.tril(np.ones((2, 2), bool))
  np.testing.assert_array_equal(depends, expected)


@pytest.mark.parametrize('softmax', ['vocabulary', 'catalogue'])
def test_the_search_scores_items_as_the_training_does(params, softmax):
  """At temperature 1 the score of a user's next item is its log-likelihood in the training's pass."""
  search = jax.jit(lambda items: t5_search(MODEL, VOCABULARY, softmax).beams(params, items, CODES_NxL, TRIE, ITEMS))
  apply = jax.jit(functools.partial(MODEL.apply, {'params': params}))
  for user in USERS:
    history = jnp.asarray([user[:-1] + [-1] * (8 - len(user))], jnp.int32)
    beams = search(history)
    found = dict(zip(beams.items_BxW[0].tolist(), beams.scores_BxW[0].tolist()))
    assert set(found) == set(range(ITEMS))
    one = packed([[(user[:-1], [-1] * (len(user) - 2) + [user[-1]])]], 7)
    tokens, segments = encoder_positions(CONFIG, VOCABULARY, one[0], CODES_NxL, one[1])
    targets = VOCABULARY.item_tokens(one[2][..., None], CODES_NxL)
    place = len(user) - 2
    if softmax == 'vocabulary':
      log_probs = jax.nn.log_softmax(apply(tokens, segments, targets)[0, place])
      expected = sum(log_probs[level, targets[0, place, level]] for level in range(LEVELS))
    else:
      columns = [VOCABULARY.tokens_of_level(level) for level in range(LEVELS)]
      logits = MODEL.apply({'params': params}, tokens, segments, targets, columns=columns, method='logits_by_position')
      nodes = jnp.asarray(item_trie.nodes_of_items(TRIE))
      expected = -catalogue_loss(logits, one[2], CODES_NxL, nodes, TRIE, 1.0)[0]
    assert found[user[-1]] == pytest.approx(float(expected), abs=1e-4)
