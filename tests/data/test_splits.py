import numpy as np
import pytest

from letter_jax.data import splits
from letter_jax.data.dataset import Interactions
from tests.small_data import numbered_interactions

SEQUENCES = ([10, 11, 12, 13, 14, 15], [20, 21, 22], [30, 31, 32, 33])


@pytest.fixture
def data():
  offsets = np.cumsum([0] + [len(sequence) for sequence in SEQUENCES])
  return Interactions(np.concatenate(SEQUENCES).astype(np.int32), offsets, 40, ('a', 'b', 'c'))


def spelled_out(examples):
  return [
    (user, examples.items[start:end].tolist(), target)
    for user, start, end, target in zip(examples.user.tolist(), examples.start, examples.end, examples.targets.tolist())
  ]


def test_every_prefix_without_the_last_two_items_is_a_training_example(data):
  assert spelled_out(splits.training_examples(data, 20)) == [
    (0, [10], 11),
    (0, [10, 11], 12),
    (0, [10, 11, 12], 13),
    (2, [30], 31),
  ]


def test_last_item_is_the_test_and_last_but_one_the_validation(data):
  assert spelled_out(splits.validation_examples(data, 20)) == [
    (0, [10, 11, 12, 13], 14),
    (1, [20], 21),
    (2, [30, 31], 32),
  ]
  assert spelled_out(splits.test_examples(data, 20)) == [
    (0, [10, 11, 12, 13, 14], 15),
    (1, [20, 21], 22),
    (2, [30, 31, 32], 33),
  ]


def test_history_is_cut_to_the_latest_items_of_the_same_user(data):
  assert spelled_out(splits.training_examples(data, 2))[1:3] == [(0, [10, 11], 12), (0, [11, 12], 13)]
  assert spelled_out(splits.test_examples(data, 3)) == [(0, [12, 13, 14], 15), (1, [20, 21], 22), (2, [30, 31, 32], 33)]
  assert splits.test_examples(data, 3).lengths.tolist() == [3, 2, 3]


def test_users_with_exactly_three_items_train_nothing_and_are_tested():
  data = Interactions(np.array([0, 1, 2, 2, 1, 0], np.int32), np.array([0, 3, 6]), 3, ('a', 'b'))
  assert len(splits.training_examples(data, 20)) == 0
  assert splits.training_examples(data, 20).histories(4).shape == (0, 4)
  assert spelled_out(splits.validation_examples(data, 20)) == [(0, [0], 1), (1, [2], 1)]
  assert spelled_out(splits.test_examples(data, 20)) == [(0, [0, 1], 2), (1, [2, 1], 0)]


def test_histories_are_flush_left_and_padded_behind(data):
  test = splits.test_examples(data, 20)
  pad = splits.PAD_ITEM
  assert test.histories(6).tolist() == [
    [10, 11, 12, 13, 14, pad],
    [20, 21, pad, pad, pad, pad],
    [30, 31, 32, pad, pad, pad],
  ]
  assert test.histories(2).tolist() == [[13, 14], [20, 21], [31, 32]]
  assert test.histories(6).dtype == np.int32


def test_take_keeps_examples_whole(data):
  test = splits.test_examples(data, 20)
  assert spelled_out(test.take(np.array([2, 0]))) == [spelled_out(test)[2], spelled_out(test)[0]]


@pytest.mark.parametrize('make', [splits.validation_examples, splits.test_examples])
def test_some_users_have_the_examples_that_they_have_among_all(make):
  data = numbered_interactions(np.arange(3, 23))
  every, some = make(data, 5), make(data, 5, 7)
  assert some.user.tolist() == [0, 3, 6, 9, 12, 15, 19]
  assert spelled_out(some) == [example for example in spelled_out(every) if example[0] in some.user]
  for more in (20, 21):
    assert spelled_out(make(data, 5, more)) == spelled_out(every)
