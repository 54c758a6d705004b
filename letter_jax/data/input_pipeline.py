"""Batches for training, as a Grain data set: the batch of a step is a pure function of (seed, step).

Data that fits in memory is one window: every epoch deals all examples to rows anew, and each process assembles its own
rows of the batch, so that a batch does not depend on the number of processes. Larger data is streamed from its
ArrayRecord files, a window of users at a time: every epoch takes the windows in another order and shuffles within each
(records are in random order on disk, so each window is a random sample), and each process reads its share of every
window's users and no others (but the lengths of all, for the plan).

Grain prefetches, and the position of its iterator is saved with the training's checkpoints.
"""

import functools
import threading
from collections.abc import Callable

import grain
import numpy as np

from letter_jax.data import packing
from letter_jax.data.dataset import Interactions, Windows
from letter_jax.data.splits import Examples
from letter_jax.errors import InputError


class PackedEpochs:
  """The batches of all epochs; a random-access source for `grain.MapDataset.source`.

  Attributes:
    per_epoch: batches of an epoch.
    examples, items: of all processes in an epoch: examples, and history items in them.
    row_items, targets: C and S, the shape of a row.
    rows: rows of a batch, over all processes.
  """

  def __init__(self, data: Windows, make_examples: Callable[[Interactions], Examples], row_items: int, batch_size: int,
               multiple: int, seed: int, epochs: int, process: int = 0, processes: int = 1):
    """Plans the packing; nothing but lengths is read for it.

    Args:
      make_examples: examples of the users it is given; `splits.training_examples` or the like.
      row_items: history items that a row holds.
      batch_size: examples of a batch, about; `multiple`: what its rows must be a multiple of.
      process, processes: which part of each batch is assembled here.

    Raises:
      InputError: there is no example.
    """
    self._data, self._make_examples, self._seed, self._epochs = data, make_examples, seed, epochs
    self._process, self._processes = process, processes
    shards = data.shards
    lengths = [[make_examples(_skeleton(data.window_lengths(window, shard))).lengths for shard in range(shards)]
               for window in range(data.num_windows)]
    every = [part for parts in lengths for part in parts]
    self.examples, self.items = sum(map(len, every)), int(sum(part.sum() for part in every))
    if not self.examples:
      raise InputError('no user has more than 3 interactions, so there is no training example; expected longer '
                       'histories')
    # All rows have one shape: the one that is best for the largest part.
    best = packing.plan_packing(max(every, key=len), row_items)
    self.row_items, self.targets = row_items, best.targets
    self.rows = packing.rows_per_batch(best, max(batch_size // shards, 1), -(-multiple // shards)) * shards
    plans = [[packing.plan_packing(part, row_items, best.targets).rows for part in parts] for parts in lengths]
    self._batches_W = np.array([-(-max(parts) // (self.rows // shards)) for parts in plans])
    self.per_epoch = int(self._batches_W.sum())
    self._lock = threading.Lock()
    self._window = functools.lru_cache(maxsize=2)(self._window)

  def __len__(self) -> int:
    return self._epochs * self.per_epoch

  def __getitem__(self, step: int) -> dict[str, np.ndarray]:
    """This process' rows of the batch of an optimizer step; see `packing.PackedBatches.batch_of`."""
    epoch, index = divmod(int(step), self.per_epoch)
    order_W = np.random.default_rng((self._seed, epoch, 1)).permutation(len(self._batches_W))
    ends_W = np.cumsum(self._batches_W[order_W])
    place = int(np.searchsorted(ends_W, index, side='right'))
    with self._lock:  # Grain's threads share the windows
      packed = self._window(int(order_W[place]))
    index -= int(ends_W[place] - self._batches_W[order_W[place]])
    share = self.rows // self._processes
    if self._data.shards > 1:
      return packed.batch_of(epoch, index)
    return packed.batch_of(epoch, index, slice(self._process * share, (self._process + 1) * share))

  def dataset(self) -> grain.MapDataset:
    """The batches as Grain knows them."""
    return grain.MapDataset.source(self)

  def _window(self, window: int) -> packing.PackedBatches:
    examples = self._make_examples(self._data.window(window))
    plan = packing.plan_packing(examples.lengths, self.row_items, self.targets)
    return packing.PackedBatches(examples, plan, self.rows // self._data.shards, self._seed)


def _skeleton(lengths_U: np.ndarray) -> Interactions:
  """Users with sequences of these lengths and no items, which is all that planning needs."""
  offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths_U, dtype=np.int64)])
  return Interactions(np.zeros(0, np.int32), offsets, 0, ())
