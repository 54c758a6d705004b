"""Lines of raw files, gzip or not, and what is wrong with them."""

import dataclasses
import gzip
import json
import math
import pathlib
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from letter_jax.system.errors import InputError


class DamagedFile(InputError):
  """A file whose bytes are not those that its owner published.

  Attributes:
    path: which.
  """

  def __init__(self, path: pathlib.Path, message: str):
    super().__init__(message)
    self.path = path

  def __reduce__(self):
    return DamagedFile, (self.path, str(self))


@dataclasses.dataclass(frozen=True)
class Span:
  """The lines of a file that begin at the bytes `start` .. `end` - 1: all of them, where nothing else is said.

  A gzip file has only the whole one: nothing in it can be found without what stands before.

  Attributes:
    path: a `pathlib.Path` or an `epath.Path` of a remote file system.
  """

  path: pathlib.Path
  start: int = 0
  end: float = math.inf


@dataclasses.dataclass
class Problems:
  """What was wrong with records, by kind: how often, and the place of the first.

  Attributes:
    counts: kind -> records.
    first: kind -> file and line; the line is counted from the start of the span that was read.
    lines: read from all spans, the blank ones included.
  """

  counts: dict[str, int] = dataclasses.field(default_factory=dict)
  first: dict[str, tuple[pathlib.Path, int]] = dataclasses.field(default_factory=dict)
  lines: int = 0

  def add(self, kind: str, path: pathlib.Path, line: int) -> None:
    self.counts[kind] = self.counts.get(kind, 0) + 1
    self.first.setdefault(kind, (path, line))

  def summary(self) -> dict[str, dict]:
    """kind -> {'lines': records, 'first': 'FILE:LINE'}, as in `summary.json`."""
    return {
      kind: {'lines': count, 'first': f'{self.first[kind][0].name}:{self.first[kind][1]}'}
      for kind, count in self.counts.items()
    }


def read_lines(span: Span, problems: Problems, encoding: str = 'utf-8') -> Iterator[tuple[int, str]]:
  """(line number from 1, text) of every line that is not blank; bytes that are no text become U+FFFD and are counted.

  Raises:
    InputError: no file; a DamagedFile where a gzip stream is damaged or ends early.
  """
  path, number = span.path, 0
  if not path.is_file():
    raise InputError(f'{path} is not there; expected the raw file under this name')
  try:
    with path.open('rb') as stored, gzip.open(stored) if is_gzip(path) else stored as file:
      for number, line in enumerate(_lines_of(file, span), 1):
        problems.lines += 1
        try:
          text = line.decode(encoding)
        except UnicodeDecodeError:
          problems.add(f'not {encoding.upper()}, mended', path, number)
          text = line.decode(encoding, 'replace')
        if number == 1 and not span.start:
          text = text.removeprefix('\ufeff')  # a byte order mark
        if text.strip():
          yield number, text
  except (EOFError, zlib.error, gzip.BadGzipFile) as error:
    raise DamagedFile(
      path, f'{path} is damaged or was not downloaded to its end (line {number}: {error}); expected a whole gzip file'
    ) from error


def is_gzip(path: pathlib.Path) -> bool:
  return path.suffix == '.gz'


def _lines_of(file: BinaryIO, span: Span) -> Iterator[bytes]:
  """A line belongs to the span that its first byte lies in."""
  if span.start:
    file.seek(span.start - 1)
    file.readline()  # the rest of a line of the span before, if only its end
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
  """(line number, record, its values of `keys`) of every line that holds an object with those keys.

  Args:
    unparsable, lacking: kinds of problem that the other lines are counted as.
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
