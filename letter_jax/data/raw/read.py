"""Reads a data set from the raw files of any source: finds the files, prepares the events, reports problems."""

import itertools
import pathlib
from collections.abc import Iterator
from typing import Any

import polars as pl
from tqdm import tqdm

from letter_jax.configuration import DataConfig
from letter_jax.data.dataset import Dataset, Interactions
from letter_jax.data.preparation import prepare
from letter_jax.data.raw import amazon, movielens, tables, yelp
from letter_jax.data.raw.common_ids import DescribedItems
from letter_jax.data.raw.downloads import download_raw_files, forget_download, require_category
from letter_jax.data.raw.reader import RawSource, event_table, texts_of_items
from letter_jax.data.raw.reading import DamagedFile, Problems, Span
from letter_jax.system.errors import InputError
from letter_jax.system.wording import counted


def find_raw_source(config: DataConfig, folder: pathlib.Path) -> RawSource:
  """Finds the raw files of `config.source` in `folder`; InputError if one does not exist."""
  if not folder.is_dir():
    raise InputError(f'{folder} (config.data.path) is not a folder; expected the folder with the raw files')
  if config.source == 'csv':
    return tables.csv_source(folder)
  if config.source.startswith('amazon'):
    require_category(config)
    return amazon.amazon_source(folder, int(config.source.removeprefix('amazon')), config.name)
  if config.source == 'movielens':
    unpacked = folder / config.name if config.name else folder
    return movielens.movielens_source(unpacked if unpacked.is_dir() else folder)
  return yelp.yelp_source(folder)


def read_raw_dataset(config: DataConfig, downloads: Any = None) -> Dataset:
  """Reads and prepares raw files; their invalid lines are printed and counted in the summary.

  Args:
    config: the source, the folder with its files and the preparation.
    downloads: a `tfds.download.DownloadManager`, which downloads the files if `config.path` is empty.

  Raises:
    InputError: a file is missing or damaged, or the preparation drops all events.
  """
  if config.path:
    return _read(config, pathlib.Path(config.path))
  try:
    return _read(config, download_raw_files(config, downloads))
  except DamagedFile as error:
    forget_download(error.path)
    raise InputError(f'{error}. It was removed: the same command downloads it again') from error


def _read(config: DataConfig, folder: pathlib.Path) -> Dataset:
  source = find_raw_source(config, folder)
  problems = Problems()
  with tqdm(desc='dataset: events', unit='event', disable=None) as bar:
    events = event_table(_watched(source.event_tables(problems), bar))
  raw_events = len(events)
  if not raw_events:
    raise no_usable_event(source, problems.summary())
  print_time_unit(source)
  prepared = prepare(events, config.preparation, listed(problems.summary()))
  del events
  described = DescribedItems(itertools.chain(prepared.item_names, *prepared.left_out_items.values()))
  all_texts = tqdm(source.texts(Span(source.files[1]), problems), desc='dataset: items', unit='item', disable=None)
  texts, counts = texts_of_items(prepared.item_names, described.watch(all_texts))
  described.require_common_ids(source.files)
  print_problems(problems.summary())
  all_counts = {**prepared.dropped, **counts}
  messages = [f'{kind.replace("_", " ")}: {count:,}' for kind, count in all_counts.items() if count]
  nothing = 'nothing else dropped' if problems.counts else 'nothing dropped'
  tqdm.write(f'dataset: {"; ".join(messages) or nothing}')
  interactions = Interactions(prepared.items, prepared.offsets, len(prepared.item_names), tuple(prepared.user_names))
  return Dataset(
    config.name or config.source,
    interactions,
    tuple(texts),
    prepared.timestamps,
    tuple(prepared.item_names),
    {
      'time_unit_of_source': source.time_unit,
      'raw_events': raw_events,
      'raw_users': prepared.raw_users,
      'raw_items': prepared.raw_items,
      'dropped': prepared.dropped,
      'left_out': prepared.left_out(),
      'k_core_rounds': prepared.rounds,
      **counts,
      'problems': problems.summary(),
    },
    prepared.left_out_items,
  )


def _watched(tables: Iterator[pl.DataFrame], bar: tqdm) -> Iterator[pl.DataFrame]:
  for table in tables:
    bar.update(len(table))
    yield table


def no_usable_event(source: RawSource, problems: dict[str, dict[str, Any]]) -> InputError:
  """The error for an event file without a valid line; `problems` as in `Problems.summary()`."""
  return InputError(
    f'{source.files[0]} has no usable event ({listed(problems) or "it is empty"}); expected one per line'
  )


def listed(problems: dict[str, dict[str, Any]]) -> str:
  """The counts of invalid lines in a message, '' for none; `problems` as in `Problems.summary()`."""
  return '; '.join(_counts(kind, problem) for kind, problem in problems.items())


def print_problems(problems: dict[str, dict[str, Any]]) -> None:
  """Prints the counts of invalid lines; `problems` as in `Problems.summary()`."""
  for kind, problem in problems.items():
    tqdm.write(f'dataset: {_counts(kind, problem)}')


def print_time_unit(source: RawSource) -> None:
  """Prints the unit of the timestamps in the file."""
  tqdm.write(f'dataset: {source.files[0].name}: timestamps in {source.time_unit}')


def _counts(kind: str, problem: dict[str, Any]) -> str:
  value = f': {problem["value"]}' if 'value' in problem else ''
  return f'{kind}: {counted(problem["lines"], "line")}, first {problem["first"]}{value}'
