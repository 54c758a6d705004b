"""Commands on a workdir as a user types them."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from letter_jax.cli import commands
from letter_jax.serving import export
from letter_jax.system.errors import InputError
from letter_jax.system.lock import Lock
from tests.forked import HANG_SECONDS
from tests.multi_process import until
from tests.paths import ROOT
from tests.small_data import config_with, run_settings

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def finished(small_run):
  return small_run


def fails(result, *said):
  assert result.returncode == 2 and 'Traceback' not in result.stderr
  (error,) = [line for line in result.stderr.splitlines() if line.startswith('letter_jax: error: ')]
  for part in said:
    assert part in error


def test_an_earlier_run_is_only_for_runs(command, finished, tmp_path):
  for flag in (f'--from={finished}', '--retokenize'):
    fails(command('--stage=recommend', f'--workdir={finished}', flag), 'is not used by --stage=recommend')
  begun = command('--config=quickstart', f'--workdir={tmp_path / "today"}', f'--from={tmp_path / "yesterday"}')
  fails(begun, f'{tmp_path / "yesterday"} does not exist; expected the workdir of a run that is complete')
  fails(command('--config=quickstart', f'--workdir={tmp_path / "today"}', '--from='), '--from is empty')
  fails(command('--config=quickstart', f'--workdir={tmp_path / "today"}', '--retokenize'), 'no earlier run is named')
  assert not (tmp_path / 'today').exists()


def test_from_the_standard_input_to_the_standard_output(command, finished):
  done = command(
    '--stage=recommend',
    f'--workdir={finished}',
    '--k=2',
    '--exclude_history',
    given='{"user": "a", "history": [1, "2"]}\nno\n{"user": "b", "history": []}\n',
  )
  assert done.returncode == 0, done.stderr
  first, second, third = map(json.loads, done.stdout.splitlines())
  assert [first['user'], third['user']] == ['a', 'b'] and second['line'] == 2
  assert len(first['recommendations']) == 2 and not {1, 2} & {each['item'] for each in first['recommendations']}
  header, protocol, end = done.stderr.splitlines()
  stamp = r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d '
  assert re.fullmatch(f'{stamp}recommend: 60 items, beam 20, 1 CPU device', header)
  assert re.fullmatch(f'{stamp}recommend: items of the history are left out: as --exclude_history=true says', protocol)
  assert re.fullmatch(f'{stamp}recommend: 2 users; 1 invalid line, with an "error" in the output', end)


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


def recommended(workdir, tmp_path, users, **options):
  """The ids that each user gets."""
  (tmp_path / 'users').write_text('\n'.join(json.dumps({'history': history}) for history in users))
  given = commands.Options(input=str(tmp_path / 'users'), output=str(tmp_path / 'lists'), beam=60, k=60, **options)
  commands.run('recommend', workdir, given)
  answers = [json.loads(line) for line in (tmp_path / 'lists').read_text().splitlines()]
  return [{each['id'] for each in answer['recommendations']} for answer in answers]


def test_items_that_may_repeat(finished, tmp_path, capsys):
  (tmp_path / 'repeat').write_text('\ufeff2\u00a0\n\nwho\n5\n')
  (tmp_path / 'deny').write_text('5\n')
  repeat = {'repeat': str(tmp_path / 'repeat')}
  everything = set(map(str, range(60)))
  users = [[1, 2, 3], [5, 2], [4]]
  assert recommended(finished, tmp_path, users, **repeat) == [everything - {'1', '3'}, everything, everything - {'4'}]
  said = capsys.readouterr().err
  assert 'unknown: 1 of the 3 items of --repeat' in said
  assert f'items of the history are left out, except those of --repeat={tmp_path / "repeat"}' in said
  found = recommended(finished, tmp_path, users, exclude_history=True, deny=str(tmp_path / 'deny'), **repeat)
  assert found == [everything - {'1', '3', '5'}, everything - {'5'}, everything - {'4', '5'}]
  with pytest.raises(
    InputError, match='names items that may repeat, and --exclude_history=false lets all; expected one'
  ):
    recommended(finished, tmp_path, users, exclude_history=False, **repeat)
  (tmp_path / 'repeat').write_text('\n')
  with pytest.raises(InputError, match='repeat names no item'):
    recommended(finished, tmp_path, users, **repeat)


def test_validation_chooses_whether_the_history_is_left_out(finished, tmp_path, capsys):
  workdir = shutil.copytree(finished, tmp_path / 'workdir')
  path, everything = workdir / 'evaluation/metrics.json', set(map(str, range(60)))
  metrics = json.loads(path.read_text())
  for exclude_history, said in (
    (True, 'left out: NDCG@10 on validation is 0.5000 without them, 0.2500 with them; --exclude_history=false says'),
    (False, 'kept: NDCG@10 on validation is 0.2500 without them, 0.5000 with them; --exclude_history=true says'),
    (None, 'left out: as no evaluation has chosen; --exclude_history=false keeps them'),
  ):
    values = (0.25, 0.5) if exclude_history else (0.5, 0.25)
    choice = {'exclude_history': exclude_history, 'ndcg@10': dict(zip(('history_in', 'history_out'), values))}
    path.write_text(json.dumps({**metrics, 'recommend': choice}))
    if exclude_history is None:
      path.unlink()
    left = everything if exclude_history is False else everything - {'1', '2'}
    assert recommended(workdir, tmp_path, [[1, 2]]) == [left]
    assert f'recommend: items of the history are {said}' in capsys.readouterr().err
    assert recommended(workdir, tmp_path, [[1, 2]], exclude_history=True) == [everything - {'1', '2'}]
    assert recommended(workdir, tmp_path, [[1, 2]], exclude_history=False) == [everything]
    assert 'kept: as --exclude_history=false says' in capsys.readouterr().err
  for damaged in ('{"recommend": true}', '[]', '{'):
    path.write_text(damaged)
    with pytest.raises(InputError, match='metrics.json'):
      recommended(workdir, tmp_path, [[1, 2]])


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


def test_a_recipe_for_a_finished_workdir(tmp_path, capsys):
  config = config_with(run_settings())
  for command, said in (('export', 'only arranges the devices (config.mesh)'), ('compare', 'is not used')):
    with pytest.raises(InputError):  # there is no such workdir
      commands.run(command, tmp_path, commands.Options(workdirs=(str(tmp_path),)), config)
    assert f'{command}: --config {said}; all settings are those of the workdir\n' in capsys.readouterr().err


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


def start(*flags, **streams):
  command = [sys.executable, '-m', 'letter_jax.main', '--stage=recommend', '--k=1', *map(str, flags)]
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
  return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, env=environment, **streams)


@pytest.mark.parametrize('sent', [signal.SIGTERM, signal.SIGINT])
def test_a_file_that_ends_early_is_named_with_the_rest_of_the_input(finished, tmp_path, sent):
  """Its lines, and those of the rest that the message names, are the answers to all."""
  users, recs, partial = (tmp_path / name for name in ('users', 'recs', 'recs.partial'))
  # Blank lines have no answers, and some answers are errors.
  lines = [f'{{"user": {user}, "history": [{user % 50}]}}\n' + '\n' * (user % 3) for user in range(50_000)]
  users.write_text('no\n' + ''.join(lines))
  # A shell that starts a command in the background has it and its children ignore SIGINT.
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  process = start(f'--workdir={finished}', f'--input={users}', f'--output={recs}')
  signal.signal(signal.SIGINT, before)
  until(lambda: partial.exists() and partial.stat().st_size, [process])
  process.send_signal(sent)
  error = process.communicate(timeout=HANG_SECONDS)[1].decode().splitlines()[-1]
  assert process.returncode == {signal.SIGTERM: 143, signal.SIGINT: 2}[sent] and not recs.exists()
  answered = [json.loads(line) for line in partial.read_text().splitlines()]
  assert f'{partial} has {len(answered):,} lines, the answers up to line ' in error and 'Traceback' not in error
  rest = tmp_path / 'rest'
  with rest.open('w') as file:
    subprocess.run(error.partition('(')[2].partition(')')[0].split(), stdout=file, check=True)
  left = [json.loads(line)['user'] for line in rest.read_text().split('\n') if line]
  assert [answer.get('user') for answer in answered] + left == [None, *range(50_000)] and left
  if sent == signal.SIGTERM:
    rest.write_text(''.join(rest.read_text().splitlines(keepends=True)[:30]))
    process = start(f'--workdir={finished}', f'--input={rest}', f'--output={tmp_path / "others"}')
    assert process.wait(HANG_SECONDS) == 0 and partial.exists()
    users_of_rest = [json.loads(line)['user'] for line in (tmp_path / 'others').read_text().splitlines()]
    assert users_of_rest == left[: len(users_of_rest)] and users_of_rest


def test_of_a_stream_that_ends_early_every_line_is_answered_or_named(finished):
  process = start(f'--workdir={finished}', stdin=subprocess.PIPE, stdout=subprocess.PIPE)
  process.stdin.write(b'{"user": 0, "history": [1]}\n\n')
  process.stdin.flush()
  answered = [json.loads(process.stdout.readline())['user']]
  process.stdin.write(b''.join(b'{"user": %d, "history": [1]}\n' % user for user in range(1, 1001)))
  process.stdin.flush()
  answered.append(json.loads(process.stdout.readline())['user'])
  process.send_signal(signal.SIGTERM)  # the input stays open
  answered += [json.loads(line)['user'] for line in process.stdout.read().splitlines()]
  error = process.stderr.read().decode().splitlines()[-1]
  assert process.wait(HANG_SECONDS) == 143 and answered == list(range(len(answered)))
  last = len(answered) + 1  # the second line is blank
  assert f'wrote {len(answered):,} lines, the answers up to line {last} of the input, and no line after' in error
  assert f'recommend from line {last + 1} on' in error
  process.stdin.close()


def test_a_stream_that_waits_ends_at_once(finished):
  process = start(f'--workdir={finished}', stdin=subprocess.PIPE, stdout=subprocess.PIPE)
  assert b'items, beam' in process.stderr.readline()
  time.sleep(0.5)
  process.send_signal(signal.SIGTERM)
  assert process.wait(HANG_SECONDS) == 143
  assert b'terminated; no line is answered; the same command starts again' in process.stderr.read()
  process.stdin.close()


def test_readers_need_no_lock_and_writers_do(command, finished, tmp_path):
  workdir = shutil.copytree(finished, tmp_path / 'workdir')
  lock = Lock(workdir)
  lock.acquire()
  try:
    done = command('--stage=recommend', f'--workdir={workdir}', given='{"history": [1]}\n')
    assert done.returncode == 0 and 'recommendations' in done.stdout, done.stderr
    fails(command('--stage=export', f'--workdir={workdir}', '--platforms=cpu'), f'{workdir} is in use by process')
    assert not (workdir / 'export').exists()
  finally:
    lock.release()


def test_an_export_that_fails_leaves_the_one_before(finished, tmp_path, monkeypatch):
  workdir = shutil.copytree(finished, tmp_path / 'workdir')
  commands.run('export', workdir, commands.Options(platforms=('cpu',)))
  before = {path: path.read_bytes() for path in (workdir / 'export').rglob('*') if path.is_file()}
  assert (workdir / 'export/items.json') in before

  def full(path, content):
    raise OSError('No space left on device')

  with monkeypatch.context() as patch:
    patch.setattr(export, '_write_bytes', full)
    with pytest.raises(InputError, match='No space left'):
      commands.run('export', workdir, commands.Options(platforms=('cuda',)))
  assert {path: path.read_bytes() for path in (workdir / 'export').rglob('*') if path.is_file()} == before
  commands.run('export', workdir, commands.Options(platforms=('cuda',)))
  assert sorted(path.name for path in (workdir / 'export').glob('search*')) == ['search_cuda.stablehlo']
  assert not [path for path in workdir.iterdir() if path.name.startswith('.')]


def test_what_was_changed_by_hand_is_noticed(finished, tmp_path):
  shutil.copytree(finished, tmp_path / 'workdir')
  (tmp_path / 'workdir/semantic_ids/index.json').unlink()
  for stage in ('recommend', 'export'):
    with pytest.raises(InputError, match='index.json missing or changed since it was written'):
      commands.run(stage, tmp_path / 'workdir', commands.Options(platforms=('cpu',)))
  (tmp_path / 'workdir/evaluation/predictions.jsonl').write_text('{}\n')
  with pytest.raises(InputError, match='predictions.jsonl missing or changed since it was written'):
    commands.run('compare', tmp_path, commands.Options(workdirs=(str(finished), str(tmp_path / 'workdir'))))
