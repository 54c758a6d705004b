"""Runs of the program as several processes on this machine, for tests and for `tests/kill_test.py`."""

import contextlib
import pathlib
import socket
import time
from collections.abc import Callable, Sequence

from tests import forked
from tests.forked import HANG_SECONDS

# A machine that stands still for half a minute is not a process that has died. Not where one is killed: the others end
# when they miss it.
PATIENT = f'from letter_jax.system import processes\nprocesses.HEARTBEAT_SECONDS = {HANG_SECONDS}\n'


def _free_port() -> int:
  with contextlib.closing(socket.socket()) as probe:
    probe.bind(('localhost', 0))
    return probe.getsockname()[1]


def start(
  folder: pathlib.Path, arguments: list[str], processes: int = 2, program: str = forked.LETTER_JAX
) -> list[forked.Process]:
  """Starts the processes of one run, each with one CPU device and its output in FOLDER/process_I.log."""
  folder.mkdir(parents=True, exist_ok=True)
  of_all = [*arguments, f'--coordinator=localhost:{_free_port()}', f'--processes={processes}']
  return [
    forked.start([*of_all, f'--process={index}'], folder / f'process_{index}.log', program=program)
    for index in range(processes)
  ]


def wait(started: list[forked.Process]) -> list[int]:
  """The exit codes of the processes, all of which have ended afterwards."""
  try:
    return [process.wait(HANG_SECONDS) for process in started]
  finally:
    for process in started:
      process.kill()


def until(condition: Callable[[], bool], started: Sequence[forked.Process] = ()) -> None:
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
