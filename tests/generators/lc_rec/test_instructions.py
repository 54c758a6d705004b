"""Examples of a task; for their tokens see test_batches."""

import numpy as np

from letter_jax.generators.lc_rec.instructions import instructions_of
from tests.small_data import numbered_interactions


def test_search_ends_with_the_last_training_item_and_preference_knows_it():
  data = numbered_interactions([3, 6])  # items 0 .. 2 and 3 .. 8, of which 0 and 3 .. 6 are for training
  search = instructions_of('search', data, 2, np.array([1, 0]))
  assert [search.item.tolist(), search.start.tolist(), search.end.tolist()] == [[6, 0], [4, 0], [6, 0]]
  assert search.text.tolist() == [0, 1]
  preference = instructions_of('preference', data, 3, np.array([0, 1]))
  assert [preference.start.tolist(), preference.end.tolist()] == [[0, 4], [1, 7]]
  assert preference.item.tolist() == [-1, -1]
