"""Reads raw files line by line, gzip or not, and counts their invalid lines."""

import dataclasses
import gzip
import io
import json
import math
import pathlib
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from letter_jax.system.errors import InputError


class DamagedFile(InputError):
  """A truncated or corrupted file.

  Attributes:
    path: the file.
  """

  def __init__(self, path: pathlib.Path, message: str):
    super().__init__(message)
    self.path = path

  def __reduce__(self) -> tuple[type, tuple[pathlib.Path, str]]:
    return DamagedFile, (self.path, str(self))


@dataclasses.dataclass(frozen=True)
class Span:
  """The lines of a file whose first byte is one of `start` .. `end` - 1; by default, all lines.

  A gzip file can only be read as a whole.

  Attributes:
    path: a `pathlib.Path`, or an `epath.Path` on a remote file system.
    start: in bytes.
    end: in bytes.
  """

  path: pathlib.Path
  start: int = 0
  end: float = math.inf


@dataclasses.dataclass
class Problems:
  """Counts of invalid records by kind, with the position of the first of each kind.

  Attributes:
    counts: kind -> number of records.
    first: kind -> file and line of the first; lines are numbered from 1 at the start of the span.
    lines: number of lines read from all spans, including blank ones.
  """

  counts: dict[str, int] = dataclasses.field(default_factory=dict)
  first: dict[str, tuple[pathlib.Path, int]] = dataclasses.field(default_factory=dict)
  lines: int = 0

  def add(self, kind: str, path: pathlib.Path, line: int) -> None:
    """Counts a record of this kind."""
    self.counts[kind] = self.counts.get(kind, 0) + 1
    self.first.setdefault(kind, (path, line))

  def summary(self) -> dict[str, dict]:
    """kind -> {'lines': records, 'first': 'FILE:LINE'}, as in `summary.json`."""
    return {
      kind: {'lines': count, 'first': f'{self.first[kind][0].name}:{self.first[kind][1]}'}
      for kind, count in self.counts.items()
    }


def read_lines(span: Span, problems: Problems, encoding: str = 'utf-8') -> Iterator[tuple[int, str]]:
  """Yields (line number from 1, text) of every line that is not blank.

  Bytes that cannot be decoded become U+FFFD and count as a problem.

  Raises:
    InputError: the file does not exist.
    DamagedFile: a gzip stream is corrupted or truncated.
  """
  path, number = span.path, 0
  if not path.is_file():
    raise InputError(f'{path} does not exist; expected a raw file of this name')
  try:
    with path.open('rb') as stored, gzip.open(stored) if is_gzip(path) else stored as file:
      for number, line in enumerate(_lines_of(file, span), 1):
        problems.lines += 1
        try:
          text = line.decode(encoding)
        except UnicodeDecodeError:
          problems.add(f'invalid {encoding.upper()} (replaced)', path, number)
          text = line.decode(encoding, 'replace')
        if number == 1 and not span.start:
          text = text.removeprefix('\ufeff')  # a byte order mark
        if text.strip():
          yield number, text
  except (EOFError, zlib.error, gzip.BadGzipFile) as error:
    raise DamagedFile(
      path,
      f'{path} is damaged or was not downloaded completely (line {number}: {error}); expected a complete gzip file',
    ) from error


def is_gzip(path: pathlib.Path) -> bool:
  """Whether the file is a gzip file, by its name."""
  return path.suffix == '.gz'


def _lines_of(file: io.BufferedIOBase, span: Span) -> Iterator[bytes]:
  """A line belongs to the span that contains its first byte."""
  if span.start:
    file.seek(span.start - 1)
    file.readline()  # the rest of a line that began in the previous span
  if math.isinf(span.end):
    yield from file
    return
  position = file.tell()
  while position < span.end and (line := file.readline()):
    position += len(line)
    yield line


def read_records(
  span: Span,
  problems: Problems,
  keys: tuple[str, ...],
  unparsable: str,
  lacking: str,
  parse: Callable[[str], Any] = json.loads,
) -> Iterator[tuple[int, dict, list]]:
  """Yields (line number, record, its values of `keys`) of every line that holds an object with these keys.

  Args:
    span: the lines to read.
    problems: counts the other lines.
    keys: required keys.
    unparsable: the kind of problem of a line that cannot be parsed.
    lacking: the kind of problem of a line without an object or without one of the keys.
    parse: parses a line.

  Raises:
    InputError: as `read_lines`.
  """
  path = span.path
  for number, line in read_lines(span, problems):
    try:
      record = parse(line)
      values = [record[key] for key in keys]
    except (KeyError, TypeError):
      problems.add(lacking, path, number)
      continue
    except (ValueError, SyntaxError, MemoryError, RecursionError):
      problems.add(unparsable, path, number)
      continue
    yield number, record, values
