"""Progress through something with a known number of parts."""

import time

from tqdm import tqdm

from letter_jax.system import time_left

LINE_SECONDS = 60.0


class Progress:
  """A context with a bar on a terminal; elsewhere it prints a line a minute, with the time that is left."""

  def __init__(self, label: str, total: int, unit: str, done: int = 0) -> None:
    """Starts.

    Args:
      label: what goes on; '' shows nothing.
      total: the number of parts.
      unit: the name of a part.
      done: the number of parts that are done before.
    """
    self._label, self._total, self._unit, self._done = label, total, unit, done
    self._bar = tqdm(
      total=total, initial=done, desc=label, unit=unit, disable=None if label else True, dynamic_ncols=True
    )
    self._lines = bool(label) and self._bar.disable
    self._line = time.perf_counter()
    # When the first parts were done, which includes compilation, and how many.
    self._first: tuple[float, int] | None = None

  def __enter__(self) -> 'Progress':
    return self

  def __exit__(self, *_: object) -> None:
    self._bar.close()

  def update(self, parts: int) -> None:
    """Adds parts that are done."""
    self._done += parts
    self._bar.update(parts)
    now = time.perf_counter()
    if self._first is None:
      self._first = now, self._done
    elif self._lines and now - self._line >= LINE_SECONDS:
      self._line = now
      started, before = self._first
      seconds = (self._total - self._done) * (now - started) / (self._done - before)
      print(
        f'{self._label}: {self._done:,} of {self._total:,} {self._unit}s, about {time_left.duration(seconds)} left',
        flush=True,
      )
