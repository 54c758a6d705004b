"""A prepared data set on disk: TFDS tables in ArrayRecord files, and `summary.json`.

    DIRECTORY/tfds/letter_dataset/users/1.0.0    (builders.py has the features)
    DIRECTORY/tfds/letter_dataset/items/1.0.0
    DIRECTORY/summary.json    counts, sparsity, quantiles, what was dropped in preparation; `content`, a fingerprint

TFDS writes them and anything that knows TFDS reads them (`tfds.builder_from_directory`); here records are parsed in
bulk, which is about ten times as fast as one by one. TFDS takes a second to import: only what needs it waits for it.
"""

import contextlib
import io
import itertools
import json
import pathlib
import shutil

import numpy as np

from letter_jax import artifacts
from letter_jax.data.dataset import TEXT_FIELDS, Dataset, Interactions
from letter_jax.errors import InputError

TABLES = {table: f'tfds/letter_dataset/{table}/1.0.0' for table in ('users', 'items')}
RECORDS_AT_ONCE = 65_536


def save(data: Dataset, directory: pathlib.Path) -> None:
  """Writes `data` under `directory`, in place of what was there; the summary last.

  Raises:
    InputError: the disk is full or cannot be written; nothing half-written stays.
  """
  import tensorflow_datasets as tfds

  from letter_jax.data.builders import LetterDataset
  tfds.disable_progress_bar()
  try:
    if (directory / 'tfds').exists():  # TFDS would take what is there for done
      shutil.rmtree(directory / 'tfds')
    for table in TABLES:
      with contextlib.redirect_stdout(io.StringIO()):  # TFDS says that it downloads, even where there is nothing to
        LetterDataset(dataset=data, config=table, data_dir=directory / 'tfds').download_and_prepare()
  except (OSError, RuntimeError) as error:  # the latter is ArrayRecord's for a full disk
    shutil.rmtree(directory / 'tfds', ignore_errors=True)
    raise InputError(f'{directory}: the prepared data set could not be written ({" ".join(str(error).split())[:300]}); '
                     'nothing of it is kept; expected a disk with room that can be written') from error
  shutil.rmtree(directory / 'tfds' / 'downloads', ignore_errors=True)  # empty
  artifacts.write_json(directory / 'summary.json', {**data.summary(), 'content': data.fingerprint()})


@contextlib.contextmanager
def _named_damage(directory: pathlib.Path):
  """Tells in one line what protobuf, ArrayRecord and JSON raise many kinds of errors for."""
  try:
    yield
  except Exception as error:
    raise InputError(f'{directory}: the prepared data set cannot be read ({" ".join(str(error).split())[:200]}); '
                     'run again with --stage=dataset --overwrite') from error


def load(directory: pathlib.Path) -> Dataset:
  """The data set that `save` wrote; InputError where it is damaged or not there."""
  with _named_damage(directory):
    summary = load_summary(directory)
    users, offsets, items, timestamps = _read_users(directory / TABLES['users'], summary['users'])
    names, texts = _read_items(directory / TABLES['items'], summary['items'])
    return Dataset(
      summary['name'], Interactions(items, offsets, summary['items'], users),
      None if summary['items_without_text'] is None else texts, timestamps if len(timestamps) else None,
      names if any(names) else None, summary.get('preparation'))


def load_summary(directory: pathlib.Path) -> dict:
  """`summary.json`; InputError where it is damaged or not there."""
  with _named_damage(directory):
    summary = json.loads((directory / 'summary.json').read_text(encoding='utf-8'))
    return {**summary, 'users': int(summary['users']), 'items': int(summary['items'])}


def load_texts(directory: pathlib.Path) -> tuple[dict[str, str], ...] | None:
  """The texts of all items, or None where the source had none; InputError where they are damaged."""
  with _named_damage(directory):
    summary = load_summary(directory)
    texts = _read_items(directory / TABLES['items'], summary['items'])[1]
    return None if summary['items_without_text'] is None else texts


def load_interactions(directory: pathlib.Path) -> Interactions:
  """All interactions, in memory; InputError where they are damaged."""
  with _named_damage(directory):
    summary = load_summary(directory)
    users, offsets, items, _ = _read_users(directory / TABLES['users'], summary['users'])
    return Interactions(items, offsets, summary['items'], users)


class StreamedInteractions:
  """Interactions larger than memory: a window of users at a time from the ArrayRecord files (see `dataset.Windows`).

  The lengths of all sequences are read once, at the start, and stay in memory, four bytes a user.
  """

  def __init__(self, directory: pathlib.Path, window_users: int, keep: int, process: int = 0, processes: int = 1):
    """`window_users` of all processes together make a window; `recent` keeps the latest `keep` of each user."""
    self._directory, self._window_users, self._keep = directory, window_users, keep
    self._process, self.shards = process, processes
    with _named_damage(directory):
      summary = load_summary(directory)
      self.num_items, self._users = summary['items'], summary['users']
      self._table = Table(directory / TABLES['users'])
      if len(self._table) != self._users:
        raise ValueError(f'{len(self._table)} records where summary.json has {self._users}')
      self._lengths_U = np.fromiter((len(features['items'].int64_list.value)
                                     for features in self._table.parsed(0, self._users)), np.int32, self._users)
    self.num_windows = -(-self._users // window_users)

  def _records(self, window: int, shard: int) -> tuple[int, int]:
    first = window * self._window_users
    count = min(self._window_users, self._users - first)
    return first + count * shard // self.shards, first + count * (shard + 1) // self.shards

  def window_lengths(self, window: int, shard: int) -> np.ndarray:
    return self._lengths_U[slice(*self._records(window, shard))].astype(np.int64)

  def window(self, window: int) -> Interactions:
    with _named_damage(self._directory):
      _, lengths, items, _, names = self._table.sequences(*self._records(window, self._process))
      offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
      return Interactions(items, offsets, self.num_items, tuple(names))

  def recent(self) -> Interactions:
    with _named_damage(self._directory):
      users, offsets, items, _ = _read_users(self._directory / TABLES['users'], self._users, self._keep)
      return Interactions(items, offsets, self.num_items, users)


def shards(table: pathlib.Path) -> list[pathlib.Path]:
  """The ArrayRecord files of a table, in order; ValueError where there is none."""
  found = sorted(table.glob('*.array_record-*-of-*'))
  if not found:
    raise ValueError(f'{table} has no ArrayRecord file')
  return found


class Table:
  """Records of a table in the order of its files, any run of them at a time."""

  def __init__(self, path: pathlib.Path):
    from array_record.python.array_record_module import ArrayRecordReader
    from tensorflow_datasets.proto import tf_example_generated_pb2 as tf_example
    self._parse = tf_example.Example.FromString
    self._readers = [ArrayRecordReader(str(shard)) for shard in shards(path)]
    self._ends = np.cumsum([reader.num_records() for reader in self._readers])

  def __len__(self) -> int:
    return int(self._ends[-1])

  def parsed(self, start: int, stop: int):
    """The feature maps of records start .. stop - 1."""
    for reader, end in zip(self._readers, self._ends.tolist()):
      first, last = max(start, end - reader.num_records()), min(stop, end)
      if first < last:
        shift = end - reader.num_records()
        for record in reader.read(first - shift, last - shift):
          yield self._parse(record).features.feature

  def sequences(self, start: int, stop: int, keep: int | None = None) -> tuple[np.ndarray, ...]:
    """Of the users of records start .. stop - 1: user_id, lengths, items, timestamps, raw ids.

    Args:
      keep: how many of each user's latest interactions are wanted; None for all.

    Returns:
      int64 [users], int64 [users], int32 [interactions], int64 [interactions] or [0], and a list [users].
    """
    latest = slice(None if keep is None else -keep, None)
    parts = [(features['user_id'].int64_list.value[0], features['raw_id'].bytes_list.value[0].decode(),
              features['items'].int64_list.value[latest], features['timestamps'].int64_list.value[latest])
             for features in self.parsed(start, stop)]
    ids, names, items, times = zip(*parts) if parts else ((), (), (), ())
    lengths = np.fromiter(map(len, items), np.int64, len(items))
    flat = lambda lists, dtype: np.fromiter(itertools.chain.from_iterable(lists), dtype)
    return np.array(ids, np.int64), lengths, flat(items, np.int32), flat(times, np.int64), list(names)


def _read_users(path: pathlib.Path, expected: int, keep: int | None = None):
  """Names, offsets, items and timestamps of all users, in the order of their ids; the latest `keep` of each."""
  table = Table(path)
  blocks = [table.sequences(start, min(start + RECORDS_AT_ONCE, len(table)), keep)
            for start in range(0, len(table), RECORDS_AT_ONCE)]
  ids, lengths, items, times = (np.concatenate([block[part] for block in blocks]) for part in range(4))
  names = list(itertools.chain.from_iterable(block[4] for block in blocks))
  order = _order(ids, expected)
  starts = np.cumsum(lengths) - lengths
  offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths[order])])
  cells = np.repeat(starts[order] - offsets[:-1], lengths[order]) + np.arange(len(items))
  return tuple(map(names.__getitem__, order.tolist())), offsets, items[cells], times[cells] if len(times) else times


def _read_items(path: pathlib.Path, expected: int):
  """Names and texts of all items, in the order of their ids."""
  table = Table(path)
  records = [(features['item_id'].int64_list.value[0],
              *(features[field].bytes_list.value[0].decode() for field in ('raw_id', *TEXT_FIELDS)))
             for features in table.parsed(0, len(table))]
  order = _order(np.array([record[0] for record in records]), expected).tolist()
  return (tuple(records[place][1] for place in order),
          tuple(dict(zip(TEXT_FIELDS, records[place][2:])) for place in order))


def _order(ids: np.ndarray, expected: int) -> np.ndarray:
  """The places of ids 0, 1, 2, ...; ValueError where they are not just these."""
  order = np.argsort(ids, kind='stable')
  if not np.array_equal(ids[order], np.arange(expected)):
    raise ValueError(f'{len(ids)} records where summary.json has {expected}')
  return order
