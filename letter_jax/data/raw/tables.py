"""A catalogue of one's own, as two CSV files with a header; columns in any order, others are passed over.

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
from letter_jax.data.raw.reader import Event, RawSource, Texts, clean
from letter_jax.data.raw.reading import Problems, Span, read_lines
from letter_jax.system.errors import InputError

INTERACTIONS, ITEMS = 'interactions.csv', 'items.csv'
MOST_LINES = 100  # of one record
LATEST = 10**11  # seconds: the year 5138; milliseconds since 1970 are more
COLUMNS = {INTERACTIONS: ('user_id', 'item_id', 'timestamp'), ITEMS: ('item_id', 'title')}


def source(folder: pathlib.Path) -> RawSource:
  """Interactions and items; InputError where a file is not there, or lacks a column."""
  files = tuple(_find(folder, name) for name in COLUMNS)
  for path in files:
    _header(path)
  return RawSource(files, _events, _texts, whole=True)


def _find(folder: pathlib.Path, name: str) -> pathlib.Path:
  for path in (folder / name, folder / f'{name}.gz'):
    if path.is_file():
      return path
  raise InputError(f'{folder / name} is not there; expected a CSV file with the columns {", ".join(COLUMNS[name])}')


def _header(path: pathlib.Path) -> list[str]:
  first = next((line for _, line in read_lines(Span(path), Problems())), '')
  (header,), wanted = _rows([first]) or ([],), COLUMNS[path.name.removesuffix('.gz')]
  missing = [name for name in wanted if name not in header]
  if missing:
    raise InputError(
      f'{path} begins with "{first.strip()[:80]}", without {", ".join(missing)}; expected a header with '
      f'{", ".join(wanted)}'
    )
  return header


def _rows(lines: list[str]) -> list[list[str]] | None:
  """None where a field is longer than the csv module takes."""
  try:
    return list(csv.reader(lines))
  except csv.Error:
    return None


def _records(span: Span, problems: Problems) -> Iterator[tuple[int, dict[str, str]]]:
  """(first line, record) of all that have the right number of fields; a quoted field may have several lines."""
  header = _header(span.path)
  lines = itertools.islice(read_lines(span, problems), 1, None)
  again: list[tuple[int, str]] = []
  while True:
    # A field is open as long as its quotes do not pair; one that stays open is taken for a quote that got lost.
    taken, quotes = [], 0
    for number, line in itertools.chain(again, lines):
      taken.append((number, line))
      quotes += line.count('"')
      if quotes % 2 == 0 or len(taken) == MOST_LINES:
        break
    if not taken:
      return
    again = again[len(taken) :]
    if quotes % 2:
      taken, again = taken[:1], taken[1:] + again
      problems.add('a quote that does not end', span.path, taken[0][0])
    rows = _rows([line for _, line in taken])
    if rows is None:
      problems.add('a field that is too long', span.path, taken[0][0])
    numbers = [number for number, _ in taken]
    for row, number in zip(rows or (), numbers):  # lines with a quote each that is none may be several rows
      if len(row) == len(header):
        yield number, dict(zip(header, row))
      else:
        problems.add(f'not {len(header)} fields', span.path, number)


def _events(span: Span, problems: Problems) -> Iterable[tuple[int, Event]]:
  for number, record in _records(span, problems):
    seconds = _seconds(record['timestamp'])
    if seconds is None:
      problems.add('timestamp is no time', span.path, number)
    else:
      yield number, (record['user_id'], record['item_id'], seconds)


def _seconds(text: str) -> int | None:
  """None for what is no time, or one in other units than seconds."""
  text = text.strip()
  if re.fullmatch(r'\d+(\.\d+)?', text) and len(text.partition('.')[0]) not in (8, 14):
    return int(float(text)) if float(text) < LATEST else None
  try:
    moment = datetime.datetime.fromisoformat(text)  # 20240501 is a day, as no interaction is of 1970
  except ValueError:
    return None
  return int((moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp())


def _texts(span: Span, problems: Problems) -> Iterable[tuple[int, tuple[str, Texts]]]:
  for number, record in _records(span, problems):
    categories = filter(None, map(clean, re.split(r'[>|]', record.get('categories', ''))))
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
