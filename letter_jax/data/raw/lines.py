"""Lines of raw files, gzip or not, and what is wrong with them."""

import dataclasses
import gzip
import json
import pathlib
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from letter_jax.errors import InputError


@dataclasses.dataclass
class Problems:
  """What was wrong with records, by kind: how often, and the place of the first.

  Attributes:
    counts: kind -> records.
    first: kind -> 'FILE:LINE'.
  """

  counts: dict[str, int] = dataclasses.field(default_factory=dict)
  first: dict[str, str] = dataclasses.field(default_factory=dict)

  def add(self, kind: str, path: pathlib.Path, line: int) -> None:
    self.counts[kind] = self.counts.get(kind, 0) + 1
    self.first.setdefault(kind, f'{path.name}:{line}')


def read_lines(path: pathlib.Path, problems: Problems, encoding: str = 'utf-8') -> Iterator[tuple[int, str]]:
  """(line number from 1, text) of every line that is not blank; bytes that are no text become U+FFFD and are counted.

  Raises:
    InputError: no file, or a gzip stream that is damaged or ends early.
  """
  if not path.is_file():
    raise InputError(f'{path} is not there; expected the raw file under this name')
  number = 0
  try:
    with (gzip.open(path, 'rb') if path.suffix == '.gz' else path.open('rb')) as file:
      for number, line in enumerate(file, 1):
        try:
          text = line.decode(encoding)
        except UnicodeDecodeError:
          problems.add('not ' + encoding.upper(), path, number)
          text = line.decode(encoding, 'replace')
        if text.strip():
          yield number, text
  except (EOFError, zlib.error, gzip.BadGzipFile) as error:
    raise InputError(f'{path} is damaged or was not downloaded to its end (line {number}: {error}); '
                     'expected a whole gzip file') from error


def read_records(path: pathlib.Path, problems: Problems, keys: tuple[str, ...], unparsable: str, lacking: str,
                 parse: Callable[[str], Any] = json.loads) -> Iterator[tuple[int, dict, list]]:
  """(line number, record, its values of `keys`) of every line that holds an object with those keys.

  Args:
    unparsable, lacking: kinds of problem that the other lines are counted as.
  """
  for number, line in read_lines(path, problems):
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
