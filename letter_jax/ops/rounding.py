"""Integer rounding."""

import math


def ceil_div(numerator, denominator):
  """numerator / denominator rounded up, for integers, floats and (element by element) arrays."""
  return -(-numerator // denominator)


def round_up(count: int, multiple: int) -> int:
  """The smallest multiple of `multiple` that is at least `count`."""
  return ceil_div(count, multiple) * multiple


def with_room(count: int, least: int = 64) -> int:
  """`count` rounded up by at most an eighth, so that nearby counts become equal; at least `least`, a power of two."""
  if count <= least:
    return least
  return round_up(count, 2 ** max(math.ceil(math.log2(count)) - 4, 0))


def next_power_of_two(count: int) -> int:
  """The smallest power of two that is at least `count`; 1 for counts below 1."""
  return 1 << max(count - 1, 0).bit_length()
