"""A run that is validated and tested on some of its users."""

import json

import numpy as np
import pytest

from letter_jax.evaluation import ranks
from letter_jax.pipeline import run as pipeline
from letter_jax.reporting.results_table import final_results
from letter_jax.system.errors import InputError
from letter_jax.workdir import Workdir
from tests.small_data import config_with, run_settings

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A run that tests 50 of its 120 users, and its configuration."""
  config = config_with(run_settings(evaluation__users=50, fusion__partners=('sasrec', 'bought_together')))
  workdir = tmp_path_factory.mktemp('run') / 'workdir'
  pipeline.run(config, workdir)
  return config, Workdir(workdir)


def test_every_model_is_tested_on_the_same_users(run):
  _, workdir = run
  metrics, of_users = workdir.read_metrics(), workdir.read_ranks()
  assert metrics['users'] == 50
  assert {'sasrec', 'popularity', 'generator', 'fused'} <= of_users.keys()
  for name, ranks_3xU in of_users.items():
    assert ranks_3xU.shape == (3, 50), name
  assert ranks.metrics_of(of_users['sasrec']) == pytest.approx(metrics['baselines']['sasrec']['test'], abs=1e-6)
  lines = list(workdir.read_predictions())
  interactions = workdir.read_interactions(run[0].data).whole()
  places = [interactions.users.index(line['user']) for line in lines]
  np.testing.assert_array_equal(places, np.linspace(0, 119, 50).astype(int))
  assert [line['target'] for line in lines] == interactions.items[interactions.offsets[1:][places] - 1].tolist()


def test_the_report_and_the_table_say_how_many(run):
  config, workdir = run
  assert '50 of 120 users, full ranking' in final_results(config, workdir.root)
  page = workdir.report.read_text()
  assert 'each of 50 of 120 users was hidden' in page and 'Test, 50 of 120 users' in page


def test_sasrec_is_validated_on_as_many(run, small_run):
  """And not on all: its figures then differ from those of the run with all users."""
  lines = (run[1].collaborative / 'metrics.jsonl').read_text().splitlines()
  of_all = (small_run / 'collaborative/metrics.jsonl').read_text().splitlines()
  first, first_of_all = (
    next(found for found in map(json.loads, of_run) if found['kind'] == 'validation') for of_run in (lines, of_all)
  )
  assert first['step'] == first_of_all['step'] and first['ndcg@10'] != first_of_all['ndcg@10']
  assert round(first['recall@10'] * 50, 3) == int(round(first['recall@10'] * 50, 3))


def test_a_changed_number_is_named(run):
  config = config_with(run_settings(evaluation__users=40, fusion__partners=('sasrec', 'bought_together')))
  with pytest.raises(InputError, match=r'config.evaluation.users \(50 then, 40 now\)'):
    pipeline.run(config, run[1].root)
