"""What a reader of raw files gives: events, and the texts of those items that were kept."""

import dataclasses
import html
import pathlib
import re
from collections.abc import Callable, Iterable

import polars as pl

from letter_jax.data.dataset import CATEGORY_SEPARATOR, TEXT_FIELDS
from letter_jax.data.raw.lines import Problems

EVENT_SCHEMA = {'user': pl.String, 'item': pl.String, 'timestamp': pl.Int64}
CHUNK = 1_000_000  # events held as Python objects at a time

Event = tuple[str, str, int]  # user, item, timestamp
Texts = dict[str, str]  # TEXT_FIELDS


@dataclasses.dataclass(frozen=True)
class RawSource:
  """The raw files of one data set.

  Attributes:
    files: those that it reads; all must be there.
    events: (problems) -> (user, item, timestamp in seconds) of every event, in the order of the file.
    texts: (problems) -> (item, its texts) of every item that the files describe.
  """

  files: tuple[pathlib.Path, ...]
  events: Callable[[Problems], Iterable[Event]]
  texts: Callable[[Problems], Iterable[tuple[str, Texts]]]


def event_table(events: Iterable[Event]) -> pl.DataFrame:
  """Columns user, item (strings) and timestamp (int64)."""
  tables, rows = [], []
  for row in events:
    rows.append(row)
    if len(rows) == CHUNK:
      tables.append(pl.DataFrame(rows, EVENT_SCHEMA, orient='row'))
      rows = []
  tables.append(pl.DataFrame(rows, EVENT_SCHEMA, orient='row'))
  return pl.concat(tables)


def is_usable(event: Event) -> bool:
  """Whether the ids are text that can be written as UTF-8 and the time fits into an int64."""
  user, item, time = event
  if not (isinstance(user, str) and isinstance(item, str) and user and item and abs(time) < 2**62):
    return False
  try:
    (user + item).encode('utf-8')
  except UnicodeEncodeError:
    return False
  return True


def texts_of(items: Iterable[str], described: Iterable[tuple[str, Texts]]) -> tuple[list[Texts], int]:
  """The texts of `items` in their order (empty strings where nothing describes one), and how many are not described.

  Where an item is described twice, the first holds.
  """
  found: dict[str, Texts | None] = dict.fromkeys(items)
  for item, texts in described:
    if isinstance(item, str) and item in found and found[item] is None:
      found[item] = texts
  missing = sum(texts is None for texts in found.values())
  return [texts or dict.fromkeys(TEXT_FIELDS, '') for texts in found.values()], missing


def clean(value) -> str:
  """One line of plain text: HTML entities and tags resolved, white space single; '' for what is not text."""
  if isinstance(value, list):
    value = ' '.join(part for part in value if isinstance(part, str))
  if not isinstance(value, str):
    return ''
  text = html.unescape(html.unescape(value))  # '&amp;amp;' is common
  text = re.sub(r'<[A-Za-z/!][^<>]*>', ' ', text)
  return ' '.join(text.split()).encode('utf-8', 'replace').decode('utf-8')


def category_path(parts) -> str:
  """'A > B > C' of a list of categories, or of the first of a list of such lists."""
  if isinstance(parts, list) and parts and isinstance(parts[0], list):
    parts = parts[0]
  if not isinstance(parts, list):
    return clean(parts)
  return CATEGORY_SEPARATOR.join(filter(None, map(clean, parts)))
