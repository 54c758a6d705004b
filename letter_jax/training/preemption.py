"""Preemption: on SIGTERM, save the state and stop before the machine is taken away."""

import signal
import threading
from types import FrameType
from typing import Any

from letter_jax.system import processes


class PreemptionWatch:
  """A context that notes SIGTERM. Outside of a training SIGTERM ends the process: every file is written atomically."""

  def __enter__(self) -> 'PreemptionWatch':
    self._requested = False
    # With several processes JAX handles the signal, and agrees with the others on the step.
    self._handles_signal = processes.count() == 1 and threading.current_thread() is threading.main_thread()
    self._previous_handler: Any = None
    if self._handles_signal:
      self._previous_handler = signal.signal(signal.SIGTERM, self._note)
    return self

  def __exit__(self, *_: object) -> None:
    if self._handles_signal:
      signal.signal(signal.SIGTERM, self._previous_handler)

  def _note(self, signal_number: int, frame: FrameType | None) -> None:
    self._requested = True

  def requested(self) -> bool:
    """Whether to save and stop now. Call it after every step call: all processes get True after the same call."""
    return self._requested if processes.count() == 1 else processes.preemption_agreed()
