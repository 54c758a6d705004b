"""Runs of the program as several processes on this machine, for tests and for `tests/kill_test.py`."""

import contextlib
import os
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from tests.paths import ROOT

# A time-out in a test is only for a hang: far more than ten times what any of them takes on an idle machine.
HANG_SECONDS = 900


def _free_port() -> int:
  with contextlib.closing(socket.socket()) as probe:
    probe.bind(('localhost', 0))
    return probe.getsockname()[1]


def start(
  folder: pathlib.Path,
  arguments: list[str],
  processes: int = 2,
  program: tuple[str, ...] = ('-m', 'letter_jax.main'),
  environment: dict[str, str] | None = None,
) -> list[subprocess.Popen]:
  """Starts the processes of one run, each with one CPU device and its output in FOLDER/process_I.log."""
  folder.mkdir(parents=True, exist_ok=True)
  port = _free_port()
  started = []
  for index in range(processes):
    with (folder / f'process_{index}.log').open('w') as log:
      started.append(
        subprocess.Popen(
          [
            sys.executable,
            *program,
            *arguments,
            f'--coordinator=localhost:{port}',
            f'--processes={processes}',
            f'--process={index}',
          ],
          cwd=ROOT,
          stdout=log,
          stderr=subprocess.STDOUT,
          env={**os.environ, 'JAX_PLATFORMS': 'cpu', **(environment or {})},
        )
      )
  return started


def wait(started: list[subprocess.Popen]) -> list[int]:
  """The exit codes of the processes, all of which have ended afterwards."""
  try:
    return [process.wait(HANG_SECONDS) for process in started]
  finally:
    for process in started:
      process.kill()


def until(condition: Callable[[], bool], started: Sequence[subprocess.Popen] = ()) -> None:
  """Waits for the condition; fails when one of the processes ends first."""
  give_up = time.monotonic() + HANG_SECONDS
  while True:
    exit_codes = [process.poll() for process in started]
    if condition():
      return
    assert set(exit_codes) <= {None}, exit_codes
    assert time.monotonic() < give_up
    time.sleep(0.02)


def output_of(folder: pathlib.Path, index: int) -> str:
  """Everything that process `index` has printed so far."""
  return (folder / f'process_{index}.log').read_text(encoding='utf-8', errors='replace')


def error_of(folder: pathlib.Path, index: int) -> str:
  """The one line that says why the process ended."""
  output = output_of(folder, index)
  lines = [line for line in output.splitlines() if line.startswith('letter_jax: error: ')]
  assert len(lines) == 1, output
  return lines[0]
