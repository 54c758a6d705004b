"""Commands on a workdir as a user types them."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from letter_jax.cli import commands
from letter_jax.system.errors import InputError
from tests.multi_process import HANG_SECONDS
from tests.paths import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def finished(small_run):
  return small_run


def fails(result, *said):
  assert result.returncode == 2 and 'Traceback' not in result.stderr
  (error,) = [line for line in result.stderr.splitlines() if line.startswith('letter_jax: error: ')]
  for part in said:
    assert part in error


def test_from_the_standard_input_to_the_standard_output(command, finished):
  done = command(
    '--stage=recommend',
    f'--workdir={finished}',
    '--k=2',
    given='{"user": "a", "history": [1, "2"]}\nno\n{"user": "b", "history": []}\n',
  )
  assert done.returncode == 0, done.stderr
  first, second, third = map(json.loads, done.stdout.splitlines())
  assert [first['user'], third['user']] == ['a', 'b'] and second['line'] == 2
  assert len(first['recommendations']) == 2 and not {1, 2} & {each['item'] for each in first['recommendations']}
  header, end = done.stderr.splitlines()
  assert header == 'recommend: 60 items, beam 20, 1 CPU device'
  assert end == 'recommend: 2 users; 1 invalid line, with an "error" in the output'


def test_files_and_lists(command, finished, tmp_path):
  (tmp_path / 'users.jsonl').write_text(''.join(f'{{"user": {user}, "history": [{user}]}}\n' for user in range(3)))
  (tmp_path / 'allow').write_text('5\n6\n\n7\n')
  (tmp_path / 'deny').write_text('\ufeff6\u00a0\nwho\n')
  (tmp_path / 'cold').write_text('{"id": "new", "title": "Watering can"}\n')
  done = command(
    '--stage=recommend',
    f'--workdir={finished}',
    f'--input={tmp_path / "users.jsonl"}',
    '--k=5',
    f'--output={tmp_path / "recs.jsonl"}',
    f'--allow={tmp_path / "allow"}',
    f'--deny={tmp_path / "deny"}',
    f'--cold_items={tmp_path / "cold"}',
    '--noexclude_history',
  )
  assert done.returncode == 0 and not done.stdout, done.stderr
  assert '61 items, 1 of them cold' in done.stderr and '3 users' in done.stderr
  assert 'unknown: 1 of the 2 items of --deny' in done.stderr
  found = [json.loads(line) for line in (tmp_path / 'recs.jsonl').read_text().splitlines()]
  assert [{each['id'] for each in user['recommendations']} for user in found] == [{'5', '7'}] * 3


def test_histories_that_are_unknown_are_said(command, finished):
  lines = ['{"history": ["1.0", "2.0"]}', '{"history": ["3.0"]}', '{"history": []}', '{"history": ["4", "5.0"]}']
  done = command('--stage=recommend', f'--workdir={finished}', given='\n'.join(lines))
  assert done.returncode == 0, done.stderr
  assert [json.loads(line).get('from') for line in done.stdout.splitlines()] == ['popularity'] * 3 + [None]
  end = done.stderr.splitlines()[-1]
  assert "4 unknown items of their histories skipped (they are such as '1.0', '2.0', '3.0', and" in end
  assert "such as '0', '1', '2')" in end
  assert end.endswith('2 histories are wholly unknown, answered with the popularity of first purchases')


def test_wrong_flags_and_files(command, finished, tmp_path):
  run = ('--stage=recommend', f'--workdir={finished}')
  users = tmp_path / 'users.jsonl'
  users.write_text('{"user": 1, "history": [1]}\n')
  (tmp_path / 'empty').write_text('\n')
  (tmp_path / 'unknown').write_text('5\nwho\n')
  fails(command(*run, '--k=21'), '--k=21; expected 1 to 20')
  fails(command(*run, '--k=6', '--beam=5'), '--k=6; expected 1 to 5')
  fails(command(*run, f'--allow={tmp_path / "empty"}'), 'empty names no item')
  fails(command(*run, f'--allow={tmp_path / "unknown"}'), "unknown, the first is 'who'", 'skip_unknown', '--allow=')
  fails(command(*run, f'--input={tmp_path / "nowhere"}'), 'nowhere', 'expected a file of JSON lines')
  fails(command(*run, f'--input={users}', f'--output={users}'), 'is the input')
  assert users.read_text()
  fails(command('--stage=recommend', f'--workdir={tmp_path}'), 'has no finished semantic_ids')
  fails(command('--stage=recommend'), '--workdir is missing')
  fails(command('--stage=export', f'--workdir={finished}', '--platforms=cpu,abacus'), 'expected some of cpu,cuda,tpu')


def test_a_reader_that_has_enough(finished):
  process = subprocess.Popen(
    [sys.executable, '-m', 'letter_jax.main', '--stage=recommend', f'--workdir={finished}', '--k=1'],
    cwd=ROOT,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
  )
  process.stdin.write(b'{"user": 1, "history": [1]}\n')
  process.stdin.flush()
  assert json.loads(process.stdout.readline())['user'] == 1  # before the input ends
  process.stdout.close()
  process.stdin.write(b'{"user": 2, "history": [1]}\n' * 3)
  process.stdin.close()
  assert process.wait(HANG_SECONDS) == 0 and b'Traceback' not in process.stderr.read()


def test_what_was_changed_by_hand_is_noticed(finished, tmp_path):
  shutil.copytree(finished, tmp_path / 'workdir')
  (tmp_path / 'workdir/semantic_ids/index.json').unlink()
  for stage in ('recommend', 'export'):
    with pytest.raises(InputError, match='index.json missing or changed since it was written'):
      commands.run(stage, tmp_path / 'workdir', commands.Options(platforms=('cpu',)))
  (tmp_path / 'workdir/evaluation/predictions.jsonl').write_text('{}\n')
  with pytest.raises(InputError, match='predictions.jsonl missing or changed since it was written'):
    commands.run('compare', tmp_path, commands.Options(workdirs=(str(finished), str(tmp_path / 'workdir'))))
