"""Runs of one recipe: what they share is computed once, what differs is not."""

import json

import pytest

from letter_jax.pipeline import sweep
from letter_jax.system.errors import InputError
from letter_jax.system.lock import Lock
from tests.small_data import config_with, run_settings

pytestmark = pytest.mark.slow

SWEEP = (
  ('plain', (('tokenizer.model.alpha', 0.0),)),
  ('aligned', (('tokenizer.model.alpha', 0.02),)),
  ('sharp', (('tokenizer.model.alpha', 0.02), ('generator.temperature', 0.7))),
)


def test_runs_share_the_stages_that_do_not_differ(tmp_path, capsys):
  config = config_with(run_settings(sweep=SWEEP, generator__training__epochs=1, tokenizer__training__epochs=2))
  sweep.run(config, tmp_path)
  said = capsys.readouterr().out
  begun = {
    name: [line.removesuffix(': running') for line in part.splitlines() if line.endswith(': running')]
    for name, part in zip(('plain', 'aligned', 'sharp'), said.split('--- ')[1:])
  }
  later = ['generator', 'evaluate', 'report']
  assert begun == {
    'plain': ['dataset', 'text_embeddings', 'collaborative', 'tokenizer', 'semantic_ids', *later],
    'aligned': ['tokenizer', 'semantic_ids', *later],
    'sharp': later,
  }
  settings = {
    name: json.loads((tmp_path / name / 'generator/generator.json').read_text())['config']
    for name in ('plain', 'aligned', 'sharp')
  }
  assert [settings[name]['tokenizer']['model']['alpha'] for name in settings] == [0, 0.02, 0.02]
  assert [settings[name]['generator']['temperature'] for name in settings] == [1, 1, 0.7]
  assert (tmp_path / 'compare.html').exists() and 'sharp' in said.rpartition('--- ')[2]
  sweep.run(config, tmp_path)
  assert ': running' not in capsys.readouterr().out
  # What is done again is done once.
  again = config_with(
    run_settings(
      sweep=SWEEP[:2], generator__training__epochs=1, tokenizer__training__epochs=2, collaborative__training__epochs=1
    )
  )
  sweep.run(again, tmp_path, overwrite=True)
  said = capsys.readouterr().out
  assert said.count('collaborative: running') == 1 and said.count('collaborative: copied from plain') == 1


@pytest.mark.parametrize(
  'runs, said',
  [
    ((('a', ()),), 'has 1 run; expected at least two'),
    ((('a', ()), ('b', (('seed', 1),))), 'the runs a and b have different data'),
    ((('a', ()), ('b', (('evaluation.users', 40),))), 'the runs a and b have different data or test other users'),
    ((('a', ()), ('a', ())), "a run named 'a'; expected names of folders, each once"),
    ((('a/b', ()),), "a run named 'a/b'"),
    ((('..', ()),), "a run named '..'"),
    ((('a', (('generator.tau', 1.0),)),), 'config.generator.tau does not exist'),
    ((('a', (('generator', 1.0),)),), 'the run a sets config.generator to 1.0; expected a section'),
    (
      (('a', (('generator.temperature', 'warm'),)),),
      "the run a sets config.generator.temperature to 'warm'; expected a number",
    ),
  ],
)
def test_wrong_sweeps(tmp_path, runs, said):
  with pytest.raises(InputError, match=said):
    sweep.run(config_with(run_settings(sweep=runs)), tmp_path)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('folder', ['.', 'plain'])
def test_a_sweep_locks_its_workdir_and_those_of_its_runs(tmp_path, folder):
  lock = Lock(tmp_path / folder)
  lock.acquire()
  with pytest.raises(InputError, match=f'{tmp_path / folder} is in use by process'):
    sweep.run(config_with(run_settings(sweep=SWEEP)), tmp_path, 'dataset')
  lock.release()
  assert not list(tmp_path.rglob('*/dataset')) and not list(tmp_path.rglob('run.lock'))


def test_checkpoints_elsewhere_are_refused(tmp_path):
  with pytest.raises(InputError, match='expected none with config.sweep'):
    sweep.run(config_with(run_settings(sweep=SWEEP, checkpoints=str(tmp_path / 'there'))), tmp_path)
