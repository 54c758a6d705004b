"""The two raw files as Beam transforms: spans of them, which workers read one at a time, events, histories and texts.

`transforms.py` goes on from the histories.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from etils import epath

from letter_jax.data import left_out
from letter_jax.data.beam.tallies import Collection, one, tally, with_tallies
from letter_jax.data.raw.reader import RawSource
from letter_jax.data.raw.reading import Problems, Span, is_gzip
from letter_jax.system.errors import InputError

SPAN_BYTES = 64 * 2**20  # a worker reads one span at a time
NumberedSpan = tuple[int, Span]  # the number of a span in all files, and the span


def spans(path: epath.Path, first: int, whole: bool = False) -> list[NumberedSpan]:
  """Divides a file into spans, numbered from `first`; a gzip file, or any file that is `whole`, is a single span."""
  if whole or is_gzip(path):
    return [(first, Span(path))]
  size = path.stat().length
  return [
    (first + index, Span(path, start, min(start + SPAN_BYTES, size)))
    for index, start in enumerate(range(0, size, SPAN_BYTES))
  ]


def spread(pipeline: beam.Pipeline, label: str, numbered: list[NumberedSpan]) -> Collection:
  """A collection of the spans, distributed over the workers."""
  return pipeline | f'Spans of {label}' >> beam.Create(numbered) | f'Spread {label}' >> beam.Reshuffle()


def _span_tallies(index: int, problems: Problems) -> Iterator[beam.pvalue.TaggedOutput]:
  yield tally('lines', index, problems.lines)
  for kind, count in problems.counts.items():
    yield tally('problem', kind, count, (index, *problems.first[kind][1:]))


@dataclasses.dataclass
class ReadEvents(beam.DoFn):
  """Numbered spans -> (user, (timestamp, span, line, item)) of the events with `since` <= timestamp < `until`.

  The output 'names' has ((column, raw id), whether any event is within the dates) of the users and items. An unusable
  file is a tally of the kind 'refused', as a runner would retry after an exception and wrap it.
  """

  source: RawSource
  since: float = -math.inf
  until: float = math.inf

  def process(self, numbered: NumberedSpan) -> Iterator[Any]:
    """Yields the events of a span, and tallies."""
    index, span = numbered
    problems, usable, outside = Problems(), 0, 0
    names: dict[tuple[str, str], bool] = {}
    try:
      for line, (user, item, time) in self.source.events(span, problems):
        usable += 1
        within = self.since <= time < self.until
        for name in (('user', user), ('item', item)):
          names[name] = within or names.get(name, False)
        if within:
          yield user, (time, index, line, item)
        else:
          outside += 1
    except InputError as error:
      yield tally('refused', str(error))
    for named in names.items():
      yield beam.pvalue.TaggedOutput('names', named)
    yield tally('usable', count=usable)
    yield tally(left_out.DATES, count=outside)
    yield from _span_tallies(index, problems)


@dataclasses.dataclass
class ReadTexts(beam.DoFn):
  """Numbered spans -> (item, (span, position in it, texts))."""

  source: RawSource

  def process(self, numbered: NumberedSpan) -> Iterator[Any]:
    """Yields the texts of a span, and tallies."""
    index, span = numbered
    problems = Problems()
    try:
      for position, (item, texts) in enumerate(self.source.texts(span, problems)):
        yield item, (index, position, texts)
    except InputError as error:
      yield tally('refused', str(error))
    yield from _span_tallies(index, problems)


@dataclasses.dataclass
class ToHistory(beam.DoFn):
  """(user, events) -> histories without duplicates and, with `drop_repeats`, without the same item twice in a row."""

  drop_repeats: bool

  def process(self, grouped: Any) -> Iterator[Any]:
    """Yields a user's history, and tallies."""
    user, events = grouped
    events = sorted(events)  # by time, then in the order of the source
    distinct = list(dict.fromkeys((item, time) for time, _, _, item in events))
    history = [
      entry
      for position, entry in enumerate(distinct)
      if not self.drop_repeats or position == 0 or entry[0] != distinct[position - 1][0]
    ]
    if len(distinct) < len(events):
      yield tally('duplicate', count=len(events) - len(distinct))
    if len(history) < len(distinct):
      yield tally('same item again', count=len(distinct) - len(history))
    yield user, history


def read_histories(
  pipeline: beam.Pipeline,
  source: RawSource,
  numbered: list[NumberedSpan],
  since: float,
  until: float,
  drop_repeats: bool,
) -> tuple[Collection, Collection, list[Collection]]:
  """Reads the events of a raw source into histories.

  Args:
    pipeline: the pipeline to extend.
    source: reads the spans.
    numbered: spans of the file with the events.
    since: in microseconds since 1970; earlier events are dropped.
    until: in microseconds since 1970; later events, and those at this time, are dropped.
    drop_repeats: whether to drop an item that directly follows itself.

  Returns:
    The histories; (raw id, whether it is within the dates) of every item; and collections of tallies.
  """
  read = with_tallies(ReadEvents(source, since, until), 'names')
  events = spread(pipeline, 'events', numbered) | 'Read events' >> read
  histories = events.main | 'By user' >> beam.GroupByKey() | 'Histories' >> with_tallies(ToHistory(drop_repeats))
  names = events.names | 'Distinct names' >> beam.CombinePerKey(any)
  items = names | 'Raw items' >> beam.FlatMap(lambda pair: [(pair[0][1], pair[1])] if pair[0][0] == 'item' else [])
  counted = names | 'Count names' >> beam.Map(_counted_name)
  return histories.main, items, [events.tallies, histories.tallies, counted]


def _counted_name(pair: Any) -> Any:
  (column, _), within = pair
  return one(f'raw {column}', 'within the dates' if within else left_out.DATES)
