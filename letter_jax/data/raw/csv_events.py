"""Reads the events of a CSV file as columns, as far as it is plain: the rest is read record by record.

From the first quote on, every record is read by itself; before it, those of a stretch of lines that is not plain. A
stretch is plain if nothing in it depends on the grammar of quotes and carriage returns, and if every record is valid,
with ids in their normal form. `csv_records.py` reads the same from it, several times as slowly.
"""

import io
import itertools
import pathlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import polars as pl

from letter_jax.data import times
from letter_jax.data.raw.csv_records import Lines, records, records_after_header
from letter_jax.data.raw.reader import EVENT_SCHEMA, Event, tables_of
from letter_jax.data.raw.reading import Problems, blocks_of, read_chunks

FIRST_BYTES, CHUNK_BYTES = 2**20, 2**24
_IN_NO_HEADER = b' ,\t\n\v\f\r\xef\xbb\xbf'  # of lines before a header

# (records with their lines, problems) -> the valid events among them, ids in their normal form
Events = Callable[[Iterable[tuple[int, list[str]]], Problems], Iterator[Event]]


def event_tables(
  path: pathlib.Path, columns: dict[str, int], width: int, unit: str, events: Events, problems: Problems
) -> Iterator[pl.DataFrame]:
  """Yields the valid events of a file with a header, in its order, as tables of EVENT_SCHEMA.

  Args:
    path: the file, gzip or not, in UTF-8.
    columns: position of every named column of the header.
    width: the number of columns.
    unit: of the timestamps, as in `data/times.py`.
    events: picks the events from records.
    problems: counts the other records.

  Raises:
    InputError: as `csv_records`.
  """
  chunks = read_chunks(path, FIRST_BYTES, CHUNK_BYTES)
  line, after_header = 1, False
  for chunk in chunks:
    text = chunk.replace(b'\r\n', b'\n') if b'\r' in chunk else chunk
    goes_on = b'"' in text or b'\r' in text  # a record may go on in the next chunk
    table = _plain(text, columns, width, unit) if after_header and not goes_on else None
    if table is None:
      no_header = not after_header and not text.strip(_IN_NO_HEADER)
      given = itertools.chain([chunk], chunks) if goes_on or no_header else [chunk]
      lines = Lines(blocks_of(given, path, problems, line), line)
      found = records(lines, width, path, problems) if after_header else records_after_header(lines, path, problems)
      yield from tables_of(events(found, problems))
      after_header = True
    else:
      problems.lines += text.count(b'\n') + (not text.endswith(b'\n'))
      yield table
    line += text.count(b'\n')


def _plain(text: bytes, columns: dict[str, int], width: int, unit: str) -> pl.DataFrame | None:
  """The events of lines without quotes and carriage returns; None unless each is a valid event as it stands."""
  if unit not in times.MICROSECONDS or not text.isascii() or b'\0' in text:
    return None
  if not _have_commas(text, width - 1):
    return None
  names = [f'column_{position}' for position in range(width)]
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
  if not all(_are_plain_ids(ids) for ids in (user, item)):
    return None
  microseconds = times.of_plain_numbers(time, unit)
  if microseconds is None:
    return None
  return pl.DataFrame([user, item, microseconds], schema=EVENT_SCHEMA)


def _have_commas(text: bytes, commas: int) -> bool:
  """Whether each line has so many commas, and none is blank."""
  codes = np.frombuffer(text, np.uint8)
  ends = np.flatnonzero(codes == ord('\n'))
  if not text.endswith(b'\n'):
    ends = np.append(ends, len(codes))
  places = np.flatnonzero(codes == ord(','))
  return len(places) == commas * len(ends) and bool(
    (np.searchsorted(places, ends) == commas * np.arange(1, len(ends) + 1)).all()
  )


def _are_plain_ids(ids: pl.Series) -> bool:
  """Whether ASCII texts are raw ids in their normal form; an empty text is null."""
  return not ids.null_count() and bool(
    (ids != '').all() and not ids.str.contains(r'^[\x09-\x0d\x1c-\x20]|[\x09-\x0d\x1c-\x20]$').any()
  )
