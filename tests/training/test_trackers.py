"""Experiment trackers, by stand-ins for their libraries that note what they are given."""

import json
import os
import sys
import types

import pytest

from letter_jax.pipeline import run as pipeline
from letter_jax.system.errors import InputError, Preempted
from letter_jax.training import trackers
from tests.small_data import config_with, run_settings
from tests.stages import run_stages


@pytest.fixture
def mlflow(monkeypatch):
  """A module `mlflow` whose calls are noted in `calls`."""
  module = types.ModuleType('mlflow')
  module.calls = []
  noted = lambda name: lambda *given, synchronous=None, **named: module.calls.append((name, *given, *named.values()))
  for name in ('set_experiment', 'log_params', 'log_metrics', 'log_artifact', 'end_run'):
    setattr(module, name, noted(name))

  def start_run(run_id, run_name):
    module.calls.append(('start_run', run_id, run_name))
    return types.SimpleNamespace(info=types.SimpleNamespace(run_id=run_id or 'new'))

  module.start_run = start_run
  monkeypatch.setitem(sys.modules, 'mlflow', module)
  return module


@pytest.fixture
def wandb(monkeypatch):
  """A module `wandb` whose calls are noted in `calls`."""
  module, calls = types.ModuleType('wandb'), []

  class Run:
    id = 'an id'
    define_metric = staticmethod(lambda name, step_metric: calls.append(('define_metric', name, step_metric)))
    log = staticmethod(lambda values: calls.append(('log', values)))
    log_artifact = staticmethod(lambda artifact: calls.append(('log_artifact', artifact.files)))
    finish = staticmethod(lambda exit_code: calls.append(('finish', exit_code)))

  class Artifact:
    def __init__(self, name, type):
      self.files = []

    def add_file(self, path):
      self.files.append(os.path.basename(path))

  module.init, module.Artifact, module.calls = lambda **given: calls.append(('init', given)) or Run, Artifact, calls
  monkeypatch.setitem(sys.modules, 'wandb', module)
  return module


def test_mlflow_gets_settings_metrics_and_files(mlflow, tmp_path):
  settings = {f'key_{place}': 'x' * 600 for place in range(150)}
  with trackers.tracking('mlflow', tmp_path / 'some', settings):
    assert not mlflow.calls  # nothing is begun before there is anything to say
    trackers.log('sasrec', 3, {'validation/ndcg@10': 0.5})
    trackers.file(tmp_path / 'report.html')
  begin, params, others = mlflow.calls[:2], mlflow.calls[2:4], mlflow.calls[4:]
  assert begin == [('set_experiment', 'letter_jax'), ('start_run', None, 'some')]
  assert [len(some) for _, some in params] == [100, 50] and params[0][1]['key_0'] == 'x' * 500
  assert others == [
    ('log_metrics', {'sasrec/validation/ndcg_at_10': 0.5}, 3),
    ('log_artifact', str(tmp_path / 'report.html')),
    ('end_run', 'FINISHED'),
  ]
  trackers.log('sasrec', 4, {'loss': 1.0})  # outside of the context
  assert mlflow.calls[-1] == ('end_run', 'FINISHED')


def test_the_same_run_goes_on(mlflow, tmp_path):
  for _ in range(2):
    with trackers.tracking('mlflow', tmp_path, {'seed': 1}):
      trackers.log('sasrec', 3, {'loss': 0.5})
  assert [call for call in mlflow.calls if call[0] == 'start_run'] == [
    ('start_run', None, tmp_path.name),
    ('start_run', 'new', None),
  ]
  assert sum(call[0] == 'log_params' for call in mlflow.calls) == 1
  with trackers.tracking('mlflow', tmp_path, {}):
    trackers.file(tmp_path / 'report.html')  # of the stage report alone
  assert mlflow.calls[-2][0] == 'log_artifact'


def test_the_experiment_of_the_environment(mlflow, tmp_path, monkeypatch):
  monkeypatch.setenv('MLFLOW_EXPERIMENT_NAME', 'mine')
  with trackers.tracking('mlflow', tmp_path, {}):
    trackers.log('sasrec', 3, {'loss': 0.5})
  assert mlflow.calls[0][0] == 'start_run'


def test_wandb_counts_the_steps_of_each_training(wandb, tmp_path):
  with trackers.tracking('wandb', tmp_path / 'some', {'seed': 1}):
    trackers.log('sasrec', 3, {'train/loss': 0.5})
    trackers.log('sasrec', 4, {'train/loss': 0.25})
    trackers.log('generator', 1, {'train/loss': 2.0})
    trackers.file(tmp_path / 'report.html')
  (begin, given), *others = wandb.calls
  assert begin == 'init' and given['config'] == {'seed': 1} and given['name'] == 'some' and given['id'] is None
  assert others == [
    ('define_metric', 'sasrec/*', 'sasrec/step'),
    ('log', {'sasrec/step': 3, 'sasrec/train/loss': 0.5}),
    ('log', {'sasrec/step': 4, 'sasrec/train/loss': 0.25}),
    ('define_metric', 'generator/*', 'generator/step'),
    ('log', {'generator/step': 1, 'generator/train/loss': 2.0}),
    ('log_artifact', ['report.html']),
    ('finish', 0),
  ]
  assert json.loads((tmp_path / 'some/tracker.json').read_text()) == {'tracker': 'wandb', 'run': 'an id'}


def test_a_tracker_that_fails_is_named_once_and_ends_nothing(mlflow, tmp_path, capsys, monkeypatch):
  def fails(*_, **__):
    raise ConnectionError('no\nnetwork')

  monkeypatch.setattr(mlflow, 'log_metrics', fails)
  with trackers.tracking('mlflow', tmp_path, {}):
    for step in range(3):
      trackers.log('sasrec', step, {'loss': 0.5})
  assert mlflow.calls[-1] == ('end_run', 'FINISHED')  # else the next run would go on with this one
  assert capsys.readouterr().out == 'mlflow failed, and gets nothing more of this run: no network\n'


def test_a_run_that_cannot_begin_is_ended_too(mlflow, tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(mlflow, 'log_params', lambda params: [][0])
  with trackers.tracking('mlflow', tmp_path, {'seed': 1}):
    trackers.begin()
    trackers.log('sasrec', 1, {'loss': 0.5})
  assert [call[0] for call in mlflow.calls] == ['set_experiment', 'start_run', 'end_run']
  assert 'mlflow failed, and gets nothing more of this run: list index' in capsys.readouterr().out


@pytest.mark.parametrize(
  'error, status, code', [(InputError, 'FAILED', 1), (Preempted, 'KILLED', 1), (KeyboardInterrupt, 'KILLED', 1)]
)
def test_how_a_run_ended(mlflow, wandb, tmp_path, error, status, code):
  for tracker, module, last in (('mlflow', mlflow, ('end_run', status)), ('wandb', wandb, ('finish', code))):
    with pytest.raises(error), trackers.tracking(tracker, tmp_path / tracker, {}):
      trackers.begin()
      raise error('stopped')
    assert module.calls[-1] == last


def test_a_tracker_that_is_not_installed(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'wandb', None)
  with pytest.raises(InputError, match=r"config.tracker is 'wandb', which cannot be imported \(.*\); expected pip"):
    pipeline.run(config_with(run_settings(tracker='wandb')), tmp_path / 'run', 'dataset')


@pytest.mark.slow
def test_a_run_is_tracked_and_its_results_do_not_depend_on_it(mlflow, small_run, tmp_path):
  config = config_with(run_settings(tracker='mlflow'))
  run_stages(config, tmp_path, ('dataset', 'collaborative'))
  logged = [call[1] for call in mlflow.calls if call[0] == 'log_metrics']
  assert {name for values in logged for name in values} >= {'sasrec/train/loss', 'sasrec/validation/ndcg_at_10'}
  (params,) = [call[1] for call in mlflow.calls if call[0] == 'log_params'][:1]
  assert 'tracker' not in params and mlflow.calls[-1] == ('end_run', 'FINISHED')
  expected = (small_run / 'collaborative/embeddings.npy').read_bytes()
  assert (tmp_path / 'collaborative/embeddings.npy').read_bytes() == expected
