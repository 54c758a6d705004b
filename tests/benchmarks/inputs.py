"""What benchmarks measure on: a data set in LETTER's format, or a synthetic store of the same size."""

import argparse
import json
import pathlib
import re

import numpy as np

from letter_jax.configuration import DataConfig, SyntheticConfig
from letter_jax.data import sources
from letter_jax.data.dataset import Dataset

# Users, items and interactions a user of what is measured where no folder is given.
SIZES = {'Instruments': (24_772, 9_922, 8.3), 'Beauty': (22_363, 12_101, 8.9)}
LEVELS, CODES = 4, 256


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
  parser.add_argument('--data', default='', help=f"folder in LETTER's format; '': a synthetic store of {name}' size")
  parser.add_argument('--name', default=name)


def dataset(arguments: argparse.Namespace) -> Dataset:
  if arguments.data:
    return sources.read_dataset(DataConfig(path=arguments.data, name=arguments.name), 0)
  users, items, length = SIZES[arguments.name]
  synthetic = SyntheticConfig(num_users=users, num_items=items, mean_length=length)
  return sources.read_dataset(DataConfig(source='synthetic', synthetic=synthetic), 0)


def semantic_ids(arguments: argparse.Namespace, items: int) -> np.ndarray:
  """int32 [items, 4]: NAME.index.json of the folder, or random ones, all different, as uneven as trained ones."""
  path = pathlib.Path(arguments.data) / f'{arguments.name}.index.json'
  if arguments.data and path.is_file():
    by_item = json.loads(path.read_text())
    return np.array([[int(re.search(r'\d+', token)[0]) for token in by_item[str(item)]] for item in range(items)],
                    np.int32)
  random = np.random.default_rng(0)
  codes = np.unique((CODES * random.random((2 * items, LEVELS)) ** 1.5).astype(np.int32), axis=0)
  return random.permutation(codes)[:items]
