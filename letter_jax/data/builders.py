"""TFDS builders for every source, without TensorFlow: two tables, `users` and `items`, in ArrayRecord files.

    users   user_id, raw_id, items (ids in time order), timestamps (microseconds since 1970; empty
            if the source has none)
    items   item_id, raw_id, title, brand, categories, description

`LetterDataset` writes a prepared data set; its tables are those under WORKDIR/dataset/tfds. The other builders prepare
the data set from its source, including downloads:

    builder = Amazon2014(config='items', settings=DataConfig(source='amazon2014', name='Beauty'), data_dir=FOLDER)
    builder.download_and_prepare()
    builder.as_data_source('items')[0]

TFDS shuffles the records by a hash of the id, so that any range of consecutive records is a random sample.
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
  """Skips the lookup in TFDS's bucket, which does not have these data sets.

  Every lookup would leave an empty folder in the system's temporary folder.
  """

  def initialize_from_bucket(self) -> None:
    """Does nothing."""


class LetterDataset(tfds.core.GeneratorBasedBuilder):
  """Writes one table of a prepared data set.

  Attributes:
    dataset: the data set; None until the builders of a source have read theirs.
  """

  VERSION = tfds.core.Version('1.0.0')
  BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=table, description=text) for table, text in TABLES.items()]

  def __init__(self, *, dataset: Dataset | None = None, **arguments: Any):
    """Makes a builder.

    Args:
      dataset: the data set to write.
      **arguments: of `tfds.core.GeneratorBasedBuilder`, such as `config` ('users' or 'items') and `data_dir`.
    """
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

  def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
    if self.dataset is None:
      self.dataset = self._read(dl_manager)
    return {self.table: self._generate_examples(self.dataset)}

  def _read(self, dl_manager: Any) -> Dataset:
    raise ValueError('LetterDataset was made without a data set; expected LetterDataset(dataset=...)')

  def _generate_examples(self, data: Dataset) -> Iterator[tuple[int, dict[str, Any]]]:
    return user_records(data) if self.table == 'users' else item_records(data)


def user_records(data: Dataset) -> Iterator[tuple[int, dict[str, Any]]]:
  """Yields (user id, record as in FEATURES) of every user."""
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
  """Yields (item id, record as in FEATURES) of every item; empty strings if the data set has no names or texts."""
  empty_texts = dict.fromkeys(TEXT_FIELDS, '')
  for item in range(data.interactions.num_items):
    name = '' if data.item_names is None else data.item_names[item]
    yield item, {'item_id': item, 'raw_id': name, **(empty_texts if data.texts is None else data.texts[item])}


class _OfSource(LetterDataset, skip_registration=True):  # type: ignore[call-arg]  # an argument of TFDS's base class
  """Prepares a data set from its source, downloading the raw files if `settings.path` is empty.

  The name of the builder's config ends with a hash of the settings and of the content of the files under `path`, so
  that a `data_dir` may hold several data sets of a source. Files that are downloaded, or in TFDS's manual folder, are
  assumed not to change.
  """

  SOURCE: str  # a value of config.data.source

  def __init__(self, *, settings: DataConfig, config: str = 'users', seed: int = 42, **arguments: Any):
    """Makes a builder; nothing is read but the content of the files under `settings.path`.

    Args:
      settings: as `config.data` of a run.
      config: the table, 'users' or 'items'.
      seed: seed of the synthetic store.
      **arguments: of `tfds.core.GeneratorBasedBuilder`, such as `data_dir`.

    Raises:
      InputError: the settings have a different source, or `config` is not a table, or a raw file does not exist.
    """
    if settings.source != self.SOURCE:
      raise InputError(
        f'{type(self).__name__} was given settings of source {settings.source!r}; expected {self.SOURCE!r}'
      )
    if config not in TABLES:
      raise InputError(f'{type(self).__name__} was given config={config!r}; expected {" or ".join(map(repr, TABLES))}')
    self._settings, self._seed = settings, seed
    files = sources.source_files(settings) if settings.path else {}
    contents = {key: artifacts.fingerprint(path) for key, path in files.items() if path.is_file()}
    # Without the settings that do not change the data set.
    identity = repr(
      (dataclasses.replace(settings, path='', downloads='', history_length=1, window_users=0), seed, contents)
    ).encode()
    name = '_'.join(filter(None, (config, settings.name, hashlib.sha256(identity).hexdigest()[:8])))
    super().__init__(config=tfds.core.BuilderConfig(name=name, description=TABLES[config]), **arguments)

  def _read(self, dl_manager: Any) -> Dataset:
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
  """Yelp's open data set; its files are downloaded by hand, into `manual_dir` or `settings.path`."""

  SOURCE = 'yelp'

  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    'Accept the terms at yelp.com/dataset, unpack yelp_dataset.tar, and put yelp_academic_dataset_review.json and '
    'yelp_academic_dataset_business.json here.'
  )

  def _read(self, dl_manager: Any) -> Dataset:
    folder = self._settings.path or str(dl_manager.manual_dir)
    return sources.read_dataset(dataclasses.replace(self._settings, path=folder), self._seed)


class CsvTables(_OfSource):
  """A user's own data set, as two CSV files (`raw/tables.py`)."""

  SOURCE = 'csv'


class MovieLensSequences(_OfSource):
  """MovieLens 1M to 32M (Harper and Konstan 2015)."""

  SOURCE = 'movielens'


class LetterFolder(_OfSource):
  """A folder in LETTER's JSON format (`letter_format.py`)."""

  SOURCE = 'letter'


class SyntheticStore(_OfSource):
  """The synthetic store (`synthetic.py`)."""

  SOURCE = 'synthetic'
