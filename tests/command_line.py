"""`letter-jax ARGUMENTS` as a process of its own that need not import anything first.

Half of the time of a short command is the import of JAX, Flax, Orbax and TFDS. Here one process imports them and forks
for each command; a fork has its own flags, streams, exit code and exit handlers, as a command has that a user starts.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading

from tests.paths import ROOT

# Imported by the commands that the tests run; the first `jax` of a fork would otherwise cost seconds.
PRELOADED = (
  'jax',
  'flax.linen',
  'optax',
  'grain',
  'orbax.checkpoint',
  'tensorflow_datasets',
  'letter_jax.main',
  'letter_jax.pipeline.run',
  'letter_jax.generators.tiger.generator',
  'letter_jax.serving.recommender',
  'letter_jax.collaborative.sasrec_training',
  'letter_jax.tokenizer.training',
)


def _serve() -> None:
  """Forks for each request on the standard input, and answers with the exit code."""
  import importlib
  import warnings

  for name in PRELOADED:
    importlib.import_module(name)
  warnings.filterwarnings('ignore', message=r'os.fork\(\) was called')  # no backend has been started yet
  for line in sys.stdin:
    request = json.loads(line)
    child = os.fork()
    if not child:
      for descriptor, (path, mode) in enumerate(zip(request['streams'], (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY))):
        os.dup2(os.open(path, mode), descriptor)
      sys.stdin = os.fdopen(0, encoding='utf-8', closefd=False)
      sys.argv = ['letter-jax', *request['arguments']]
      from letter_jax import main

      main.run()  # ends the process
      os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


class CommandLine:
  """The process that forks; started by the first command."""

  def __init__(self) -> None:
    self._server: subprocess.Popen | None = None
    self._lock = threading.Lock()

  def __call__(self, *arguments, given: str = '') -> subprocess.CompletedProcess:
    """Runs a command in the root of the repository, with `given` as its standard input, and waits for its end."""
    with self._lock, tempfile.TemporaryDirectory() as folder:
      if self._server is None:
        self._server = subprocess.Popen(
          [sys.executable, '-m', 'tests.command_line'],
          cwd=ROOT,
          text=True,
          stdin=subprocess.PIPE,
          stdout=subprocess.PIPE,
          env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
        )
      streams = [os.path.join(folder, name) for name in ('stdin', 'stdout', 'stderr')]
      for path, content in zip(streams, (given, '', '')):
        with open(path, 'w', encoding='utf-8') as file:
          file.write(content)
      words = list(map(str, arguments))
      self._server.stdin.write(json.dumps({'arguments': words, 'streams': streams}) + '\n')
      self._server.stdin.flush()
      code = int(self._server.stdout.readline())
      said = [pathlib.Path(path).read_text(encoding='utf-8') for path in streams[1:]]
    return subprocess.CompletedProcess(words, code, *said)

  def close(self) -> None:
    """Ends the process that forks."""
    if self._server is not None:
      self._server.stdin.close()
      self._server.wait()
      self._server = None


if __name__ == '__main__':
  _serve()
