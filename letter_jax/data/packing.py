"""Packing: several examples share a row, so that hardly any work is spent on padding.

Histories have 5.6 items on average and at most 20; padded to the longest, 70% of the work would be wasted. The multiset
of history lengths is the same in every epoch, so the places for examples of each length are planned once; an epoch
assigns its examples at random to the places of their length, and shuffles the rows. Every epoch has the same number of
rows, every batch has the same shape, and any batch of any epoch is a function of (seed, epoch, index).

Units are items, not tokens: an item is always L tokens.

Shapes: N examples and places, C history items of a row, S targets of a row, B rows, P examples of a batch.
"""

import dataclasses

import numpy as np

from letter_jax.data import ragged
from letter_jax.data.splits import PAD_ITEM, Examples
from letter_jax.ops.rounding import ceil_div, round_up

# A target costs about as much as this many history items: L decoder tokens, each through two attentions.
TARGET_COST = 1.5


@dataclasses.dataclass(frozen=True)
class PackingPlan:
  """Places for N examples in rows.

  Attributes:
    rows: number of rows.
    row_items: C, history items that a row holds.
    targets: S, examples that a row holds.
    lengths_N: int64, history length of each place, in descending order.
    row_N, slot_N, offset_N: int64, row of each place, its slot among the row's targets, its first cell.
  """

  rows: int
  row_items: int
  targets: int
  lengths_N: np.ndarray
  row_N: np.ndarray
  slot_N: np.ndarray
  offset_N: np.ndarray

  @property
  def density(self) -> float:
    """Share of the rows' cells that hold an item."""
    return float(self.lengths_N.sum() / (self.rows * self.row_items))


def plan_packing(lengths_N: np.ndarray, row_items: int, targets: int | None = None) -> PackingPlan:
  """The plan with the least work.

  Args:
    lengths_N: int64, history lengths, at most `row_items` each.
    row_items: C, history items that a row holds.
    targets: S, examples that a row holds; None to choose the best number.
  """
  if targets is not None:
    return _plan(np.sort(lengths_N)[::-1], row_items, targets)
  fewest_rows = ceil_div(int(lengths_N.sum()), row_items)
  average = len(lengths_N) / fewest_rows
  plans = [
    _plan(np.sort(lengths_N)[::-1], row_items, targets)
    for targets in range(max(int(average), 1), int(np.ceil(average * 1.6)) + 1)
  ]
  return min(plans, key=lambda plan: plan.rows * (row_items + TARGET_COST * plan.targets))


def _plan(lengths_N: np.ndarray, row_items: int, targets: int) -> PackingPlan:
  """Longest first, each in the emptiest row: all rows end up nearly equally full."""
  rows = max(ceil_div(int(lengths_N.sum()), row_items), ceil_div(len(lengths_N), targets))
  while True:
    placed = _place(lengths_N, rows, row_items, targets)
    if placed is not None:
      return PackingPlan(rows, row_items, targets, lengths_N, *placed)
    rows += max(rows // 200, 1)


def _place(
  lengths_N: np.ndarray, rows: int, row_items: int, targets: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
  """Row, slot and first cell of each length, int64 [N] each; None if they do not fit in `rows` rows.

  Rows in the same state are handled together.
  """
  row_N, slot_N, offset_N = (np.empty(len(lengths_N), np.int64) for _ in range(3))
  groups = {(row_items, 0): np.arange(rows)}  # (cells free, targets taken) -> rows
  done = 0
  for length, count in zip(*(part[::-1] for part in np.unique(lengths_N, return_counts=True))):
    while count:
      fitting = [state for state in groups if state[0] >= length and state[1] < targets]
      if not fitting:
        return None
      state = max(fitting, key=lambda s: (s[0], -s[1]))
      free, taken = state
      members = groups.pop(state)
      chosen, rest = members[:count], members[count:]
      if len(rest):
        groups[state] = rest
      place = slice(done, done + len(chosen))
      row_N[place], slot_N[place], offset_N[place] = chosen, taken, row_items - free
      after = (free - int(length), taken + 1)
      groups[after] = np.concatenate([groups[after], chosen]) if after in groups else chosen
      done += len(chosen)
      count -= len(chosen)
  return row_N, slot_N, offset_N


class PackedBatches:
  """Batches of packed rows for training.

  Attributes:
    examples: of an epoch.
    plan: made for `examples.lengths`.
    rows: rows of a batch.
  """

  def __init__(self, examples: Examples, plan: PackingPlan, rows: int, seed: int, stream: tuple[int, int] = (0, 0)):
    """See the attributes; `seed` and `stream` determine the shuffling."""
    self.examples, self.plan, self.rows = examples, plan, rows
    self._seed, self._stream = seed, stream
    self._place_of_slot = np.full((plan.rows, plan.targets), -1)
    self._place_of_slot[plan.row_N, plan.slot_N] = np.arange(len(plan.lengths_N))
    self._assignments: dict[int, tuple[np.ndarray, np.ndarray]] = {}

  @property
  def per_epoch(self) -> int:
    """Batches of an epoch."""
    return ceil_div(self.plan.rows, self.rows)

  def batch_of(self, epoch: int, index: int, rows_B: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Batch `index` of an epoch, int32: a pure function of the two and the seed.

    Args:
      epoch: from 0.
      index: of the batch in the epoch.
      rows_B: int64, the rows of the batch to assemble, -1 for an empty row; None for all.

    Returns:
      items_BxC: history items, PAD_ITEM where a row is not full.
      next_BxC: the item after each cell's in the user's sequence, PAD_ITEM on padding.
      segments_BxC: 1 + slot of the example that a cell belongs to, 0 on padding.
      targets_BxS: the item to predict for each slot, PAD_ITEM in unused slots.
    """
    example_of_place, row_order = self._assignment(epoch)
    if rows_B is None:
      rows_B = np.arange(self.rows)
    number_B = rows_B + index * self.rows
    used_B = (rows_B >= 0) & (number_B < len(row_order))
    places_BxS = np.full((len(rows_B), self.plan.targets), -1)
    places_BxS[used_B] = self._place_of_slot[row_order[number_B[used_B]]]
    row_P, slot_P = np.nonzero(places_BxS >= 0)
    place_P = places_BxS[row_P, slot_P]
    example_P = example_of_place[place_P]

    length_P = self.plan.lengths_N[place_P]
    within = ragged.positions(length_P)
    cells = np.repeat(row_P * self.plan.row_items + self.plan.offset_N[place_P], length_P) + within
    positions = np.repeat(self.examples.start[example_P], length_P) + within
    shape = (len(rows_B), self.plan.row_items)
    targets_BxS = np.full(places_BxS.shape, PAD_ITEM, np.int32)
    targets_BxS[row_P, slot_P] = self.examples.targets[example_P]
    return {
      'items_BxC': _filled(shape, PAD_ITEM, cells, self.examples.items[positions]),
      'next_BxC': _filled(shape, PAD_ITEM, cells, self.examples.items[positions + 1]),
      'segments_BxC': _filled(shape, 0, cells, np.repeat(slot_P + 1, length_P)),
      'targets_BxS': targets_BxS,
    }

  def _assignment(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """`_draw_assignment`, cached for neighbouring epochs."""
    assignment = self._assignments.get(epoch) or self._draw_assignment(epoch)
    neighbours = {other: cached for other, cached in self._assignments.items() if abs(other - epoch) == 1}
    self._assignments = {**neighbours, epoch: assignment}
    return assignment

  def _draw_assignment(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """The example at each place, int64 [N], and the order of the rows, int64 [rows of an epoch]."""
    random = np.random.default_rng((self._seed, epoch, *self._stream))
    # Examples in the order of the places' lengths, ties broken at random: a permutation within each length.
    shuffled = random.permutation(len(self.examples))
    example_of_place = shuffled[np.argsort(-self.examples.lengths[shuffled], kind='stable')]
    return example_of_place, random.permutation(self.plan.rows)


def _filled(shape: tuple[int, int], filling: int, cells: np.ndarray, values: np.ndarray) -> np.ndarray:
  """int32, `values` at flat indices `cells`, `filling` elsewhere."""
  array = np.full(shape, filling, np.int32)
  array.ravel()[cells] = values
  return array


def rows_per_batch(plan: PackingPlan, batch_size: int, multiple: int) -> int:
  """Rows that hold about `batch_size` examples, a multiple of `multiple`."""
  rows = min(round(batch_size * plan.rows / len(plan.lengths_N)), plan.rows)
  return round_up(max(rows, 1), multiple)
