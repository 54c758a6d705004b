"""Raw files from their owners' addresses, through TFDS's download manager (cached; checksums where they are known).

TFDS knows the checksums of MovieLens up to 25M. Amazon's owners publish none; what came is recorded in TFDS's `.INFO`
files beside the downloads, and a gzip file that ends early is refused when it is read. Yelp has no address that can be
fetched without accepting its terms.
"""

import pathlib
import shutil
import socket
import urllib.parse
import urllib.request
import zipfile

from letter_jax.configuration import DataConfig
from letter_jax.errors import InputError

AMAZON = {
  2014: ('https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/reviews_{}_5.json.gz',
         'https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/meta_{}.json.gz'),
  2018: ('https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2/categoryFilesSmall/{}_5.json.gz',
         'https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2/metaFiles2/meta_{}.json.gz'),
  2023: ('https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023/raw/review_categories/{}.jsonl.gz',
         'https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023/raw/meta_categories/meta_{}.jsonl.gz'),
}
MOVIELENS = 'https://files.grouplens.org/datasets/movielens/{}.zip'
MOVIELENS_NAMES = ('ml-1m', 'ml-20m', 'ml-25m', 'ml-32m')


def require_addresses(config: DataConfig) -> None:
  """Raises InputError, which says which files to put where, where `config.source` cannot be downloaded."""
  if config.source == 'yelp':
    raise InputError(
      "config.data.path is empty, and Yelp's files cannot be fetched without accepting its terms; expected a folder "
      'with yelp_academic_dataset_review.json and yelp_academic_dataset_business.json, from yelp.com/dataset')
  if config.source == 'movielens' and config.name not in MOVIELENS_NAMES:
    raise InputError(f'config.data.path is empty and config.data.name is {config.name!r}; expected one of '
                     f'{", ".join(MOVIELENS_NAMES)} to download, or a folder with ratings and movies as '
                     'config.data.path')
  if config.source.startswith('amazon') and not config.name:
    raise InputError("config.data.name is empty; expected the category as in the files' names, such as Beauty")


def fetch(config: DataConfig, manager) -> pathlib.Path:
  """A folder with the raw files under their own names.

  Args:
    manager: a `tfds.download.DownloadManager`.

  Raises:
    InputError: an address that does not answer, or a file with another checksum than it should have.
  """
  require_addresses(config)
  movielens = config.source == 'movielens'
  addresses = ([MOVIELENS.format(config.name)] if movielens else
               [address.format(config.name) for address in AMAZON[int(config.source.removeprefix('amazon'))]])
  host = urllib.parse.urlsplit(addresses[0]).hostname
  try:
    if not urllib.request.getproxies():
      socket.getaddrinfo(host, None)  # without a network, TFDS would try for minutes
    downloaded = [pathlib.Path(path) for path in manager.download(addresses)]
    # TFDS keeps files under names of its own, and unpacks archives with TensorFlow only.
    folder = downloaded[0].parent / (f'{downloaded[0].name}.unpacked' if movielens else
                                     f'{config.source}_{config.name}')
    if movielens and not folder.exists():
      unpacked = folder.with_name(f'.{folder.name}.partial')
      shutil.rmtree(unpacked, ignore_errors=True)
      with zipfile.ZipFile(downloaded[0]) as archive:
        archive.extractall(unpacked)
      (unpacked / config.name).rename(folder)
      shutil.rmtree(unpacked)
  except Exception as error:  # requests, urllib3, zipfile and TFDS raise many kinds
    raise InputError(
      f'{" and ".join(addresses)} could not be fetched ({" ".join(str(error).split())[:300] or type(error).__name__}); '
      'expected the raw files from there, or by hand in a folder named by config.data.path') from error
  if not movielens:
    folder.mkdir(exist_ok=True)
    for address, path in zip(addresses, downloaded):
      link = folder / address.rpartition('/')[2]
      link.unlink(missing_ok=True)
      link.symlink_to(path.absolute())
  return folder
