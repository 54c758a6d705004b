"""Batches for training, as a Grain data set: the batch of a step is a pure function of (seed, step).

Data that fits in memory is one window: every epoch deals all examples to rows anew, and each process assembles its own
rows of every micro-batch, so that a batch depends neither on the number of processes nor on that of the devices.
Larger data is streamed from its ArrayRecord files, a window of users at a time: every epoch takes the windows in
another order and shuffles within each (records are in random order on disk, so each window is a random sample, but
always the same one), and each process reads its share of every window's users and no others. What is in a batch then
depends on the number of processes.

Grain prefetches, and the position of its iterator is saved with the training's checkpoints.
"""

import concurrent.futures
import threading
from collections.abc import Callable

import grain
import numpy as np

from letter_jax.data import packing, ragged
from letter_jax.data.dataset import Interactions, Windows
from letter_jax.data.splits import Examples
from letter_jax.ops.rounding import ceil_div, round_up
from letter_jax.system.errors import InputError


class PackedEpochs:
  """The batches of all epochs; a random-access source for `grain.MapDataset.source`.

  Attributes:
    per_epoch: batches of an epoch.
    examples, items: of all processes in an epoch: examples, and history items in them.
    row_items, targets: C and S, the shape of a row.
    rows: rows of a batch, over all processes, without those that only fill up.
    parts: of the data, that different processes read; what is in a batch depends on it.
  """

  def __init__(
    self,
    data: Windows,
    make_examples: Callable[[Interactions], Examples],
    row_items: int,
    batch_size: int,
    seed: int,
    epochs: int,
    micro_batches: int = 1,
    devices: int = 1,
    process: int = 0,
    processes: int = 1,
  ):
    """Plans the packing; nothing but lengths is read for it.

    Args:
      make_examples: examples of the users it is given; `splits.training_examples` or the like.
      row_items: history items that a row holds.
      batch_size: examples of a batch, about, over all micro-batches.
      devices: how many the rows of a micro-batch are split over; they are filled up with empty rows to a multiple.
      process, processes: which part of each micro-batch is assembled here.

    Raises:
      InputError: there is no example.
    """
    self._data, self._make_examples, self._seed, self._epochs = data, make_examples, seed, epochs
    parts = [(window, part) for window in range(data.num_windows) for part in range(data.parts)]
    counts = [np.bincount(make_examples(_skeleton(data.lengths_of(*place))).lengths) for place in parts]
    sizes = [int(of_length.sum()) for of_length in counts]
    self.examples = sum(sizes)
    self.items = sum(int(of_length @ np.arange(len(of_length))) for of_length in counts)
    if not self.examples:
      raise InputError(
        'no user has more than 3 interactions, so there is no training example; expected longer histories'
      )
    # All rows have one shape: the one that is best for the largest part.
    best = packing.plan_packing(_spread(counts[int(np.argmax(sizes))]), row_items)
    self.row_items, self.targets = row_items, best.targets
    self.parts = data.parts
    self._part_rows = packing.rows_per_batch(best, max(batch_size // data.parts, 1), micro_batches)
    self.rows = self._part_rows * data.parts
    batches = [
      ceil_div(packing.plan_packing(_spread(of_length), row_items, best.targets).rows, self._part_rows)
      for of_length in counts
    ]
    self._batches_W = np.array(batches).reshape(data.num_windows, data.parts).max(axis=1)
    self.per_epoch = int(self._batches_W.sum())
    self._wanted_AxB = share(
      self._part_rows, micro_batches, devices // data.parts, *((process, processes) if data.parts == 1 else (0, 1))
    )
    self._part = process if data.parts > 1 else 0
    self._lock = threading.Lock()
    self._loader = concurrent.futures.ThreadPoolExecutor(1)
    self._loaded: dict[int, concurrent.futures.Future] = {}

  def __len__(self) -> int:
    return self._epochs * self.per_epoch

  def __getitem__(self, step: int) -> dict[str, np.ndarray]:
    """This process' rows of the batch of an optimizer step; see `packing.PackedBatches.batch_of`.

    With several micro-batches the leaves are [micro-batches, rows of each, ...].
    """
    epoch, index = divmod(int(step), self.per_epoch)
    order_W = self._order(epoch)
    ends_W = np.cumsum(self._batches_W[order_W])
    place = int(np.searchsorted(ends_W, index, side='right'))
    index -= int(ends_W[place] - self._batches_W[order_W[place]])
    following = order_W[place + 1 : place + 2] if place + 1 < len(order_W) else self._order(epoch + 1)[:1]
    packed = self._packed(int(order_W[place]), following.tolist() if step + 1 < len(self) else [])
    batch = packed.batch_of(epoch, index, self._wanted_AxB.ravel())
    shape = self._wanted_AxB.shape if len(self._wanted_AxB) > 1 else self._wanted_AxB.shape[1:]
    return {name: leaf.reshape(*shape, -1) for name, leaf in batch.items()}

  def dataset(self) -> grain.MapDataset:
    """The batches as Grain knows them."""
    return grain.MapDataset.source(self)

  def _order(self, epoch: int) -> np.ndarray:
    """The windows as they come in an epoch, without those that have no example."""
    order_W = np.random.default_rng((self._seed, epoch, 0, 0, 1)).permutation(len(self._batches_W))
    return order_W[self._batches_W[order_W] > 0]

  def _packed(self, window: int, following: list[int]) -> packing.PackedBatches:
    """Of a window; the one that follows is read meanwhile. Grain's threads share the two."""
    with self._lock:
      self._loaded = {
        each: self._loaded.get(each) or self._loader.submit(self._window, each)
        for each in dict.fromkeys((window, *following))
      }
      packed = self._loaded[window]
    return packed.result()

  def _window(self, window: int) -> packing.PackedBatches:
    examples = self._make_examples(self._data.window(window))
    plan = packing.plan_packing(examples.lengths, self.row_items, self.targets)
    return packing.PackedBatches(examples, plan, self._part_rows, self._seed, (window, self._part))


def share(rows: int, micro_batches: int, devices: int, process: int, processes: int) -> np.ndarray:
  """int64 [micro-batches, rows of a process in each]: rows of the batch, -1 where one only fills up."""
  micro_rows = rows // micro_batches
  rows_AxB = np.arange(rows).reshape(micro_batches, micro_rows)
  filled = round_up(micro_rows, devices)
  rows_AxB = np.pad(rows_AxB, ((0, 0), (0, filled - micro_rows)), constant_values=-1)
  return rows_AxB[:, process * filled // processes : (process + 1) * filled // processes]


def _spread(count_of_length: np.ndarray) -> np.ndarray:
  return np.repeat(np.arange(len(count_of_length)), count_of_length)


def _skeleton(lengths_U: np.ndarray) -> Interactions:
  """Users with sequences of these lengths and no items, which is all that planning needs."""
  offsets = ragged.offsets(lengths_U)
  return Interactions(np.zeros(0, np.int32), offsets, 0, ())
