"""Ragged arrays against Python lists."""

import numpy as np
import pytest

from letter_jax.data import ragged

LENGTHS = {'none': [], 'one': [3], 'only empty ones': [0, 0], 'mixed': [2, 0, 3, 1, 0]}


@pytest.fixture(params=LENGTHS.values(), ids=LENGTHS)
def lengths(request):
  return request.param


@pytest.mark.parametrize('dtype', [np.int64, np.int32, np.uint16, np.uint8])
def test_offsets_and_starts_are_sums_of_the_lengths_before(lengths, dtype):
  lengths_N = np.array(lengths, dtype)
  expected = [sum(lengths[:place]) for place in range(len(lengths) + 1)]
  offsets, starts = ragged.offsets(lengths_N), ragged.starts(lengths_N)
  assert offsets.dtype == starts.dtype == np.int64
  assert offsets.tolist() == expected and starts.tolist() == expected[:-1]


def test_offsets_do_not_overflow_the_dtype_of_the_lengths():
  assert ragged.offsets(np.full(3, 200, np.uint8)).tolist() == [0, 200, 400, 600]


@pytest.mark.parametrize('dtype', [np.int64, np.int32])
def test_ranges_and_positions_count_up_within_each_stretch(lengths, dtype):
  lengths_N = np.array(lengths, dtype)
  start_N = np.array([10 * place - 7 for place in range(len(lengths))], np.int64)
  ranges, positions = ragged.ranges(start_N, lengths_N), ragged.positions(lengths_N)
  assert ranges.dtype == positions.dtype == np.int64
  assert ranges.tolist() == [first + place for first, length in zip(start_N, lengths) for place in range(length)]
  assert positions.tolist() == [place for length in lengths for place in range(length)]


def test_ranges_pick_the_stretches_of_a_flat_array():
  flat, lengths_N = np.arange(10), np.array([3, 0, 5, 2])
  chosen = [2, 0]
  picked = flat[ragged.ranges(ragged.starts(lengths_N)[chosen], lengths_N[chosen])]
  assert picked.tolist() == [3, 4, 5, 6, 7, 0, 1, 2]
