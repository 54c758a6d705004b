"""What a reader of raw files gives: events, and the texts of those items that were kept."""

import dataclasses
import html
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator

import polars as pl

from letter_jax.data.dataset import CATEGORY_SEPARATOR, TEXT_FIELDS
from letter_jax.data.raw.reading import Problems, Span
from letter_jax.data.raw_ids import is_raw_id

EVENT_SCHEMA = {'user': pl.String, 'item': pl.String, 'timestamp': pl.Int64}
CHUNK = 1_000_000  # events held as Python objects at a time

Event = tuple[str, str, int]  # user, item, timestamp
Texts = dict[str, str]  # TEXT_FIELDS


@dataclasses.dataclass(frozen=True)
class RawSource:
  """The raw files of one data set.

  Attributes:
    files: the one with the events and the one with the texts; both must be there.
    read_events: (span of the first file, problems) -> (line, (user, item, timestamp in seconds)), in the order of the
      file; not all of them usable.
    read_texts: (span of the second file, problems) -> (line, (item, its texts)) of every item that it describes.
    whole: whether a file can only be read from its start, as a record may have several lines.
  """

  files: tuple[pathlib.Path, pathlib.Path]
  read_events: Callable[[Span, Problems], Iterable[tuple[int, Event]]]
  read_texts: Callable[[Span, Problems], Iterable[tuple[int, tuple[str, Texts]]]]
  whole: bool = False

  def events(self, span: Span, problems: Problems) -> Iterator[tuple[int, Event]]:
    """(line, event) of every event that can be used."""
    for line, event in self.read_events(span, problems):
      user, item, time = event
      if not (is_raw_id(user) and is_raw_id(item)):
        problems.add('an id that is empty or no text', span.path, line)
      elif not 0 <= time < 2**62:
        problems.add('a time out of range', span.path, line)
      else:
        yield line, event

  def texts(self, span: Span, problems: Problems) -> Iterator[tuple[str, Texts]]:
    """(item, its texts) of every item that can be used."""
    for line, (item, texts) in self.read_texts(span, problems):
      if is_raw_id(item):
        yield item, texts
      else:
        problems.add('a text whose id is empty or no text', span.path, line)


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


def texts_of(items: Iterable[str], described: Iterable[tuple[str, Texts]]) -> tuple[list[Texts], dict[str, int]]:
  """The texts of `items` in their order (empty strings where nothing describes one), and counts for the summary.

  Where an item is described twice, the first holds.
  """
  found: dict[str, Texts | None] = dict.fromkeys(items)
  again = 0
  for item, texts in described:
    if item in found:
      again += found[item] is not None
      found[item] = found[item] or texts
  counts = {
    'items_without_metadata': sum(texts is None for texts in found.values()),
    'items_without_title': sum(not (texts or {}).get('title') for texts in found.values()),
    'metadata_of_an_item_again': again,
  }
  return [texts or dict.fromkeys(TEXT_FIELDS, '') for texts in found.values()], counts


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
