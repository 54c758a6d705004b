"""Environments that people have: settings of JAX and matplotlib, no home folder, closed streams, other locales."""

import functools
import json
import os
import shutil
import subprocess
import sys

import pytest

from tests import forked
from tests.forked import HANG_SECONDS
from tests.paths import ROOT
from tests.small_data import run_settings, write_recipe

pytestmark = pytest.mark.slow

# A user id without an entry, as containers have them.
NOBODY = """
import os, pwd, runpy, sys
def unknown(uid):
  raise KeyError(f'getpwuid(): uid not found: {uid}')
pwd.getpwuid = unknown
runpy.run_module('letter_jax.main', run_name='__main__')
"""


def run(*arguments, program=('-m', 'letter_jax.main'), without=(), shell='', **environment):
  """The program with some variables of its environment set, or removed; `shell` are redirections."""
  command = [sys.executable, *program, *map(str, arguments)]
  if shell:
    command = ['bash', '-c', f'"$@" {shell}', 'bash', *command]
  inherited = {name: value for name, value in os.environ.items() if name not in without}
  return subprocess.run(
    command, cwd=ROOT, env=inherited | environment, capture_output=True, text=True, timeout=HANG_SECONDS, check=False
  )


def fails(result, *said):
  """Checks for one line that says `said`, and nothing else; exit code 2."""
  assert result.returncode == 2, result.stderr
  assert len(result.stderr.splitlines()) == 1 and result.stderr.startswith('letter_jax: error: '), result.stderr
  for part in said:
    assert part in result.stderr


@pytest.fixture(scope='module')
def recipe(tmp_path_factory):
  path = tmp_path_factory.mktemp('recipe') / 'recipe.py'
  write_recipe(path, run_settings())
  return path


@pytest.fixture
def workdir(small_run, tmp_path):
  """A copy of a finished run."""
  return shutil.copytree(small_run, tmp_path / 'workdir')


def test_a_run_with_64_bits_and_the_backend_of_a_notebook_is_the_same_run(recipe, small_run, tmp_path):
  done = run(
    f'--config={recipe}',
    f'--workdir={tmp_path / "workdir"}',
    JAX_ENABLE_X64='1',
    MPLBACKEND='module://no_such_package.backend_inline',
  )
  assert done.returncode == 0, done.stderr
  for name in ('evaluation/metrics.json', 'evaluation/predictions.jsonl', 'semantic_ids/semantic_ids.npy'):
    assert (tmp_path / 'workdir' / name).read_bytes() == (small_run / name).read_bytes()


@pytest.mark.parametrize('platform', ['cuda', 'gpu', 'abacus'])
def test_a_platform_that_is_not_there(recipe, tmp_path, platform):
  flags = [f'--config={recipe}', f'--workdir={tmp_path}', '--stage=dataset']
  expected = f'JAX_PLATFORMS={platform} cannot be used on this machine', 'expected a platform that it has'
  fails(run(*flags, JAX_PLATFORMS=platform), *expected)


def test_a_user_without_a_home_folder(recipe, workdir):
  nobody = dict(without=('HOME', 'JAX_COMPILATION_CACHE_DIR', 'XDG_CACHE_HOME'), program=('-c', NOBODY))
  done = run(f'--config={recipe}', f'--workdir={workdir}', '--stage=report', '--overwrite', **nobody)
  assert done.returncode == 0 and done.stderr == '' and (workdir / 'report.html').exists(), done.stderr
  fails(run(f'--config={recipe}', '--workdir=~/run', **nobody), '--workdir is ~/run, but there is no home folder')
  download = ('--config.data.source=movielens', '--config.data.name=ml-1m', '--stage=dataset')
  said = 'config.data.downloads is empty and no home folder can be written'
  fails(run(f'--config={recipe}', f'--workdir={workdir}-2', *download, **nobody), said)


def test_a_home_folder_that_cannot_be_written_is_no_cache(recipe, tmp_path):
  (tmp_path / 'home').write_text('a file is in the way')
  without = ('JAX_COMPILATION_CACHE_DIR', 'XDG_CACHE_HOME')
  flags = [f'--config={recipe}', f'--workdir={tmp_path / "workdir"}', '--stage=dataset']
  done = run(*flags, HOME=str(tmp_path / 'home'), without=without)
  assert done.returncode == 0 and done.stderr == '', done.stderr


def test_closed_streams(recipe, workdir, tmp_path):
  flags = [f'--config={recipe}', f'--workdir={workdir}']
  done = run(*flags, shell='<&- >&- 2>&-')
  assert done.returncode == 0
  recommend = ['--stage=recommend', f'--workdir={workdir}']
  fails(run(*recommend, shell='<&-'), 'stdin is closed; expected users on it, or --input=FILE')
  (tmp_path / 'users').write_text('{"history": [1]}\n')
  users = f'--input={tmp_path / "users"}'
  fails(run(*recommend, users, shell='>&-'), 'stdout is closed; expected it open for the answers, or --output=FILE')


def test_a_path_that_the_locale_cannot_write(recipe, tmp_path):
  flags = [f'--config={recipe}', f'--workdir={tmp_path / "läufe-日"}']
  for stage in ('dataset', 'text_embeddings', 'collaborative'):  # tables, an array and checkpoints
    done = run(*flags, f'--stage={stage}', LC_ALL='C', without=('PYTHONUTF8',))
    assert done.returncode == 0 and done.stderr == '', done.stderr
  said = f'{ascii(flags[1])} is not ASCII, and paths of this locale are ascii; expected a UTF-8 locale, or PYTHONUTF8=1'
  fails(run(*flags, '--stage=dataset', LC_ALL='C', PYTHONUTF8='0', PYTHONCOERCECLOCALE='0'), said)


def test_a_tilde_that_the_shell_did_not_expand(recipe, workdir, tmp_path):
  """Bash expands `~` at the beginning of a word, but not after `--workdir=`."""
  program = f'import os\nos.environ["HOME"] = {str(tmp_path)!r}\n{forked.LETTER_JAX}'
  at_home = functools.partial(forked.run, program=program)
  (tmp_path / 'recipe.py').write_text(recipe.read_text())
  done = at_home('--config=~/recipe.py', '--workdir=~/workdir')
  assert done.returncode == 0 and 'report: done before' in done.stdout, done.stderr
  (tmp_path / 'users').write_text('{"history": [1]}\n')
  for name in ('allow', 'deny'):
    (tmp_path / name).write_text('5\n6\n' if name == 'allow' else '6\n')
  (tmp_path / 'cold').write_text('{"id": "new", "title": "Watering can"}\n')
  files = ('--input=~/users', '--output=~/recs', '--allow=~/allow', '--deny=~/deny', '--cold_items=~/cold')
  done = at_home('--stage=recommend', '--workdir=~/workdir', *files)
  assert done.returncode == 0 and json.loads((tmp_path / 'recs').read_text())['recommendations'], done.stderr
  done = at_home('--stage=compare', '--workdir=~/compared', '--workdirs=~/workdir,~/workdir')
  assert f'{tmp_path / "workdir"}' in done.stderr, done.stderr  # named twice
  missing = '--config.semantic_ids.path=~/nowhere.json'
  fails(at_home('--config=~/recipe.py', '--workdir=~/other', missing), f'{tmp_path}/nowhere.json does not exist')


FROZEN_AT_THE_END = f"""
import atexit, gc
gc.unfreeze()
atexit.register(lambda: print('frozen:', gc.get_freeze_count() > 100_000))
{forked.LETTER_JAX}
"""


def test_the_end_is_not_delayed_by_a_search_for_garbage(tmp_path):
  ended = forked.run('--stage=recommend', f'--workdir={tmp_path}', program=FROZEN_AT_THE_END)
  assert ended.returncode == 2 and ended.stdout == 'frozen: True\n', ended.stderr
