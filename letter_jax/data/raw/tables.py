"""A user's own data set, as two CSV files with a header; columns in any order, unknown ones are ignored.

interactions.csv  user_id, item_id, timestamp    seconds since 1970 or ISO 8601 (2024-05-01T10:30:00)
items.csv         item_id, title; optionally brand, categories (A > B > C) and description
"""

import csv
import datetime
import itertools
import pathlib
import re
from collections.abc import Iterable, Iterator

from letter_jax.data.dataset import CATEGORY_SEPARATOR
from letter_jax.data.raw.cleaning import clean
from letter_jax.data.raw.reader import Event, RawSource, Texts
from letter_jax.data.raw.reading import Problems, Span, read_lines
from letter_jax.system.errors import InputError

INTERACTIONS, ITEMS = 'interactions.csv', 'items.csv'
_CATEGORY = re.compile(r'(?:<[^<>|\s]*>|[^>|])+')  # the > of Size <M> separates nothing
MAX_RECORD_LINES = 100
LATEST = 10**11  # in seconds, the year 5138; a timestamp in milliseconds exceeds it
COLUMNS = {INTERACTIONS: ('user_id', 'item_id', 'timestamp'), ITEMS: ('item_id', 'title')}


def csv_source(folder: pathlib.Path) -> RawSource:
  """The interactions and items in `folder`; InputError if a file does not exist or lacks a column."""
  files = _find(folder, INTERACTIONS), _find(folder, ITEMS)
  for path in files:
    _header(path)
  return RawSource(files, _events, _texts, whole=True)


def _find(folder: pathlib.Path, name: str) -> pathlib.Path:
  for path in (folder / name, folder / f'{name}.gz'):
    if path.is_file():
      return path
  raise InputError(f'{folder / name} does not exist; expected a CSV file with the columns {", ".join(COLUMNS[name])}')


def _header(path: pathlib.Path) -> list[str]:
  first = next((line for _, line in read_lines(Span(path), Problems())), '')
  (header,), required = _rows([first]) or ([],), COLUMNS[path.name.removesuffix('.gz')]
  missing = [name for name in required if name not in header]
  if missing:
    raise InputError(
      f'{path} begins with "{first.strip()[:80]}", without {", ".join(missing)}; expected a header with '
      f'{", ".join(required)}'
    )
  return header


def _rows(lines: list[str]) -> list[list[str]] | None:
  """Parses CSV lines; None if a field is longer than the csv module accepts."""
  try:
    return list(csv.reader(lines))
  except csv.Error:
    return None


def _records(span: Span, problems: Problems) -> Iterator[tuple[int, dict[str, str]]]:
  """Yields (first line, record) of the records with the right number of fields.

  A quoted field may span several lines.
  """
  header = _header(span.path)
  lines = itertools.islice(read_lines(span, problems), 1, None)
  pending: list[tuple[int, str]] = []  # lines that were read, but belong to later records
  while True:
    # A field is open while its quotes are unbalanced; if it stays open, its first line is taken to lack a quote.
    taken, quotes = [], 0
    for number, line in itertools.chain(pending, lines):
      taken.append((number, line))
      quotes += line.count('"')
      if quotes % 2 == 0 or len(taken) == MAX_RECORD_LINES:
        break
    if not taken:
      return
    pending = pending[len(taken) :]
    if quotes % 2:
      taken, pending = taken[:1], taken[1:] + pending
      problems.add('unterminated quote', span.path, taken[0][0])
    rows = _rows([line for _, line in taken])
    if rows is None:
      problems.add('field too long', span.path, taken[0][0])
    numbers = [number for number, _ in taken]
    for row, number in zip(rows or (), numbers):  # two lines with a stray quote each are two rows
      if len(row) == len(header):
        yield number, dict(zip(header, row))
      else:
        problems.add(f'not {len(header)} fields', span.path, number)


def _events(span: Span, problems: Problems) -> Iterable[tuple[int, Event]]:
  for number, record in _records(span, problems):
    seconds = _seconds(record['timestamp'])
    if seconds is None:
      problems.add('invalid timestamp', span.path, number)
    else:
      yield number, (record['user_id'], record['item_id'], seconds)


def _seconds(text: str) -> int | None:
  """Seconds since 1970; None if the text is not a time, or has a unit other than seconds."""
  text = text.strip()
  if re.fullmatch(r'\d+(\.\d+)?', text) and len(text.partition('.')[0]) not in (8, 14):
    return int(float(text)) if float(text) < LATEST else None
  try:
    moment = datetime.datetime.fromisoformat(text)  # 20240501 is a date, not seconds in 1970
  except ValueError:
    return None
  return int((moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp())


def _texts(span: Span, problems: Problems) -> Iterable[tuple[int, tuple[str, Texts]]]:
  for number, record in _records(span, problems):
    categories = filter(None, map(clean, _CATEGORY.findall(clean(record.get('categories', '')))))
    yield (
      number,
      (
        record['item_id'],
        {
          'title': clean(record['title']),
          'brand': clean(record.get('brand', '')),
          'categories': CATEGORY_SEPARATOR.join(categories),
          'description': clean(record.get('description', '')),
        },
      ),
    )
