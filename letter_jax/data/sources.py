"""Where a data set comes from: the one place that knows every `config.data.source`.

What is already prepared ('prepared') is not read but adopted (`store.adopt`), however large it is.
"""

import pathlib

from letter_jax.configuration import RAW_SOURCES, DataConfig
from letter_jax.data import letter_format
from letter_jax.data.dataset import Dataset
from letter_jax.data.store import PREPARED_BY
from letter_jax.system.errors import InputError


def read_dataset(config: DataConfig, seed: int, downloads=None) -> Dataset:
  """The data set that the settings describe.

  Args:
    seed: of the synthetic store.
    downloads: a `tfds.download.DownloadManager` that fetches raw files where `config.path` is empty.

  Raises:
    InputError: a file that is missing, damaged, or not what was expected; what cannot be downloaded.
  """
  if config.source == 'synthetic':
    from letter_jax.data import synthetic

    return synthetic.synthesize(config.synthetic, seed)
  if config.source == 'letter':
    if not config.path:
      raise InputError("config.data.path is empty; expected a folder in LETTER's format (NAME.inter.json, ...)")
    return letter_format.read_letter_folder(pathlib.Path(config.path), config.name)
  from letter_jax.data.raw import read as dataset

  return dataset.read_dataset(config, downloads)


def prepared_folder(config: DataConfig) -> pathlib.Path:
  """The folder of the source 'prepared'; InputError where none is named."""
  if not config.path:
    raise InputError(f'config.data.path is empty; expected a folder that {PREPARED_BY} wrote')
  return pathlib.Path(config.path)


def files(config: DataConfig) -> dict[str, pathlib.Path]:
  """The files that are read from `config.path`, by the config key that leads to them.

  Raises:
    InputError: raw files that are not there.
  """
  if config.source == 'prepared':
    folder = prepared_folder(config)
    return {
      'data.path': folder,
      **{
        f'data.path/{path.relative_to(folder)}': path
        for path in (folder / 'summary.json', *sorted((folder / 'tfds').rglob('*.array_record*')))
      },
    }
  if not config.path:
    if config.source in RAW_SOURCES:
      from letter_jax.data.raw.downloads import require_addresses

      require_addresses(config)
    return {}
  if config.source in RAW_SOURCES:
    from letter_jax.data.raw.read import find

    return {f'data.path/{path.name}': path for path in find(config, pathlib.Path(config.path)).files}
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
