"""A run whose generator has partners: evaluated in both protocols, recommended with, and on the report."""

import importlib.util
import json
import shutil

import numpy as np
import pytest

import letter_jax
from letter_jax.cli import commands
from letter_jax.evaluation import ranks
from letter_jax.pipeline import run as pipeline
from letter_jax.system.errors import InputError
from letter_jax.workdir import Workdir
from tests.small_data import config_with, run_settings

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def fused(small_run, tmp_path_factory):
  """The small run, evaluated again with both partners."""
  workdir = tmp_path_factory.mktemp('fusion') / 'workdir'
  shutil.copytree(small_run, workdir)
  settings = run_settings(fusion__partners=('sasrec', 'bought_together'), fusion__candidates=25)
  pipeline.run(config_with(settings), workdir, overwrite=True)
  return workdir


def test_both_protocols_of_every_model_are_there(fused, small_run):
  metrics = json.loads((fused / 'evaluation/metrics.json').read_text())
  models = {ranks.GENERATOR: metrics, ranks.FUSED: metrics['fused'], **metrics['baselines']}
  assert set(models) == {'generator', 'fused', 'sasrec', *ranks.SIMPLE_RULES}
  of_users = Workdir(fused).read_ranks()
  for name, found in models.items():
    for key, of_protocol in ((name, found), (ranks.history_out(name), found['history_out'])):
      assert ranks.metrics_of(of_users[key]) == pytest.approx(of_protocol['test'], abs=1e-6)
  assert found['validation'].keys() == found['test'].keys()
  *chosen, in_ndcg, out_ndcg = max(models['fused']['ndcg@10_by_weights'], key=lambda row: row[2] + row[3])
  assert models['fused']['weights'] == chosen
  assert in_ndcg == pytest.approx(models['fused']['history_in']['validation']['ndcg@10'])
  # The generator alone is what it was.
  assert metrics['test'] == json.loads((small_run / 'evaluation/metrics.json').read_text())['test']
  for found in (metrics['short_histories'], metrics['fused']['short_histories']):
    assert list(found) == ['users', '0', '1', '2', '3', 'whole'] and found['users'] == 120
  assert metrics['fused']['short_histories']['whole']['ndcg@10'] == pytest.approx(metrics['fused']['test']['ndcg@10'])
  assert metrics['fused']['short_histories']['0'] == metrics['short_histories']['0']
  page = (fused / 'report.html').read_text()
  assert 'LETTER-TIGER + SASRec + bought together: NDCG@10' in page and 'popularity of first purchases' in page
  assert 'LETTER-TIGER + SASRec' in page and 'history in the ranking' in page
  assert page.count('LETTER-TIGER + SASRec + bought together recommends') == page.count('>SASRec recommends') == 10
  assert 'LETTER-TIGER + SASRec' not in (small_run / 'report.html').read_text()


def test_the_recommender_is_what_was_evaluated(fused, small_run):
  predictions = list(Workdir(fused).read_predictions())
  histories, targets = [user['history'] for user in predictions], np.array([user['target'] for user in predictions])
  metrics = json.loads((fused / 'evaluation/metrics.json').read_text())['fused']
  recommender = letter_jax.Recommender.from_workdir(fused)
  found = recommender.recommend(histories, k=20, exclude_history=False)
  lists = found.items_UxK
  assert lists.tolist() == [user['fused_items'] for user in predictions]
  np.testing.assert_allclose(found.scores_UxK, [user['fused_scores'] for user in predictions], atol=1e-5)
  assert np.mean((lists[:, :10] == targets[:, None]).any(axis=1)) == pytest.approx(metrics['test']['recall@10'])
  alone = letter_jax.Recommender.from_workdir(fused, fusion=False).recommend(histories, k=20)
  plain = letter_jax.Recommender.from_workdir(small_run).recommend(histories, k=20)
  np.testing.assert_array_equal(alone.items_UxK, plain.items_UxK)
  assert (recommender.recommend(histories, k=20).items_UxK != plain.items_UxK).any()


def test_a_partner_that_is_not_trained_is_refused():
  rows = dict(collaborative__baseline=False, collaborative__path='rows.npy')
  with pytest.raises(InputError, match="has 'sasrec', but config.collaborative.baseline=False trains no SASRec"):
    config_with(run_settings(fusion__partners=('sasrec',), **rows))
  assert config_with(run_settings(fusion__partners=('bought_together',), **rows)).fusion.partners
  with pytest.raises(InputError, match='expected each model once'):
    config_with(run_settings(fusion__partners=('sasrec', 'sasrec')))


def test_the_exported_folder_has_both_models(fused):
  commands.run('export', fused, commands.Options(platforms=('cpu', 'tpu'), beam=10))
  spec = importlib.util.spec_from_file_location('exported_folder', fused / 'export/recommend.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  histories = [[1, 2, 3], [30], [59, 4], []]
  items, scores = module.Recommender()(histories, k=10)[:2]
  found = letter_jax.Recommender.from_workdir(fused, beam=10).recommend(histories, k=10)
  np.testing.assert_array_equal(items, found.items_UxK)
  np.testing.assert_allclose(scores, found.scores_UxK, atol=1e-5)
  assert (fused / 'export/search_tpu.stablehlo').is_file()
