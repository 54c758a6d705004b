"""Batches for training, as a Grain data set: the batch of a step is a pure function of (seed, step).

Data that fits in memory is one window: every epoch assigns all examples to rows again, and each process assembles its
own rows of every micro-batch, so a batch depends neither on the number of processes nor on the number of devices.
Larger data is streamed from its ArrayRecord files, a window of users at a time: every epoch takes the windows in a
different order and shuffles within each (records are in random order on disk, so each window is a random sample, but
always the same one), and each process reads only its share of every window's users. The content of a batch then depends
on the number of processes.

Grain prefetches, and the position of its iterator is saved with the training's checkpoints.

Shapes: A micro-batches, B rows of a micro-batch that a process assembles, C items and S targets of a row, U users, W
windows.
"""

import concurrent.futures
import dataclasses
import threading
from collections.abc import Callable
from typing import Protocol

import grain
import jax
import numpy as np

from letter_jax import sharding
from letter_jax.configuration import TrainingConfig
from letter_jax.data import packing, ragged
from letter_jax.data.dataset import Interactions, Windows
from letter_jax.data.splits import Examples
from letter_jax.ops.rounding import ceil_div, round_up
from letter_jax.system.errors import InputError


@dataclasses.dataclass(frozen=True)
class Batching:
  """How examples are divided into batches, and which part of each batch this process assembles.

  Attributes:
    batch_size: approximate number of examples of a batch, over all micro-batches.
    seed: of all shuffling.
    epochs: number of epochs.
    accumulation_steps: micro-batches of a batch, A.
    devices: number of devices that the rows of a micro-batch are split over; empty rows pad them to a multiple.
    part, parts: which of how many equal parts of each micro-batch is assembled here.
  """

  batch_size: int
  seed: int
  epochs: int
  accumulation_steps: int = 1
  devices: int = 1
  part: int = 0
  parts: int = 1

  @classmethod
  def of(cls, training: TrainingConfig, seed: int, mesh: jax.sharding.Mesh) -> 'Batching':
    """The batches of a training on a mesh; a process assembles the rows of its own devices."""
    part, parts = sharding.data_part(mesh)
    return cls(training.batch_size, seed, training.epochs, training.accumulation_steps, mesh.shape['data'], part, parts)

  def local_rows(self, rows: int) -> np.ndarray:
    """int64 [A, B], the rows of a batch of `rows` rows that are assembled here; -1 for an empty row."""
    micro_rows = rows // self.accumulation_steps
    padded = round_up(micro_rows, self.devices)
    rows_AxB = np.arange(rows).reshape(self.accumulation_steps, micro_rows)
    rows_AxB = np.pad(rows_AxB, ((0, 0), (0, padded - micro_rows)), constant_values=-1)
    return rows_AxB[:, self.part * padded // self.parts : (self.part + 1) * padded // self.parts]


class TrainingBatches(Protocol):
  """The batches of all epochs of a training; a random-access source for `grain.MapDataset.source`.

  Attributes:
    per_epoch: batches of an epoch.
    examples: examples of an epoch, of all processes.
    rows: rows of a batch, of all processes, without padding rows.
    parts: parts of the data that different processes read; the content of a batch depends on their number.
  """

  per_epoch: int
  examples: int
  rows: int
  parts: int

  def __len__(self) -> int:
    """Batches of all epochs."""

  def __getitem__(self, step: int) -> dict[str, np.ndarray]:
    """This process' rows of the batch of an optimizer step: a pure function of the step."""

  def dataset(self) -> grain.MapDataset:
    """The batches as a Grain data set."""
    return grain.MapDataset.source(self)


class PackedEpochs(TrainingBatches):
  """Batches of packed histories.

  Attributes:
    items: history items of an epoch, of all processes.
    row_items, targets: C and S, the shape of a row.
  """

  def __init__(
    self, data: Windows, make_examples: Callable[[Interactions], Examples], row_items: int, batching: Batching
  ):
    """Plans the packing, from the lengths of the sequences alone.

    Args:
      data: interactions in memory or streamed.
      make_examples: examples of the users it is given, such as `splits.training_examples`.
      row_items: C, history items that a row holds.
      batching: how the examples are divided into batches.

    Raises:
      InputError: there is no example.
    """
    self._data, self._make_examples, self._batching = data, make_examples, batching
    places = [(window, part) for window in range(data.num_windows) for part in range(data.parts)]
    counts = [np.bincount(make_examples(_skeleton(data.lengths_of(*place))).lengths) for place in places]
    sizes = [int(of_length.sum()) for of_length in counts]
    self.examples = sum(sizes)
    self.items = sum(int(of_length @ np.arange(len(of_length))) for of_length in counts)
    if not self.examples:
      raise InputError(
        'no user has more than 3 interactions, so there is no training example; expected longer histories'
      )
    # All rows have the shape that is best for the largest part.
    best = packing.plan_packing(_spread(counts[int(np.argmax(sizes))]), row_items)
    self.row_items, self.targets = row_items, best.targets
    self.parts = data.parts
    self._part_rows = packing.rows_per_batch(
      best, max(batching.batch_size // data.parts, 1), batching.accumulation_steps
    )
    self.rows = self._part_rows * data.parts
    batches = [
      ceil_div(packing.plan_packing(_spread(of_length), row_items, best.targets).rows, self._part_rows)
      for of_length in counts
    ]
    self._batches_W = np.array(batches).reshape(data.num_windows, data.parts).max(axis=1)
    self.per_epoch = int(self._batches_W.sum())
    if data.parts > 1:  # each process reads its part of the data, and assembles all rows of it
      batching = dataclasses.replace(batching, devices=batching.devices // data.parts, part=0, parts=1)
    self._rows_AxB = batching.local_rows(self._part_rows)
    self._part = self._batching.part if data.parts > 1 else 0
    self._lock = threading.Lock()
    self._loader = concurrent.futures.ThreadPoolExecutor(1)
    self._loaded: dict[int, concurrent.futures.Future[packing.PackedBatches]] = {}

  def __len__(self) -> int:
    return self._batching.epochs * self.per_epoch

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
    batch = packed.batch_of(epoch, index, self._rows_AxB.ravel())
    shape = self._rows_AxB.shape if len(self._rows_AxB) > 1 else self._rows_AxB.shape[1:]
    return {name: leaf.reshape(*shape, -1) for name, leaf in batch.items()}

  def _order(self, epoch: int) -> np.ndarray:
    """int64, the windows in the order of an epoch, without windows that have no example."""
    order_W = np.random.default_rng((self._batching.seed, epoch, 0, 0, 1)).permutation(len(self._batches_W))
    return order_W[self._batches_W[order_W] > 0]

  def _packed(self, window: int, following: list[int]) -> packing.PackedBatches:
    """The batches of a window; the next window is loaded in the background. Grain's threads share the two."""
    with self._lock:
      self._loaded = {
        needed: self._loaded.get(needed) or self._loader.submit(self._window, needed)
        for needed in dict.fromkeys((window, *following))
      }
      packed = self._loaded[window]
    return packed.result()

  def _window(self, window: int) -> packing.PackedBatches:
    examples = self._make_examples(self._data.window(window))
    plan = packing.plan_packing(examples.lengths, self.row_items, self.targets)
    return packing.PackedBatches(examples, plan, self._part_rows, self._batching.seed, (window, self._part))


def _spread(count_of_length: np.ndarray) -> np.ndarray:
  """int64, the lengths that a histogram of lengths counts, in ascending order."""
  return np.repeat(np.arange(len(count_of_length)), count_of_length)


def _skeleton(lengths_U: np.ndarray) -> Interactions:
  """Users with sequences of these lengths but without items; planning needs no more."""
  return Interactions(np.zeros(0, np.int32), ragged.offsets(lengths_U), 0, ())
