"""The lines that a run prints: each message with the time, where nobody watches a terminal."""

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any, TextIO


def time_stamp(stream: TextIO) -> str:
  """The time, at the beginning of a message; '' on a terminal."""
  return '' if stream.isatty() else time.strftime('%Y-%m-%d %H:%M:%S ')


class _Stamped:
  """A stream whose messages begin with the time. A message that begins with an empty line is a table and does not."""

  def __init__(self, stream: TextIO) -> None:
    self._stream, self._begins = stream, True

  def write(self, text: str) -> int:
    """Writes a message or a part of one, whose end is a newline at the end of `text`."""
    if self._begins and text and not text.startswith('\n'):
      self._stream.write(time_stamp(self._stream))
    self._begins = text.endswith('\n') if text else self._begins
    return self._stream.write(text)

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stream, name)


@contextlib.contextmanager
def stamped() -> Iterator[None]:
  """A context in which every message on stdout begins with the time, unless stdout is a terminal."""
  if sys.stdout.isatty():
    yield
    return
  with contextlib.redirect_stdout(_Stamped(sys.stdout)):  # type: ignore[type-var]
    yield
