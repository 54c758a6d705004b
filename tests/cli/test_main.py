"""The command line as a user meets it: exit codes, and one clear line for each mistake."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import letter_jax
from tests.forked import HANG_SECONDS
from tests.paths import ROOT
from tests.small_data import run_settings, write_letter_folder, write_recipe

pytestmark = pytest.mark.slow


@pytest.fixture
def recipe(tmp_path):
  """Arguments of a run of the dataset stage on a small folder, which a test then spoils."""
  write_letter_folder(tmp_path / 'data')
  write_recipe(
    tmp_path / 'recipe.py', run_settings(data__source='letter', data__path=str(tmp_path / 'data'), data__name='Small')
  )
  return [f'--config={tmp_path / "recipe.py"}', f'--workdir={tmp_path / "workdir"}']


@pytest.fixture
def fails(command):
  """Runs a command that has to end with one clear line, which says `said`."""
  return lambda arguments, *said: _check_failure(command(*arguments), *said)


def _check_failure(result, *said):
  assert result.returncode != 0
  assert 'Traceback' not in result.stderr + result.stdout, result.stderr
  errors = [line for line in result.stderr.splitlines() if line.startswith('letter_jax: error: ')]
  assert len(errors) == 1, result.stderr
  for part in said:
    assert part in errors[0]


def test_help_is_no_failure_and_does_not_import_jax():
  result = subprocess.run(
    [sys.executable, '-X', 'importtime', '-m', 'letter_jax.main', '--helpshort'],
    cwd=ROOT,
    text=True,
    capture_output=True,
    timeout=HANG_SECONDS,
  )
  assert result.returncode == 0 and '--workdir' in result.stdout
  assert ' jax\n' not in result.stderr and ' sklearn\n' not in result.stderr


def test_version(command):
  result = command('--version')
  assert result.returncode == 0 and result.stdout.startswith(f'letter_jax {letter_jax.__version__}, jax ')


@pytest.mark.parametrize(
  'word, said',
  [
    ('config.data.name=Small', 'did you mean --config.data.name=Small?'),
    ('extra', 'expected flags that begin with --'),
  ],
)
def test_a_word_that_is_no_flag(fails, recipe, word, said):
  fails([*recipe, '--stage=dataset', word], f"'{word}' is no flag; {said}")


def test_a_stage_that_works(command, recipe):
  result = command(*recipe, '--stage=dataset')
  assert result.returncode == 0, result.stderr
  assert '40 users, 30 items' in result.stdout


@pytest.mark.parametrize(
  'extra, said',
  [
    (['--config.generator.tempreature=1'], ['--config.generator.tempreature does not exist']),
    (['--config.generator.training.epochs=2.5'], ['--config.generator.training.epochs=2.5; expected an integer']),
    (['--config.tokenizer.model.hidden=a'], ["config.tokenizer.model.hidden is ('a',); expected a list of integers"]),
    (['--k=many'], ['--k=many; expected an integer']),
    (['--config.generator.training.epochs=0'], ['config.generator.training.epochs is 0; expected at least 1']),
    (['--stage=traning'], ['traning', 'generator']),
    (['--config'], ['--config is given without a value', 'expected a recipe']),
  ],
)
def test_wrong_flags(fails, recipe, extra, said):
  fails([*recipe, *extra], *said)


def test_a_wrong_value_ends_with_exit_code_2(command, recipe):
  assert command(*recipe, '--config.seed=abc').returncode == 2


def test_a_recipe_that_refuses_its_argument(fails, tmp_path):
  recipe = f'--config={ROOT / "configs/ablation.py"}:nowhere'
  fails([recipe, f'--workdir={tmp_path}'], 'error: --config=ablation:nowhere is not valid')


def test_no_config(fails, recipe):
  fails(recipe[1:], '--config')


def test_the_config_as_two_words(command, fails, recipe, tmp_path):
  config, workdir = recipe[0].split('='), recipe[1]
  result = command(*config, workdir, '--stage=dataset')
  assert result.returncode == 0, result.stderr
  fails(['--config', tmp_path / 'nowhere.py', workdir], 'nowhere.py does not exist')


def test_no_workdir(fails, recipe):
  fails(recipe[:1], '--workdir')


def test_a_recipe_that_is_not_there(fails, recipe, tmp_path):
  fails([f'--config={tmp_path / "nowhere.py"}', recipe[1]], 'nowhere.py')


def test_a_recipe_that_fails(fails, recipe, tmp_path):
  (tmp_path / 'broken.py').write_text('def get_config():\n  return undefined\n')
  fails([f'--config={tmp_path / "broken.py"}', recipe[1]], 'broken.py', 'undefined')


def test_a_recipe_that_takes_no_argument(fails, recipe):
  fails(['--config=configs/quickstart.py:beauty', recipe[1]], 'quickstart.py:beauty: the recipe takes no argument')


def test_what_can_be_downloaded_is_said(fails, recipe):
  fails(
    [*recipe, '--config.data.source=movielens', '--config.data.path=', '--config.data.name=', '--stage=dataset'],
    'expected one of ml-1m',
  )


def test_the_data_set_of_a_recipe_that_does_not_exist(fails, recipe):
  fails(['--config=configs/letter_tiger.py:beaty', recipe[1]], 'beaty', 'beauty')


def _edit(path, change):
  table = json.loads(path.read_text())
  change(table)
  path.write_text(json.dumps(table))


def _remove(folder):
  (folder / 'Small.inter.json').unlink()


def _truncate(folder):
  (folder / 'Small.inter.json').write_text('{"0": [1, 2')


def _out_of_range(folder):
  _edit(folder / 'Small.inter.json', lambda table: table['3'].append(30))


def _short_user(folder):
  _edit(folder / 'Small.inter.json', lambda table: table.update({'5': [1, 2]}))


def _empty(folder):
  (folder / 'Small.inter.json').write_text('{}')


@pytest.mark.parametrize(
  'spoil, said',
  [
    (_remove, ['Small.inter.json']),
    (_truncate, ['Small.inter.json', 'line 1']),
    (_out_of_range, ['Small.inter.json', 'user "3"', '30']),
    (_short_user, ['Small.inter.json', 'user "5"', 'at least 3']),
    (_empty, ['Small.inter.json']),
  ],
)
def test_bad_interactions(fails, recipe, tmp_path, spoil, said):
  spoil(tmp_path / 'data')
  fails([*recipe, '--stage=dataset'], *said)


@pytest.mark.parametrize(
  'change, said',
  [
    (lambda table: table.pop('7'), ['7']),
    (lambda table: table.update({'4': ['<a_1>', '<b_2>']}), ['item 4', '2 tokens']),
    (lambda table: table.update({'4': ['<a_1>', '<b_2>', 'c_3']}), ['item 4', 'c_3']),
  ],
)
def test_bad_semantic_ids(command, fails, recipe, tmp_path, change, said):
  index = {str(item): [f'<a_{item}>', '<b_0>', '<c_1>'] for item in range(30)}
  change(index)
  (tmp_path / 'index.json').write_text(json.dumps(index))
  given = f'--config.semantic_ids.path={tmp_path / "index.json"}'
  assert command(*recipe, given, '--stage=dataset').returncode == 0
  fails([*recipe, given, '--stage=semantic_ids'], 'index.json', *said)


def test_embeddings_that_are_pickled(command, fails, recipe, tmp_path):
  np.save(tmp_path / 'rows.npy', np.array([{}] * 30, object), allow_pickle=True)
  given = f'--config.text_embeddings.path={tmp_path / "rows.npy"}'
  assert command(*recipe, '--stage=dataset').returncode == 0
  fails([*recipe, given, '--stage=text_embeddings'], 'rows.npy')


def test_a_workdir_of_another_config(command, fails, recipe):
  assert command(*recipe, '--stage=dataset').returncode == 0
  fails([*recipe, '--config.data.source=synthetic'], "config.data.source ('letter' then, 'synthetic' now)")


def test_a_mistake_that_is_mended(command, fails, recipe, tmp_path):
  good = (tmp_path / 'data/Small.inter.json').read_text()
  _truncate(tmp_path / 'data')
  fails([*recipe, '--stage=dataset'], 'Small.inter.json')
  (tmp_path / 'data/Small.inter.json').write_text(good)
  assert command(*recipe, '--stage=dataset').returncode == 0


FULL_DISK = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
sys.argv = ['letter_jax', *sys.argv[1:]]
runpy.run_module('letter_jax.main', run_name='__main__')
"""


def test_a_disk_that_takes_no_more(command, recipe):
  """One line, and what was complete is used by the next run."""
  assert command(*recipe, '--stage=dataset').returncode == 0
  embed = [*recipe, '--stage=text_embeddings', '--config.text_embeddings.dim=16']
  full = subprocess.run([sys.executable, '-c', FULL_DISK, *embed], capture_output=True, text=True, cwd=ROOT)
  (error,) = [line for line in full.stderr.splitlines() if line.startswith('letter_jax: error: ')]
  assert full.returncode == 2 and 'could not be written' in error and 'Traceback' not in full.stderr
  again = command(*embed)
  assert again.returncode == 0 and not list((pathlib.Path(recipe[1].partition('=')[2])).rglob('*.partial'))


def test_a_workdir_that_is_a_file(fails, recipe, tmp_path):
  (tmp_path / 'file').write_text('')
  fails([recipe[0], f'--workdir={tmp_path / "file"}'], 'file')
