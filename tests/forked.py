"""Processes of the program, or of another one that imports the same, that need not import anything first.

Half of the time of a short command is the import of JAX, Flax, Orbax and TFDS. Here one process imports them and forks
for each that is asked for. A fork has its own streams, signals, exit code and exit handlers, as a process has that a
user starts, but libraries are imported before `environment.prepare` and with the environment of the tests: what depends
on that starts `python -m letter_jax.main`. What is read late, such as HOME, a fork's program may set. For one thread of
one process.
"""

import atexit
import contextlib
import functools
import itertools
import json
import os
import pathlib
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from tests.paths import ROOT

# Imported by what the tests run; the first `jax` of a fork would otherwise cost seconds.
PRELOADED = (
  'jax',
  'flax.linen',
  'optax',
  'grain',
  'orbax.checkpoint',
  'sklearn.feature_extraction.text',
  'tensorflow_datasets',
  'letter_jax.main',
  'letter_jax.pipeline.run',
  'letter_jax.generators.tiger.generator',
  'letter_jax.reporting.report',
  'letter_jax.serving.recommender',
  'letter_jax.collaborative.sasrec_training',
  'letter_jax.tokenizer.training',
)

# A time-out in a test is only for a hang: far more than ten times what any of them takes on an idle machine.
HANG_SECONDS = 900

LETTER_JAX = 'from letter_jax import main\nmain.run()'


class Process:
  """A fork, with the methods of `subprocess.Popen` that tests need."""

  def __init__(self, pid: int, ended: pathlib.Path, server: subprocess.Popen) -> None:
    """`ended` is the file that will have the exit code, which `server` writes."""
    self.pid, self._ended, self._server = pid, ended, server
    self.returncode: int | None = None

  def poll(self) -> int | None:
    """The exit code, None before the end; that of a signal is negative."""
    if self.returncode is None and self._ended.exists():
      self.returncode = int(self._ended.read_text())
    assert self.returncode is not None or self._server.poll() is None, f'the server ended: {self._server.returncode}'
    return self.returncode

  def wait(self, timeout: float) -> int:
    """The exit code, at the end."""
    deadline = time.monotonic() + timeout
    while (code := self.poll()) is None:
      if time.monotonic() > deadline:
        raise subprocess.TimeoutExpired(f'process {self.pid}', timeout)
      time.sleep(0.01)
    return code

  def send_signal(self, number: int) -> None:
    """Sends a signal, unless the process has ended."""
    if self.poll() is None:
      with contextlib.suppress(ProcessLookupError):  # it has ended just now
        os.kill(self.pid, number)

  def terminate(self) -> None:
    """SIGTERM."""
    self.send_signal(signal.SIGTERM)

  def kill(self) -> None:
    """SIGKILL."""
    self.send_signal(signal.SIGKILL)


def start(
  arguments: Sequence[object],
  stdout: pathlib.Path,
  stderr: pathlib.Path | None = None,
  stdin: str | os.PathLike = os.devnull,
  program: str = LETTER_JAX,
) -> Process:
  """Starts a process in the root of the repository.

  Args:
    arguments: of the program.
    stdout: a file, written anew.
    stderr: another one; None for the same.
    stdin: a file.
    program: Python source.
  """
  folder, server = _server()
  request = {
    'program': program,
    'arguments': list(map(str, arguments)),
    'streams': [os.fspath(stdin), os.fspath(stdout), os.fspath(stderr) if stderr else None],
  }
  assert server.stdin and server.stdout
  stdout.write_bytes(b'')  # so that it can be read at once
  server.stdin.write(json.dumps(request) + '\n')
  server.stdin.flush()
  answer = server.stdout.readline().split()
  assert len(answer) == 2, f'the server ended: {server.wait()}'
  return Process(int(answer[0]), folder / answer[1], server)


def run(*arguments: object, given: str = '', program: str = LETTER_JAX) -> subprocess.CompletedProcess:
  """Runs `letter-jax ARGUMENTS`, or another program, in the root of the repository.

  Args:
    arguments: of the program.
    given: its standard input.
    program: Python source.
  """
  with tempfile.TemporaryDirectory() as folder:
    stdin, stdout, stderr = (pathlib.Path(folder, name) for name in ('stdin', 'stdout', 'stderr'))
    stdin.write_text(given, encoding='utf-8')
    process = start(arguments, stdout, stderr, stdin, program)
    try:
      code = process.wait(HANG_SECONDS)
    finally:
      process.kill()
    said = [path.read_text(encoding='utf-8') for path in (stdout, stderr)]
  return subprocess.CompletedProcess(list(map(str, arguments)), code, *said)


@functools.cache
def _server() -> tuple[pathlib.Path, subprocess.Popen]:
  """The process that forks, and the folder of the exit codes."""
  folder = tempfile.TemporaryDirectory(prefix='forked_', dir=os.environ.get('LETTER_JAX_TEST_FOLDER'))
  server = subprocess.Popen(
    [sys.executable, '-m', 'tests.forked', folder.name],
    cwd=ROOT,
    text=True,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
  )

  def close() -> None:
    assert server.stdin
    server.stdin.close()
    server.wait()
    folder.cleanup()

  atexit.register(close)
  return pathlib.Path(folder.name), server


def _serve(folder: pathlib.Path) -> None:
  """Forks for each line of the standard input and answers with the process; ends with the standard input."""
  import gc
  import importlib
  import warnings

  for name in PRELOADED:
    importlib.import_module(name)
  # A collection, such as the one at the end of a process, writes to each object that it looks at, and the fork then
  # copies the page: two seconds for every fork.
  gc.freeze()
  warnings.filterwarnings('ignore', message=r'os.fork\(\) was called')  # no backend has been started yet
  child_ended, wake = os.pipe()
  for descriptor in (child_ended, wake):
    os.set_blocking(descriptor, False)
  signal.set_wakeup_fd(wake)
  signal.signal(signal.SIGCHLD, lambda *_: None)
  wait = selectors.DefaultSelector()
  wait.register(0, selectors.EVENT_READ)
  wait.register(child_ended, selectors.EVENT_READ)
  unread, requests = b'', itertools.count()
  names: dict[int, str] = {}  # of the files of the exit codes, by process
  while True:
    for key, _ in wait.select():
      if key.fd == child_ended:
        os.read(child_ended, 65536)
        _note_ends(folder, names)
        continue
      received = os.read(0, 65536)
      if not received:
        return
      *lines, unread = (unread + received).split(b'\n')
      for line in lines:
        child = os.fork()
        if not child:
          signal.set_wakeup_fd(-1)
          signal.signal(signal.SIGCHLD, signal.SIG_DFL)
          _become(json.loads(line))
          return
        names[child] = str(next(requests))  # a process may get the number of an earlier one
        os.write(1, f'{child} {names[child]}\n'.encode())


def _become(request: dict) -> None:
  """Runs the program of a request in this process."""
  stdin, stdout, stderr = request['streams']
  os.dup2(os.open(stdin, os.O_RDONLY), 0)
  os.dup2(os.open(stdout, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), 1)
  os.dup2(1 if stderr is None else os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), 2)
  sys.stdin = os.fdopen(0, encoding='utf-8', closefd=False)
  sys.argv = ['letter-jax', *request['arguments']]
  exec(compile(request['program'], '<program>', 'exec'), {'__name__': '__main__'})


def _note_ends(folder: pathlib.Path, names: dict[int, str]) -> None:
  """Writes the exit codes of the forks that have ended."""
  while True:
    try:
      child, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
      return
    if not child:
      return
    name = names.pop(child)
    partial = folder / f'{name}.partial'
    partial.write_text(str(os.waitstatus_to_exitcode(status)))
    partial.rename(folder / name)


if __name__ == '__main__':
  _serve(pathlib.Path(sys.argv[1]))
