"""Dispatches on `config.data.source`: reads a data set, or lists its files, with the reader of its source.

The source 'prepared' is an exception: it may be larger than memory, so it is not read but adopted (`store.adopt`).
"""

import pathlib
from typing import Any

from letter_jax.configuration import RAW_SOURCES, DataConfig
from letter_jax.data import letter_format
from letter_jax.data.dataset import PREPARED_BY, SUMMARY, TFDS, Dataset
from letter_jax.system.errors import InputError


def read_dataset(config: DataConfig, seed: int, downloads: Any = None) -> Dataset:
  """Reads the data set of any source but 'prepared'.

  Args:
    config: the source and its settings.
    seed: seed of the synthetic store.
    downloads: a `tfds.download.DownloadManager`, which downloads raw files if `config.path` is empty.

  Raises:
    InputError: a file is missing, damaged or malformed, or cannot be downloaded.
  """
  if config.source == 'synthetic':
    from letter_jax.data import synthetic

    return synthetic.synthesize(config.synthetic, seed)
  if config.source == 'letter':
    if not config.path:
      raise InputError("config.data.path is empty; expected a folder in LETTER's format (NAME.inter.json, ...)")
    return letter_format.read_letter_folder(pathlib.Path(config.path), config.name)
  from letter_jax.data.raw.read import read_raw_dataset

  return read_raw_dataset(config, downloads)


def prepared_folder(config: DataConfig) -> pathlib.Path:
  """The folder of the source 'prepared'; InputError if `config.path` is empty."""
  if not config.path:
    raise InputError(f'config.data.path is empty; expected a folder that {PREPARED_BY} wrote')
  return pathlib.Path(config.path)


def source_files(config: DataConfig) -> dict[str, pathlib.Path]:
  """The files that are read from `config.path`.

  Returns:
    Config key and name, such as 'data.path/ratings.csv' -> file; empty for a source that is generated or downloaded.

  Raises:
    InputError: a raw file does not exist, or `config.path` is empty and the source cannot be downloaded.
  """
  if config.source == 'prepared':
    folder = prepared_folder(config)
    return {
      'data.path': folder,
      **{
        f'data.path/{path.relative_to(folder)}': path
        for path in (folder / SUMMARY, *sorted((folder / TFDS).rglob('*.array_record*')))
      },
    }
  if not config.path:
    if config.source in RAW_SOURCES:
      from letter_jax.data.raw.downloads import require_addresses

      require_addresses(config)
    return {}
  if config.source in RAW_SOURCES:
    from letter_jax.data.raw.read import find_raw_source

    return {f'data.path/{path.name}': path for path in find_raw_source(config, pathlib.Path(config.path)).files}
  if config.source == 'synthetic':
    return {}
  folder = pathlib.Path(config.path)
  names = (
    [config.name] if config.name else [path.name.removesuffix('.inter.json') for path in folder.glob('*.inter.json')]
  )
  return {
    'data.path': folder,
    **{f'data.path/{name}.{kind}.json': folder / f'{name}.{kind}.json' for name in names for kind in ('inter', 'item')},
  }
