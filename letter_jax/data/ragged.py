"""Ragged arrays: N stretches of different lengths, one after the other in a flat array.

Stretch i of an array is array[offsets[i]:offsets[i + 1]]. Everything here is int64, whatever the dtype of the lengths.
"""

import numpy as np


def offsets(lengths_N: np.ndarray) -> np.ndarray:
  """int64 [N + 1]: the sum of the lengths before each stretch, and of all of them."""
  return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths_N, dtype=np.int64)])


def starts(lengths_N: np.ndarray) -> np.ndarray:
  """int64 [N]: `offsets` without the last."""
  return offsets(lengths_N)[:-1]


def ranges(start_N: np.ndarray, lengths_N: np.ndarray) -> np.ndarray:
  """int64 [sum of lengths]: start[0], start[0] + 1, ... (length[0] of them), then from start[1] on, and so on."""
  return np.arange(np.sum(lengths_N, dtype=np.int64)) + np.repeat(start_N - starts(lengths_N), lengths_N)


def positions(lengths_N: np.ndarray) -> np.ndarray:
  """int64 [sum of lengths]: 0, 1, ..., length - 1 of each stretch."""
  return ranges(np.zeros(len(lengths_N), np.int64), lengths_N)
