"""Runs of one recipe: what they share is computed once, what differs is not."""

import pytest

from letter_jax.pipeline import sweep
from letter_jax.system.errors import InputError
from letter_jax.system.lock import Lock
from letter_jax.workdir import Workdir
from tests.small_data import config_with, run_settings

pytestmark = pytest.mark.slow

SWEEP = (
  ('plain', (('tokenizer.model.alpha', 0.0),)),
  ('aligned', (('tokenizer.model.alpha', 0.02),)),
  ('wide', (('tokenizer.model.alpha', 0.02), ('evaluation.beam', 30))),
)


def test_runs_share_the_stages_that_do_not_differ(tmp_path, capsys):
  config = config_with(run_settings(sweep=SWEEP, generator__training__epochs=1, tokenizer__training__epochs=2))
  sweep.run(config, tmp_path)
  said = capsys.readouterr().out
  begun = {
    name: [line.removesuffix(': running') for line in part.splitlines() if line.endswith(': running')]
    for name, part in zip(('plain', 'aligned', 'wide'), said.split('--- ')[1:])
  }
  later = ['evaluate', 'report']
  assert begun == {
    'plain': ['dataset', 'text_embeddings', 'collaborative', 'tokenizer', 'semantic_ids', 'generator', *later],
    'aligned': ['tokenizer', 'semantic_ids', 'generator', *later],
    'wide': later,
  }
  generators = [Workdir(tmp_path / name).read_generator_config() for name in begun]
  assert [of_run.tokenizer.model.alpha for of_run in generators] == [0, 0.02, 0.02]
  assert [Workdir(tmp_path / name).read_metrics()['beam'] for name in begun] == [20, 20, 30]
  assert (tmp_path / 'compare.html').exists() and 'wide' in said.rpartition('--- ')[2]
  sweep.run(config, tmp_path)
  assert ': running' not in capsys.readouterr().out
  # What is done again is done once.
  again = config_with(
    run_settings(
      sweep=SWEEP[1:], generator__training__epochs=1, tokenizer__training__epochs=2, collaborative__training__epochs=2
    )
  )
  sweep.run(again, tmp_path, overwrite=True)
  said = capsys.readouterr().out
  assert said.count('collaborative: running') == 1 and said.count('collaborative: copied from aligned') == 1


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
