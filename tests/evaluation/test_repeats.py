import numpy as np

from letter_jax.data import splits
from letter_jax.evaluation.repeats import repeat_share, repeated
from tests.small_data import interactions


def test_repeats_are_targets_that_the_whole_history_has():
  data = interactions([[1, 2, 3, 4, 1], [1, 2, 3], [0, 0, 0], [4, 3, 2, 1, 0, 4]], 5)
  test = splits.test_examples(data, 2)
  assert repeated(test.whole_histories(data)).tolist() == [True, False, True, True]
  assert repeat_share(test.whole_histories(data)) == 0.75
  assert repeated(test).tolist() == [False, False, True, False]
  assert repeat_share(test.take(np.zeros(0, int))) == 0.0
