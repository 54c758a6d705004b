"""A catalogue of one's own, as two CSV files with a header; columns in any order, others are passed over.

    interactions.csv  user_id, item_id, timestamp    seconds since 1970 or ISO 8601 (2024-05-01T10:30:00)
    items.csv         item_id, title; optionally brand, categories (A > B > C) and description
"""

import csv
import datetime
import math
import pathlib
import re
from collections.abc import Iterable, Iterator

from letter_jax.data.dataset import CATEGORY_SEPARATOR
from letter_jax.data.raw.lines import Problems, Span, read_lines
from letter_jax.data.raw.source import Event, RawSource, Texts, clean
from letter_jax.errors import InputError

INTERACTIONS, ITEMS = 'interactions.csv', 'items.csv'
COLUMNS = {INTERACTIONS: ('user_id', 'item_id', 'timestamp'), ITEMS: ('item_id', 'title')}


def source(folder: pathlib.Path) -> RawSource:
  """Interactions and items; InputError where a file is not there, or lacks a column."""
  files = tuple(_find(folder, name) for name in COLUMNS)
  for path in files:
    _header(path)
  return RawSource(files, _events, _texts)


def _find(folder: pathlib.Path, name: str) -> pathlib.Path:
  for path in (folder / name, folder / f'{name}.gz'):
    if path.is_file():
      return path
  raise InputError(f'{folder / name} is not there; expected a CSV file with the columns {", ".join(COLUMNS[name])}')


def _header(path: pathlib.Path) -> list[str]:
  first = next((line for _, line in read_lines(Span(path), Problems())), '')
  header, wanted = next(csv.reader([first]), []), COLUMNS[path.name.removesuffix('.gz')]
  missing = [name for name in wanted if name not in header]
  if missing:
    raise InputError(f'{path} begins with "{first.strip()[:80]}", without {", ".join(missing)}; expected a header with '
                     f'{", ".join(wanted)}')
  return header


def _records(span: Span, problems: Problems) -> Iterator[tuple[int, dict[str, str]]]:
  """(last line, record) of all that have the right number of fields; a quoted field may have several lines."""
  header, last = _header(span.path), 0

  def lines():
    nonlocal last
    for number, line in read_lines(span, problems):
      last = number
      yield line

  reader = csv.reader(lines())
  if not span.start:
    next(reader, None)
  while True:
    try:
      fields = next(reader)
    except StopIteration:
      return
    except csv.Error:
      problems.add('a field that cannot be read', span.path, last)
      continue
    if len(fields) == len(header):
      yield last, dict(zip(header, fields))
    else:
      problems.add(f'not {len(header)} fields', span.path, last)


def _events(span: Span, problems: Problems) -> Iterable[tuple[int, Event]]:
  for number, record in _records(span, problems):
    seconds = _seconds(record['timestamp'])
    if seconds is None:
      problems.add('timestamp is no time', span.path, number)
    else:
      yield number, (record['user_id'], record['item_id'], seconds)


def _seconds(text: str) -> int | None:
  try:
    number = float(text)
    return int(number) if math.isfinite(number) else None
  except ValueError:
    pass
  try:
    moment = datetime.datetime.fromisoformat(text.strip())
  except ValueError:
    return None
  return int((moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp())


def _texts(span: Span, problems: Problems) -> Iterable[tuple[int, tuple[str, Texts]]]:
  for number, record in _records(span, problems):
    categories = filter(None, map(clean, re.split(r'[>|]', record.get('categories', ''))))
    yield number, (record['item_id'], {
      'title': clean(record['title']), 'brand': clean(record.get('brand', '')),
      'categories': CATEGORY_SEPARATOR.join(categories), 'description': clean(record.get('description', ''))})
