"""Two processes that run as one program: their results, and how they end."""

import json
import os
import pathlib
import signal

import numpy as np
import pytest

from letter_jax import sharding
from letter_jax.configuration import MeshConfig
from letter_jax.system.lock import Lock
from letter_jax.training.checkpoints import Checkpoints
from tests import forked, multi_process
from tests.small_data import run_settings, write_recipe
from tests.stages import copy_without

pytestmark = pytest.mark.slow

SETTINGS = run_settings(generator__training__checkpoint_every_steps=5)  # else as `small_run`


SLOW_AND_WRONG = """
import sys, time
from letter_jax import main, sharding
if '--process=1' in sys.argv:
  put, clock = sharding.put_batch, time.time
  def slow(*arguments):
    time.sleep(0.05)
    return put(*arguments)
  sharding.put_batch = slow
  time.time = lambda: clock() + 36_000
main.run()
"""


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
  """The folder of a finished run of two processes, one of them slow and with a wrong clock: its recipe and workdir."""
  folder = tmp_path_factory.mktemp('two')
  write_recipe(folder / 'recipe.py', SETTINGS)
  arguments = [f'--config={folder / "recipe.py"}', f'--workdir={folder / "workdir"}']
  started = multi_process.start(folder, arguments, program=multi_process.PATIENT + SLOW_AND_WRONG)
  assert multi_process.wait(started) == [0, 0], multi_process.output_of(folder, 0)
  return folder


def prepared(uninterrupted: pathlib.Path, folder: pathlib.Path) -> list[str]:
  """The arguments that train the generator in `folder`, where all stages before it are finished."""
  copy_without(uninterrupted / 'workdir', folder / 'workdir', 'generator', 'evaluation')
  return [f'--config={uninterrupted / "recipe.py"}', f'--workdir={folder / "workdir"}', '--stage=generator']


def best(workdir: pathlib.Path):
  """The best parameters and progress of the generator, read on one device."""
  checkpoints = Checkpoints(workdir / 'generator/checkpoints', read_only=True)
  params, progress = checkpoints.restore_best(sharding.Layout(sharding.make_mesh(MeshConfig())))
  checkpoints.close()
  return params, progress


def assert_same_generator(workdir: pathlib.Path, expected: pathlib.Path) -> None:
  (params, progress), (other, other_progress) = best(workdir), best(expected)
  assert progress == other_progress
  for ours, theirs in zip(*(sorted(_flat(tree).items()) for tree in (params, other)), strict=True):
    np.testing.assert_array_equal(ours[1], theirs[1])


def _flat(tree, prefix=''):
  return {
    name: leaf
    for key, value in tree.items()
    for name, leaf in (
      _flat(value, f'{prefix}{key}/') if isinstance(value, dict) else {f'{prefix}{key}': value}
    ).items()
  }


def test_two_processes_give_the_metrics_of_one(uninterrupted, small_run):
  two, one = (
    json.loads((workdir / 'evaluation/metrics.json').read_text()) for workdir in (uninterrupted / 'workdir', small_run)
  )
  assert two['test'] == pytest.approx(one['test'], abs=1e-6)
  assert two['baselines']['sasrec']['test'] == pytest.approx(one['baselines']['sasrec']['test'], abs=1e-6)
  assert np.array_equal(
    *(np.load(workdir / 'semantic_ids/semantic_ids.npy') for workdir in (uninterrupted / 'workdir', small_run))
  )
  # Only process 0 prints and writes.
  assert 'done in' in multi_process.output_of(uninterrupted, 0)
  assert 'done in' not in multi_process.output_of(uninterrupted, 1)
  lines = (uninterrupted / 'workdir/generator/metrics.jsonl').read_text().splitlines()
  steps = [json.loads(line)['step'] for line in lines if json.loads(line)['kind'] == 'train']
  assert steps == sorted(set(steps))


def test_terminated_in_a_training_whose_calls_are_epochs(uninterrupted, tmp_path):
  later = ('tokenizer', 'semantic_ids', 'generator', 'evaluation')
  copy_without(uninterrupted / 'workdir', tmp_path / 'workdir', *later)
  arguments = [f'--config={uninterrupted / "recipe.py"}', f'--workdir={tmp_path / "workdir"}', '--stage=tokenizer']
  started = multi_process.start(tmp_path, arguments)
  multi_process.until(lambda: 'tokenizer: running' in multi_process.output_of(tmp_path, 0), started)
  started[0].send_signal(signal.SIGTERM)
  assert multi_process.wait(started) == [143, 143], multi_process.output_of(tmp_path, 0)
  assert multi_process.wait(multi_process.start(tmp_path, arguments)) == [0, 0]
  assert (tmp_path / 'workdir/tokenizer/best_validation.json').read_bytes() == (
    uninterrupted / 'workdir/tokenizer/best_validation.json'
  ).read_bytes()


def test_sigterm_makes_all_save_and_a_process_that_is_killed_ends_the_others(uninterrupted, tmp_path):
  """And the run is resumed bit for bit after each."""
  arguments = prepared(uninterrupted, tmp_path)
  rarely = [*arguments, '--config.generator.training.checkpoint_every_steps=1000']
  # Slow, so that the training has not ended when the signal comes.
  started = multi_process.start(tmp_path, rarely, program=multi_process.PATIENT + SLOW_AND_WRONG)
  multi_process.until(lambda: 'generator train' in multi_process.output_of(tmp_path, 0), started)
  started[1].send_signal(signal.SIGTERM)
  assert multi_process.wait(started) == [143, 143]
  assert 'generator: terminated; saved at step' in multi_process.error_of(tmp_path, 0)

  latest = tmp_path / 'workdir/generator/checkpoints/latest'
  for killed in (0, 1):
    saved = max(int(path.name) for path in latest.glob('*[0-9]'))
    started = multi_process.start(tmp_path, arguments, program=SLOW_AND_WRONG)
    multi_process.until(lambda saved=saved: any(int(path.name) > saved for path in latest.glob('*[0-9]')), started)
    started[killed].kill()
    codes = multi_process.wait(started)
    assert codes[killed] == -signal.SIGKILL and codes[1 - killed] != 0
    assert 'generator: resumed at step' in multi_process.output_of(tmp_path, 0)
    assert not json.loads((tmp_path / 'workdir/generator/stage.json').read_text())['complete']
  assert multi_process.wait(multi_process.start(tmp_path, arguments)) == [0, 0]
  assert 'generator: resumed at step' in multi_process.output_of(tmp_path, 0)
  assert_same_generator(tmp_path / 'workdir', uninterrupted / 'workdir')


UNREADABLE = """
import sys, time
from letter_jax import main
from letter_jax.data import store
from letter_jax.system import processes
from letter_jax.system.errors import InputError
if '--process=1' in sys.argv:
  def unreadable(directory):
    raise InputError(f'{directory}: its disk does not answer')
  store.load_interactions = unreadable
  announce_failure = processes._Group.announce_failure
  def slow(group, error):
    announce_failure(group, error)
    time.sleep(1)  # as on a busy machine: process 0 has to outlive this one all the same
  processes._Group.announce_failure = slow
main.run()
"""


def test_a_file_that_one_process_cannot_read_ends_all_with_its_message(uninterrupted, tmp_path):
  arguments = prepared(uninterrupted, tmp_path)
  started = multi_process.start(tmp_path, arguments, program=UNREADABLE)
  assert multi_process.wait(started) == [2, 2]
  assert multi_process.error_of(tmp_path, 1).endswith('dataset: its disk does not answer')
  assert multi_process.error_of(tmp_path, 0).endswith('dataset: its disk does not answer')
  assert 'process 1 failed' in multi_process.error_of(tmp_path, 0)


def test_every_process_reports_a_wrong_input(uninterrupted, tmp_path):
  arguments = prepared(uninterrupted, tmp_path)
  started = multi_process.start(tmp_path, [*arguments, '--config.semantic_ids.path=nowhere.json'])
  assert multi_process.wait(started) == [2, 2]
  for index in (0, 1):
    assert 'nowhere.json does not exist; config.semantic_ids.path names it' in multi_process.error_of(tmp_path, index)


def test_the_processes_of_a_run_have_one_lock(uninterrupted, tmp_path):
  assert not (uninterrupted / 'workdir/run.lock').exists()
  arguments = prepared(uninterrupted, tmp_path)
  lock = Lock(tmp_path / 'workdir')
  lock.acquire()
  started = multi_process.start(tmp_path, arguments)
  assert multi_process.wait(started) == [2, 2]
  lock.release()
  for index in (0, 1):
    assert f'workdir is in use by process {os.getpid()} on ' in multi_process.error_of(tmp_path, index)


@pytest.mark.parametrize(
  'flags',
  [
    ['--coordinator=localhost:1', '--processes=2', '--process=2'],
    ['--coordinator=localhost:1'],
    ['--processes=2'],
    ['--distributed', '--process=0'],
  ],
)
def test_inconsistent_flags_of_several_processes(tmp_path, flags):
  write_recipe(tmp_path / 'recipe.py', SETTINGS)
  ended = forked.run(f'--config={tmp_path / "recipe.py"}', f'--workdir={tmp_path / "w"}', *flags)
  assert ended.returncode == 2 and 'expected all three, with --process below --processes' in ended.stderr
  assert 'Traceback' not in ended.stderr
