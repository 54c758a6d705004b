import subprocess
import sys
import warnings

import numpy as np
import pytest

from letter_jax.configuration import SyntheticConfig, TextEmbeddingsConfig
from letter_jax.data.synthetic import synthesize
from letter_jax.system.errors import InputError
from letter_jax.text_embeddings.tf_idf import TextProjection, embed_texts


def item(title='', brand='', categories='', description=''):
  return {'title': title, 'brand': brand, 'categories': categories, 'description': description}


def rows_of(texts, config, seed):
  return embed_texts(texts, config, seed)[0]


@pytest.fixture(scope='module')
def store():
  return synthesize(SyntheticConfig(num_users=10, num_items=600), seed=3)


def test_neighbours_are_items_of_the_same_kind(store):
  rows_NxD = rows_of(store.texts, TextEmbeddingsConfig(dim=64), seed=0)
  assert rows_NxD.shape == (600, 64) and rows_NxD.dtype == np.float32
  np.testing.assert_allclose(np.linalg.norm(rows_NxD, axis=1), 1, atol=1e-5)
  similarity_NxN = rows_NxD @ rows_NxD.T
  np.fill_diagonal(similarity_NxN, -1)
  nearest_N = similarity_NxN.argmax(axis=1)
  category_N = np.array([text['categories'].rpartition(' > ')[0] for text in store.texts])
  assert (category_N[nearest_N] == category_N).mean() > 0.95


def test_the_same_seed_gives_the_same_rows(store):
  first, again = (rows_of(store.texts, TextEmbeddingsConfig(dim=32), seed=5) for _ in range(2))
  np.testing.assert_array_equal(first, again)


def test_every_field_counts():
  fields = ('title', 'brand', 'categories', 'description')
  for field in fields:
    rows_NxD = rows_of(
      [item(**{field: 'copper kettle'}), item(**{field: 'copper kettle'}), item(**{field: 'garden hose'})],
      TextEmbeddingsConfig(),
      seed=0,
    )
    np.testing.assert_allclose(rows_NxD @ rows_NxD[0], [1, 1, 0], atol=1e-5)


def test_title_weighs_more_than_description():
  rows_NxD = rows_of([item('kettle', description='hose'), item('kettle'), item('hose')], TextEmbeddingsConfig(), seed=0)
  assert rows_NxD[0] @ rows_NxD[1] > rows_NxD[0] @ rows_NxD[2] + 0.1


def test_items_without_text_get_rows_of_zeros_and_small_catalogues_fewer_dimensions():
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    rows_NxD = rows_of(
      [item('red apple'), item(), item('blue apple'), item('the'), item('pear tree')],
      TextEmbeddingsConfig(dim=384),
      seed=0,
    )
    same_NxD = rows_of([item('red apple')] * 12, TextEmbeddingsConfig(dim=384), seed=0)
  assert rows_NxD.shape == (5, 5) and np.isfinite(rows_NxD).all()
  np.testing.assert_allclose(np.linalg.norm(rows_NxD, axis=1), [1, 0, 1, 0, 1], atol=1e-5)
  assert 0.1 < rows_NxD[0] @ rows_NxD[2] < 0.9 and abs(rows_NxD[0] @ rows_NxD[4]) < 1e-5
  assert same_NxD.shape == (12, 2)
  np.testing.assert_allclose(same_NxD @ same_NxD.T, 1, atol=1e-5)


@pytest.mark.parametrize('max_features, words', [(2, 2), (3, 3), (50, 4)])
def test_vocabulary_is_limited(max_features, words):
  texts = [item(title) for title in ('red apple', 'red pear', 'apple pear', 'plum red', 'plum', 'apple')]
  assert rows_of(texts, TextEmbeddingsConfig(max_features=max_features), seed=0).shape == (6, words)


@pytest.mark.parametrize('texts', [None, (), (item(), item()), (item('the'), item('a I'))])
def test_a_catalogue_without_words_is_refused(texts):
  with pytest.raises(InputError, match='config.text_embeddings.path'):
    rows_of(texts, TextEmbeddingsConfig(), seed=0)


def test_importing_the_module_does_not_import_scikit_learn():
  code = 'import sys, letter_jax.text_embeddings.tf_idf; sys.exit("sklearn" in sys.modules)'
  assert subprocess.run([sys.executable, '-c', code]).returncode == 0


def test_the_projection_embeds_items_in_the_space_of_the_fitted_catalogue(store, tmp_path):
  config = TextEmbeddingsConfig(dim=64)
  rows_NxD, projection = embed_texts(store.texts, config, seed=0)
  projection.write(tmp_path / 'tf_idf.npz')
  again = TextProjection.read(tmp_path / 'tf_idf.npz')
  later_NxD = again.rows(store.texts)
  assert later_NxD.dtype == np.float32 and (np.sum(later_NxD * rows_NxD, axis=1) > 0.995).all()
  np.testing.assert_array_equal(again.rows([item('qwertyuiop'), item()]), np.zeros((2, 64)))
  (tmp_path / 'tf_idf.npz').write_bytes(b'PK')
  with pytest.raises(InputError, match='tf_idf.npz cannot be read'):
    TextProjection.read(tmp_path / 'tf_idf.npz')
