"""Where recommendations go: to stdout, or to a file that appears when it is complete."""

import contextlib
import os
import pathlib
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import IO

from letter_jax.cli.options import STANDARD
from letter_jax.system.errors import InputError
from letter_jax.system.wording import counted


class Output:
  """A context in which lines are written.

  A file is written as FILE.partial and renamed at the end of the context. After an error FILE is as it was, and what
  was written stays in FILE.partial. What is not a regular file, such as a pipe, is written directly.

  Attributes:
    lines: the number of lines that are written.
  """

  def __init__(self, path: str, read: str) -> None:
    """Opens nothing yet.

    Args:
      path: the file, or STANDARD.
      read: the file that the lines answer, or STANDARD.

    Raises:
      InputError: the two are the same file.
    """
    self._path, self._read = path, read
    self.lines = 0
    regular = path != STANDARD and (os.path.isfile(path) or not os.path.exists(path))
    self._final = pathlib.Path(os.path.realpath(path)) if regular else None
    self._partial = self._final and self._final.with_name(f'{self._final.name}.partial')
    if STANDARD not in (path, read):
      for written in filter(os.path.exists, (path, self._partial or path)):
        if os.path.exists(read) and os.path.samefile(written, read):
          raise InputError(f'--output={path} is the input; expected a different file')

  def require_writable(self) -> None:
    """Raises InputError where nothing can be written, or FILE.partial holds the answers of a run that was ended."""
    if self._path == STANDARD and sys.stdout.name == os.devnull:  # as `environment.prepare` opens a closed stream
      raise InputError('stdout is closed; expected it open for the answers, or --output=FILE')
    if self._partial:
      self._open('a').close()
      if self._partial.stat().st_size:
        raise InputError(
          f'{self._partial} holds the answers of a run that was ended; expected that it was moved or removed, or a '
          'different --output'
        )
      self._partial.unlink()

  def __enter__(self) -> 'Output':
    self._file = self._open('w')
    return self

  def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
    with contextlib.suppress(OSError) if kind else contextlib.nullcontext():  # a full disk was reported before
      self._file.close()
    if self._final and self._partial:
      if kind is None:
        os.replace(self._partial, self._final)
      elif not self.lines:
        self._partial.unlink()

  @contextlib.contextmanager
  def uninterrupted(self) -> Iterator[None]:
    """A context at whose end Ctrl-C takes effect, so that what is written is what is counted.

    Not for a pipe or a terminal, where a write can wait for the reader.
    """
    before = signal.getsignal(signal.SIGINT)
    if self._final is None or not callable(before):
      yield
      return
    held: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
    try:
      yield
    finally:
      signal.signal(signal.SIGINT, before)
    if held:
      signal.raise_signal(signal.SIGINT)

  def write(self, lines: Sequence[str]) -> bool:
    """Writes lines, each without its newline; returns whether anybody still reads.

    Raises:
      InputError: the disk is full.
    """
    try:
      self._file.write(''.join(f'{line}\n' for line in lines))
      self._file.flush()
    except BrokenPipeError:  # the reader has enough
      os.dup2(os.open(os.devnull, os.O_WRONLY), self._file.fileno())
      return False
    except OSError as error:
      raise InputError(
        f'--output={self._path} cannot be written ({error}); expected a disk with room; what was written stays'
        + (f', in {self._partial or self._path}' if self._path != STANDARD else '')
      ) from error
    self.lines += len(lines)
    return True

  def how_to_go_on(self, last: int) -> str:
    """What is written, and how the rest can be had.

    Args:
      last: number of the last line of the input that is answered; 0: none is.
    """
    if not last:
      return 'no line is answered; the same command starts again'
    lines = counted(self.lines, 'line')
    written = f'{self._partial} has {lines}' if self._partial else f'wrote {lines}'
    if os.path.isfile(self._read):
      of_input, rest = self._read, f'the rest (tail -n +{last + 1} {shlex.quote(self._read)})'
    else:
      of_input, rest = 'the input', f'from line {last + 1} on'
    elsewhere = '' if self._path == STANDARD else ' to a different --output'
    return (
      f'{written}, the answers up to line {last} of {of_input}, and no line after that is answered; to go on, '
      f'recommend {rest}{elsewhere}, and append its answers'
    )

  def _open(self, mode: str) -> IO[str]:
    # JSON can hold half of a surrogate pair; it is written as JSON escapes it.
    encoding, errors = 'utf-8', 'backslashreplace'
    if self._path == STANDARD:
      # With PYTHONUNBUFFERED, sys.stdout drops what a signal has kept from being written to a pipe.
      return open(sys.stdout.fileno(), mode, encoding=encoding, errors=errors, closefd=False)
    try:
      return open(self._partial or self._path, mode, encoding=encoding, errors=errors)
    except OSError as error:
      raise InputError(
        f'--output={self._path} cannot be written ({error}); expected a file in a folder that can be written'
      ) from error
