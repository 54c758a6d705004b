"""A machine that is taken away says so first, with SIGTERM: what was computed is saved in the time that is left."""

import itertools
import signal
import threading

from jax.experimental import multihost_utils

from letter_jax.system import processes

# JAX agrees on the next number, so it has to go up by one, whatever the steps of a call and from training to training.
_calls = itertools.count()


class PreemptionWatch:
  """Listens while it is entered. Outside of a training SIGTERM ends the process: everything is written whole anyway."""

  def __enter__(self) -> 'PreemptionWatch':
    self._requested = False
    # With several processes JAX listens itself, and agrees with the others on the step.
    self._listens = processes.count() == 1 and threading.current_thread() is threading.main_thread()
    if self._listens:
      self._before = signal.signal(signal.SIGTERM, self._note)
    return self

  def __exit__(self, *_) -> None:
    if self._listens:
      signal.signal(signal.SIGTERM, self._before)

  def _note(self, *_) -> None:
    self._requested = True

  def requested(self) -> bool:
    """Whether to save and stop now; called after every call of a step, and true for all processes at the same."""
    return self._requested if processes.count() == 1 else multihost_utils.reached_preemption_sync_point(next(_calls))
