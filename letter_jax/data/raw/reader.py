"""The interface of the readers of raw files: a `RawSource` yields events and the texts of items."""

import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Iterable, Iterator

import polars as pl

from letter_jax.data.dataset import TEXT_FIELDS
from letter_jax.data.raw.reading import Problems, Span
from letter_jax.data.raw_ids import as_raw_id

EVENT_SCHEMA = {'user': pl.String, 'item': pl.String, 'timestamp': pl.Int64}
CHUNK = 100_000  # events that are Python objects at a time
# Counted, as lists come back with the normal form.
NORMALISED = 'id taken without its surrounding blanks and in the Unicode form NFC'

Event = tuple[str, str, int]  # user, item, timestamp in microseconds since 1970
Texts = dict[str, str]  # of one item: TEXT_FIELDS -> text


@dataclasses.dataclass(frozen=True)
class RawSource:
  """The raw files of one data set.

  Attributes:
    files: the file with the events and the file with the texts.
    read_events: maps (span of the first file, problems) to (line, event) of all events in the order of the file; ids
      are neither validated nor in their normal form.
    read_texts: maps (span of the second file, problems) to (line, (item, its texts)); ids as those of `read_events`.
    time_unit: the unit of the timestamps in the file, as in `data/times.py`.
    whole: whether files must be read from the start, because a record may span several lines.
    read_tables: (the first file, what picks valid events with normal ids, problems) -> tables of EVENT_SCHEMA, where
      the source has a faster way to all events than `read_events`.
  """

  files: tuple[pathlib.Path, pathlib.Path]
  read_events: Callable[[Span, Problems], Iterable[tuple[int, Event]]]
  read_texts: Callable[[Span, Problems], Iterable[tuple[int, tuple[str, Texts]]]]
  time_unit: str
  whole: bool = False
  read_tables: Callable[[Problems], Iterator[pl.DataFrame]] | None = None

  def events(self, span: Span, problems: Problems) -> Iterator[tuple[int, Event]]:
    """Yields (line, event) of every valid event, ids in their normal form; counts the others in `problems`."""
    return with_normal_ids(self.read_events(span, problems), span.path, problems)

  def event_tables(self, problems: Problems) -> Iterator[pl.DataFrame]:
    """Yields the valid events of the whole file, in its order, as tables of EVENT_SCHEMA; counts the others."""
    if self.read_tables:
      return self.read_tables(problems)
    return tables_of(event for _, event in self.events(Span(self.files[0]), problems))

  def texts(self, span: Span, problems: Problems) -> Iterator[tuple[str, Texts]]:
    """Yields (item, its texts) of every item with a valid id, in its normal form; counts the others in `problems`."""
    for line, (given, texts) in self.read_texts(span, problems):
      item = as_raw_id(given)
      if item is None:
        problems.add('metadata with an empty or non-string id', span.path, line)
      else:
        if item != given:
          problems.add(NORMALISED, span.path, line)
        yield item, texts


def with_normal_ids(
  events: Iterable[tuple[int, Event]], path: pathlib.Path, problems: Problems
) -> Iterator[tuple[int, Event]]:
  """(line, event) with ids in their normal form; counts events without such ids in `problems`."""
  for line, (given_user, given_item, time) in events:
    user, item = as_raw_id(given_user), as_raw_id(given_item)
    if user is None or item is None:
      problems.add('empty or non-string id', path, line)
    else:
      if user != given_user or item != given_item:
        problems.add(NORMALISED, path, line)
      yield line, (user, item, time)


def tables_of(events: Iterable[Event]) -> Iterator[pl.DataFrame]:
  """Tables with the columns of EVENT_SCHEMA, of CHUNK events at most."""
  events = iter(events)
  while rows := list(itertools.islice(events, CHUNK)):
    yield pl.DataFrame(dict(zip(EVENT_SCHEMA, zip(*rows))), EVENT_SCHEMA)


def event_table(tables: Iterable[pl.DataFrame]) -> pl.DataFrame:
  """One table of several, with the columns of EVENT_SCHEMA: user, item (strings) and timestamp (int64)."""
  return pl.concat([pl.DataFrame(schema=EVENT_SCHEMA), *tables])


def texts_of_items(items: Iterable[str], described: Iterable[tuple[str, Texts]]) -> tuple[list[Texts], dict[str, int]]:
  """Selects the texts of `items`.

  If an item is described more than once, its first texts with a title count, or the first of all if none has a title.

  Args:
    items: raw ids.
    described: (raw id, texts) of any items.

  Returns:
    The texts in the order of `items`, empty strings for an item that is not described; and counts for the summary.
  """
  texts_by_item: dict[str, Texts | None] = dict.fromkeys(items)
  described_again = 0
  for item, texts in described:
    if item in texts_by_item:
      known = texts_by_item[item]
      described_again += known is not None
      if known is None or texts['title'] and not known['title']:
        texts_by_item[item] = texts
  counts = {
    'items_without_metadata': sum(texts is None for texts in texts_by_item.values()),
    'items_without_title': sum(not (texts or {}).get('title') for texts in texts_by_item.values()),
    'metadata_of_an_item_again': described_again,
  }
  return [texts or dict.fromkeys(TEXT_FIELDS, '') for texts in texts_by_item.values()], counts
