"""A run whose generator has features of the items: evaluated, recommended with, exported, and with cold items."""

import importlib.util
import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import letter_jax
from letter_jax.cli import commands
from letter_jax.generators.features import ItemFeatures
from letter_jax.pipeline import run as pipeline
from letter_jax.system.errors import InputError
from letter_jax.workdir import Workdir
from tests.small_data import config_with, run_settings

pytestmark = pytest.mark.slow


def settings(prices) -> dict:
  return run_settings(
    generator__model__encoder='items',
    generator__training__batch_size=16,
    generator__training__epochs=1,
    generator__features=('text', 'collaborative', str(prices)),
  )


@pytest.fixture(scope='module')
def featured(small_run, tmp_path_factory):
  """The small run with a generator that has three sources of features; the file of one is gone afterwards."""
  folder = tmp_path_factory.mktemp('features')
  shutil.copytree(small_run, folder / 'workdir')
  np.save(folder / 'prices.npy', np.arange(60, dtype=np.float32)[:, None])
  pipeline.run(config_with(settings(folder / 'prices.npy')), folder / 'workdir', overwrite=True)
  (folder / 'prices.npy').unlink()
  return folder / 'workdir'


def test_the_recommender_is_what_was_evaluated(featured):
  features = ItemFeatures.read(featured / 'generator')
  assert [rows.shape[1] for rows in features.rows.values()] == [16, 8, 1]
  predictions = list(Workdir(featured).read_predictions())
  histories = [user['history'] for user in predictions]
  found = letter_jax.Recommender.from_workdir(featured).recommend(histories, k=20, exclude_history=False)
  assert found.items_UxK.tolist() == [user['items'] for user in predictions]


def test_cold_items_have_features(featured):
  text = Workdir(featured).read_texts()[7]
  cold = [{**text, 'id': 'twin'}, {'id': 'other', 'title': 'Chess'}]
  recommender = letter_jax.Recommender.from_workdir(featured, beam=62, cold_items=cold)
  twin, other = len(recommender.catalogue) - 2, len(recommender.catalogue) - 1
  found = recommender.recommend([[1, 2], [1, twin], [1, other]], k=62, exclude_history=False)
  assert np.isfinite(found.scores_UxK).all()
  assert all({twin, other} <= set(items) for items in found.items_UxK.tolist())
  by_item = np.take_along_axis(found.scores_UxK, np.argsort(found.items_UxK, axis=1), axis=1)
  assert np.abs(np.diff(by_item, axis=0)).max(axis=1).min() > 1e-4  # what is in the history counts


def test_the_exported_folder_has_the_features(featured):
  commands.run('export', featured, commands.Options(platforms=('cpu',), beam=10))
  spec = importlib.util.spec_from_file_location('exported_folder', featured / 'export/recommend.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  histories = [[1, 2, 3], [30], [59, 4]]
  items, scores = module.Recommender()(histories, k=10)[:2]
  found = letter_jax.Recommender.from_workdir(featured, beam=10).recommend(histories, k=10)
  np.testing.assert_array_equal(items, found.items_UxK)
  np.testing.assert_allclose(scores, found.scores_UxK, atol=1e-5)
  tensors = load_file(featured / 'export/hugging_face/features.safetensors')
  assert tensors['item_features'].shape == (60, 25) and tensors['feature_kernel'].shape == (25, 16)


def test_other_features_are_another_generator(featured, tmp_path):
  shutil.copytree(featured, tmp_path / 'workdir')
  np.save(tmp_path / 'prices.npy', np.ones((60, 1), np.float32))
  with pytest.raises(InputError, match='features'):
    pipeline.run(config_with(settings(tmp_path / 'prices.npy')), tmp_path / 'workdir')
  assert json.loads((tmp_path / 'workdir/evaluation/metrics.json').read_text())  # nothing was lost


@pytest.mark.parametrize(
  'rows, message', [(59, 'have 59 rows; expected one for each of the 60 items'), (None, 'nowhere.npy')]
)
def test_files_that_do_not_fit(small_run, tmp_path, rows, message):
  shutil.copytree(small_run, tmp_path / 'workdir')
  path = tmp_path / ('nowhere.npy' if rows is None else 'prices.npy')
  if rows:
    np.save(path, np.ones((rows, 1), np.float32))
  with pytest.raises(InputError, match=message):
    pipeline.run(config_with(settings(path)), tmp_path / 'workdir', overwrite=True)


def test_an_attempt_that_fails_before_it_trains_leaves_its_record_alone(small_run, tmp_path):
  """The next one may then have other settings."""
  workdir = shutil.copytree(small_run, tmp_path / 'workdir')
  shutil.rmtree(workdir / 'generator')
  save_file({'shared.weight': np.zeros((2, 2), np.float32)}, tmp_path / 'weights.safetensors')
  np.save(tmp_path / 'prices.npy', np.ones((60, 1), np.float32))
  config = config_with(
    settings(tmp_path / 'prices.npy') | {'generator.initial_weights': str(tmp_path / 'weights.safetensors')}
  )
  with pytest.raises(InputError, match='weights.safetensors'):
    pipeline.run(config, workdir, 'generator')
  assert [path.name for path in (workdir / 'generator').iterdir()] == ['stage.json']
