"""A data set from public raw files: read, prepared, described."""

import pathlib

from tqdm import tqdm

from letter_jax.configuration import DataConfig
from letter_jax.data.dataset import Dataset, Interactions
from letter_jax.data.preparation import prepare
from letter_jax.data.raw import amazon, movielens, yelp
from letter_jax.data.raw.lines import Problems
from letter_jax.data.raw.source import RawSource, event_table, texts_of
from letter_jax.errors import InputError


def find(config: DataConfig) -> RawSource:
  """The raw files of `config.source`; InputError where one is not there."""
  folder = pathlib.Path(config.path)
  if not config.path or not folder.is_dir():
    raise InputError(f'config.data.path is {config.path!r}; expected the folder with the raw files')
  if config.source.startswith('amazon'):
    if not config.name:
      raise InputError("config.data.name is empty; expected the category as in the files' names, such as Beauty")
    return amazon.source(folder, int(config.source.removeprefix('amazon')), config.name)
  return movielens.source(folder) if config.source == 'movielens' else yelp.source(folder)


def read_dataset(config: DataConfig) -> Dataset:
  """Reads and prepares the raw files; what was wrong in them is counted in the summary.

  Raises:
    InputError: a file that is missing or damaged; nothing is left after the preparation.
  """
  source = find(config)
  problems = Problems()
  events = event_table(tqdm(source.events(problems), desc='dataset: events', unit='event', disable=None))
  raw_events = len(events)
  prepared = prepare(events, config.preparation)
  del events
  texts, undescribed = texts_of(
    prepared.item_names, tqdm(source.texts(problems), desc='dataset: items', unit='item', disable=None))
  for kind, count in problems.counts.items():
    tqdm.write(f'dataset: {count:,} lines left out or mended: {kind} (first: {problems.first[kind]})')
  interactions = Interactions(prepared.items, prepared.offsets, len(prepared.item_names), tuple(prepared.user_names))
  return Dataset(
    config.name or config.source, interactions, tuple(texts), prepared.timestamps, tuple(prepared.item_names),
    {'raw_events': raw_events, 'dropped': prepared.dropped, 'k_core_rounds': prepared.rounds,
     'items_without_description_in_the_source': undescribed,
     'problems': {kind: {'lines': count, 'first': problems.first[kind]} for kind, count in problems.counts.items()}})
