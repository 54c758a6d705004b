"""Downloads raw files from their publishers with TFDS's download manager, which caches them.

TFDS knows the checksums of MovieLens up to 25M, and a zip file contains checksums of its members. For Amazon there are
none: a gzip file that turns out to be damaged when it is read is removed, to be downloaded again. Yelp cannot be
downloaded without accepting its terms.
"""

import os
import pathlib
import shutil
import socket
import tempfile
import urllib.parse
import urllib.request
import zipfile
import zlib
from typing import Any

from letter_jax.configuration import DataConfig
from letter_jax.system.errors import InputError

AMAZON = {
  2014: (
    'https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/reviews_{}_5.json.gz',
    'https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/meta_{}.json.gz',
  ),
  2018: (
    'https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2/categoryFilesSmall/{}_5.json.gz',
    'https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2/metaFiles2/meta_{}.json.gz',
  ),
  2023: (
    'https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023/raw/review_categories/{}.jsonl.gz',
    'https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023/raw/meta_categories/meta_{}.jsonl.gz',
  ),
}
MOVIELENS = 'https://files.grouplens.org/datasets/movielens/{}.zip'
MOVIELENS_NAMES = ('ml-1m', 'ml-20m', 'ml-25m', 'ml-32m')


def require_addresses(config: DataConfig) -> None:
  """Raises InputError, which says which files to provide, if `config.source` cannot be downloaded."""
  if config.source == 'yelp':
    raise InputError(
      "config.data.path is empty, and Yelp's files cannot be downloaded without accepting its terms; expected a folder "
      'with yelp_academic_dataset_review.json and yelp_academic_dataset_business.json, from yelp.com/dataset'
    )
  if config.source == 'csv':
    raise InputError('config.data.path is empty; expected a folder with interactions.csv and items.csv')
  if config.source == 'movielens' and config.name not in MOVIELENS_NAMES:
    raise InputError(
      f'config.data.path is empty and config.data.name is {config.name!r}; expected one of '
      f'{", ".join(MOVIELENS_NAMES)} to download, or config.data.path as a folder with ratings and movies'
    )
  if config.source.startswith('amazon'):
    require_category(config)


def require_category(config: DataConfig) -> None:
  """Raises InputError if `config.name` cannot be an Amazon category."""
  if not config.name:
    raise InputError("config.data.name is empty; expected the category as in the files' names, such as Beauty")
  if '/' in config.name:
    raise InputError(f"config.data.name is {config.name!r}; expected the category as in the files' names, without a /")


def download_raw_files(config: DataConfig, manager: Any) -> pathlib.Path:
  """Downloads the files of `config.source`, as far as they are not cached.

  Args:
    config: the source and, for Amazon and MovieLens, the name.
    manager: a `tfds.download.DownloadManager`.

  Returns:
    A folder with the raw files under their original names.

  Raises:
    InputError: the source cannot be downloaded, or a download failed or has the wrong checksum.
  """
  require_addresses(config)
  movielens = config.source == 'movielens'
  addresses = (
    [MOVIELENS.format(config.name)]
    if movielens
    else [address.format(config.name) for address in AMAZON[int(config.source.removeprefix('amazon'))]]
  )
  downloaded: list[pathlib.Path] = []
  try:
    if not urllib.request.getproxies():
      # Without a network, TFDS would retry for minutes.
      socket.getaddrinfo(urllib.parse.urlsplit(addresses[0]).hostname, None)
    downloaded = [pathlib.Path(path) for path in manager.download(addresses)]
    # TFDS renames files, and needs TensorFlow to extract archives.
    folder = downloaded[0].parent / (
      f'{downloaded[0].name}.unpacked' if movielens else f'{config.source}_{config.name}'
    )
    if not movielens:
      for address, path in zip(addresses, downloaded):
        _link(folder / address.rpartition('/')[2], path.absolute())
    elif not folder.exists():
      _unpack(downloaded[0], config.name, folder)
  except Exception as error:  # requests, urllib3, zipfile and TFDS raise many types
    if isinstance(error, (zipfile.BadZipFile, zlib.error)):
      forget_download(downloaded[0])
    reason = ' '.join(str(error).split())[:300] or type(error).__name__
    raise InputError(
      f'{" and ".join(addresses)} could not be downloaded ({reason}); '
      'expected a working connection, or config.data.path as a folder with files downloaded by hand'
    ) from error
  return folder


def forget_download(path: pathlib.Path) -> None:
  """Removes a downloaded file from the cache, so that it is downloaded again."""
  path = path.resolve()
  for file in (path, path.with_name(path.name + '.INFO')):
    file.unlink(missing_ok=True)


def _link(link: pathlib.Path, target: pathlib.Path) -> None:
  link.parent.mkdir(exist_ok=True)
  new = pathlib.Path(tempfile.mkdtemp(dir=link.parent)) / link.name  # another run may do the same at this moment
  new.symlink_to(target)
  os.replace(new, link)
  new.parent.rmdir()


def _unpack(archive: pathlib.Path, member: str, folder: pathlib.Path) -> None:
  """Extracts the folder `member` of a zip file as `folder`, atomically."""
  unpacked = pathlib.Path(tempfile.mkdtemp(prefix='.unpacking-', dir=folder.parent))
  try:
    with zipfile.ZipFile(archive) as content:
      content.extractall(unpacked)
    if not folder.exists():  # unless another run was faster
      (unpacked / member).rename(folder)
  finally:
    shutil.rmtree(unpacked)
