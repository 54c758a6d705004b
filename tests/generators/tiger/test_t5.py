"""T5 against itself (packed and padded, cached and teacher-forced) and against values by hand; for Hugging Face's
numbers see tests/parity."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from letter_jax.configuration import T5Config
from letter_jax.data import packing, splits
from letter_jax.data.splits import PAD_ITEM
from letter_jax.generators.losses import ranking_guided_loss
from letter_jax.generators.tiger.layers import relative_buckets
from letter_jax.generators.tiger.t5 import T5
from letter_jax.semantic_ids.vocabulary import PAD, Vocabulary
from tests.small_data import TINY_T5, cyclic_interactions, distinct_codes, relative_error

CONFIG = TINY_T5
VOCABULARY = Vocabulary(levels=3, codebook_size=12)
MODEL = T5(CONFIG, VOCABULARY.size)
NUM_ITEMS = 12
# Token of level l and code c for item c: every item has tokens of its own.
CODES_NxL = jnp.tile(jnp.arange(NUM_ITEMS, dtype=jnp.int32)[:, None], (1, 3))


@pytest.fixture(scope='module')
def params():
  tokens = jnp.zeros((1, 3), jnp.int32)
  initial = jax.jit(MODEL.init)(jax.random.key(1), tokens, tokens, tokens[:, None])['params']
  # Position biases of size 1, so that a wrong bucket shows.
  return {**initial, **{name: 4 * initial[name] for name in ('encoder_bias', 'decoder_bias')}}


def tokens_of(items):
  return VOCABULARY.item_tokens(jnp.asarray(items, jnp.int32), CODES_NxL)


def loss_and_gradient(params, batch, codes_NxL):
  segments = jnp.repeat(jnp.asarray(batch['segments_BxC']), VOCABULARY.levels, axis=1)
  targets_BxS = jnp.asarray(batch['targets_BxS'])

  def run(params):
    tokens, targets = (
      VOCABULARY.item_tokens(items, codes_NxL) for items in (jnp.asarray(batch['items_BxC']), targets_BxS[..., None])
    )
    logits = MODEL.apply({'params': params}, tokens, segments, targets)
    weights = jnp.broadcast_to((targets_BxS >= 0)[..., None], targets.shape).astype(jnp.float32)
    total, count = ranking_guided_loss(logits, targets, weights, 0.7)
    return total / count, count

  return jax.jit(jax.value_and_grad(run, has_aux=True))(params)


def test_packed_rows_give_the_loss_and_the_gradients_of_padded_ones(params):
  data = cyclic_interactions(users=9, num_items=30, longest=9)
  examples = splits.training_examples(data, 5)
  codes_NxL = jnp.asarray(distinct_codes(30, 3, 12))
  plan = packing.plan_packing(examples.lengths, 8)
  batches = packing.PackedBatches(examples, plan, plan.rows + 1, seed=0)  # one row more than needed: all padding
  packed = batches.batch_of(0, 0)
  histories = examples.histories(5)
  padded = {
    'items_BxC': histories,
    'segments_BxC': (histories != PAD_ITEM).astype(np.int32),
    'targets_BxS': examples.targets[:, None],
  }
  assert batches.per_epoch == 1 and packed['segments_BxC'].max() > 2 and len(set(examples.lengths.tolist())) == 5
  (ours, count), gradient = loss_and_gradient(params, packed, codes_NxL)
  (expected, expected_count), expected_gradient = loss_and_gradient(params, padded, codes_NxL)
  assert float(count) == float(expected_count) == 3 * len(examples)
  assert float(ours) == pytest.approx(float(expected), rel=1e-5)
  errors = jax.tree.map(relative_error, gradient, expected_gradient)
  assert max(jax.tree.leaves(errors)) < 1e-5, errors


# A row of two examples and padding, another order in the second row; targets are items of their own.
ITEMS_BxC = np.array([[0, 1, 2, 3, 4, -1], [5, 6, 7, 8, 9, -1]])
SEGMENTS_BxC = np.array([[1, 1, 2, 2, 2, 0], [2, 2, 2, 2, 1, 0]])
TARGETS_BxS = np.array([[10, 11], [10, 11]])


@pytest.fixture(scope='module')
def influence(params):
  """(weights on the encoder's output, weights on logits) -> which tokens' embeddings move that weighted sum, bool [V].

  Logits are those of PAD and END, so that the tied output embedding adds nothing to the tokens' own gradients.
  """
  tokens, targets = tokens_of(ITEMS_BxC), tokens_of(TARGETS_BxS[..., None])
  segments = jnp.repeat(jnp.asarray(SEGMENTS_BxC), 3, axis=1)
  noise = np.random.default_rng(0).normal(size=100)

  @jax.jit
  def gradient(encoder_weights_BxR, logit_weights_BxSxT):
    def outputs(embedding):
      variables = {'params': {**params, 'embedding': embedding}}
      encoded = MODEL.apply(variables, tokens, segments, method=T5.encode)
      logits = MODEL.apply(variables, tokens, segments, targets)[..., :2]
      return jnp.sum((encoded * noise[: CONFIG.d_model]) * encoder_weights_BxR[..., None]) + jnp.sum(
        (logits * noise[:2]) * logit_weights_BxSxT[..., None]
      )

    return jax.grad(outputs)(params['embedding'])

  def run(encoder_weights_BxR=None, logit_weights_BxSxT=None):
    weights = (
      np.zeros(shape) if given is None else given
      for shape, given in ((tokens.shape, encoder_weights_BxR), (targets.shape, logit_weights_BxSxT))
    )
    return np.asarray(gradient(*weights) != 0).any(axis=1)

  return run


def moved_by(items):
  """bool [V] from 2 on: the tokens of these items."""
  moved = np.zeros(VOCABULARY.size, bool)
  moved[np.asarray(tokens_of(items)).ravel()] = True
  return moved[2:]


@pytest.mark.parametrize('row, segment', [(0, 1), (0, 2), (1, 1), (1, 2)])
def test_the_encoder_sees_the_whole_segment_and_no_other(influence, row, segment):
  weights = np.zeros((2, 18))
  weights[row] = np.repeat(SEGMENTS_BxC[row] == segment, 3)
  own = ITEMS_BxC[row][SEGMENTS_BxC[row] == segment]
  np.testing.assert_array_equal(influence(encoder_weights_BxR=weights)[2:], moved_by(own))


@pytest.mark.parametrize('row, slot', [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_a_slots_logits_depend_on_its_own_history_and_the_tokens_before(influence, row, slot):
  own = ITEMS_BxC[row][SEGMENTS_BxC[row] == slot + 1]
  target_tokens = np.asarray(tokens_of(TARGETS_BxS[row, slot : slot + 1]))
  for position in range(3):
    weights = np.zeros((2, 2, 3))
    weights[row, slot, position] = 1
    expected = moved_by(own)
    expected[target_tokens[:position] - 2] = True
    np.testing.assert_array_equal(influence(logit_weights_BxSxT=weights)[2:], expected)


def test_cached_steps_give_the_teacher_forced_logits(params):
  random = np.random.default_rng(2)
  histories = np.array([[3, 1, 4], [5, -1, -1]])
  targets_BxWxT = np.asarray(VOCABULARY.tokens(jnp.asarray(random.integers(0, 12, (2, 4, 3)))))
  tokens, valid = tokens_of(histories), jnp.repeat(histories >= 0, 3, axis=1)
  variables = {'params': params}

  @jax.jit
  def teacher_forced(targets_BxWxT):
    """Every beam as a row of its own."""
    repeat = lambda leaf: jnp.repeat(leaf, 4, axis=0)
    return MODEL.apply(variables, repeat(tokens), repeat(valid).astype(jnp.int32), targets_BxWxT.reshape(8, 1, 3))

  @jax.jit
  def cached(targets_BxWxT):
    encoded = MODEL.apply(variables, tokens, valid.astype(jnp.int32), method=T5.encode)
    cross = MODEL.apply(variables, encoded, method=T5.cross_keys_values)
    cache, logits = [()] * CONFIG.layers, []
    for position in range(3):
      inputs = targets_BxWxT[..., position - 1] if position else jnp.full((2, 4), PAD, jnp.int32)
      step_logits, cache = MODEL.apply(variables, inputs, position, cache, cross, valid, method=T5.decode_step)
      logits.append(step_logits)
    return jnp.stack(logits, axis=2), cache

  logits, cache = cached(targets_BxWxT)
  assert [leaf.shape for leaf in jax.tree.leaves(cache)] == [(2, 4, CONFIG.heads, CONFIG.d_kv)] * CONFIG.layers * 3 * 2
  expected = np.asarray(teacher_forced(targets_BxWxT)).reshape(logits.shape)
  for position in range(3):
    assert relative_error(logits[:, :, position], expected[:, :, position]) < 1e-5
  assert relative_error(expected[0], expected[1]) > 0.1  # the users are not alike


@pytest.fixture(scope='module')
def logits(params):
  """Of the rows above and of one that is all padding, by dtype of the activations."""
  items, segments, targets = (
    np.concatenate([rows, np.full_like(rows[:1], filling)])
    for rows, filling in ((ITEMS_BxC, -1), (SEGMENTS_BxC, 0), (TARGETS_BxS, -1))
  )
  segments = jnp.repeat(jnp.asarray(segments), 3, axis=1)
  return {
    dtype: jax.jit(T5(CONFIG, VOCABULARY.size, dtype).apply)(
      {'params': params}, tokens_of(items), segments, tokens_of(targets[..., None])
    )
    for dtype in (jnp.float32, jnp.bfloat16)
  }


def test_bfloat16_activations_give_float32_logits_near_those_of_float32(logits):
  assert 1e-4 < relative_error(logits[jnp.bfloat16][:2], logits[jnp.float32][:2]) < 0.05


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_logits_are_float32_and_finite_on_padding_too(logits, dtype):
  assert logits[dtype].dtype == jnp.float32 and logits[dtype].shape == (3, 2, 3, VOCABULARY.size)
  assert np.isfinite(logits[dtype]).all()


def test_relative_buckets_are_those_computed_by_hand():
  # Columns by distance, rows of one query: both directions have 16 buckets, the first 8 one position each, then 8
  # that grow by a factor of 16 ** (1 / 8) up to distance 128.
  both = relative_buckets(300, 300, bidirectional=True, buckets=32, distance=128)
  past = {
    0: 0,
    1: 1,
    7: 7,
    8: 8,
    11: 8,
    12: 9,
    15: 9,
    16: 10,
    22: 10,
    23: 11,
    31: 11,
    32: 12,
    64: 14,
    90: 14,
    91: 15,
    127: 15,
    128: 15,
    299: 15,
  }
  assert {distance: int(both[299, 299 - distance]) for distance in past} == past
  assert {distance: int(both[0, distance]) for distance in past} == {
    distance: bucket + 16 * (distance > 0) for distance, bucket in past.items()
  }
  # Causal: 16 buckets of one position, then 16 that grow by 8 ** (1 / 16); the future is bucket 0.
  causal = relative_buckets(300, 300, bidirectional=False, buckets=32, distance=128)
  past = {0: 0, 5: 5, 15: 15, 16: 16, 18: 16, 19: 17, 32: 21, 64: 26, 112: 30, 113: 31, 127: 31, 299: 31}
  assert {distance: int(causal[299, 299 - distance]) for distance in past} == past
  assert (causal[np.triu_indices(300)] == 0).all()


def test_the_default_model_has_the_papers_number_of_parameters():
  tokens = jnp.zeros((1, 4), jnp.int32)
  shapes = jax.eval_shape(T5(T5Config(), 1026).init, jax.random.key(0), tokens, tokens, tokens[:, None])
  assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 4_590_976


def test_dropout_acts_in_training_alone(params, logits):
  model = T5(dataclasses.replace(CONFIG, dropout=0.3), VOCABULARY.size)
  tokens, targets = tokens_of(ITEMS_BxC), tokens_of(TARGETS_BxS[..., None])
  segments = jnp.repeat(jnp.asarray(SEGMENTS_BxC), 3, axis=1)
  apply = jax.jit(
    lambda key: model.apply({'params': params}, tokens, segments, targets, deterministic=False, rngs={'dropout': key})
  )
  plain = logits[jnp.float32][:2]
  one, again, other = (np.asarray(apply(jax.random.key(seed))) for seed in (0, 0, 1))
  np.testing.assert_array_equal(one, again)
  assert relative_error(one, other) > 0.01 and relative_error(one, plain) > 0.01


def test_the_gradients_of_a_row_of_the_embedding_are_added_up_in_float32(params):
  """In bfloat16 a sum of ones ends at 256."""
  tokens = jnp.full((1, 5000), 3)
  embed = lambda embedding: (
    T5(CONFIG, VOCABULARY.size, dtype=jnp.bfloat16)
    .apply({'params': {**params, 'embedding': embedding}}, tokens, None, method='embed_history')
    .astype(jnp.float32)
    .sum()
  )
  np.testing.assert_array_equal(jax.grad(embed)(params['embedding'])[3], 5000)
