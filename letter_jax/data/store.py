"""A prepared data set on disk: TFDS tables in ArrayRecord files, and what is known of them.

    DIRECTORY/tfds/letter_dataset/users/1.0.0    (builders.py has the features)
    DIRECTORY/tfds/letter_dataset/items/1.0.0
    DIRECTORY/lengths.npy     int32 [users], interactions of each, in the order of the records
    DIRECTORY/summary.json    counts, sparsity, quantiles, what was dropped in preparation; `content`, a fingerprint

TFDS writes them and anything that knows TFDS reads them (`tfds.builder_from_directory`); here records are parsed in
bulk, which is about ten times as fast as one by one. TFDS takes a second to import: only what needs it waits for it.
"""

import array
import contextlib
import hashlib
import io
import json
import os
import pathlib
import shutil
from collections.abc import Iterator

import numpy as np

from letter_jax.data import ragged
from letter_jax.data.dataset import MIN_LENGTH, TEXT_FIELDS, Dataset, Interactions
from letter_jax.ops.rounding import ceil_div
from letter_jax.system import artifacts
from letter_jax.system.errors import InputError

TABLES = {table: f'tfds/letter_dataset/{table}/1.0.0' for table in ('users', 'items')}
LENGTHS, SUMMARY = 'lengths.npy', 'summary.json'
RECORDS_AT_ONCE = 65_536
REDO = 'run again with --stage=dataset --overwrite'
FROM_BEAM = 'expected a whole folder that letter_jax.data.beam wrote (config.data.path)'


def save(data: Dataset, directory: pathlib.Path) -> None:
  """Writes `data` under `directory`, in place of what was there; the summary last.

  Raises:
    InputError: the disk is full or cannot be written; nothing half-written stays.
  """
  import tensorflow_datasets as tfds

  from letter_jax.data.builders import LetterDataset

  tfds.disable_progress_bar()
  with _whole(directory):
    for table in TABLES:
      with contextlib.redirect_stdout(io.StringIO()):  # TFDS says that it downloads, even where there is nothing to
        LetterDataset(dataset=data, config=table, data_dir=directory / 'tfds').download_and_prepare()
    shutil.rmtree(directory / 'tfds' / 'downloads', ignore_errors=True)  # empty
  summary = data.summary()
  _write_summary(directory, summary, *_inspect(directory, summary))


def adopt(prepared: pathlib.Path, directory: pathlib.Path) -> None:
  """Brings the tables that `data.beam` wrote under `directory`, whatever their size: as links where that can be.

  Raises:
    InputError: they are damaged or not there; the disk is full or cannot be written.
  """
  if prepared.resolve() == directory.resolve():
    raise InputError(f'{prepared} is the folder that is to be written; expected another as config.data.path')
  summary = load_summary(prepared, FROM_BEAM)
  found = _inspect(prepared, summary, FROM_BEAM)
  with _whole(directory):
    shutil.copytree(prepared / 'tfds', directory / 'tfds', copy_function=_link_or_copy)
  _write_summary(directory, summary, *found)


def _link_or_copy(source: str, target: str) -> None:
  try:
    os.link(os.path.realpath(source), target)
  except OSError:
    shutil.copyfile(source, target)


@contextlib.contextmanager
def _whole(directory: pathlib.Path) -> Iterator[None]:
  """Tables are written whole or not at all, and no summary vouches for those before."""
  try:
    directory.mkdir(parents=True, exist_ok=True)
    for name in (SUMMARY, LENGTHS):
      (directory / name).unlink(missing_ok=True)
    if (directory / 'tfds').exists():  # TFDS would take what is there for done
      shutil.rmtree(directory / 'tfds')
    yield
  except (OSError, RuntimeError) as error:  # the latter is ArrayRecord's for a full disk
    shutil.rmtree(directory / 'tfds', ignore_errors=True)
    raise InputError(
      f'{directory}: the prepared data set could not be written ({" ".join(str(error).split())[:300]}); '
      'nothing of it is kept; expected a disk with room that can be written'
    ) from error


def _inspect(directory: pathlib.Path, summary: dict, expected: str = REDO) -> tuple[np.ndarray, str]:
  """Reads the tables once: int32 [users], lengths in the order of the records, and a fingerprint.

  The fingerprint is a sum over records, whatever their order: TFDS's files are not the same bytes each time.

  Raises:
    InputError: they do not agree with the summary, or with each other.
  """
  total, lengths, user_ids, item_ids = 0, array.array('i'), array.array('q'), array.array('q')
  with _named_damage(directory, expected):
    for features in Table(directory / TABLES['users']).parsed():
      items, times = (
        array.array(kind, features[name].int64_list.value) for kind, name in (('i', 'items'), ('q', 'timestamps'))
      )
      user_ids.append(_id(features, 'user_id'))
      total += _hash(user_ids[-1], _text(features, 'raw_id'), items.tobytes(), times.tobytes())
      lengths.append(len(items))
      if (
        len(items) < MIN_LENGTH or min(items) < 0 or max(items) >= summary['items'] or len(times) not in (0, len(items))
      ):
        raise ValueError(
          f'user {user_ids[-1]} has {len(items)} items and {len(times)} timestamps; expected '
          f'{MIN_LENGTH} items at least, each below {summary["items"]}, and as many timestamps or none'
        )
    for features in Table(directory / TABLES['items']).parsed():
      item_ids.append(_id(features, 'item_id'))
      total += _hash(item_ids[-1], *(_text(features, field) for field in ('raw_id', *TEXT_FIELDS)))
    lengths_U = np.frombuffer(lengths, np.int32)
    for ids, name in ((user_ids, 'users'), (item_ids, 'items')):
      _order(np.frombuffer(ids, np.int64), summary[name])
    if lengths_U.sum(dtype=np.int64) != summary['interactions']:
      raise ValueError(f'{lengths_U.sum(dtype=np.int64)} interactions where {SUMMARY} has {summary["interactions"]}')
  return lengths_U, f'{total % 2**256:064x}'


def _write_summary(directory: pathlib.Path, summary: dict, lengths_U: np.ndarray, content: str) -> None:
  artifacts.write_npy(directory / LENGTHS, lengths_U)
  artifacts.write_json(directory / SUMMARY, {**summary, 'content': content})


def _hash(number: int, *parts: bytes) -> int:
  digest = hashlib.sha256(number.to_bytes(8, 'little'))
  for part in parts:
    digest.update(len(part).to_bytes(8, 'little') + part)
  return int.from_bytes(digest.digest(), 'little')


def _id(features, name: str) -> int:
  return features[name].int64_list.value[0]


def _text(features, name: str) -> bytes:
  return features[name].bytes_list.value[0]


@contextlib.contextmanager
def _named_damage(directory: pathlib.Path, expected: str = REDO) -> Iterator[None]:
  """Tells in one line what protobuf, ArrayRecord and JSON raise many kinds of errors for."""
  try:
    yield
  except (InputError, MemoryError):
    raise
  except Exception as error:
    raise InputError(
      f'{directory}: the prepared data set cannot be read ({" ".join(str(error).split())[:200]}); {expected}'
    ) from error


def load(directory: pathlib.Path) -> Dataset:
  """The data set that `save` wrote; InputError where it is damaged or not there."""
  summary = load_summary(directory)
  with _named_damage(directory):
    users, offsets, items, timestamps = _read_users(directory / TABLES['users'], summary['users'])
    names, texts = _read_items(directory / TABLES['items'], summary['items'])
    return Dataset(
      summary['name'],
      Interactions(items, offsets, summary['items'], users),
      None if summary['items_without_text'] is None else texts,
      timestamps if len(timestamps) else None,
      names if any(names) else None,
      summary.get('preparation'),
    )


def load_summary(directory: pathlib.Path, expected: str = REDO) -> dict:
  """`summary.json`; InputError, which ends with `expected`, where it is damaged or not there."""
  with _named_damage(directory, expected):
    summary = json.loads((directory / SUMMARY).read_text(encoding='utf-8'))
    return {**summary, **{name: int(summary[name]) for name in ('users', 'items', 'interactions')}}


def load_items(directory: pathlib.Path) -> tuple[tuple[str, ...] | None, tuple[dict[str, str], ...] | None]:
  """Names and texts of all items, each None where the source had none; InputError where they are damaged."""
  summary = load_summary(directory)
  with _named_damage(directory):
    names, texts = _read_items(directory / TABLES['items'], summary['items'])
    return names if any(names) else None, None if summary['items_without_text'] is None else texts


def load_texts(directory: pathlib.Path) -> tuple[dict[str, str], ...] | None:
  """The texts of all items, or None where the source had none; InputError where they are damaged."""
  return load_items(directory)[1]


def load_interactions(directory: pathlib.Path) -> Interactions:
  """All interactions, in memory; InputError where they are damaged."""
  summary = load_summary(directory)
  with _named_damage(directory):
    users, offsets, items, _ = _read_users(directory / TABLES['users'], summary['users'], times=False)
    return Interactions(items, offsets, summary['items'], users)


class StreamedInteractions:
  """Interactions larger than memory: a window of users at a time from the ArrayRecord files (see `dataset.Windows`)."""

  def __init__(self, directory: pathlib.Path, window_users: int, keep: int, process: int = 0, processes: int = 1):
    """`window_users` of all processes together make a window; `recent` keeps the latest `keep` of each user."""
    self._directory, self._window_users, self._keep = directory, window_users, keep
    self._process, self.parts = process, processes
    summary = load_summary(directory)
    self.num_items, self._users = summary['items'], summary['users']
    with _named_damage(directory):
      self._table = Table(directory / TABLES['users'])
      self._lengths_U = np.load(directory / LENGTHS, mmap_mode='r')
      if len(self._table) != self._users or self._lengths_U.shape != (self._users,):
        raise ValueError(
          f'{len(self._table)} records and lengths of {self._lengths_U.shape} where {SUMMARY} has {self._users}'
        )
    self.num_windows = ceil_div(self._users, window_users)

  def _records(self, window: int, part: int) -> tuple[int, int]:
    first = window * self._window_users
    count = min(self._window_users, self._users - first)
    return first + count * part // self.parts, first + count * (part + 1) // self.parts

  def lengths_of(self, window: int, part: int) -> np.ndarray:
    return self._lengths_U[slice(*self._records(window, part))].astype(np.int64)

  def window(self, window: int) -> Interactions:
    with _named_damage(self._directory):
      _, names, lengths, items, _ = self._table.sequences(*self._records(window, self._process), times=False)
      offsets = ragged.offsets(lengths)
      return Interactions(items, offsets, self.num_items, tuple(names))

  def recent(self) -> Interactions:
    with _named_damage(self._directory):
      users, offsets, items, _ = _read_users(self._directory / TABLES['users'], self._users, self._keep, times=False)
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

  def parsed(self, start: int = 0, stop: int | None = None) -> Iterator:
    """The feature maps of records start .. stop - 1; so many records at a time are in memory."""
    stop = len(self) if stop is None else stop
    for reader, end in zip(self._readers, self._ends.tolist()):
      shift = end - reader.num_records()
      for first in range(max(start, shift), min(stop, end), RECORDS_AT_ONCE):
        for record in reader.read(first - shift, min(first + RECORDS_AT_ONCE, stop, end) - shift):
          yield self._parse(record).features.feature

  def sequences(self, start: int, stop: int, keep: int | None = None, times: bool = True) -> tuple:
    """Of the users of records start .. stop - 1: ids, names, lengths, items, timestamps.

    Args:
      keep: how many of each user's latest interactions are wanted; None for all.
      times: whether the timestamps are.

    Returns:
      int64 [users], a list [users], int64 [users], int32 [interactions], int64 [interactions] or [0].
    """
    latest = slice(None if keep is None else -keep, None)
    ids, names, lengths, items, timestamps = array.array('q'), [], array.array('q'), array.array('i'), array.array('q')
    for features in self.parsed(start, stop):
      of_user = features['items'].int64_list.value[latest]
      ids.append(_id(features, 'user_id'))
      names.append(_text(features, 'raw_id').decode())
      lengths.append(len(of_user))
      items.extend(of_user)
      if times:
        timestamps.extend(features['timestamps'].int64_list.value[latest])
    return (
      np.frombuffer(ids, np.int64),
      names,
      np.frombuffer(lengths, np.int64),
      np.frombuffer(items, np.int32),
      np.frombuffer(timestamps, np.int64),
    )


def _read_users(path: pathlib.Path, expected: int, keep: int | None = None, times: bool = True):
  """Names, offsets, items and timestamps of all users, in the order of their ids; the latest `keep` of each."""
  table = Table(path)
  ids, names, lengths, items, timestamps = table.sequences(0, len(table), keep, times)
  order = _order(ids, expected)
  offsets = ragged.offsets(lengths[order])
  cells = ragged.ranges(ragged.starts(lengths)[order], lengths[order])
  return (
    tuple(map(names.__getitem__, order.tolist())),
    offsets,
    items[cells],
    timestamps[cells] if len(timestamps) else timestamps,
  )


def _read_items(path: pathlib.Path, expected: int):
  """Names and texts of all items, in the order of their ids."""
  table = Table(path)
  records = [
    (_id(features, 'item_id'), *(_text(features, field).decode() for field in ('raw_id', *TEXT_FIELDS)))
    for features in table.parsed()
  ]
  order = _order(np.array([record[0] for record in records]), expected).tolist()
  return (
    tuple(records[place][1] for place in order),
    tuple(dict(zip(TEXT_FIELDS, records[place][2:])) for place in order),
  )


def _order(ids: np.ndarray, expected: int) -> np.ndarray:
  """The places of ids 0, 1, 2, ...; ValueError where they are not just these."""
  order = np.argsort(ids, kind='stable')
  if not np.array_equal(ids[order], np.arange(expected)):
    raise ValueError(f'{len(ids)} records where summary.json has {expected}, or ids that are not 0, 1, 2, ...')
  return order
