"""The lock of a folder: held, released, left by a kill, of another machine, on a disk without the kernel's locks."""

import contextlib
import dataclasses
import errno
import json
import os
import re
import signal
import subprocess
import sys

import pytest

from letter_jax.system import lock
from letter_jax.system.errors import InputError
from letter_jax.system.lock import Holder, Lock
from tests.paths import ROOT

HOLD = """
import pathlib, sys
from letter_jax.system.lock import Lock
if sys.argv[2] == 'no flock':
  from letter_jax.system import lock
  lock._flock = lambda descriptor: None
Lock(pathlib.Path(sys.argv[1])).acquire()
print('held', flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def holder(folder, flock='flock'):
  """A process that holds the lock, until it is killed."""
  command = [sys.executable, '-c', HOLD, str(folder), flock]
  with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
    assert process.stdout.readline() == 'held\n'
    try:
      yield process
    finally:
      process.kill()


@pytest.fixture(params=['flock', 'no flock'])
def flock(request, monkeypatch):
  """With the kernel's locks and without."""
  if request.param == 'no flock':
    monkeypatch.setattr(lock, '_flock', lambda descriptor: None)
  return request.param


def write(folder, **changes):
  """The lock of this process with some fields changed."""
  values = {**dataclasses.asdict(Holder.this_process()), **changes}
  (folder / 'run.lock').write_text(json.dumps(values))


def refusal(folder):
  before = (folder / 'run.lock').read_bytes()
  with pytest.raises(InputError) as caught:
    Lock(folder).acquire()
  assert (folder / 'run.lock').read_bytes() == before and '\n' not in str(caught.value)
  return str(caught.value)


def take(folder):
  """Takes the lock and gives it back."""
  taken = Lock(folder)
  taken.acquire()
  written = json.loads((folder / 'run.lock').read_text())
  assert (written['pid'], written['host']) == (os.getpid(), os.uname().nodename)
  taken.release()
  assert not (folder / 'run.lock').exists()


def test_the_folder_is_made_and_the_lock_leaves_nothing(tmp_path, flock, capsys):
  workdir = tmp_path / 'new/workdir'
  take(workdir)
  assert not (tmp_path / 'new').exists()  # nothing was written there
  lock = Lock(workdir)
  lock.acquire()
  (workdir / 'stage').touch()
  lock.release()
  assert [path.name for path in workdir.iterdir()] == ['stage'] and capsys.readouterr().out == ''


def test_the_second_is_told_who_holds_it_and_since_when(tmp_path, flock):
  with holder(tmp_path, flock) as process:
    said = refusal(tmp_path)
  expected = f'{tmp_path} is in use by process {process.pid} on {os.uname().nodename}, since '
  assert re.fullmatch(re.escape(expected) + r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d; expected one run .*', said)
  assert 'remove' not in said


def test_what_a_killed_process_left_is_taken_over_with_a_note(tmp_path, flock, capsys):
  with holder(tmp_path, flock) as process:
    process.send_signal(signal.SIGKILL)
    process.wait()
  assert (tmp_path / 'run.lock').exists()
  take(tmp_path)
  said = capsys.readouterr().out
  assert re.fullmatch(f'letter_jax: the lock of process {process.pid} on .*, which was killed, is taken over\n', said)


def test_a_process_that_its_parent_has_not_waited_for_has_ended(tmp_path, monkeypatch):
  monkeypatch.setattr(lock, '_flock', lambda descriptor: None)
  with holder(tmp_path, 'no flock') as process:
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    take(tmp_path)


def test_a_process_id_that_another_process_has_got_is_not_the_holder(tmp_path, flock):
  write(tmp_path, started='1')
  take(tmp_path)


def test_a_machine_that_was_started_again_has_no_holder(tmp_path, flock):
  write(tmp_path, boot='an earlier one')
  take(tmp_path)


def test_without_an_id_of_the_machine_another_boot_may_be_another_machine(tmp_path, monkeypatch, flock):
  monkeypatch.setattr(lock, '_read', lambda path: 'a boot' if 'boot_id' in str(path) else '')
  write(tmp_path, boot='another')
  assert 'if that run has ended, remove' in refusal(tmp_path)


@pytest.mark.parametrize('changes', [{'host': 'elsewhere'}, {'machine': 'another of this name'}])
def test_a_lock_of_another_machine_is_never_taken_over(tmp_path, flock, changes):
  write(tmp_path, pid=7, boot='another', flock=True, **changes)
  said = refusal(tmp_path)
  assert f'in use by process 7 on {changes.get("host", os.uname().nodename)}, since 2' in said
  assert said.endswith(f'; if that run has ended, remove {tmp_path / "run.lock"}')
  (tmp_path / 'run.lock').unlink()
  take(tmp_path)


def test_a_lock_of_another_container_is_taken_over_if_the_kernel_says_so(tmp_path):
  write(tmp_path, namespace='pid:[1]', flock=False)
  assert 'if that run has ended, remove' in refusal(tmp_path)
  write(tmp_path, namespace='pid:[1]', flock=True)
  take(tmp_path)


def test_the_kernel_knows_a_holder_of_another_machine(tmp_path):
  with holder(tmp_path):
    content = json.loads((tmp_path / 'run.lock').read_text())
    (tmp_path / 'run.lock').write_text(json.dumps({**content, 'host': 'elsewhere'}))
    assert 'on elsewhere, since' in refusal(tmp_path)


@pytest.mark.parametrize('content', ['', '{', '[]', '{"pid": 1}'])
def test_a_file_that_is_not_a_lock_is_left_alone(tmp_path, monkeypatch, content):
  monkeypatch.setattr(lock, '_WRITING_SECONDS', 0.1)
  (tmp_path / 'run.lock').write_text(content)
  assert f'{tmp_path / "run.lock"} does not say who holds it' in refusal(tmp_path)


def test_of_two_that_take_over_the_slower_one_leaves_the_lock_of_the_faster(tmp_path, monkeypatch):
  monkeypatch.setattr(lock, '_flock', lambda descriptor: None)
  write(tmp_path, started='1')
  faster, slower, is_alive = Lock(tmp_path), Lock(tmp_path), Holder.is_alive

  def overtaken(self, flock):
    monkeypatch.setattr(Holder, 'is_alive', is_alive)
    faster.acquire()
    return False

  monkeypatch.setattr(Holder, 'is_alive', overtaken)
  with pytest.raises(InputError, match=f'in use by process {os.getpid()}'):
    slower.acquire()
  faster.release()
  assert list(tmp_path.iterdir()) == []


def test_a_lock_that_was_removed_and_taken_by_another_is_not_released(tmp_path):
  first = Lock(tmp_path)
  first.acquire()
  (tmp_path / 'run.lock').unlink()
  write(tmp_path, pid=7)
  first.release()
  assert json.loads((tmp_path / 'run.lock').read_text())['pid'] == 7


def test_all_locks_are_released_at_once(tmp_path):
  for name in ('a', 'b'):
    Lock(tmp_path / name).acquire()
  lock.release_all()
  assert list(tmp_path.rglob('run.lock')) == []


def test_a_folder_that_cannot_be_written_needs_no_lock(tmp_path, monkeypatch):
  def read_only(path, flags, mode=0o777):
    raise OSError(errno.EROFS, 'Read-only file system', str(path))

  monkeypatch.setattr(os, 'open', read_only)
  unlocked = Lock(tmp_path)
  unlocked.acquire()
  unlocked.release()
  assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_an_input_error(tmp_path, monkeypatch):
  monkeypatch.setattr(os, 'write', lambda descriptor, content: 3)
  with pytest.raises(InputError, match='cannot be used .*No space left.*; expected a folder that can be written'):
    Lock(tmp_path).acquire()
  assert list(tmp_path.iterdir()) == []
