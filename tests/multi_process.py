"""Runs of the program as several processes on this machine, for tests and for `tests/kill_test.py`."""

import contextlib
import os
import pathlib
import socket
import subprocess
import sys

from tests.paths import ROOT


def _free_port() -> int:
  with contextlib.closing(socket.socket()) as probe:
    probe.bind(('localhost', 0))
    return probe.getsockname()[1]


def start(
  folder: pathlib.Path,
  arguments: list[str],
  processes: int = 2,
  program=('-m', 'letter_jax.main'),
  environment: dict[str, str] | None = None,
) -> list[subprocess.Popen]:
  """The processes of one run, each with one CPU device; what they say goes to FOLDER/process_I.log."""
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


def wait(started: list[subprocess.Popen], timeout: float = 300) -> list[int]:
  """Their exit codes; none is left running."""
  try:
    return [process.wait(timeout) for process in started]
  finally:
    for process in started:
      process.kill()


def said(folder: pathlib.Path, index: int) -> str:
  return (folder / f'process_{index}.log').read_text(encoding='utf-8', errors='replace')


def error_of(folder: pathlib.Path, index: int) -> str:
  """The one line that says why the process ended."""
  lines = [line for line in said(folder, index).splitlines() if line.startswith('letter_jax: error: ')]
  assert len(lines) == 1, said(folder, index)
  return lines[0]
