"""Reads raw files line by line, gzip or not, and counts their invalid lines."""

import contextlib
import dataclasses
import gzip
import io
import json
import math
import pathlib
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

from letter_jax.data.json_files import shown
from letter_jax.system.errors import InputError

BLOCK_BYTES = 2**20
_NOTHING = object()
_DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile)


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
    first: kind -> file, line and refused value of the first; lines are numbered from 1 at the start of the span, and
      '' stands for no value.
    lines: number of lines read from all spans, including blank ones.
  """

  counts: dict[str, int] = dataclasses.field(default_factory=dict)
  first: dict[str, tuple[pathlib.Path, int, str]] = dataclasses.field(default_factory=dict)
  lines: int = 0

  def add(self, kind: str, path: pathlib.Path, line: int, value: Any = _NOTHING) -> None:
    """Counts a record of this kind; `value` is what was refused, if it is to be shown."""
    self.counts[kind] = self.counts.get(kind, 0) + 1
    if kind not in self.first:
      nested = isinstance(value, (list, dict))  # of any depth
      text = '' if value is _NOTHING else f'a {type(value).__name__}' if nested else shown(value)
      self.first[kind] = path, line, text

  def summary(self) -> dict[str, dict]:
    """kind -> as `described`, as in `summary.json`."""
    return {
      kind: described(count, f'{self.first[kind][0].name}:{self.first[kind][1]}', self.first[kind][2])
      for kind, count in self.counts.items()
    }


def described(count: int, first: str, value: str) -> dict[str, Any]:
  """{'lines': number of records, 'first': 'FILE:LINE', 'value': the first value that was refused, if it is shown}."""
  return {'lines': count, 'first': first, **({'value': value} if value else {})}


def read_lines(span: Span, problems: Problems, encoding: str = 'utf-8') -> Iterator[tuple[int, str]]:
  """Yields (line number from 1, text) of every line that is not blank.

  Bytes that cannot be decoded become U+FFFD and count as a problem.

  Raises:
    InputError: the file does not exist.
    DamagedFile: a gzip stream is corrupted or truncated.
  """
  path, number = span.path, 0
  try:
    with _open(path) as file:
      for number, line in enumerate(_lines_of(file, span), 1):
        problems.lines += 1
        text = _decode(line, encoding, problems, path, number)
        if number == 1 and not span.start:
          text = text.removeprefix('\ufeff')  # a byte order mark
        if text.strip():
          yield number, text
  except _DAMAGE as error:
    raise _damaged(path, number, error) from error


def read_blocks(path: pathlib.Path, problems: Problems) -> Iterator[list[str]]:
  """Yields the lines of a file in UTF-8, blank ones too, with their line ends; in lists of about a megabyte.

  Bytes that cannot be decoded become U+FFFD and count as a problem.

  Raises:
    InputError: the file does not exist.
    DamagedFile: a gzip stream is corrupted or truncated.
  """
  return blocks_of(read_chunks(path), path, problems)


def read_chunks(path: pathlib.Path, first_bytes: int = BLOCK_BYTES, bytes_: int = BLOCK_BYTES) -> Iterator[bytes]:
  """Yields the content of a file as stretches of whole lines of about so many bytes, the first of `first_bytes`.

  Raises:
    InputError: the file does not exist.
    DamagedFile: a gzip stream is corrupted or truncated.
  """
  number, size = 0, first_bytes
  try:
    with _open(path) as file:
      while chunk := file.read(size):
        chunk += file.readline()
        number, size = number + chunk.count(b'\n'), bytes_
        yield chunk
  except _DAMAGE as error:
    raise _damaged(path, number, error) from error


def blocks_of(chunks: Iterable[bytes], path: pathlib.Path, problems: Problems, first: int = 1) -> Iterator[list[str]]:
  """`read_blocks` of stretches of whole lines, whose first line has the number `first`."""
  number = first - 1
  for chunk in chunks:
    lines = io.BytesIO(chunk).readlines()
    try:
      block = [line.decode() for line in lines]
    except UnicodeDecodeError:
      block = [_decode(line, 'utf-8', problems, path, place) for place, line in enumerate(lines, number + 1)]
    if number == 0:
      block[0] = block[0].removeprefix('\ufeff')  # a byte order mark
    problems.lines += len(lines)
    number += len(lines)
    yield block


@contextlib.contextmanager
def _open(path: pathlib.Path) -> Iterator[BinaryIO]:
  if not path.is_file():
    raise InputError(f'{path} does not exist; expected a raw file of this name')
  with path.open('rb') as stored:
    if not is_gzip(path):
      yield stored
      return
    with gzip.open(stored) as unpacked:
      yield io.BufferedReader(unpacked)  # its lines are found in C


def _damaged(path: pathlib.Path, number: int, error: Exception) -> DamagedFile:
  return DamagedFile(
    path, f'{path} is damaged or was not downloaded completely (line {number}: {error}); expected a complete gzip file'
  )


def _decode(line: bytes, encoding: str, problems: Problems, path: pathlib.Path, number: int) -> str:
  try:
    return line.decode(encoding)
  except UnicodeDecodeError:
    problems.add(f'invalid {encoding.upper()} (replaced)', path, number)
    return line.decode(encoding, 'replace')


def is_gzip(path: pathlib.Path) -> bool:
  """Whether the file is a gzip file, by its name."""
  return path.suffix == '.gz'


def _lines_of(file: BinaryIO, span: Span) -> Iterator[bytes]:
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
