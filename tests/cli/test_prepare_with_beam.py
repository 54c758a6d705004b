"""The command that prepares with Beam, run as a subprocess, and a run on its output."""

import os
import subprocess
import sys

import pytest

from letter_jax.data import store
from letter_jax.data.raw.read import read_raw_dataset
from letter_jax.pipeline import run as pipeline
from letter_jax.system.errors import InputError
from tests.data.beam.test_pipelines import BEAM, records
from tests.data.raw import test_raw
from tests.forked import HANG_SECONDS
from tests.paths import ROOT
from tests.small_data import config_with, run_settings, write_recipe

pytestmark = pytest.mark.slow

MODULE = 'letter_jax.cli.prepare_with_beam'
WITHOUT_BEAM = (
  f"import runpy, sys; sys.modules['apache_beam'] = None; runpy.run_module({MODULE!r}, run_name='__main__')"
)


def _command(*arguments, program=('-m', MODULE)):
  return subprocess.run(
    [sys.executable, *program, *map(str, arguments)],
    cwd=ROOT,
    text=True,
    capture_output=True,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
    timeout=HANG_SECONDS,
  )


def _error_line(result):
  assert result.returncode == 2 and 'Traceback' not in result.stderr
  (line,) = [line for line in result.stderr.splitlines() if line.startswith('letter_jax: error: ')]
  return line


def test_the_command_without_beam(tmp_path):
  write_recipe(tmp_path / 'recipe.py', {})
  flags = [f'--config={tmp_path / "recipe.py"}', f'--directory={tmp_path / "beam"}']
  assert 'Apache Beam is not installed' in _error_line(_command(*flags, program=('-c', WITHOUT_BEAM)))
  assert '--directory' in _error_line(_command(flags[0]))


def test_the_command_and_a_run_on_its_output(tmp_path):
  test_raw.write_yelp(tmp_path / 'raw')
  settings = run_settings(data__source='yelp', data__path=str(tmp_path / 'raw'), data__preparation__core=3)
  write_recipe(tmp_path / 'recipe.py', settings)
  flags = [f'--config={tmp_path / "recipe.py"}', f'--directory={tmp_path / "beam"}']
  result = _command(*flags, '--config.data.name=Tampa', '--', *BEAM)
  assert result.returncode == 0, result.stderr
  assert 'dataset: Tampa: 2 users, 3 items, 9 interactions' in result.stdout
  result = _command(*flags, '--', *BEAM)
  assert _error_line(result).endswith('beam is not empty; expected a new folder as --directory')

  settings = {**settings, 'data.source': 'prepared', 'data.path': str(tmp_path / 'beam')}
  pipeline.run(config_with(settings), tmp_path / 'workdir', 'dataset')
  assert records(tmp_path / 'workdir/dataset') == records(tmp_path / 'beam')
  assert store.load(tmp_path / 'workdir/dataset').summary() == store.load(tmp_path / 'beam').summary()
  # The fingerprint is also that of the local preparation.
  store.save(
    read_raw_dataset(config_with(settings | {'data.source': 'yelp', 'data.path': str(tmp_path / 'raw')}).data),
    tmp_path / 'local',
  )
  assert (
    store.load_summary(tmp_path / 'workdir/dataset')['content'] == store.load_summary(tmp_path / 'local')['content']
  )
  (tmp_path / 'beam/summary.json').write_text((tmp_path / 'beam/summary.json').read_text() + '\n')
  with pytest.raises(InputError, match='content of config.data.path/summary.json'):
    pipeline.run(config_with(settings), tmp_path / 'workdir', 'dataset')
