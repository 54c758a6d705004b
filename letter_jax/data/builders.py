"""TFDS builders of every source, without TensorFlow: two tables, `users` and `items`, in ArrayRecord files.

    users   user_id, raw_id, items (ids, in time order), timestamps (seconds; empty where the source has none)
    items   item_id, raw_id, title, brand, categories, description

`LetterDataset` writes a data set that is already prepared: it is what lies under WORKDIR/dataset/tfds. The others make
theirs from the source, downloads included:

    builder = Amazon2014(config='items', settings=DataConfig(source='amazon2014', name='Beauty'), data_dir=FOLDER)
    builder.download_and_prepare()
    builder.as_data_source('items')[0]

Records are shuffled by TFDS (a hash of the id), so that any run of neighbouring records is a random sample.
"""

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from letter_jax.configuration import DataConfig
from letter_jax.data import sources
from letter_jax.data.dataset import TEXT_FIELDS, Dataset
from letter_jax.system import artifacts
from letter_jax.system.errors import InputError

TABLES = {'users': 'the interactions of each user, in time order', 'items': 'the text of each item'}
_IDS = tfds.features.Tensor(shape=(None,), dtype=np.int32)
_TIMES = tfds.features.Tensor(shape=(None,), dtype=np.int64)
FEATURES = {
  'users': {'user_id': np.int64, 'raw_id': tfds.features.Text(), 'items': _IDS, 'timestamps': _TIMES},
  'items': {
    'item_id': np.int64,
    'raw_id': tfds.features.Text(),
    **{field: tfds.features.Text() for field in TEXT_FIELDS},
  },
}


class _Info(tfds.core.DatasetInfo):
  """Does not ask TFDS's bucket, which cannot know these data sets: every question leaves an empty folder behind, under
  the system's temporary one."""

  def initialize_from_bucket(self) -> None:
    pass


class LetterDataset(tfds.core.GeneratorBasedBuilder):
  """A prepared data set, given as `dataset`."""

  VERSION = tfds.core.Version('1.0.0')
  BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=table, description=text) for table, text in TABLES.items()]

  def __init__(self, *, dataset: Dataset | None = None, **arguments):
    self.dataset = dataset
    super().__init__(file_format='array_record', **arguments)

  @property
  def table(self) -> str:
    """'users' or 'items'."""
    return self.builder_config.name.partition('_')[0]

  def _info(self) -> tfds.core.DatasetInfo:
    return _Info(
      builder=self,
      description=f'{self.name}: {TABLES[self.table]}',
      features=tfds.features.FeaturesDict(FEATURES[self.table]),
    )

  def _split_generators(self, dl_manager):
    if self.dataset is None:
      self.dataset = self._read(dl_manager)
    return {self.table: self._generate_examples()}

  def _read(self, dl_manager) -> Dataset:
    raise ValueError('a LetterDataset writes the data set that it is given; expected LetterDataset(dataset=...)')

  def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
    return user_records(self.dataset) if self.table == 'users' else item_records(self.dataset)


def user_records(data: Dataset) -> Iterator[tuple[int, dict[str, Any]]]:
  """(user id, record) of every user."""
  interactions, no_times = data.interactions, np.zeros(0, np.int64)
  bounds = interactions.offsets.tolist()
  for user, (name, start, end) in enumerate(zip(interactions.users, bounds, bounds[1:])):
    yield (
      user,
      {
        'user_id': user,
        'raw_id': name,
        'items': interactions.items[start:end],
        'timestamps': no_times if data.timestamps is None else data.timestamps[start:end],
      },
    )


def item_records(data: Dataset) -> Iterator[tuple[int, dict[str, Any]]]:
  """(item id, record) of every item; empty strings where the data set has no names or no texts."""
  nothing = dict.fromkeys(TEXT_FIELDS, '')
  for item in range(data.interactions.num_items):
    name = '' if data.item_names is None else data.item_names[item]
    yield item, {'item_id': item, 'raw_id': name, **(nothing if data.texts is None else data.texts[item])}


class _OfSource(LetterDataset, skip_registration=True):
  """Reads its source, downloads where there are addresses, prepares.

  `config` is 'users' or 'items'; `settings` as under `config.data` of a run (`path` is the folder with the files where
  they are not to be downloaded); `seed` is used by the synthetic store. A folder holds one data set for each table,
  settings and content of the files under `path`: the config's full name ends with a hash of them. Files that are
  downloaded, or lie in TFDS's manual folder, are taken to stay the same.
  """

  SOURCE: str  # as config.data.source

  def __init__(self, *, settings: DataConfig, config: str = 'users', seed: int = 42, **arguments):
    if settings.source != self.SOURCE:
      raise InputError(
        f'{type(self).__name__} was given settings of source {settings.source!r}; expected {self.SOURCE!r}'
      )
    if config not in TABLES:
      raise InputError(f'{type(self).__name__} was given config={config!r}; expected {" or ".join(map(repr, TABLES))}')
    self._settings, self._seed = settings, seed
    files = sources.files(settings) if settings.path else {}
    contents = {key: artifacts.fingerprint(path) for key, path in files.items() if path.is_file()}
    # What only training or reading asks for does not make another data set.
    said = repr(
      (dataclasses.replace(settings, path='', downloads='', history_length=1, window_users=0), seed, contents)
    ).encode()
    name = '_'.join(filter(None, (config, settings.name, hashlib.sha256(said).hexdigest()[:8])))
    super().__init__(config=tfds.core.BuilderConfig(name=name, description=TABLES[config]), **arguments)

  def _read(self, dl_manager) -> Dataset:
    return sources.read_dataset(self._settings, self._seed, dl_manager)


class Amazon2014(_OfSource):
  """Amazon reviews of 2014 (He and McAuley 2016), one category."""

  SOURCE = 'amazon2014'


class Amazon2018(_OfSource):
  """Amazon reviews of 2018 (Ni, Li and McAuley 2019), one category."""

  SOURCE = 'amazon2018'


class Amazon2023(_OfSource):
  """Amazon reviews of 2023 (Hou et al. 2024), one category."""

  SOURCE = 'amazon2023'


class Yelp(_OfSource):
  """Yelp's open data set; its files are fetched by hand, into `manual_dir` or `settings.path`."""

  SOURCE = 'yelp'

  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    'Accept the terms at yelp.com/dataset, unpack yelp_dataset.tar, and put yelp_academic_dataset_review.json and '
    'yelp_academic_dataset_business.json here.'
  )

  def _read(self, dl_manager) -> Dataset:
    folder = self._settings.path or str(dl_manager.manual_dir)
    return sources.read_dataset(dataclasses.replace(self._settings, path=folder), self._seed)


class CsvTables(_OfSource):
  """A catalogue of one's own, as two CSV files (`raw/tables.py`)."""

  SOURCE = 'csv'


class MovieLensSequences(_OfSource):
  """MovieLens 1M to 32M (Harper and Konstan 2015)."""

  SOURCE = 'movielens'


class LetterFolder(_OfSource):
  """A folder in LETTER's json format."""

  SOURCE = 'letter'


class SyntheticStore(_OfSource):
  """The built-in store."""

  SOURCE = 'synthetic'
