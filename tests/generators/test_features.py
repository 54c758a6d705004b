"""Features of the items in the encoder: their scale, later items, and what of them is trained and searched with."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from letter_jax.data import splits
from letter_jax.generators.features import FILE, ItemFeatures
from letter_jax.generators.tiger.generator import Tiger
from letter_jax.system.errors import InputError
from tests.generators import building
from tests.small_data import cyclic_interactions, distinct_codes, tiny_generator_config

ITEMS = 16
RANDOM = np.random.default_rng(0)
TEXT_NxT = (RANDOM.normal(size=(ITEMS, 6)) * 3 + 5).astype(np.float32)
PRICES_Nx1 = RANDOM.normal(size=(ITEMS, 1)).astype(np.float32)


def test_each_source_has_mean_zero_and_variance_one():
  features = ItemFeatures.of({'text': TEXT_NxT, 'prices.npy': 1000 * PRICES_Nx1})
  table_NxF = features.table_NxF
  assert table_NxF.shape == (ITEMS, 7) and table_NxF.dtype == np.float32
  np.testing.assert_allclose(table_NxF.mean(axis=0), 0, atol=1e-5)
  for columns in (table_NxF[:, :6], table_NxF[:, 6:]):
    assert np.square(columns).mean() == pytest.approx(1, rel=1e-5)
  of_smaller = ItemFeatures.of({'prices.npy': PRICES_Nx1}).table_NxF
  np.testing.assert_allclose(table_NxF[:, 6:], of_smaller, rtol=1e-5, atol=1e-6)


def test_what_was_written_is_read(tmp_path):
  features = ItemFeatures.of({'text': TEXT_NxT, 'prices.npy': PRICES_Nx1})
  features.write(tmp_path)
  read = ItemFeatures.read(tmp_path)
  np.testing.assert_array_equal(read.table_NxF, features.table_NxF)
  later_MxT = TEXT_NxT[:3] + 1
  np.testing.assert_array_equal(
    read.extended(TEXT_NxT, later_MxT).table_NxF, features.extended(TEXT_NxT, later_MxT).table_NxF
  )
  (tmp_path / FILE).write_bytes(b'PK')
  with pytest.raises(InputError, match='expected the features of the items'):
    ItemFeatures.read(tmp_path)


def test_later_items_have_their_text_and_what_it_predicts():
  random = np.random.default_rng(1)
  text_NxT, kernel = random.normal(size=(400, 6)).astype(np.float32), random.normal(size=(6, 3))
  linear_NxW = (text_NxT @ kernel + 2).astype(np.float32)
  noise_Nx1 = random.normal(size=(400, 1)).astype(np.float32)
  known = ItemFeatures.of({'text': text_NxT[:300], 'linear.npy': linear_NxW[:300], 'noise.npy': noise_Nx1[:300]})
  extended = known.extended(text_NxT[:300], text_NxT[300:])
  np.testing.assert_array_equal(extended.table_NxF[:300], known.table_NxF)
  np.testing.assert_allclose(extended.rows['text'][300:], known.scales['text'].apply(text_NxT[300:]))
  np.testing.assert_allclose(
    extended.rows['linear.npy'][300:], known.scales['linear.npy'].apply(linear_NxW[300:]), atol=0.02
  )
  # Where the text says nothing, the stand-in is near the mean of the catalogue, which is zero.
  assert np.abs(extended.rows['noise.npy'][300:]).max() < 0.5


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A generator with two sources, its trained parameters and its config."""
  config = tiny_generator_config(
    {
      'generator.model.encoder': 'items',
      'generator.features': ('text', 'prices.npy'),
      'generator.training.epochs': 1,
      'data.history_length': 3,
    }
  )
  folder = tmp_path_factory.mktemp('features')
  ItemFeatures.of({'text': TEXT_NxT, 'prices.npy': PRICES_Nx1}).write(folder)
  generator = building.to_train(config, building.placed(distinct_codes(ITEMS, 2, 8), 8), folder)
  params, _ = building.train(config, generator, cyclic_interactions(160, ITEMS, 8), folder)
  return config, generator, params


@pytest.mark.slow
def test_the_kernel_is_trained_and_the_features_are_not(trained):
  config, generator, params = trained
  assert 'item_features' not in params
  initial = jax.jit(building.program(config, generator, cyclic_interactions(160, ITEMS, 8)).init)(None).params
  assert initial.keys() == params.keys()
  assert np.abs(np.asarray(params['feature_kernel']) - initial['feature_kernel']).max(axis=1).min() > 1e-3
  np.testing.assert_array_equal(generator.whole_params(params)['item_features'], generator.features.table_NxF)


@pytest.mark.slow
def test_the_search_reads_the_features(trained):
  config, generator, params = trained
  examples = splits.test_examples(cyclic_interactions(160, ITEMS, 8), 3)

  def scores(generator):
    return building.evaluator(config, generator, 10).evaluate(generator.whole_params(params), examples, '').scores_UxK

  other = dataclasses.replace(generator, features=ItemFeatures.of({'text': TEXT_NxT[::-1], 'prices.npy': PRICES_Nx1}))
  assert np.abs(scores(generator) - scores(other)).max() > 1e-3
  # Rows of zeros are the same as no features.
  none = dataclasses.replace(generator.features, rows={'text': np.zeros((ITEMS, 7), np.float32)})
  without = Tiger(dataclasses.replace(config.generator, features=()), generator.ids)
  np.testing.assert_allclose(scores(dataclasses.replace(generator, features=none)), scores(without), rtol=1e-5)


@pytest.mark.slow
def test_a_prediction_depends_on_the_features_of_its_own_past_alone(trained):
  _, generator, params = trained
  items_1xC = jnp.array([[3, 7, 1, 5, 2, 9]])
  segments_1xC = jnp.array([[1, 1, 1, 1, 2, 2]])
  tokens = generator.vocabulary.item_tokens(items_1xC, generator.ids.codes_NxL).reshape(1, 6, 2)

  def states(table_NxF):
    return generator.model.apply(
      {'params': {**params, 'item_features': table_NxF}}, tokens, segments_1xC, items_BxC=items_1xC, method='encode'
    )[0].sum(axis=-1)

  reached = np.abs(jax.jit(jax.jacrev(states))(jnp.asarray(generator.features.table_NxF))).max(axis=-1) > 0  # [C, N]
  depends = reached[:, np.array(items_1xC[0])]
  expected = np.zeros((6, 6), bool)
  expected[:4, :4], expected[4:, 4:] = np.tril(np.ones((4, 4), bool)), np.tril(np.ones((2, 2), bool))
  np.testing.assert_array_equal(depends, expected)
  assert reached.sum() == expected.sum()


@pytest.mark.parametrize(
  'settings, message',
  [
    ({'generator.features': ('text',)}, "encoder is 'tokens'; expected 'items'"),
    ({'generator.features': ('text', 'text'), 'generator.model.encoder': 'items'}, 'expected each source once'),
    ({'generator.features': ('text',), 'generator.architecture': 'llama'}, "expected 't5', or no features"),
  ],
)
def test_settings_that_do_not_fit(settings, message):
  with pytest.raises(InputError, match=message):
    tiny_generator_config(settings)
