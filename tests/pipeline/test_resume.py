"""A run that is stopped, in the middle of a training or elsewhere, and one that is not end with the same bits."""

import pathlib
import shutil
import signal
import time
from collections.abc import Callable

import jax
import numpy as np
import pytest

from letter_jax import sharding
from letter_jax.configuration import MeshConfig
from letter_jax.training.checkpoints import Checkpoints
from tests import forked, multi_process
from tests.forked import HANG_SECONDS
from tests.small_data import run_settings, write_recipe
from tests.stages import copy_without

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def recipe(tmp_path_factory):
  """Dropout on, so that the randomness has to be resumed too; long enough to be killed in time."""
  path = tmp_path_factory.mktemp('recipe') / 'recipe.py'
  write_recipe(
    path,
    run_settings(
      tokenizer__training__epochs=120,
      tokenizer__training__evaluate_every_epochs=60,
      tokenizer__training__checkpoint_every_steps=40,
      generator__training__epochs=10,
      generator__training__evaluate_every_epochs=5,
      generator__training__checkpoint_every_steps=10,
      generator__model__dropout=0.1,
    ),
  )
  return path


class Attempt:
  """A process that runs the recipe in a workdir."""

  def __init__(self, recipe: pathlib.Path, workdir: pathlib.Path, program: str = forked.LETTER_JAX) -> None:
    self._log = workdir.with_name(f'{workdir.name}.log')
    self.process = forked.start([f'--config={recipe}', f'--workdir={workdir}'], self._log, program=program)

  def said(self) -> str:
    return self._log.read_text(encoding='utf-8')

  def end(self) -> int:
    """Waits for the end; returns the exit code."""
    try:
      return self.process.wait(HANG_SECONDS)
    finally:
      self.process.kill()

  def until(self, condition: Callable[[], bool]) -> None:
    """Waits for the condition; fails where the process ends first."""
    try:
      multi_process.until(condition, [self.process])
    except AssertionError:
      self.process.kill()
      raise AssertionError(self.said()) from None


def _finish(recipe: pathlib.Path, workdir: pathlib.Path) -> str:
  attempt = Attempt(recipe, workdir)
  assert attempt.end() == 0, attempt.said()
  return attempt.said()


def _kill_in(recipe: pathlib.Path, workdir: pathlib.Path, training: str, lines: int) -> None:
  """SIGKILL once the training has logged so many lines, some of them in this attempt."""
  attempt, log = Attempt(recipe, workdir), workdir / training / 'metrics.jsonl'
  attempt.until(lambda: f'{training} train ' in attempt.said() and len(log.read_bytes().splitlines()) >= lines)
  attempt.process.kill()
  assert attempt.end() == -signal.SIGKILL, attempt.said()


def _best(workdir, stage):
  checkpoints = Checkpoints(workdir / stage / 'checkpoints')
  params, progress = checkpoints.restore_best(sharding.Layout(sharding.make_mesh(MeshConfig())))
  checkpoints.close()
  return jax.tree.leaves(jax.device_get(params)), progress


@pytest.fixture(scope='module')
def finished(recipe):
  """The workdir of a run that nobody disturbed."""
  _finish(recipe, recipe.parent / 'whole')
  return recipe.parent / 'whole'


def test_a_run_that_is_stopped_everywhere_equals_one_that_is_not(recipe, finished, tmp_path):
  """SIGTERM at the start of stages, while data are prepared, codebooks found, programs compiled, results written; and
  SIGKILL in trainings."""
  workdir = tmp_path / 'workdir'
  _terminate_at_the_start_of('dataset', recipe, workdir)
  _terminate_at_the_start_of('tokenizer', recipe, workdir)
  _kill_in(recipe, workdir, 'tokenizer', 40)
  said = _terminate_at_the_start_of('generator', recipe, workdir, after_a_kill=True)
  assert 'tokenizer: resumed at step' in said and ', which was killed, is taken over' in said
  _kill_in(recipe, workdir, 'generator', 12)
  said = _terminate_at_the_start_of('evaluate', recipe, workdir, after_a_kill=True)
  assert 'generator: resumed at step' in said and 'tokenizer: done before' in said
  _finish(recipe, workdir)

  for stage in ('tokenizer', 'generator'):
    (ours, our_progress), (expected, expected_progress) = _best(workdir, stage), _best(finished, stage)
    assert our_progress == expected_progress
    for ours_leaf, expected_leaf in zip(ours, expected, strict=True):
      np.testing.assert_array_equal(ours_leaf, expected_leaf)
  _assert_same_files(workdir, finished, 'semantic_ids/semantic_ids.npy')


def _terminate_at_the_start_of(stage: str, recipe, workdir: pathlib.Path, after_a_kill: bool = False) -> str:
  """SIGTERM soon after the stage has begun; what the run has printed."""
  attempt = Attempt(recipe, workdir)
  attempt.until(lambda: any(f'{stage}: {word}' in attempt.said() for word in ('running', 'resuming')))
  time.sleep(0.3)
  attempt.process.terminate()
  code, said = attempt.end(), attempt.said()
  assert code == 143, said
  assert 'Traceback' not in said and ('is taken over' in said) == after_a_kill, said
  last = said.splitlines()[-1]
  assert last.startswith('letter_jax: error: ') and 'terminated' in last
  assert not (workdir / 'run.lock').exists()
  return said


def _assert_same_files(workdir: pathlib.Path, expected: pathlib.Path, *more: str) -> None:
  for artifact in ('evaluation/metrics.json', 'evaluation/predictions.jsonl', *more):
    assert (workdir / artifact).read_bytes() == (expected / artifact).read_bytes()


FULL_DISK = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
from letter_jax import main
main.run()
"""


def test_a_disk_that_is_full_while_a_checkpoint_is_written(recipe, finished, tmp_path):
  workdir = tmp_path / 'workdir'
  copy_without(finished, workdir, 'generator', 'evaluation')
  attempt = Attempt(recipe, workdir, FULL_DISK)
  assert attempt.end() == 2 and 'Traceback' not in attempt.said(), attempt.said()
  assert 'a checkpoint could not be written' in attempt.said().splitlines()[-1]
  _finish(recipe, workdir)
  _assert_same_files(workdir, finished)


def test_a_checkpoint_that_is_half_written_is_skipped(recipe, finished, tmp_path):
  """The run goes on from the one before, and says so."""
  workdir = tmp_path / 'workdir'
  shutil.copytree(finished, workdir)
  shutil.rmtree(workdir / 'evaluation')
  record = workdir / 'generator/stage.json'
  record.write_text(record.read_text().replace('"complete": true', '"complete": false'))
  (workdir / 'generator/generator.json').unlink()
  steps = sorted(int(path.name) for path in (workdir / 'generator/checkpoints/latest').iterdir())
  newest = workdir / 'generator/checkpoints/latest' / str(steps[-1]) / 'state'
  for path in newest.rglob('*'):
    if path.is_file():
      path.write_bytes(path.read_bytes()[:10])
  output = _finish(recipe, workdir)
  assert 'is unreadable and skipped' in output
  assert f'generator: resumed at step {steps[-2]} of' in output
  _assert_same_files(workdir, finished)
