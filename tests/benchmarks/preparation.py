"""Preparation of generated raw events on this machine, from a CSV file to TFDS tables: time and memory.

python -m tests.benchmarks.preparation --events=20000000
"""

import argparse
import pathlib
import resource
import tempfile
import time

import numpy as np
import polars as pl

from letter_jax.configuration import PreparationConfig
from letter_jax.data import store
from letter_jax.data.dataset import Dataset, Interactions
from letter_jax.data.preparation import prepare
from letter_jax.data.raw import tables
from letter_jax.data.raw.reader import event_table
from letter_jax.data.raw.reading import Problems
from tests.benchmarks import table


def generate(events: int, seed: int = 0) -> pl.DataFrame:
  """Long-tailed users and items with raw ids as long as Amazon's, in no order.

  Four events a user and twenty an item on average, as in Amazon's categories before their 5-core.
  """
  random = np.random.default_rng(seed)
  users, items = max(events // 4, 1), max(events // 20, 1)

  def ids(prefix: str, count: int, power: float) -> pl.Series:
    number = (count * random.random(events, np.float32) ** power).astype(np.int32)
    return pl.select(pl.lit(prefix) + pl.Series(number).cast(pl.String).str.zfill(12)).to_series()

  return pl.DataFrame(
    {
      'user_id': ids('A', users, 2.0),
      'item_id': ids('B', items, 4.0),
      'timestamp': random.integers(10**9, 10**9 + 10**8, events),
    }
  )


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--events', type=int, default=20_000_000)
  table.add_arguments(parser)
  arguments = parser.parse_args()
  events = arguments.events
  with tempfile.TemporaryDirectory() as directory:
    folder = pathlib.Path(directory)
    generate(events).write_csv(folder / tables.INTERACTIONS)
    (folder / tables.ITEMS).write_text('item_id,title\n')
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    start = time.perf_counter()
    raw = event_table(tables.csv_source(folder).event_tables(Problems()))
    read = time.perf_counter() - start
    prepared = prepare(raw, PreparationConfig())
    seconds = time.perf_counter() - start - read
    del raw
    store.save(
      Dataset(
        'generated',
        Interactions(prepared.items, prepared.offsets, len(prepared.item_names), tuple(prepared.user_names)),
        None,
        prepared.timestamps,
        tuple(prepared.item_names),
      ),
      folder / 'tables',
    )
    written = time.perf_counter() - start - read - seconds
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
  print(
    f'{events:,} events -> {len(prepared.user_names):,} users, {len(prepared.item_names):,} items, '
    f'{len(prepared.items):,} interactions ({prepared.rounds} passes of the k-core)'
  )
  table.report(
    [
      {'name': 'CSV read', 'unit': 's', 'ours': read},
      {'name': 'duplicates, k-core, order, numbers', 'unit': 's', 'ours': seconds},
      {'name': 'TFDS tables written', 'unit': 's', 'ours': written},
      {'name': 'peak memory', 'unit': 'GB', 'ours': peak},
      {'name': 'of it before reading, the generated events', 'unit': 'GB', 'ours': before},
    ],
    arguments,
  )


if __name__ == '__main__':
  main()
