import numpy as np
import pytest

from letter_jax.data import dataset

TEXTS = tuple(
  {'title': title, 'brand': '', 'categories': '', 'description': ''} for title in ('Bürste', '', 'Öl', '日本')
)


def small(texts=TEXTS):
  interactions = dataset.Interactions(np.array([0, 1, 2, 1, 1, 0, 1], np.int32), np.array([0, 3, 7]), 4, ('ann', 'bé'))
  return dataset.Dataset('small', interactions, texts)


def test_summary_counts():
  summary = small().summary()
  assert (summary['users'], summary['items'], summary['interactions'], summary['training_examples']) == (2, 4, 7, 1)
  assert summary['sparsity'] == pytest.approx(1 - 7 / 8)
  assert summary['items_without_interactions'] == 1 and summary['items_without_text'] == 1
  assert summary['history_length_quantiles']['1'] == 4 and summary['popularity_quantiles']['1'] == 4
  assert small(None).summary()['items_without_text'] is None


def test_quantiles_of_counts_are_those_of_the_values():
  random = np.random.default_rng(0)
  for size in (1, 2, 3, 10, 101, 5000):
    values = random.geometric(0.1, size)
    summary = dataset.summarize('name', dataset.histogram(values), {1: 1}, None, None)
    for quantile, value in summary['history_length_quantiles'].items():
      assert value == np.quantile(values, float(quantile))
