"""Reads the events of a CSV file as columns: plain stretches by polars, all others record by record.

A stretch of lines is plain if nothing in it depends on the grammar of quotes and carriage returns, and if every record
is valid, with ids in their normal form. `csv_records.py` reads the same from it, several times as slowly.
"""

import io
import itertools
import pathlib
from collections.abc import Callable, Iterable, Iterator

import polars as pl

from letter_jax.data import times
from letter_jax.data.raw.csv_records import Lines, records, records_after_header
from letter_jax.data.raw.reader import EVENT_SCHEMA, Event, tables_of
from letter_jax.data.raw.reading import Problems, blocks_of, read_chunks

FIRST_BYTES, CHUNK_BYTES = 2**20, 2**24

# (records with their lines, problems) -> the valid events among them, ids in their normal form
Events = Callable[[Iterable[tuple[int, list[str]]], Problems], Iterator[Event]]


def event_tables(
  path: pathlib.Path, columns: dict[str, int], unit: str, events: Events, problems: Problems
) -> Iterator[pl.DataFrame]:
  """Yields the valid events of a file with a header, in its order, as tables of EVENT_SCHEMA.

  Args:
    path: the file, gzip or not, in UTF-8.
    columns: position of every column of the header by name.
    unit: of the timestamps, as in `data/times.py`.
    events: picks the events from records.
    problems: counts the other records.

  Raises:
    InputError: as `csv_records`.
  """
  chunks = read_chunks(path, FIRST_BYTES, CHUNK_BYTES)
  width, line = len(columns), 1
  for chunk in chunks:
    text = chunk.replace(b'\r\n', b'\n') if b'\r' in chunk else chunk
    if b'"' in text or b'\r' in text:  # a record may go on in the next chunk
      rest = Lines(blocks_of(itertools.chain([chunk], chunks), path, problems, line), line)
      found = records_after_header(rest, path, problems) if line == 1 else records(rest, width, path, problems)
      yield from tables_of(events(found, problems))
      return
    table = _plain(text, columns, unit) if line > 1 else None
    if table is None:
      lines = Lines(blocks_of([chunk], path, problems, line), line)
      found = records_after_header(lines, path, problems) if line == 1 else records(lines, width, path, problems)
      yield from tables_of(events(found, problems))
    else:
      problems.lines += text.count(b'\n') + (not text.endswith(b'\n'))
      yield table
    line += text.count(b'\n')


def _plain(text: bytes, columns: dict[str, int], unit: str) -> pl.DataFrame | None:
  """The events of lines without quotes and carriage returns; None unless each is a valid event as it stands."""
  if unit not in times.MICROSECONDS or not text.isascii() or b'\0' in text:
    return None
  # Where some line has a comma less, another has one more, and polars refuses that.
  lines = text.count(b'\n') + (not text.endswith(b'\n'))
  if text.startswith(b'\n') or b'\n\n' in text or text.count(b',') != lines * (len(columns) - 1):
    return None
  names = [f'column_{position}' for position in range(len(columns))]
  try:
    table = pl.read_csv(
      io.BytesIO(text),
      has_header=False,
      schema=dict.fromkeys(names, pl.String),
      columns=[names[columns[name]] for name in ('user_id', 'item_id', 'timestamp')],
      quote_char=None,
    )
  except pl.exceptions.PolarsError:
    return None
  user, item, time = (table[names[columns[name]]] for name in ('user_id', 'item_id', 'timestamp'))
  if len(table) != lines or not all(_are_plain_ids(ids) for ids in (user, item)):
    return None
  microseconds = times.of_plain_numbers(time, unit)
  if microseconds is None:
    return None
  return pl.DataFrame([user, item, microseconds], schema=EVENT_SCHEMA)


def _are_plain_ids(ids: pl.Series) -> bool:
  """Whether ASCII texts are raw ids in their normal form; an empty text is null."""
  return not ids.null_count() and bool(
    (ids != '').all() and not ids.str.contains(r'^[\x09-\x0d\x1c-\x20]|[\x09-\x0d\x1c-\x20]$').any()
  )
