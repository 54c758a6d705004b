"""A subclass of T5 with a feature of the items, trained and searched by the project's own code."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from letter_jax.data import splits
from letter_jax.generators.tiger.generator import Tiger
from letter_jax.generators.tiger.t5 import T5
from tests.generators import building
from tests.small_data import cyclic_interactions, distinct_codes, tiny_generator_config

pytestmark = pytest.mark.slow

CATEGORIES = tuple(item // 4 for item in range(16))


class CategoryT5(T5):
  categories: tuple[int, ...] = ()

  def setup(self):
    super().setup()
    self.category_embedding = self.param('category_embedding', nn.initializers.zeros, (4, self.config.d_model))

  def embed_history(self, tokens_BxR, items_BxC):
    x_BxRxD = super().embed_history(tokens_BxR, items_BxC)
    added_BxCxD = self.category_embedding[jnp.asarray(self.categories)[jnp.maximum(items_BxC, 0)]]
    return x_BxRxD + jnp.repeat(added_BxCxD, x_BxRxD.shape[1] // items_BxC.shape[1], axis=1)


@dataclasses.dataclass(frozen=True)
class CategoryTiger(Tiger):
  @property
  def model(self):
    return CategoryT5(self.config.model, self.vocabulary.size, self.dtype, categories=CATEGORIES)


def items_and_scores(config, generator, params):
  evaluation = building.evaluator(config, generator, 10).evaluate(
    params, splits.test_examples(cyclic_interactions(160, 16, 8), 2), ''
  )
  return evaluation.items_UxK, evaluation.scores_UxK


@pytest.mark.parametrize('softmax', ['vocabulary', 'catalogue'])
def test_a_feature_of_the_items_is_trained_and_searched_with(softmax, tmp_path):
  config = tiny_generator_config({'generator.softmax': softmax, 'generator.training.epochs': 1})
  ids = building.placed(distinct_codes(16, 2, 8), 8)
  generator = CategoryTiger(config.generator, ids)
  params, _ = building.train(config, generator, cyclic_interactions(160, 16, 8), tmp_path)
  table = np.asarray(params['category_embedding'])
  assert np.abs(table).max(axis=1).min() > 1e-3  # from zeros, every category

  items, scores = items_and_scores(config, generator, params)
  # A table of zeros is the same as no table: the search reads it, and the rest of the model is that of a T5.
  without_table = {**params, 'category_embedding': jnp.zeros_like(table)}
  zero_items, zero_scores = items_and_scores(config, generator, without_table)
  plain = {name: leaf for name, leaf in params.items() if name != 'category_embedding'}
  plain_items, plain_scores = items_and_scores(config, Tiger(config.generator, ids), plain)
  np.testing.assert_array_equal(zero_items, plain_items)
  np.testing.assert_allclose(zero_scores, plain_scores, rtol=1e-6)
  assert np.abs(scores - zero_scores).max() > 1e-3


def test_parameters_of_the_t5_do_not_depend_on_the_feature():
  config = tiny_generator_config()
  ids = building.placed(distinct_codes(16, 2, 8), 8)
  first = {
    kind: jax.jit(building.program(config, kind(config.generator, ids), cyclic_interactions(160, 16, 8)).init)(
      None
    ).params
    for kind in (Tiger, CategoryTiger)
  }
  assert set(first[CategoryTiger]) - set(first[Tiger]) == {'category_embedding'}
  jax.tree.map(np.testing.assert_array_equal, first[Tiger], {name: first[CategoryTiger][name] for name in first[Tiger]})
