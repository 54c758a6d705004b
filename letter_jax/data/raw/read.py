"""A data set from public raw files: read, prepared, described."""

import pathlib

from tqdm import tqdm

from letter_jax.configuration import DataConfig
from letter_jax.data.dataset import Dataset, Interactions
from letter_jax.data.preparation import prepare
from letter_jax.data.raw import amazon, movielens, tables, yelp
from letter_jax.data.raw.downloads import fetch, forget, require_category
from letter_jax.data.raw.reader import RawSource, event_table, texts_of
from letter_jax.data.raw.reading import DamagedFile, Problems, Span
from letter_jax.system.errors import InputError


def find(config: DataConfig, folder: pathlib.Path) -> RawSource:
  """The raw files of `config.source` in `folder`; InputError where one is not there."""
  if not folder.is_dir():
    raise InputError(f'{folder} (config.data.path) is no folder; expected the folder with the raw files')
  if config.source == 'csv':
    return tables.source(folder)
  if config.source.startswith('amazon'):
    require_category(config)
    return amazon.source(folder, int(config.source.removeprefix('amazon')), config.name)
  if config.source == 'movielens':
    unpacked = folder / config.name if config.name else folder
    return movielens.source(unpacked if unpacked.is_dir() else folder)
  return yelp.source(folder)


def read_dataset(config: DataConfig, downloads=None) -> Dataset:
  """Reads and prepares the raw files; what was wrong in them is counted in the summary.

  Args:
    downloads: a `tfds.download.DownloadManager` that fetches them where `config.path` is empty.

  Raises:
    InputError: a file that is missing or damaged; nothing is left after the preparation.
  """
  if config.path:
    return _read(config, pathlib.Path(config.path))
  try:
    return _read(config, fetch(config, downloads))
  except DamagedFile as error:
    forget(error.path)
    raise InputError(f'{error}. It was removed: the same command downloads it again') from error


def _read(config: DataConfig, folder: pathlib.Path) -> Dataset:
  source = find(config, folder)
  problems = Problems()
  bar = tqdm(source.events(Span(source.files[0]), problems), desc='dataset: events', unit='event', disable=None)
  events = event_table(event for _, event in bar)
  raw_events = len(events)
  if not raw_events:
    raise nothing_usable(source, problems.summary())
  prepared = prepare(events, config.preparation)
  del events
  texts, counts = texts_of(
    prepared.item_names,
    tqdm(source.texts(Span(source.files[1]), problems), desc='dataset: items', unit='item', disable=None),
  )
  tell(problems.summary())
  left_out = {**prepared.dropped, **counts}
  said = [f'{kind.replace("_", " ")}: {count:,}' for kind, count in left_out.items() if count]
  tqdm.write(f'dataset: {"; ".join(said) or "nothing left out"}')
  interactions = Interactions(prepared.items, prepared.offsets, len(prepared.item_names), tuple(prepared.user_names))
  return Dataset(
    config.name or config.source,
    interactions,
    tuple(texts),
    prepared.timestamps,
    tuple(prepared.item_names),
    {
      'raw_events': raw_events,
      'dropped': prepared.dropped,
      'k_core_rounds': prepared.rounds,
      **counts,
      'problems': problems.summary(),
    },
  )


def nothing_usable(source: RawSource, problems: dict[str, dict]) -> InputError:
  """The error of a file without a usable line; `problems` as in `Problems.summary()`."""
  said = ', '.join(f'{found["lines"]:,} {kind}, first {found["first"]}' for kind, found in problems.items())
  return InputError(f'{source.files[0]} has no event that can be used ({said or "it is empty"}); expected one a line')


def tell(problems: dict[str, dict]) -> None:
  """Prints what was left out; `problems` as in `Problems.summary()`."""
  for kind, found in problems.items():
    lines = f'{found["lines"]:,} line' + 's' * (found['lines'] != 1)
    tqdm.write(f'dataset: {kind}: {lines}, first {found["first"]}')
