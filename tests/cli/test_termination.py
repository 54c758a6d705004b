"""SIGTERM and SIGHUP while a stage works: the program ends at once, with one line and without its lock."""

import signal
import subprocess
import sys

import pytest

from tests.forked import HANG_SECONDS
from tests.paths import ROOT

PROGRAM = """
import hashlib, pathlib, signal, sys, time
from letter_jax.cli.termination import ends_at_once
from letter_jax.system import processes
from letter_jax.training.preemption import PreemptionWatch

kind, folder = sys.argv[1:]
# A process inherits an ignored SIGHUP, as from nohup.
signal.signal(signal.SIGHUP, signal.SIG_IGN if kind == 'nohup' else signal.SIG_DFL)
with ends_at_once(), processes.locked(pathlib.Path(folder)):
  if kind == 'training':
    with PreemptionWatch() as watch:
      print('ready', flush=True)
      while not watch.requested():
        time.sleep(0.01)
    print('saved', flush=True)
  elif kind == 'long call':
    print('ready', flush=True)
    hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)  # a quarter of an hour in C, without the interpreter's lock
  else:
    print('ready', flush=True)
    sys.stdin.read(1)
print('went on', flush=True)
"""


@pytest.fixture
def start(tmp_path):
  started = []

  def start(kind):
    process = subprocess.Popen(
      [sys.executable, '-c', PROGRAM, kind, str(tmp_path / 'workdir')],
      cwd=ROOT,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    started.append(process)
    assert process.stdout.readline() == 'ready\n'
    assert (tmp_path / 'workdir/run.lock').exists()
    return process

  yield start
  for process in started:
    process.kill()
    process.communicate()


@pytest.mark.parametrize('kind', ['waits', 'long call'])
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGHUP])
def test_the_program_ends_at_once_without_its_lock(start, tmp_path, kind, number):
  process = start(kind)
  process.send_signal(number)
  said, error = process.communicate(timeout=HANG_SECONDS)
  assert process.returncode == 128 + number and said == ''
  assert error == 'letter_jax: error: terminated; what is complete stays, and the same command goes on from there\n'
  assert not (tmp_path / 'workdir/run.lock').exists()


def test_a_training_handles_the_signal_itself(start):
  process = start('training')
  process.send_signal(signal.SIGTERM)
  assert process.communicate(timeout=HANG_SECONDS) == ('saved\nwent on\n', '') and process.returncode == 0


def test_a_signal_that_is_ignored_stays_ignored(start):
  process = start('nohup')
  process.send_signal(signal.SIGHUP)
  assert process.communicate('x', timeout=HANG_SECONDS) == ('went on\n', '') and process.returncode == 0


CTRL_C = """
import gc, signal, time
from letter_jax.cli import one_line_errors

one_line_errors.handle_unraisable_errors()
signal.signal(signal.SIGINT, signal.default_int_handler)
gc.callbacks.append(lambda phase, details: phase == 'start' and signal.raise_signal(signal.SIGINT))
try:
  gc.collect()
  gc.callbacks.clear()
  time.sleep(10)
  print('went on')
except KeyboardInterrupt:
  print('interrupted')
"""


def test_ctrl_c_in_a_callback_is_not_lost():
  ended = subprocess.run([sys.executable, '-c', CTRL_C], cwd=ROOT, capture_output=True, text=True, timeout=HANG_SECONDS)
  assert (ended.stdout, ended.stderr) == ('interrupted\n', '')
