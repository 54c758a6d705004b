"""The preparation as Apache Beam transforms; `pipelines.py` runs them. Workers import this module.

Three kinds of collections go from one to the next:

    histories   (user, [[item, timestamp], ...]), raw ids, in time order
    numbers     (raw id, number), numbers in the order of the raw ids
    tallies     ((kind, detail), (count, place)): whatever is counted; `place` is (span, line) of the first, or NOWHERE

Counts go with the data instead of into Beam's metrics: those count twice what a runner had to do twice. A user's
interactions meet on one worker; so do an item's, once, when it is numbered (who, where and when of each).
"""

import bisect
import dataclasses
import hashlib
import json
import math
import sys
from collections.abc import Iterator

import apache_beam as beam
from etils import epath

from letter_jax.data.builders import LetterDataset
from letter_jax.data.dataset import MIN_LENGTH, TEXT_FIELDS
from letter_jax.data.raw.reader import RawSource
from letter_jax.data.raw.reading import Problems, Span, is_gzip
from letter_jax.system.errors import InputError

SPAN_BYTES = 64 * 2**20  # what one worker reads at a time
BUCKETS = 1000  # ranges of raw ids that are sorted apart; one of 50 million users holds 50,000 on average
NOWHERE = (sys.maxsize, sys.maxsize)
Numbered = tuple[int, Span]  # the place of the span among all, and the span


def spans(path: epath.Path, first: int, whole: bool = False) -> list[Numbered]:
  """The file in pieces that can be read apart, numbered from `first` on; a gzip file is one, or any that is `whole`."""
  if whole or is_gzip(path):
    return [(first, Span(path))]
  size = path.stat().length
  return [
    (first + index, Span(path, start, min(start + SPAN_BYTES, size)))
    for index, start in enumerate(range(0, size, SPAN_BYTES))
  ]


def tally(kind: str, detail='', count: int = 1, place: tuple[int, int] = NOWHERE):
  return beam.pvalue.TaggedOutput('tallies', ((kind, detail), (count, place)))


def _of_span(index: int, problems: Problems) -> Iterator[beam.pvalue.TaggedOutput]:
  yield tally('lines', index, problems.lines)
  for kind, count in problems.counts.items():
    yield tally('problem', kind, count, (index, problems.first[kind][1]))


@dataclasses.dataclass
class ReadEvents(beam.DoFn):
  """Numbered spans -> (user, (timestamp, span, line, item)) of the events from `since` on and before `until`.

  What makes a file unusable is a tally of the kind 'refused': a runner would try an exception again and wrap it.
  """

  source: RawSource
  since: float = -math.inf
  until: float = math.inf

  def process(self, numbered: Numbered):
    index, span = numbered
    problems, usable, outside = Problems(), 0, 0
    try:
      for line, (user, item, time) in self.source.events(span, problems):
        usable += 1
        if self.since <= time < self.until:
          yield user, (time, index, line, item)
        else:
          outside += 1
    except InputError as error:
      yield tally('refused', str(error))
    yield tally('usable', count=usable)
    yield tally('outside the dates', count=outside)
    yield from _of_span(index, problems)


@dataclasses.dataclass
class ReadTexts(beam.DoFn):
  """Numbered spans -> (item, (span, place in it, texts))."""

  source: RawSource

  def process(self, numbered: Numbered):
    index, span = numbered
    problems = Problems()
    try:
      for place, (item, texts) in enumerate(self.source.texts(span, problems)):
        yield item, (index, place, texts)
    except InputError as error:
      yield tally('refused', str(error))
    yield from _of_span(index, problems)


@dataclasses.dataclass
class ToHistory(beam.DoFn):
  """(user, events) -> histories, without duplicates and, where `drop_repeats`, without the same item twice in a row."""

  drop_repeats: bool

  def process(self, grouped):
    user, events = grouped
    events = sorted(events)  # by time; of one moment in the order of the source
    distinct = list(dict.fromkeys((item, time) for time, _, _, item in events))
    history = [
      entry
      for place, entry in enumerate(distinct)
      if not self.drop_repeats or place == 0 or entry[0] != distinct[place - 1][0]
    ]
    if len(distinct) < len(events):
      yield tally('duplicate', count=len(events) - len(distinct))
    if len(history) < len(distinct):
      yield tally('same item again', count=len(distinct) - len(history))
    yield user, history


def read_histories(
  pipeline, source: RawSource, numbered: list[Numbered], since: float, until: float, drop_repeats: bool
):
  """Histories and tallies of the events of a raw source."""
  events = _parted(pipeline, 'events', numbered) | 'Read events' >> _with_tallies(ReadEvents(source, since, until))
  histories = events.main | 'By user' >> beam.GroupByKey() | 'Histories' >> _with_tallies(ToHistory(drop_repeats))
  return histories.main, [events.tallies, histories.tallies]


class FewerThan(beam.CombineFn):
  """The values of a key where they are fewer than `bound`, and otherwise none: a popular item is no load."""

  def __init__(self, bound: int):
    self._bound = bound

  def create_accumulator(self):
    return []

  def add_input(self, found, value):
    return found + [value] if len(found) < self._bound else found

  def merge_accumulators(self, parts):
    return [value for part in parts for value in part][: self._bound]

  def extract_output(self, found):
    return found if len(found) < self._bound else []


@dataclasses.dataclass
class Prune(beam.DoFn):
  """One user's part of a pass of the k-core: (user, {history, rare: items}) -> the history that is left."""

  core: int
  number: int

  def process(self, grouped):
    user, found = grouped
    history, rare = _only(found['history']), set(found['rare'])
    left = [entry for entry in history if entry[0] not in rare] if len(history) >= self.core else []
    if len(left) < len(history):
      yield tally('pruned', self.number, len(history) - len(left))
    if left:
      yield user, left


def k_core_pass(histories, core: int, number: int):
  """Histories without what users and items with fewer than `core` interactions have, and tallies."""
  rare = (
    histories
    | f'Items {number}' >> beam.FlatMap(lambda pair: [(item, pair[0]) for item, _ in pair[1]])
    | f'Rare {number}' >> beam.CombinePerKey(FewerThan(core))
    | f'Their users {number}' >> beam.FlatMap(lambda pair: [(user, pair[0]) for user in pair[1]])
  )
  pruned = (
    {'history': histories, 'rare': rare}
    | f'To users {number}' >> beam.CoGroupByKey()
    | f'Prune {number}' >> _with_tallies(Prune(core, number))
  )
  return pruned.main, pruned.tallies


class LongEnough(beam.DoFn):
  """Histories that can be split into training, validation and test."""

  def process(self, pair):
    if len(pair[1]) >= MIN_LENGTH:
      yield pair
    else:
      yield tally('too short', count=len(pair[1]))


def numbers_of(names, label: str):
  """Numbers of distinct raw ids: each range of them is sorted by itself, and begins where those before end."""
  # A sample that does not depend on the order of arrival parts the ids into ranges of about one size.
  bounds = beam.pvalue.AsSingleton(
    names
    | f'Sample {label}' >> beam.combiners.Top.Smallest(BUCKETS - 1, key=_hash)
    | f'Bounds {label}' >> beam.Map(sorted)
  )
  ranges = names | f'Ranges {label}' >> beam.Map(lambda name, bounds: (bisect.bisect(bounds, name), name), bounds)
  sizes = beam.pvalue.AsDict(ranges | f'Sizes {label}' >> beam.combiners.Count.PerKey())

  def number(grouped, sizes):
    bucket, members = grouped
    before = sum(size for other, size in sizes.items() if other < bucket)
    return [(name, before + place) for place, name in enumerate(sorted(members))]

  return ranges | f'By range {label}' >> beam.GroupByKey() | f'Number {label}' >> beam.FlatMap(number, sizes)


def tables(pipeline, histories, source: RawSource, numbered: list[Numbered]):
  """Records of users, records of items (dicts as in `builders.FEATURES`), and tallies."""
  long = histories | 'Long enough' >> _with_tallies(LongEnough())
  described = _parted(pipeline, 'texts', numbered) | 'Read texts' >> _with_tallies(ReadTexts(source))
  popularity = (
    long.main
    | 'Items' >> beam.FlatMap(lambda pair: [(item, 1) for item, _ in pair[1]])
    | 'Popularity' >> beam.CombinePerKey(sum)
  )
  user_numbers = numbers_of(long.main | 'Users' >> beam.Keys(), 'users')
  item_numbers = numbers_of(popularity | 'Distinct items' >> beam.Keys(), 'items')
  entries = (
    {'number': item_numbers, 'places': long.main | 'To items' >> beam.FlatMap(_to_items)}
    | 'Items with numbers' >> beam.CoGroupByKey()
    | 'To users' >> beam.FlatMap(_to_users)
  )
  users = (
    {'number': user_numbers, 'entries': entries}
    | 'Users with numbers' >> beam.CoGroupByKey()
    | 'User records' >> beam.Map(_user_record)
  )
  items = (
    {'number': item_numbers, 'texts': described.main}
    | 'Items with texts' >> beam.CoGroupByKey()
    | 'Item records' >> _with_tallies(ItemRecord())
  )
  lengths = long.main | 'Lengths' >> beam.Map(lambda pair: (('length', len(pair[1])), (1, NOWHERE)))
  popular = popularity | 'Popularities' >> beam.Map(lambda pair: (('popularity', pair[1]), (1, NOWHERE)))
  return users, items.main, [long.tallies, described.tallies, items.tallies, lengths, popular]


def _to_items(pair):
  user, history = pair
  for place, (item, time) in enumerate(history):
    yield item, (user, place, time)


def _to_users(grouped):
  number = _only(grouped[1]['number'])
  for user, place, time in grouped[1]['places']:
    yield user, (place, number, time)


def _user_record(grouped):
  user, found = grouped
  entries = sorted(found['entries'])
  return {
    'user_id': _only(found['number']),
    'raw_id': user,
    'items': [item for _, item, _ in entries],
    'timestamps': [time for _, _, time in entries],
  }


class ItemRecord(beam.DoFn):
  """(item, {number, texts}) -> a record of each item that has a number; of two texts the first holds."""

  def process(self, grouped):
    item, found = grouped
    for number in found['number']:
      *_, texts = min(found['texts'], key=lambda entry: entry[:2], default=(dict.fromkeys(TEXT_FIELDS, ''),))
      yield {'item_id': number, 'raw_id': item, **texts}
      if not any(texts.values()):
        yield tally('without text')
      if not texts['title']:
        yield tally('without title')
      described = len(list(found['texts']))
      if not described:
        yield tally('not described')
      if described > 1:
        yield tally('described again', count=described - 1)


class TablesFromRecords(LetterDataset, skip_registration=True):
  """Writes a table of records that stand in files of JSON lines, with TFDS's Beam writer."""

  name = LetterDataset.name

  def __init__(self, *, records: epath.Path, **arguments):
    self._records = records
    super().__init__(**arguments)

  def _split_generators(self, dl_manager):
    return {self.table: self._generate_examples()}

  def _generate_examples(self):
    key = self.table.removesuffix('s') + '_id'
    return (
      beam.io.ReadFromText(f'{self._records}-*')
      | 'Parse' >> beam.Map(json.loads)
      | 'Key' >> beam.Map(lambda record: (record[key], record))
    )


def read_lines(pipeline, path: epath.Path):
  """The values that `write_lines` wrote."""
  return pipeline | 'Read lines' >> beam.io.ReadFromText(f'{path}-*') | 'Parse lines' >> beam.Map(json.loads)


def write_lines(values, path: epath.Path) -> None:
  """Writes JSON lines into files whose names begin with `path`."""
  _ = (
    values
    | f'Format {path.name}' >> beam.Map(json.dumps)
    | f'Write {path.name}' >> beam.io.WriteToText(str(path), '.jsonl')
  )


def write_report(tallies: list, path: epath.Path) -> None:
  """Sums up the tallies in one JSON file: [[[kind, detail], [count, place]], ...]."""
  _ = (
    tallies
    | 'All tallies' >> beam.Flatten()
    | 'Sum up' >> beam.CombinePerKey(beam.combiners.TupleCombineFn(sum, min))
    | 'One report' >> beam.combiners.ToList()
    | 'Write report' >> beam.Map(_write_json, path)
  )


def _write_json(value, path: epath.Path) -> None:
  path.write_text(json.dumps(value))


def _parted(pipeline, label: str, numbered: list[Numbered]):
  """Each span for whichever worker is free."""
  return pipeline | f'Spans of {label}' >> beam.Create(numbered) | f'Spread {label}' >> beam.Reshuffle()


def _with_tallies(function: beam.DoFn):
  return beam.ParDo(function).with_outputs('tallies', main='main')


def _only(values):
  (value,) = values
  return value


def _hash(name: str) -> bytes:
  return hashlib.blake2b(name.encode(), digest_size=8).digest()
