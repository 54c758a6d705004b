"""A run that is stopped, in the middle of a training or elsewhere, and one that is not end with the same bits."""

import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from letter_jax import sharding
from letter_jax.configuration import MeshConfig
from letter_jax.training.checkpoints import Checkpoints
from tests.multi_process import HANG_SECONDS
from tests.paths import ROOT
from tests.small_data import run_settings, write_recipe

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def recipe(tmp_path_factory):
  """Dropout on, so that the randomness has to be resumed too; long enough to be killed in time."""
  path = tmp_path_factory.mktemp('recipe') / 'recipe.py'
  write_recipe(
    path,
    run_settings(
      tokenizer__training__epochs=150,
      tokenizer__training__evaluate_every_epochs=50,
      tokenizer__training__checkpoint_every_steps=16,
      generator__training__epochs=10,
      generator__training__evaluate_every_epochs=5,
      generator__training__checkpoint_every_steps=5,
      generator__model__dropout=0.1,
      collaborative__training__epochs=1,
    ),
  )
  return path


def _start(recipe, workdir):
  return subprocess.Popen(
    [sys.executable, '-m', 'letter_jax.main', f'--config={recipe}', f'--workdir={workdir}'],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def _finish(process) -> str:
  try:
    output, _ = process.communicate(timeout=HANG_SECONDS)
  finally:
    process.kill()
  assert process.returncode == 0, output
  return output


def _kill_in(process, metrics: pathlib.Path, lines: int) -> str:
  """SIGKILL once the training has logged so many lines; what the run had printed."""
  deadline = time.monotonic() + HANG_SECONDS
  while time.monotonic() < deadline and process.poll() is None:
    if metrics.exists() and len(metrics.read_bytes().splitlines()) >= lines:
      process.kill()
      output, _ = process.communicate()
      assert process.returncode == -signal.SIGKILL, output
      return output
    time.sleep(0.01)
  process.kill()
  raise AssertionError(f'the run ended before it was killed: {process.communicate()[0]}')


def _best(workdir, stage):
  checkpoints = Checkpoints(workdir / stage / 'checkpoints')
  params, progress = checkpoints.restore_best(sharding.Layout(sharding.make_mesh(MeshConfig())))
  checkpoints.close()
  return jax.tree.leaves(jax.device_get(params)), progress


@pytest.fixture(scope='module')
def finished(recipe):
  """The workdir of a run that nobody disturbed."""
  _finish(_start(recipe, recipe.parent / 'whole'))
  return recipe.parent / 'whole'


def test_a_run_that_is_stopped_everywhere_equals_one_that_is_not(recipe, finished, tmp_path):
  """SIGTERM at the start of stages, while data are prepared, codebooks found, programs compiled, results written; and
  SIGKILL in trainings."""
  _terminate_at_the_start_of('dataset', recipe, tmp_path)
  _terminate_at_the_start_of('tokenizer', recipe, tmp_path)
  _kill_in(_start(recipe, tmp_path), tmp_path / 'tokenizer/metrics.jsonl', 40)
  said = _terminate_at_the_start_of('generator', recipe, tmp_path, after_a_kill=True)
  assert 'tokenizer: resumed at step' in said and ', which was killed, is taken over' in said
  _kill_in(_start(recipe, tmp_path), tmp_path / 'generator/metrics.jsonl', 12)
  said = _terminate_at_the_start_of('evaluate', recipe, tmp_path, after_a_kill=True)
  assert 'generator: resumed at step' in said and 'tokenizer: done before' in said
  _finish(_start(recipe, tmp_path))

  for stage in ('tokenizer', 'generator'):
    (ours, our_progress), (expected, expected_progress) = _best(tmp_path, stage), _best(finished, stage)
    assert our_progress == expected_progress
    for ours_leaf, expected_leaf in zip(ours, expected, strict=True):
      np.testing.assert_array_equal(ours_leaf, expected_leaf)
  _assert_same_files(tmp_path, finished, 'semantic_ids/semantic_ids.npy')


def _terminate_at_the_start_of(stage: str, recipe, workdir: pathlib.Path, after_a_kill: bool = False) -> str:
  """SIGTERM soon after the stage has begun; what the run has printed."""
  process = _start(recipe, workdir)
  said = []
  for line in process.stdout:
    said.append(line)
    if f'{stage}: running' in line or f'{stage}: resuming' in line:
      time.sleep(0.3)
      process.terminate()
  assert process.wait() == 143, said
  assert 'Traceback' not in ''.join(said) and ('is taken over' in ''.join(said)) == after_a_kill, said
  assert said[-1].startswith('letter_jax: error: ') and 'terminated' in said[-1]
  assert not (workdir / 'run.lock').exists()
  return ''.join(said)


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
  shutil.copytree(
    finished, workdir, ignore=lambda folder, names: {'generator', 'evaluation'} if folder == str(finished) else ()
  )
  ended = subprocess.run(
    [sys.executable, '-c', FULL_DISK, f'--config={recipe}', f'--workdir={workdir}'],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  assert ended.returncode == 2 and 'Traceback' not in ended.stdout, ended.stdout
  assert 'a checkpoint could not be written' in ended.stdout.splitlines()[-1]
  _finish(_start(recipe, workdir))
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
  output = _finish(_start(recipe, workdir))
  assert 'is unreadable and skipped' in output
  assert f'generator: resumed at step {steps[-2]} of' in output
  _assert_same_files(workdir, finished)
