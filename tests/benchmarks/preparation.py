"""Preparation of generated raw events on this machine, from columns in memory to TFDS tables: time and memory.

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


def generate(events: int, seed: int = 0) -> pl.DataFrame:
  """Long-tailed users and items with raw ids as long as Amazon's, in no order.

  Four events a user and twenty an item on average, as in Amazon's categories before their 5-core.
  """
  random = np.random.default_rng(seed)
  users, items = max(events // 4, 1), max(events // 20, 1)

  def ids(prefix: str, count: int, power: float) -> pl.Series:
    number = (count * random.random(events, np.float32) ** power).astype(np.int32)
    return pl.select(pl.lit(prefix) + pl.Series(number).cast(pl.String).str.zfill(12)).to_series()

  return pl.DataFrame({'user': ids('A', users, 2.0), 'item': ids('B', items, 4.0),
                       'timestamp': random.integers(10**9, 10**9 + 10**8, events)})


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--events', type=int, default=20_000_000)
  events = parser.parse_args().events
  table = generate(events)
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
  start = time.perf_counter()
  prepared = prepare(table, PreparationConfig())
  seconds = time.perf_counter() - start
  del table
  with tempfile.TemporaryDirectory() as directory:
    store.save(Dataset('generated', Interactions(prepared.items, prepared.offsets, len(prepared.item_names),
                                                 tuple(prepared.user_names)), None, prepared.timestamps,
                       tuple(prepared.item_names)), pathlib.Path(directory))
  written = time.perf_counter() - start - seconds
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
  print(f'{events:,} events -> {len(prepared.user_names):,} users, {len(prepared.item_names):,} items, '
        f'{len(prepared.items):,} interactions ({prepared.rounds} passes of the k-core)')
  print(f'prepared in {seconds:.1f} s ({events / seconds:,.0f} events/s), written in {written:.1f} s; '
        f'peak memory {peak:.1f} GB '
        f'({before:.1f} GB with the generated events, before the preparation)')


if __name__ == '__main__':
  main()
