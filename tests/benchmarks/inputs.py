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


def data_config(arguments: argparse.Namespace) -> DataConfig:
  if arguments.data:
    return DataConfig(path=arguments.data, name=arguments.name)
  users, items, length = SIZES[arguments.name]
  return DataConfig(source='synthetic', synthetic=SyntheticConfig(num_users=users, num_items=items, mean_length=length))


def dataset(arguments: argparse.Namespace) -> Dataset:
  return sources.read_dataset(data_config(arguments), 0)


def semantic_ids(arguments: argparse.Namespace, items: int) -> np.ndarray:
  """int32 [items, 4]: NAME.index.json of the folder, or random ones, all different, as uneven as trained ones."""
  path = pathlib.Path(arguments.data) / f'{arguments.name}.index.json'
  if arguments.data and path.is_file():
    by_item = json.loads(path.read_text())
    return np.array(
      [[int(re.search(r'\d+', token)[0]) for token in by_item[str(item)]] for item in range(items)], np.int32
    )
  random = np.random.default_rng(0)
  codes = np.unique((CODES * random.random((2 * items, LEVELS)) ** 1.5).astype(np.int32), axis=0)
  return random.permutation(codes)[:items]


def embeddings(arguments: argparse.Namespace) -> list[tuple[np.ndarray, np.ndarray, str]]:
  """(text float32 [items, 384 or 768], collaborative float32 [items, 32], what it is).

  The folder's NAME.emb.npy and NAME.cf.npy where they are there. What is made: clumps, as of products of some kinds.
  """
  found = []
  folder, items = pathlib.Path(arguments.data), SIZES.get(arguments.name, SIZES['Beauty'])[1]
  given = folder / f'{arguments.name}.emb.npy'
  if arguments.data and not given.is_file():
    raise SystemExit(f'{given} does not exist; expected text embeddings under --data, called by --name')
  if arguments.data:
    text_NxT = np.load(given).astype(np.float32)
    found.append((text_NxT, f'{arguments.name}, {text_NxT.shape[1]}-d'))
    items = len(text_NxT)
  for width in (768,) if found else (384, 768):
    random = np.random.default_rng(width)
    centers = random.standard_normal((200, width), np.float32)
    text_NxT = centers[random.integers(200, size=items)] + 0.7 * random.standard_normal((items, width), np.float32)
    found.append((text_NxT, f'{items:,} generated rows, {width}-d'))
  rows = folder / f'{arguments.name}.cf.npy'
  collaborative_Nxd = (
    np.load(rows).astype(np.float32)
    if arguments.data and rows.is_file()
    else 0.3 * np.random.default_rng(1).standard_normal((items, 32), np.float32)
  )
  return [(text_NxT, collaborative_Nxd, name) for text_NxT, name in found]
