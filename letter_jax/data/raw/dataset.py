"""A data set from public raw files: read, prepared, described."""

import pathlib
from collections.abc import Iterable, Iterator

from tqdm import tqdm

from letter_jax.configuration import DataConfig
from letter_jax.data.dataset import Dataset, Interactions
from letter_jax.data.preparation import prepare
from letter_jax.data.raw import amazon, movielens, yelp
from letter_jax.data.raw.lines import Problems
from letter_jax.data.raw.source import Event, RawSource, event_table, is_usable, texts_of
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
  bar = tqdm(source.events(problems), desc='dataset: events', unit='event', disable=None)
  events = event_table(_usable(bar, source.files[0], problems))
  raw_events = len(events)
  if not raw_events:
    said = ', '.join(f'{count:,} {kind}, first {problems.first[kind]}' for kind, count in problems.counts.items())
    raise InputError(f'{source.files[0]} has no event that can be used ({said or "it is empty"}); expected one a line')
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


def _usable(events: Iterable[Event], path: pathlib.Path, problems: Problems) -> Iterator[Event]:
  for number, event in enumerate(events, 1):
    if is_usable(event):
      yield event
    else:
      problems.add('ids that are no text, or a time out of range (event, not line)', path, number)
