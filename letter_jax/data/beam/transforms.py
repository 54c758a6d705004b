"""The preparation from the histories on (`reading.py`) as Beam transforms, which `pipelines.py` runs.

Three kinds of collections pass from one transform to the next:

    histories   (user, [[item, timestamp], ...]), raw ids, in time order
    numbers     (raw id, number), numbers in the order of the raw ids
    tallies     ((kind, detail), (count, place)): counts of anything (`tallies.py`)

All interactions of a user are on one worker; so are those of an item, once, when it is numbered (user, position and
time of each).
"""

import bisect
import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
from etils import epath

from letter_jax.data.beam.left_out_items import left_out_items
from letter_jax.data.beam.reading import NumberedSpan, ReadTexts, spread
from letter_jax.data.beam.tallies import Collection, one, tally, with_tallies
from letter_jax.data.builders import LetterDataset
from letter_jax.data.dataset import MIN_LENGTH, TEXT_FIELDS
from letter_jax.data.raw.reader import RawSource

BUCKETS = 1000  # ranges of raw ids that are sorted separately: with 50 million users, 50,000 each on average


class FewerThan(beam.CombineFn):
  """The values of a key if there are fewer than `bound`, otherwise none, so that a popular item takes no memory."""

  def __init__(self, bound: int):
    self._bound = bound

  def create_accumulator(self) -> list[Any]:
    """No values."""
    return []

  def add_input(self, values: list[Any], value: Any) -> list[Any]:
    """The values with another, up to `bound`."""
    return values + [value] if len(values) < self._bound else values

  def merge_accumulators(self, parts: Iterable[list[Any]]) -> list[Any]:
    """The values of all parts, up to `bound`."""
    return [value for part in parts for value in part][: self._bound]

  def extract_output(self, values: list[Any]) -> list[Any]:
    """The values, or none if they reach `bound`."""
    return values if len(values) < self._bound else []


@dataclasses.dataclass
class Prune(beam.DoFn):
  """One user's part of a pass of the k-core: (user, {history, rare: items}) -> the remaining history."""

  core: int
  number: int

  def process(self, grouped: Any) -> Iterator[Any]:
    """Yields the history if anything remains, and a tally."""
    user, group = grouped
    history, rare = _only(group['history']), set(group['rare'])
    left = [entry for entry in history if entry[0] not in rare] if len(history) >= self.core else []
    if len(left) < len(history):
      yield tally('pruned', self.number, len(history) - len(left))
    if left:
      yield user, left


def k_core_pass(histories: Collection, core: int, number: int) -> tuple[Collection, Collection]:
  """Drops the interactions of users and items with fewer than `core`; returns histories and tallies.

  `number` is that of the pass, for the tallies.
  """
  rare = (
    histories
    | f'Items {number}' >> beam.FlatMap(lambda pair: [(item, pair[0]) for item, _ in pair[1]])
    | f'Rare {number}' >> beam.CombinePerKey(FewerThan(core))
    | f'Their users {number}' >> beam.FlatMap(lambda pair: [(user, pair[0]) for user in pair[1]])
  )
  pruned = (
    {'history': histories, 'rare': rare}
    | f'To users {number}' >> beam.CoGroupByKey()
    | f'Prune {number}' >> with_tallies(Prune(core, number))
  )
  return pruned.main, pruned.tallies


class LongEnough(beam.DoFn):
  """Keeps the histories that can be split into training, validation and test; items of the others are in 'short'."""

  def process(self, pair: Any) -> Iterator[Any]:
    """Yields a history that is long enough, or its items and tallies."""
    if len(pair[1]) >= MIN_LENGTH:
      yield pair
    else:
      yield tally('too short', count=len(pair[1]))
      yield tally('short user')
      for item, _ in pair[1]:
        yield beam.pvalue.TaggedOutput('short', (item, None))


def numbers_of(names: Collection, label: str) -> Collection:
  """Numbers distinct raw ids in sorted order; `label` names the transforms."""
  # A sample that does not depend on the order of arrival divides the ids into ranges of similar size. Each range is
  # sorted separately, and its numbers follow those of the ranges before.
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
    return [(name, before + position) for position, name in enumerate(sorted(members))]

  return ranges | f'By range {label}' >> beam.GroupByKey() | f'Number {label}' >> beam.FlatMap(number, sizes)


def tables(
  pipeline: beam.Pipeline,
  histories: Collection,
  raw_items: Collection,
  core: int,
  source: RawSource,
  numbered: list[NumberedSpan],
) -> tuple[Collection, Collection, Collection, list[Collection]]:
  """Numbers users and items and joins items with their texts.

  Args:
    pipeline: the pipeline to extend.
    histories: the histories after the k-core.
    raw_items: (raw id, whether it is within the dates) of every item.
    core: minimum number of interactions in the k-core.
    source: reads the spans.
    numbered: spans of the file with the texts.

  Returns:
    Records of users and records of items (dicts as in `builders.FEATURES`), (raw id, step) of the items that were left
    out, and collections of tallies.
  """
  long = histories | 'Long enough' >> with_tallies(LongEnough(), 'short')
  described = spread(pipeline, 'texts', numbered) | 'Read texts' >> with_tallies(ReadTexts(source))
  popularity = (
    long.main
    | 'Items' >> beam.FlatMap(lambda pair: [(item, 1) for item, _ in pair[1]])
    | 'Popularity' >> beam.CombinePerKey(sum)
  )
  user_numbers = numbers_of(long.main | 'Users' >> beam.Keys(), 'users')
  item_numbers = numbers_of(popularity | 'Distinct items' >> beam.Keys(), 'items')
  entries = (
    {'number': item_numbers, 'positions': long.main | 'To items' >> beam.FlatMap(_to_items)}
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
    | 'Item records' >> with_tallies(ItemRecord())
  )
  without, left_out_tallies = left_out_items(item_numbers, described.main, raw_items, long.short, core)
  lengths = long.main | 'Lengths' >> beam.Map(lambda pair: one('length', len(pair[1])))
  popular = popularity | 'Popularities' >> beam.Map(lambda pair: one('popularity', pair[1]))
  tallies = [long.tallies, described.tallies, items.tallies, lengths, popular, *left_out_tallies]
  return users, items.main, without, tallies


def _to_items(pair: Any) -> Iterator[Any]:
  user, history = pair
  for position, (item, time) in enumerate(history):
    yield item, (user, position, time)


def _to_users(grouped: Any) -> Iterator[Any]:
  number = _only(grouped[1]['number'])
  for user, position, time in grouped[1]['positions']:
    yield user, (position, number, time)


def _user_record(grouped: Any) -> Any:
  user, group = grouped
  entries = sorted(group['entries'])
  return {
    'user_id': _only(group['number']),
    'raw_id': user,
    'items': [item for _, item, _ in entries],
    'timestamps': [time for _, _, time in entries],
  }


class ItemRecord(beam.DoFn):
  """(item, {number, texts}) -> a record of each item that has a number, with its first texts that have a title."""

  def process(self, grouped: Any) -> Iterator[Any]:
    """Yields an item's record, and tallies."""
    item, group = grouped
    for number in group['number']:
      *_, texts = min(
        group['texts'], key=lambda entry: (not entry[2]['title'], *entry[:2]), default=(dict.fromkeys(TEXT_FIELDS, ''),)
      )
      yield {'item_id': number, 'raw_id': item, **texts}
      if not any(texts.values()):
        yield tally('without text')
      if not texts['title']:
        yield tally('without title')
      described = len(list(group['texts']))
      if not described:
        yield tally('not described')
      if described > 1:
        yield tally('described again', count=described - 1)


class TablesFromRecords(LetterDataset, skip_registration=True):  # type: ignore[call-arg]  # of TFDS's base class
  """Writes a table from records in files of JSON lines, with TFDS's Beam writer."""

  name = LetterDataset.name

  def __init__(self, *, records: epath.Path, **arguments: Any):
    """Makes a builder.

    Args:
      records: the path that the names of the files begin with.
      **arguments: as for `LetterDataset`.
    """
    self._records = records
    super().__init__(**arguments)

  def _split_generators(self, dl_manager: Any) -> dict[str, Collection]:
    return {self.table: self._read_records()}

  def _read_records(self) -> Collection:
    key = self.table.removesuffix('s') + '_id'
    return (
      beam.io.ReadFromText(f'{self._records}-*')
      | 'Parse' >> beam.Map(json.loads)
      | 'Key' >> beam.Map(lambda record: (record[key], record))
    )


def read_lines(pipeline: beam.Pipeline, path: epath.Path) -> Collection:
  """Reads the values that `write_lines` wrote."""
  lines = pipeline | f'Read {path.name}' >> beam.io.ReadFromText(f'{path}-*')
  return lines | f'Parse {path.name}' >> beam.Map(json.loads)


def write_lines(values: Collection, path: epath.Path) -> None:
  """Writes values as JSON lines into files whose names begin with `path`."""
  _ = (
    values
    | f'Format {path.name}' >> beam.Map(json.dumps)
    | f'Write {path.name}' >> beam.io.WriteToText(str(path), '.jsonl')
  )


def write_report(tallies: list[Collection], path: epath.Path) -> None:
  """Sums the tallies and writes them as one JSON file: [[[kind, detail], [count, place]], ...]."""
  _ = (
    tallies
    | 'All tallies' >> beam.Flatten()
    | 'Sum up' >> beam.CombinePerKey(beam.combiners.TupleCombineFn(sum, min))
    | 'One report' >> beam.combiners.ToList()
    | 'Write report' >> beam.Map(_write_json, path)
  )


def _write_json(value: Any, path: epath.Path) -> None:
  path.write_text(json.dumps(value))


def _only(values: Iterable[Any]) -> Any:
  (value,) = values
  return value


def _hash(name: str) -> bytes:
  return hashlib.blake2b(name.encode(), digest_size=8).digest()
