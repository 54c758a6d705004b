"""A run whose main figures are without the items of the user's history."""

import json
import shutil

import pytest

import letter_jax
from letter_jax.evaluation import ranks
from letter_jax.pipeline import run as pipeline
from letter_jax.reporting.results_table import final_results
from letter_jax.workdir import Workdir
from tests.small_data import config_with, run_settings

pytestmark = pytest.mark.slow


def test_the_other_main_protocol(small_run, tmp_path, capsys):
  workdir = shutil.copytree(small_run, tmp_path / 'workdir')
  config = config_with(run_settings(evaluation__exclude_history=True))
  pipeline.run(config, workdir, overwrite=True)
  said = capsys.readouterr().out
  before, after = (Workdir(folder).read_metrics() for folder in (small_run, workdir))
  assert (before['protocol'], after['protocol']) == ('history_in', 'history_out')
  # The setting changes which figures are on top, and no figure.
  for found in (before, after):
    models = [found, *found['baselines'].values()]
    assert [model['test'] for model in models] == [model[found['protocol']]['test'] for model in models]
    assert [model['validation'] for model in models] == [model[found['protocol']]['validation'] for model in models]
  for key in ('history_in', 'history_out', 'recommend', 'repeats', 'short_histories'):
    assert before[key] == after[key]
  assert before['test'] != after['test']
  choice = after['recommend']
  assert choice['exclude_history'] == (choice['ndcg@10']['history_out'] >= choice['ndcg@10']['history_in'])
  leave = 'leave out' if choice['exclude_history'] else 'keep'
  assert f'evaluate: recommend will {leave} the items of the history by default: NDCG@10 on validation is' in said
  of_users = Workdir(workdir).read_ranks()
  assert ranks.metrics_of(of_users['generator_history_out']) == pytest.approx(after['test'], abs=1e-6)
  # What is evaluated is what is served.
  predictions = list(Workdir(workdir).read_predictions())
  recommender = letter_jax.Recommender.from_workdir(workdir)
  assert recommender.exclude_history == choice['exclude_history']
  found = recommender.recommend([user['history'] for user in predictions if len(user['history']) < 5], 20, True)
  assert found.items_UxK.tolist() == [user['items'] for user in predictions if len(user['history']) < 5]
  tables = final_results(config, workdir)
  assert tables.index('test, history out') < tables.index('test, history in')
  share = after['repeats']['test']
  about = f'{share:.1%} of the test items cannot be found, as the user had them before' if share else 'no test item is'
  assert about in tables
  page = (workdir / 'report.html').read_text()
  assert f'{after["repeats"]["test"]:.1%} of the chosen items are ones that the user had' in page
  other = (small_run / 'report.html').read_text()
  words = 'items of the history are in the ranking', 'history are out of the ranking'
  assert page.index(words[1]) < page.index(words[0]) and other.index(words[0]) < other.index(words[1])


def test_runs_are_compared_in_the_main_protocol_of_the_first(small_run, tmp_path):
  from letter_jax.reporting.compare import compare

  workdir = shutil.copytree(small_run, tmp_path / 'workdir')
  path = workdir / 'evaluation/metrics.json'
  metrics = json.loads(path.read_text())
  path.write_text(json.dumps({**metrics, **metrics['history_out'], 'protocol': 'history_out'}))
  for first, second, protocol in ((workdir, small_run, 'history_out'), (small_run, workdir, 'history_in')):
    compare([first, second], tmp_path)
    compared = json.loads((tmp_path / 'compare.json').read_text())
    assert compared['protocol'] == protocol
    for run in compared['runs']:
      assert run['test']['ndcg@10']['value'] == metrics[protocol]['test']['ndcg@10']
    assert compared['runs'][1]['difference_to_first']['ndcg@10']['value'] == 0
