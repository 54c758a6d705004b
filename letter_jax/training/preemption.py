"""Preemption: on SIGTERM or SIGHUP, save the state and stop before the machine or the terminal is taken away."""

import functools
import signal
import threading
from types import FrameType
from typing import Any

from letter_jax.system import processes

SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class PreemptionWatch:
  """A context that notes these signals, unless they are ignored, as SIGHUP is by nohup."""

  def __enter__(self) -> 'PreemptionWatch':
    self._noted: set[int] = set()
    self._replaced: dict[signal.Signals, Any] = {}
    # With several processes JAX handles the signal, and agrees with the others on the step.
    if processes.count() == 1 and threading.current_thread() is threading.main_thread():
      for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
          self._replaced[number] = signal.signal(number, self._note)
    return self

  def __exit__(self, *_: object) -> None:
    for number, handler in self._replaced.items():
      # A thread that hears of the signal late must not take the handler of before for the one that it was meant for.
      again = functools.partial(handler) if number in self._noted and callable(handler) else handler
      signal.signal(number, again)

  def _note(self, signal_number: int, frame: FrameType | None) -> None:
    self._noted.add(signal_number)

  def requested(self) -> bool:
    """Whether to save and stop now. Call it after every step call: all processes get True after the same call."""
    return bool(self._noted) if processes.count() == 1 else processes.preemption_agreed()
