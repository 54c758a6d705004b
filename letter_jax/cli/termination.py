"""SIGTERM and SIGHUP outside of trainings: the program ends at once, with one line, and without its locks."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from letter_jax.system import lock, processes

SIGNALS = (signal.SIGTERM, signal.SIGHUP)

_ending = threading.RLock()


@contextlib.contextmanager
def ends_at_once() -> Iterator[None]:
  """A context in which these signals end the program, also while a long call runs, such as a compilation.

  Every file is written atomically, so nothing is lost but the time since the last complete one. A training, and
  `recommend` once it answers, replace the handler by their own. With several processes JAX handles the signal.
  """
  if processes.count() > 1:
    yield
    return
  # Python runs a handler only between two of its own instructions. The thread hears of the signal at once.
  reading, writing = os.pipe()
  os.set_blocking(writing, False)
  before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
  threading.Thread(target=_listen, args=(reading,), daemon=True).start()
  replaced = [number for number in SIGNALS if signal.getsignal(number) is signal.SIG_DFL]  # nohup ignores one
  for number in replaced:
    signal.signal(number, _end)
  try:
    yield
  finally:
    for number in replaced:
      signal.signal(number, signal.SIG_DFL)
    signal.set_wakeup_fd(before)
    os.close(writing)


def _listen(reading: int) -> None:
  while received := os.read(reading, 1):
    if signal.getsignal(received[0]) is _end:
      _end(received[0], None)
  os.close(reading)


def _end(number: int, frame: FrameType | None) -> None:
  _ending.acquire()  # never released: the first thread ends the program
  lock.release_all()
  with contextlib.suppress(Exception):  # the signal may have come in the middle of a write to the same stream
    sys.stdout.flush()
  os.write(2, b'letter_jax: error: terminated; what is complete stays, and the same command goes on from there\n')
  os._exit(128 + number)
