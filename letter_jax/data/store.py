"""A prepared data set on disk: TFDS tables in ArrayRecord files, and a summary.

    DIRECTORY/tfds/letter_dataset/users/1.0.0    (builders.py has the features)
    DIRECTORY/tfds/letter_dataset/items/1.0.0
    DIRECTORY/lengths.npy     int32 [users], number of interactions of each, in the order of the records
    DIRECTORY/summary.json    counts, sparsity, quantiles, what preparation dropped, first and last day; `content`, a
                              fingerprint
    DIRECTORY/left_out_items.csv   of raw files: items without any interaction that was kept (`left_out.py`)

The tables are written by TFDS and can be read with it (`tfds.builder_from_directory`); here records are parsed in bulk,
which is about ten times as fast. TFDS is imported only where it is needed, because that takes a second.
"""

import array
import contextlib
import hashlib
import io
import json
import math
import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from letter_jax.data import left_out, ragged
from letter_jax.data.dataset import LENGTHS, MIN_LENGTH, PREPARED_BY, SUMMARY, TEXT_FIELDS, TFDS, Dataset, Interactions
from letter_jax.data.times import day_of
from letter_jax.ops.rounding import ceil_div
from letter_jax.system import artifacts
from letter_jax.system.errors import InputError
from letter_jax.system.wording import counted

TABLES = {table: f'{TFDS}/letter_dataset/{table}/1.0.0' for table in ('users', 'items')}
RECORDS_AT_ONCE = 65_536
REDO = 'run again with --stage=dataset --overwrite'
FROM_BEAM = f'expected a complete folder that {PREPARED_BY} wrote (config.data.path)'


def save(data: Dataset, directory: pathlib.Path) -> None:
  """Writes a data set to `directory`, replacing any other; the summary is written last.

  Raises:
    InputError: the disk is full or cannot be written; then no partial data set is left.
  """
  import tensorflow_datasets as tfds

  from letter_jax.data.builders import LetterDataset

  tfds.disable_progress_bar()
  with _replacing_tables(directory):
    for table in TABLES:
      with contextlib.redirect_stdout(io.StringIO()):  # TFDS always prints that it downloads
        LetterDataset(dataset=data, config=table, data_dir=directory / TFDS).download_and_prepare()
    shutil.rmtree(directory / TFDS / 'downloads', ignore_errors=True)  # empty
  summary = data.summary()
  if data.preparation is not None:
    table = left_out.table(data.left_out)
    artifacts.write(directory / left_out.FILE, lambda path: path.write_text(table, encoding='utf-8', newline=''))
  _write_summary(directory, summary, *_inspect(directory, summary))


def adopt(prepared: pathlib.Path, directory: pathlib.Path) -> None:
  """Links, or else copies, the tables that `data.beam` wrote in `prepared` into `directory`, without loading them.

  Raises:
    InputError: the tables are damaged or missing; the disk is full or cannot be written.
  """
  if prepared.resolve() == directory.resolve():
    raise InputError(f'config.data.path must not be the output folder {prepared}; expected a different folder')
  summary = load_summary(prepared, FROM_BEAM)
  lengths_U, found = _inspect(prepared, summary, FROM_BEAM)
  with _replacing_tables(directory):
    shutil.copytree(prepared / TFDS, directory / TFDS, copy_function=_link_or_copy)
    if (prepared / left_out.FILE).exists():
      _link_or_copy(prepared / left_out.FILE, directory / left_out.FILE)
  _write_summary(directory, summary, lengths_U, found)


def _link_or_copy(source: str | os.PathLike, target: str | os.PathLike) -> None:
  try:
    os.link(os.path.realpath(source), target)
  except OSError:
    shutil.copyfile(source, target)


@contextlib.contextmanager
def _replacing_tables(directory: pathlib.Path) -> Iterator[None]:
  """Removes the previous summary and tables before new tables are written, and partial tables after an error."""
  try:
    directory.mkdir(parents=True, exist_ok=True)
    for name in (SUMMARY, LENGTHS, left_out.FILE):
      (directory / name).unlink(missing_ok=True)
    if (directory / TFDS).exists():  # TFDS would skip existing tables
      shutil.rmtree(directory / TFDS)
    yield
  except (OSError, RuntimeError) as error:  # ArrayRecord raises RuntimeError for a full disk
    shutil.rmtree(directory / TFDS, ignore_errors=True)
    raise InputError(
      f'{directory}: the prepared data set could not be written ({" ".join(str(error).split())[:300]}); '
      'nothing of it is kept; expected a writable disk with enough space'
    ) from error


def _inspect(directory: pathlib.Path, summary: dict, expected: str = REDO) -> tuple[np.ndarray, dict[str, str]]:
  """Reads the tables once and checks them.

  Returns:
    int32 [users], the number of interactions of each in the order of the records; and what the summary adds: the first
    and the last day, where there are timestamps, and a fingerprint, a sum over the records that does not depend on
    their order, as TFDS does not write the same bytes each time.

  Raises:
    InputError: the tables are damaged, or do not match the summary or each other; the message ends with `expected`.
  """
  total, lengths, user_ids, item_ids = 0, array.array('i'), array.array('q'), array.array('q')
  first, last = math.inf, -math.inf  # of the timestamps
  with _damage_in_one_line(directory, expected):
    for features in Table(directory / TABLES['users']).parsed():
      items, times = (
        array.array(kind, features[name].int64_list.value) for kind, name in (('i', 'items'), ('q', 'timestamps'))
      )
      user_ids.append(_id(features, 'user_id'))
      total += _hash(user_ids[-1], _text(features, 'raw_id'), items.tobytes(), times.tobytes())
      lengths.append(len(items))
      if times:
        first, last = min(first, min(times)), max(last, max(times))
      if (
        len(items) < MIN_LENGTH or min(items) < 0 or max(items) >= summary['items'] or len(times) not in (0, len(items))
      ):
        raise ValueError(
          f'user {user_ids[-1]} has {counted(len(items), "item")} and {counted(len(times), "timestamp")}; expected '
          f'at least {MIN_LENGTH} items, each below {summary["items"]}, and one timestamp per item or none'
        )
    for features in Table(directory / TABLES['items']).parsed():
      item_ids.append(_id(features, 'item_id'))
      total += _hash(item_ids[-1], *(_text(features, field) for field in ('raw_id', *TEXT_FIELDS)))
    lengths_U = np.frombuffer(lengths, np.int32)
    for ids, name in ((user_ids, 'users'), (item_ids, 'items')):
      _order(np.frombuffer(ids, np.int64), summary[name])
    if lengths_U.sum(dtype=np.int64) != summary['interactions']:
      raise ValueError(
        f'the lengths sum to {lengths_U.sum(dtype=np.int64)}, but {SUMMARY} has {summary["interactions"]}'
      )
    days = {'first_day': day_of(int(first)), 'last_day': day_of(int(last))} if first <= last else {}
  return lengths_U, {**days, 'content': f'{total % 2**256:064x}'}


def _write_summary(directory: pathlib.Path, summary: dict, lengths_U: np.ndarray, found: dict[str, str]) -> None:
  artifacts.write_npy(directory / LENGTHS, lengths_U)
  artifacts.write_json(directory / SUMMARY, {**summary, **found})


def _hash(number: int, *parts: bytes) -> int:
  digest = hashlib.sha256(number.to_bytes(8, 'little'))
  for part in parts:
    digest.update(len(part).to_bytes(8, 'little') + part)
  return int.from_bytes(digest.digest(), 'little')


def _id(features: Any, name: str) -> int:
  return features[name].int64_list.value[0]


def _text(features: Any, name: str) -> bytes:
  return features[name].bytes_list.value[0]


@contextlib.contextmanager
def _damage_in_one_line(directory: pathlib.Path, expected: str = REDO) -> Iterator[None]:
  """Turns any error of protobuf, ArrayRecord or JSON into an InputError of one line that ends with `expected`."""
  try:
    yield
  except (InputError, MemoryError):
    raise
  except Exception as error:
    raise InputError(
      f'{directory}: the prepared data set cannot be read ({" ".join(str(error).split())[:200]}); {expected}'
    ) from error


def load(directory: pathlib.Path) -> Dataset:
  """Loads the data set that `save` wrote; InputError if it is damaged or missing."""
  summary = load_summary(directory)
  with _damage_in_one_line(directory):
    users, offsets, items, timestamps = _read_users(directory / TABLES['users'], summary['users'])
    names, *texts_by_field = _read_items(directory / TABLES['items'], summary['items'], ('raw_id', *TEXT_FIELDS))
    return Dataset(
      summary['name'],
      Interactions(items, offsets, summary['items'], users),
      None if summary['items_without_text'] is None else _texts(texts_by_field),
      timestamps if len(timestamps) else None,
      names if any(names) else None,
      summary.get('preparation'),
    )


def load_summary(directory: pathlib.Path, expected: str = REDO) -> dict[str, Any]:
  """Loads `summary.json`; InputError, which ends with `expected`, if it is damaged or missing."""
  with _damage_in_one_line(directory, expected):
    summary = json.loads((directory / SUMMARY).read_text(encoding='utf-8'))
    return {**summary, **{name: int(summary[name]) for name in ('users', 'items', 'interactions')}}


def load_raw_ids(directory: pathlib.Path) -> tuple[str, ...] | None:
  """Loads the raw ids of all items, None if the source had none; InputError if they are damaged."""
  summary = load_summary(directory)
  with _damage_in_one_line(directory):
    (names,) = _read_items(directory / TABLES['items'], summary['items'], ('raw_id',))
    return names if any(names) else None


def load_texts(directory: pathlib.Path) -> tuple[dict[str, str], ...] | None:
  """Loads the texts of all items, None if the source had none; InputError if they are damaged."""
  summary = load_summary(directory)
  with _damage_in_one_line(directory):
    if summary['items_without_text'] is None:
      return None
    return _texts(_read_items(directory / TABLES['items'], summary['items'], TEXT_FIELDS))


def load_interactions(directory: pathlib.Path) -> Interactions:
  """Loads all interactions; InputError if they are damaged."""
  return _latest_interactions(directory, None)


def _latest_interactions(directory: pathlib.Path, keep: int | None) -> Interactions:
  """The latest `keep` interactions of each user, or all."""
  summary = load_summary(directory)
  with _damage_in_one_line(directory):
    users, offsets, items, _ = _read_users(directory / TABLES['users'], summary['users'], keep, times=False)
    return Interactions(items, offsets, summary['items'], users)


def load_last_times(directory: pathlib.Path) -> np.ndarray | None:
  """int64 [users], the time of each user's last interaction; None without times; InputError if they are damaged."""
  summary = load_summary(directory)
  with _damage_in_one_line(directory):
    *_, last_U = _read_users(directory / TABLES['users'], summary['users'], keep=1)
    return last_U if len(last_U) else None


class StreamedInteractions:
  """Interactions larger than memory, read from the ArrayRecord files a window of users at a time (`dataset.Windows`).

  Attributes:
    num_items: size of the catalogue.
    num_windows: the number of windows.
    parts: the number of parts of each window, one per process.
  """

  def __init__(self, directory: pathlib.Path, window_users: int, keep: int, process: int = 0, processes: int = 1):
    """Opens the tables in `directory`.

    Args:
      directory: written by `save` or `adopt`.
      window_users: users in a window, over all processes.
      keep: how many of each user's latest interactions `recent` returns.
      process: which part of each window this process reads.
      processes: the number of parts.

    Raises:
      InputError: the tables are damaged or missing.
    """
    self._directory, self._window_users, self._keep = directory, window_users, keep
    self._process, self.parts = process, processes
    summary = load_summary(directory)
    self.num_items, self._users = summary['items'], summary['users']
    with _damage_in_one_line(directory):
      self._table = Table(directory / TABLES['users'])
      self._lengths_U = np.load(directory / LENGTHS, mmap_mode='r')
      if len(self._table) != self._users or self._lengths_U.shape != (self._users,):
        raise ValueError(
          f'{counted(len(self._table), "record")} and lengths of {self._lengths_U.shape}; expected {self._users}'
        )
    self.num_windows = ceil_div(self._users, window_users)

  def _records(self, window: int, part: int) -> tuple[int, int]:
    first = window * self._window_users
    count = min(self._window_users, self._users - first)
    return first + count * part // self.parts, first + count * (part + 1) // self.parts

  def lengths_of(self, window: int, part: int) -> np.ndarray:
    """int64 [users in the part of the window], interactions of each user."""
    return self._lengths_U[slice(*self._records(window, part))].astype(np.int64)

  def window(self, window: int) -> Interactions:
    """Reads this process' part of the window; InputError if it is damaged."""
    with _damage_in_one_line(self._directory):
      _, names, lengths, items, _ = self._table.sequences(*self._records(window, self._process), times=False)
      offsets = ragged.offsets(lengths)
      return Interactions(items, offsets, self.num_items, tuple(names))

  def recent(self) -> Interactions:
    """Reads the latest interactions of all users, in the order of the data set; InputError if they are damaged."""
    return _latest_interactions(self._directory, self._keep)

  def whole(self) -> Interactions:
    """Reads all interactions of all users, as `recent`: 4 bytes each, and every user's name."""
    return _latest_interactions(self._directory, None)


def shards(table: pathlib.Path) -> list[pathlib.Path]:
  """The ArrayRecord files of a table, in order; ValueError if there is none."""
  paths = sorted(table.glob('*.array_record-*-of-*'))
  if not paths:
    raise ValueError(f'{table} has no ArrayRecord file')
  return paths


class Table:
  """Reads any range of the records of a table, in the order of its files; `len` is their number."""

  def __init__(self, path: pathlib.Path):
    """Opens the files of the table in the folder `path`; ValueError if there is none."""
    from array_record.python.array_record_module import ArrayRecordReader
    from tensorflow_datasets.proto import tf_example_generated_pb2 as tf_example

    self._parse = tf_example.Example.FromString
    self._readers = [ArrayRecordReader(str(shard)) for shard in shards(path)]
    self._ends = np.cumsum([reader.num_records() for reader in self._readers])

  def __len__(self) -> int:
    return int(self._ends[-1])

  def parsed(self, start: int = 0, stop: int | None = None) -> Iterator[Any]:
    """Yields the feature maps of records start .. stop - 1, reading RECORDS_AT_ONCE at a time."""
    stop = len(self) if stop is None else stop
    for reader, end in zip(self._readers, self._ends.tolist()):
      shift = end - reader.num_records()
      for first in range(max(start, shift), min(stop, end), RECORDS_AT_ONCE):
        for record in reader.read(first - shift, min(first + RECORDS_AT_ONCE, stop, end) - shift):
          yield self._parse(record).features.feature

  def sequences(
    self, start: int, stop: int, keep: int | None = None, times: bool = True
  ) -> tuple[np.ndarray, list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Reads the users of records start .. stop - 1.

    Args:
      start: the first record.
      stop: the record after the last.
      keep: how many of each user's latest interactions to return; None for all.
      times: whether to return timestamps.

    Returns:
      User ids, int64 [users]; raw ids [users]; numbers of interactions, int64 [users]; items, int32 [interactions];
      timestamps, int64 [interactions], or [0] without `times`.
    """
    latest = slice(None if keep is None else -keep, None)
    ids, names, lengths, items, timestamps = array.array('q'), [], array.array('q'), array.array('i'), array.array('q')
    for features in self.parsed(start, stop):
      user_items = features['items'].int64_list.value[latest]
      ids.append(_id(features, 'user_id'))
      names.append(_text(features, 'raw_id').decode())
      lengths.append(len(user_items))
      items.extend(user_items)
      if times:
        timestamps.extend(features['timestamps'].int64_list.value[latest])
    return (
      np.frombuffer(ids, np.int64),
      names,
      np.frombuffer(lengths, np.int64),
      np.frombuffer(items, np.int32),
      np.frombuffer(timestamps, np.int64),
    )


def _read_users(
  path: pathlib.Path, num_users: int, keep: int | None = None, times: bool = True
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray, np.ndarray]:
  """Reads raw ids, offsets, items and timestamps of all users in the order of their ids; the latest `keep` of each."""
  table = Table(path)
  ids, names, lengths, items, timestamps = table.sequences(0, len(table), keep, times)
  order = _order(ids, num_users)
  offsets = ragged.offsets(lengths[order])
  cells = ragged.ranges(ragged.starts(lengths)[order], lengths[order])
  return (
    tuple(map(names.__getitem__, order.tolist())),
    offsets,
    items[cells],
    timestamps[cells] if len(timestamps) else timestamps,
  )


def _read_items(path: pathlib.Path, num_items: int, fields: Sequence[str]) -> list[tuple[str, ...]]:
  """Reads some fields of all items, each in the order of the items' ids."""
  records = [
    (_id(features, 'item_id'), *(_text(features, field).decode() for field in fields))
    for features in Table(path).parsed()
  ]
  order = _order(np.array([record[0] for record in records]), num_items).tolist()
  return [tuple(records[index][column] for index in order) for column in range(1, len(fields) + 1)]


def _texts(texts_by_field: Sequence[Sequence[str]]) -> tuple[dict[str, str], ...]:
  """The texts of each item, field -> text."""
  return tuple(dict(zip(TEXT_FIELDS, texts)) for texts in zip(*texts_by_field))


def _order(ids: np.ndarray, count: int) -> np.ndarray:
  """The indices that sort `ids`; ValueError unless they are 0 .. count - 1."""
  order = np.argsort(ids, kind='stable')
  if not np.array_equal(ids[order], np.arange(count)):
    raise ValueError(f'{counted(len(ids), "record")}, but {SUMMARY} has {count}, or ids other than 0, 1, 2, ...')
  return order
