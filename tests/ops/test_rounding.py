import numpy as np
import pytest

from letter_jax.ops import rounding


@pytest.mark.parametrize('numerator, denominator, expected', [(0, 3, 0), (1, 3, 1), (3, 3, 1), (4, 3, 2), (9, 1, 9)])
def test_ceil_div(numerator, denominator, expected):
  assert rounding.ceil_div(numerator, denominator) == expected


def test_ceil_div_of_arrays_and_of_large_integers():
  assert rounding.ceil_div(np.array([0, 1, 6, 7]), 3).tolist() == [0, 1, 2, 3]
  assert rounding.ceil_div(2**53 + 1, 1) == 2**53 + 1  # no detour through floats


@pytest.mark.parametrize('count, multiple, expected', [(0, 4, 0), (1, 4, 4), (4, 4, 4), (5, 4, 8), (7, 1, 7)])
def test_round_up(count, multiple, expected):
  assert rounding.round_up(count, multiple) == expected


@pytest.mark.parametrize('count,expected', [(0, 1), (1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (1024, 1024), (1025, 2048)])
def test_next_power_of_two(count, expected):
  assert rounding.next_power_of_two(count) == expected
