"""Raw files from their owners' addresses, through TFDS's download manager (cached; checksums where they are known).

TFDS knows the checksums of MovieLens up to 25M, and a zip file has those of its members. Amazon's owners publish none:
a gzip file that turns out to be damaged when it is read is forgotten, to be downloaded again. Yelp has no address that
can be fetched without accepting its terms.
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
  """Raises InputError, which says which files to put where, where `config.source` cannot be downloaded."""
  if config.source == 'yelp':
    raise InputError(
      "config.data.path is empty, and Yelp's files cannot be fetched without accepting its terms; expected a folder "
      'with yelp_academic_dataset_review.json and yelp_academic_dataset_business.json, from yelp.com/dataset'
    )
  if config.source == 'csv':
    raise InputError('config.data.path is empty; expected a folder with interactions.csv and items.csv')
  if config.source == 'movielens' and config.name not in MOVIELENS_NAMES:
    raise InputError(
      f'config.data.path is empty and config.data.name is {config.name!r}; expected one of '
      f'{", ".join(MOVIELENS_NAMES)} to download, or a folder with ratings and movies as '
      'config.data.path'
    )
  if config.source.startswith('amazon'):
    require_category(config)


def require_category(config: DataConfig) -> None:
  """Raises InputError where `config.name` cannot be an Amazon category."""
  if not config.name:
    raise InputError("config.data.name is empty; expected the category as in the files' names, such as Beauty")
  if '/' in config.name:
    raise InputError(f"config.data.name is {config.name!r}; expected the category as in the files' names, without a /")


def fetch(config: DataConfig, manager) -> pathlib.Path:
  """A folder with the raw files under their own names.

  Args:
    manager: a `tfds.download.DownloadManager`.

  Raises:
    InputError: an address that does not answer, or a file with another checksum than it should have.
  """
  require_addresses(config)
  movielens = config.source == 'movielens'
  addresses = (
    [MOVIELENS.format(config.name)]
    if movielens
    else [address.format(config.name) for address in AMAZON[int(config.source.removeprefix('amazon'))]]
  )
  host, downloaded = urllib.parse.urlsplit(addresses[0]).hostname, []
  try:
    if not urllib.request.getproxies():
      socket.getaddrinfo(host, None)  # without a network, TFDS would try for minutes
    downloaded = [pathlib.Path(path) for path in manager.download(addresses)]
    # TFDS keeps files under names of its own, and unpacks archives with TensorFlow only.
    folder = downloaded[0].parent / (
      f'{downloaded[0].name}.unpacked' if movielens else f'{config.source}_{config.name}'
    )
    if not movielens:
      for address, path in zip(addresses, downloaded):
        _link(folder / address.rpartition('/')[2], path.absolute())
    elif not folder.exists():
      _unpack(downloaded[0], config.name, folder)
  except Exception as error:  # requests, urllib3, zipfile and TFDS raise many kinds
    if isinstance(error, (zipfile.BadZipFile, zlib.error)):
      forget(downloaded[0])
    raise InputError(
      f'{" and ".join(addresses)} could not be fetched ({" ".join(str(error).split())[:300] or type(error).__name__}); '
      'expected the raw files from there, or by hand in a folder named by config.data.path'
    ) from error
  return folder


def forget(path: pathlib.Path) -> None:
  """Removes a downloaded file, so that it is downloaded again."""
  path = path.resolve()
  for each in (path, path.with_name(path.name + '.INFO')):
    each.unlink(missing_ok=True)


def _link(link: pathlib.Path, target: pathlib.Path) -> None:
  link.parent.mkdir(exist_ok=True)
  new = pathlib.Path(tempfile.mkdtemp(dir=link.parent)) / link.name  # another run may be about the same
  new.symlink_to(target)
  os.replace(new, link)
  new.parent.rmdir()


def _unpack(archive: pathlib.Path, member: str, folder: pathlib.Path) -> None:
  """Makes `folder` of the folder `member` of a zip file, whole or not at all."""
  unpacked = pathlib.Path(tempfile.mkdtemp(prefix='.unpacking-', dir=folder.parent))
  try:
    with zipfile.ZipFile(archive) as content:
      content.extractall(unpacked)
    if not folder.exists():  # another run may have been faster
      (unpacked / member).rename(folder)
  finally:
    shutil.rmtree(unpacked)
