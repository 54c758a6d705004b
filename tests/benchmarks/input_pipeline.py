"""Batches for training on one core: examples a second, in memory and streamed from ArrayRecord files.

    python -m tests.benchmarks.input_pipeline [--data=FOLDER --name=Beauty]

Without a folder in LETTER's format, a synthetic store of Beauty's size. Batches are taken from the Grain iterator that
training uses, without a model behind it.
"""

import argparse
import functools
import os
import pathlib
import tempfile
import time

from letter_jax.data import splits, store
from letter_jax.data.input_pipeline import Batching, PackedEpochs
from letter_jax.training.loop import PREFETCH
from tests.benchmarks import inputs, table


def measure(data, batch_size: int, epochs: int) -> float:
  """Examples a second; the first epoch warms up."""
  make_examples = functools.partial(splits.training_examples, history_length=20)
  batches = PackedEpochs(data, make_examples, 24, Batching(batch_size, seed=0, epochs=epochs + 1))
  iterator = iter(batches.dataset().to_iter_dataset(PREFETCH))
  for _ in range(batches.per_epoch):
    next(iterator)
  start = time.perf_counter()
  for _ in iterator:
    pass
  return epochs * batches.examples / (time.perf_counter() - start)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  inputs.add_arguments(parser, 'Beauty')
  parser.add_argument('--epochs', type=int, default=5)
  table.add_arguments(parser)
  arguments = parser.parse_args()
  os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
  with tempfile.TemporaryDirectory() as directory:
    directory = pathlib.Path(directory)
    store.save(inputs.dataset(arguments), directory)
    users = store.load_summary(directory)['users']
    kinds = {'in memory': store.load_interactions(directory)}
    for windows in (1, 4):
      kinds[f'streamed, {windows} window{"s" * (windows > 1)}'] = store.StreamedInteractions(
        directory, -(-users // windows), 22
      )
    table.report(
      [
        {
          'name': f'{kind}, batches of {size:,}',
          'unit': 'examples/s on one core',
          'ours': measure(data, size, arguments.epochs),
        }
        for kind, data in kinds.items()
        for size in (128, 1024)
      ],
      arguments,
    )


if __name__ == '__main__':
  main()
