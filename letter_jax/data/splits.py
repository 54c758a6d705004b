"""Leave-one-out: the last item of a user is the test, the last but one the validation, the rest is training.

Every prefix of a training sequence is an example: 131,837 on Instruments, 131,413 on Beauty.
"""

import dataclasses

import numpy as np

from letter_jax.data import ragged
from letter_jax.data.dataset import Interactions
from letter_jax.ops.rounding import ceil_div

PAD_ITEM = -1


@dataclasses.dataclass(frozen=True)
class Examples:
  """N examples as windows into the interactions: history items[start:end], target items[end].

  Attributes:
    items: int32 [interactions], shared with the data set.
    start, end: int64 [N], 1 <= end - start <= history_length.
    user: int32 [N], whose example it is.
  """

  items: np.ndarray
  start: np.ndarray
  end: np.ndarray
  user: np.ndarray

  def __len__(self) -> int:
    return len(self.end)

  @property
  def lengths(self) -> np.ndarray:
    """int64 [N], items in each history."""
    return self.end - self.start

  @property
  def targets(self) -> np.ndarray:
    """int32 [N]."""
    return self.items[self.end]

  def take(self, indices: np.ndarray) -> 'Examples':
    return Examples(self.items, self.start[indices], self.end[indices], self.user[indices])

  def histories(self, width: int) -> np.ndarray:
    """int32 [N, width]: histories flush left, PAD_ITEM behind them; the latest `width` items where longer."""
    start_N = np.maximum(self.start, self.end - width)
    index_NxW = start_N[:, None] + np.arange(width)
    valid_NxW = index_NxW < self.end[:, None]
    return np.where(valid_NxW, self.items[np.where(valid_NxW, index_NxW, 0)], PAD_ITEM).astype(np.int32)


def is_training(data: Interactions) -> np.ndarray:
  """bool [interactions]: all but the last two of every user (its validation and its test)."""
  place = ragged.positions(data.lengths)
  return place < np.repeat(data.lengths - 2, data.lengths)


def training_examples(data: Interactions, history_length: int) -> Examples:
  """Every prefix of every user's sequence without its last two items."""
  counts_U = np.maximum(data.lengths - 3, 0)
  user_N = np.repeat(np.arange(len(counts_U)), counts_U)
  rank_N = ragged.positions(counts_U)
  return _windows(data, user_N, data.offsets[user_N] + 1 + rank_N, history_length)


def training_windows(data: Interactions, length: int) -> Examples:
  """Every training interaction but the users' first ones as a target once, in windows of up to `length` items.

  For models that predict at every position: the targets of a window items[start:end] are items[start + 1:end + 1].
  """
  inputs_U = np.maximum(data.lengths - 3, 0)
  windows_U = ceil_div(inputs_U, length)
  user_N = np.repeat(np.arange(len(inputs_U)), windows_U)
  rank_N = ragged.positions(windows_U)
  # Aligned to the newest item: only a user's oldest window is short.
  end_N = data.offsets[user_N] + inputs_U[user_N] - rank_N * length
  return _windows(data, user_N, end_N, length)


def validation_examples(data: Interactions, history_length: int) -> Examples:
  """The last item but one of every user."""
  users_U = np.arange(len(data.lengths))
  return _windows(data, users_U, data.offsets[1:] - 2, history_length)


def test_examples(data: Interactions, history_length: int) -> Examples:
  """The last item of every user."""
  users_U = np.arange(len(data.lengths))
  return _windows(data, users_U, data.offsets[1:] - 1, history_length)


def _windows(data: Interactions, user_N: np.ndarray, end_N: np.ndarray, history_length: int) -> Examples:
  start_N = np.maximum(data.offsets[user_N], end_N - history_length)
  return Examples(data.items, start_N.astype(np.int64), end_N.astype(np.int64), user_N.astype(np.int32))
