"""Leave-one-out splits: each user's last item is for test, the last but one for validation, the rest for training.

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
    start: int64 [N], the first item of each history.
    end: int64 [N], with 1 <= end - start <= history_length.
    user: int32 [N], the user of each example.
  """

  items: np.ndarray
  start: np.ndarray
  end: np.ndarray
  user: np.ndarray

  def __len__(self) -> int:
    return len(self.end)

  @property
  def lengths(self) -> np.ndarray:
    """int64 [N], number of items in each history."""
    return self.end - self.start

  @property
  def targets(self) -> np.ndarray:
    """int32 [N], the item that follows each history."""
    return self.items[self.end]

  def whole_histories(self, data: Interactions) -> 'Examples':
    """The same examples with all of the user's earlier items as their history; `items` are those of `data`."""
    return dataclasses.replace(self, start=data.offsets[self.user])

  def take(self, indices: np.ndarray) -> 'Examples':
    """The examples at `indices`, int [M]."""
    return Examples(self.items, self.start[indices], self.end[indices], self.user[indices])

  def histories(self, width: int) -> np.ndarray:
    """int32 [N, width]: the latest `width` items of each history, left-aligned and padded with PAD_ITEM."""
    start_N = np.maximum(self.start, self.end - width)
    index_NxW = start_N[:, None] + np.arange(width)
    valid_NxW = index_NxW < self.end[:, None]
    return np.where(valid_NxW, self.items[np.where(valid_NxW, index_NxW, 0)], PAD_ITEM).astype(np.int32)


def evenly_spaced(count: int, most: int) -> np.ndarray:
  """int64, the indices of at most `most` of `count` examples, evenly spaced and ascending."""
  return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def is_training(data: Interactions) -> np.ndarray:
  """bool [interactions]: True for all but the last two of every user, which are for validation and test."""
  return ragged.positions(data.lengths) < np.repeat(data.lengths - 2, data.lengths)


def training_examples(data: Interactions, history_length: int) -> Examples:
  """An example for every item of every user's training sequence but the first.

  The history is the latest `history_length` items before the target.
  """
  counts_U = np.maximum(data.lengths - 3, 0)
  user_N = np.repeat(np.arange(len(counts_U)), counts_U)
  rank_N = ragged.positions(counts_U)
  return _windows(data, user_N, data.offsets[user_N] + 1 + rank_N, history_length)


def training_windows(data: Interactions, length: int) -> Examples:
  """Windows of up to `length` items, in which every training interaction but each user's first is a target once.

  For models that predict at every position: the targets of a window items[start:end] are items[start + 1:end + 1].
  """
  inputs_U = np.maximum(data.lengths - 3, 0)
  windows_U = ceil_div(inputs_U, length)
  user_N = np.repeat(np.arange(len(inputs_U)), windows_U)
  rank_N = ragged.positions(windows_U)
  # Aligned to the latest item, so that only a user's oldest window is short.
  end_N = data.offsets[user_N] + inputs_U[user_N] - rank_N * length
  return _windows(data, user_N, end_N, length)


def validation_examples(data: Interactions, history_length: int, users: int = 0) -> Examples:
  """An example for every user, or for some, whose target is the last item but one.

  Args:
    data: the interactions.
    history_length: latest items of a history that are kept.
    users: for at most so many users, as `test_examples` chooses them; 0 for all.
  """
  users_U = _evaluated(data, users)
  return _windows(data, users_U, data.offsets[users_U + 1] - 2, history_length)


def test_examples(data: Interactions, history_length: int, users: int = 0) -> Examples:
  """An example for every user, or for some, whose target is the last item.

  Args:
    data: the interactions.
    history_length: latest items of a history that are kept.
    users: for at most so many users, evenly spaced in the order of the data set; 0 for all.
  """
  users_U = _evaluated(data, users)
  return _windows(data, users_U, data.offsets[users_U + 1] - 1, history_length)


def _evaluated(data: Interactions, users: int) -> np.ndarray:
  return evenly_spaced(len(data.lengths), users or len(data.lengths))


def _windows(data: Interactions, user_N: np.ndarray, end_N: np.ndarray, history_length: int) -> Examples:
  start_N = np.maximum(data.offsets[user_N], end_N - history_length)
  return Examples(data.items, start_N.astype(np.int64), end_N.astype(np.int64), user_N.astype(np.int32))
