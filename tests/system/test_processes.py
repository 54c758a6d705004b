"""Two processes that are one program: what they compute, and how they end."""

import json
import pathlib
import shutil
import signal
import sys
import time

import numpy as np
import pytest

from letter_jax import sharding
from letter_jax.configuration import MeshConfig
from letter_jax.pipeline import run as pipeline
from letter_jax.training.checkpoints import Checkpoints
from tests import multi_process as several_processes
from tests.small_data import config_with, run_settings, write_recipe

SETTINGS = run_settings(generator__training__epochs=4, generator__training__checkpoint_every_steps=5)


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
  """A finished run of two processes, and the recipe."""
  folder = tmp_path_factory.mktemp('two')
  write_recipe(folder / 'recipe.py', SETTINGS)
  started = several_processes.start(folder, [f'--config={folder / "recipe.py"}', f'--workdir={folder / "workdir"}'])
  assert several_processes.wait(started) == [0, 0], several_processes.said(folder, 0)
  return folder


def begun(uninterrupted: pathlib.Path, folder: pathlib.Path) -> list[str]:
  """Arguments of a run that has everything before its generator."""
  shutil.copytree(
    uninterrupted / 'workdir',
    folder / 'workdir',
    ignore=lambda where, names: {'generator', 'evaluation'} if where == str(uninterrupted / 'workdir') else (),
  )
  return [f'--config={uninterrupted / "recipe.py"}', f'--workdir={folder / "workdir"}']


def latest(workdir: pathlib.Path):
  """Numbers in the latest checkpoint of the generator, read on one device."""
  checkpoints = Checkpoints(workdir / 'generator/checkpoints', read_only=True)
  params, progress = checkpoints.restore_best(sharding.Layout(sharding.make_mesh(MeshConfig())))
  checkpoints.close()
  return params, progress


def assert_same_result(workdir: pathlib.Path, expected: pathlib.Path) -> None:
  for file in ('evaluation/metrics.json', 'evaluation/predictions.jsonl'):
    assert (workdir / file).read_bytes() == (expected / file).read_bytes()
  (params, progress), (other, other_progress) = latest(workdir), latest(expected)
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


def until(condition, seconds: float = 120) -> None:
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end
    time.sleep(0.02)


def test_two_processes_give_the_metrics_of_one(uninterrupted, tmp_path):
  pipeline.run(config_with(SETTINGS), tmp_path / 'one')
  two, one = (
    json.loads((workdir / 'evaluation/metrics.json').read_text())
    for workdir in (uninterrupted / 'workdir', tmp_path / 'one')
  )
  assert two['test'] == pytest.approx(one['test'], abs=1e-6)
  assert two['baselines']['sasrec']['test'] == pytest.approx(one['baselines']['sasrec']['test'], abs=1e-6)
  assert np.array_equal(
    *(np.load(workdir / 'semantic_ids/semantic_ids.npy') for workdir in (uninterrupted / 'workdir', tmp_path / 'one'))
  )
  # Process 0 alone speaks and writes.
  assert 'done in' in several_processes.said(uninterrupted, 0)
  assert 'done in' not in several_processes.said(uninterrupted, 1)
  lines = (uninterrupted / 'workdir/generator/metrics.jsonl').read_text().splitlines()
  steps = [json.loads(line)['step'] for line in lines if json.loads(line)['kind'] == 'train']
  assert steps == sorted(set(steps))


def test_terminated_in_a_training_whose_calls_are_epochs(uninterrupted, tmp_path):
  shutil.copytree(
    uninterrupted / 'workdir',
    tmp_path / 'workdir',
    ignore=lambda where, names: (
      {'tokenizer', 'semantic_ids', 'generator', 'evaluation'} if where == str(uninterrupted / 'workdir') else ()
    ),
  )
  arguments = [f'--config={uninterrupted / "recipe.py"}', f'--workdir={tmp_path / "workdir"}', '--stage=tokenizer']
  started = several_processes.start(tmp_path, arguments)
  until(lambda: 'tokenizer: running' in several_processes.said(tmp_path, 0))
  started[0].send_signal(signal.SIGTERM)
  assert several_processes.wait(started) == [143, 143], several_processes.said(tmp_path, 0)
  assert several_processes.wait(several_processes.start(tmp_path, arguments)) == [0, 0]
  assert (tmp_path / 'workdir/tokenizer/best_validation.json').read_bytes() == (
    uninterrupted / 'workdir/tokenizer/best_validation.json'
  ).read_bytes()


@pytest.mark.parametrize('process', [0, 1])
def test_a_run_of_which_one_process_was_killed_is_resumed_bit_for_bit(uninterrupted, tmp_path, process):
  arguments = begun(uninterrupted, tmp_path)
  started = several_processes.start(tmp_path, arguments)
  until(lambda: list((tmp_path / 'workdir/generator/checkpoints/latest').glob('1?')))
  started[process].kill()
  codes = several_processes.wait(started)
  assert codes[process] == -signal.SIGKILL and codes[1 - process] != 0
  assert not (tmp_path / 'workdir/evaluation/metrics.json').exists()
  assert several_processes.wait(several_processes.start(tmp_path, arguments)) == [0, 0]
  assert 'generator: resumed at step' in several_processes.said(tmp_path, 0)
  assert_same_result(tmp_path / 'workdir', uninterrupted / 'workdir')


def test_a_process_that_is_told_to_stop_saves_with_the_others(uninterrupted, tmp_path):
  arguments = begun(uninterrupted, tmp_path)
  started = several_processes.start(tmp_path, [*arguments, '--config.generator.training.checkpoint_every_steps=1000'])
  until(lambda: 'generator train' in several_processes.said(tmp_path, 0))
  started[1].send_signal(signal.SIGTERM)
  assert several_processes.wait(started) == [143, 143]
  assert 'generator: terminated; saved at step' in several_processes.error_of(tmp_path, 0)
  assert several_processes.wait(several_processes.start(tmp_path, arguments)) == [0, 0]
  assert 'generator: resumed at step' in several_processes.said(tmp_path, 0)
  assert_same_result(tmp_path / 'workdir', uninterrupted / 'workdir')


UNREADABLE = """
import sys, time
from letter_jax import main
from letter_jax.cli import one_line_errors
from letter_jax.data import store
from letter_jax.system.errors import InputError
if '--process=1' in sys.argv:
  def unreadable(directory):
    raise InputError(f'{directory}: its disk does not answer')
  store.load_interactions = unreadable
  fail = one_line_errors.fail
  def slow(message):
    time.sleep(1)  # on a busy machine: process 0 is to outlive it all the same
    fail(message)
  one_line_errors.fail = slow
main.run()
"""


def test_what_one_process_cannot_read_ends_all_with_its_reason(uninterrupted, tmp_path):
  arguments = begun(uninterrupted, tmp_path)
  started = several_processes.start(tmp_path, arguments, program=('-c', UNREADABLE))
  before = time.monotonic()
  assert several_processes.wait(started) == [2, 2]
  assert time.monotonic() - before < 60
  assert several_processes.error_of(tmp_path, 1).endswith('dataset: its disk does not answer')
  assert several_processes.error_of(tmp_path, 0).endswith('dataset: its disk does not answer')
  assert 'process 1 failed' in several_processes.error_of(tmp_path, 0)


SLOW_AND_WRONG = """
import sys, time
from letter_jax import sharding
if '--process=1' in sys.argv:
  put, clock = sharding.put_batch, time.time
  def slow(*arguments):
    time.sleep(0.1)
    return put(*arguments)
  sharding.put_batch = slow
  time.time = lambda: clock() + 36_000
from letter_jax import main
main.run()
"""


def test_a_slow_process_with_a_wrong_clock_only_takes_longer(uninterrupted, tmp_path):
  arguments = begun(uninterrupted, tmp_path)
  started = several_processes.start(tmp_path, arguments, program=('-c', SLOW_AND_WRONG))
  assert several_processes.wait(started) == [0, 0], several_processes.said(tmp_path, 0)
  assert_same_result(tmp_path / 'workdir', uninterrupted / 'workdir')


def test_a_wrong_input_is_said_by_every_process(uninterrupted, tmp_path):
  arguments = begun(uninterrupted, tmp_path)
  started = several_processes.start(tmp_path, [*arguments, '--config.semantic_ids.path=nowhere.json'])
  assert several_processes.wait(started) == [2, 2]
  for index in (0, 1):
    assert 'nowhere.json is not there; config.semantic_ids.path names it' in several_processes.error_of(tmp_path, index)


@pytest.mark.parametrize(
  'flags',
  [
    ['--coordinator=localhost:1', '--processes=2', '--process=2'],
    ['--coordinator=localhost:1'],
    ['--processes=2'],
    ['--distributed', '--process=0'],
  ],
)
def test_flags_that_do_not_join(tmp_path, flags):
  import subprocess

  write_recipe(tmp_path / 'recipe.py', SETTINGS)
  ended = subprocess.run(
    [
      sys.executable,
      '-m',
      'letter_jax.main',
      f'--config={tmp_path / "recipe.py"}',
      f'--workdir={tmp_path / "w"}',
      *flags,
    ],
    cwd=several_processes.ROOT,
    text=True,
    capture_output=True,
  )
  assert ended.returncode == 2 and 'expected all three, with --process below --processes' in ended.stderr
  assert 'Traceback' not in ended.stderr
