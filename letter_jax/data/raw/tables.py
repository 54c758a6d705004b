"""A user's own data set, as two CSV files with a header; columns in any order, unknown ones are ignored.

interactions.csv  user_id, item_id, timestamp    ISO 8601 (2024-05-01T10:30:00.250) or a number since 1970
items.csv         item_id, title; optionally brand, categories (A > B > C) and description

`csv_records.py` reads the records, and `data/times.py` the timestamps.
"""

import functools
import itertools
import pathlib
import re
from collections.abc import Iterable, Iterator

import polars as pl

from letter_jax.data import times
from letter_jax.data.dataset import CATEGORY_SEPARATOR
from letter_jax.data.json_files import shown
from letter_jax.data.raw.cleaning import clean
from letter_jax.data.raw.csv_events import event_tables
from letter_jax.data.raw.csv_records import csv_header, csv_records
from letter_jax.data.raw.reader import Event, RawSource, Texts, with_normal_ids
from letter_jax.data.raw.reading import Problems, Span
from letter_jax.system.errors import InputError

INTERACTIONS, ITEMS = 'interactions.csv', 'items.csv'
COLUMNS = {INTERACTIONS: ('user_id', 'item_id', 'timestamp'), ITEMS: ('item_id', 'title')}
_CATEGORY = re.compile(r'(?:<[^<>|\s]*>|[^>|])+')  # the > of Size <M> separates nothing
SAMPLE = 10_000  # records whose timestamps decide on the unit
SEPARATORS = {';': 'semicolons', '\t': 'tabs', '|': 'vertical bars', ':': 'colons'}


def csv_source(folder: pathlib.Path) -> RawSource:
  """The interactions and items in `folder`.

  Raises:
    InputError: a file does not exist, is damaged, or has no proper header.
  """
  files = interactions, items = _find(folder, INTERACTIONS), _find(folder, ITEMS)
  columns = {path: _columns(path) for path in files}
  time = columns[interactions]['timestamp']
  sample = itertools.islice(csv_records(interactions, Problems()), SAMPLE)
  unit = times.unit_of(fields[time] for _, fields in sample)
  width = len(csv_header(interactions))  # of columns without a name there may be several
  tables = functools.partial(_event_tables, interactions, columns[interactions], width, unit)
  return RawSource(files, functools.partial(_events, unit), _texts, unit, whole=True, read_tables=tables)


def _find(folder: pathlib.Path, name: str) -> pathlib.Path:
  for path in (folder / name, folder / f'{name}.gz'):
    if path.is_file():
      return path
  raise InputError(f'{folder / name} does not exist; expected a CSV file with the columns {", ".join(COLUMNS[name])}')


def _columns(path: pathlib.Path) -> dict[str, int]:
  """Column -> its position in a record; InputError if one is missing or stands twice."""
  header = csv_header(path)
  required = COLUMNS[path.name.removesuffix('.gz')]
  expected = f'expected a header with {", ".join(required)}'
  text = ','.join(header)
  begins, line = f'{path} begins with {shown(text)}', text.partition('\r')[0]
  if '\0' in text:
    raise InputError(f'{path} begins with zero bytes, as in UTF-16; expected UTF-8')
  if '\r' in text and set(required) <= set(line.split(',')):
    raise InputError(f'{path} has lines that end in CR alone; expected LF or CR LF at the end of each line')
  twice = next((name for name in header if name and header.count(name) > 1), None)
  if twice:
    raise InputError(f'{path} has the column {shown(twice)} twice; {expected}, each once')
  missing = [name for name in required if name not in header]
  for separator, name in SEPARATORS.items() if missing else ():
    if set(required) <= {column.strip(' "') for column in line.split(separator)}:
      raise InputError(f'{begins}, with {name} between the columns; expected commas')
  if missing:
    raise InputError(f'{begins}, without {", ".join(missing)}; {expected}')
  return {name: position for position, name in enumerate(header)}


def _events(unit: str, span: Span, problems: Problems) -> Iterator[tuple[int, Event]]:
  path = span.path
  yield from _events_of(csv_records(path, problems), path, _columns(path), unit, problems)


def _event_tables(
  path: pathlib.Path, columns: dict[str, int], width: int, unit: str, problems: Problems
) -> Iterator[pl.DataFrame]:
  def events(records: Iterable[tuple[int, list[str]]], problems: Problems) -> Iterator[Event]:
    found = _events_of(records, path, columns, unit, problems)
    return (event for _, event in with_normal_ids(found, path, problems))

  return event_tables(path, columns, width, unit, events, problems)


def _events_of(
  records: Iterable[tuple[int, list[str]]], path: pathlib.Path, columns: dict[str, int], unit: str, problems: Problems
) -> Iterator[tuple[int, Event]]:
  user, item, time = (columns[name] for name in COLUMNS[INTERACTIONS])
  for line, fields in records:
    microseconds = times.of_text(fields[time], unit)
    if microseconds is None:
      problems.add(times.refusal(fields[time], unit), path, line, fields[time])
    else:
      yield line, (fields[user], fields[item], microseconds)


def _texts(span: Span, problems: Problems) -> Iterable[tuple[int, tuple[str, Texts]]]:
  columns = _columns(span.path)
  item = columns['item_id']
  for line, fields in csv_records(span.path, problems):
    texts = {
      name: clean(fields[columns[name]]) if name in columns else '' for name in ('title', 'brand', 'description')
    }
    categories = clean(fields[columns['categories']]) if 'categories' in columns else ''
    texts['categories'] = CATEGORY_SEPARATOR.join(filter(None, map(clean, _CATEGORY.findall(categories))))
    yield line, (fields[item], texts)
