"""Packed rows against the examples they were made of."""

import numpy as np
import pytest

from letter_jax.data import packing, splits
from letter_jax.data.splits import PAD_ITEM
from tests.small_data import numbered_interactions


def realistic_lengths(users=1500):
  """At least 5 interactions a user, most have few: as in the Amazon data."""
  return 5 + np.random.default_rng(0).geometric(0.25, users) - 1


LENGTHS_OF_USERS = {
  'realistic': realistic_lengths(),
  'one example': np.array([4]),
  'all histories of length 1': np.full(50, 4),
  'a few': np.array([4, 9, 30, 5, 3]),
}


def packed(lengths_U, row_items=24, history=20, rows=5, seed=3):
  examples = splits.training_examples(numbered_interactions(lengths_U), history)
  plan = packing.plan_packing(examples.lengths, row_items)
  return examples, plan, packing.PackedBatches(examples, plan, rows, seed)


def epoch_of(batches, epoch):
  return [batches.batch_of(epoch, index) for index in range(batches.per_epoch)]


def batch_of(batches, step):
  return batches.batch_of(*divmod(step, batches.per_epoch))


def unpacked(batch):
  """[(history, target)] of all slots, read as a model reads them: by segment ids."""
  found = []
  for items_C, segments_C, targets_S in zip(batch['items_BxC'], batch['segments_BxC'], batch['targets_BxS']):
    used = {slot for slot, target in enumerate(targets_S) if target != PAD_ITEM}
    segments = set(segments_C.tolist()) - {0}
    assert segments == {slot + 1 for slot in used}
    assert ((items_C == PAD_ITEM) == (segments_C == 0)).all()
    for slot in sorted(used):
      cells = np.flatnonzero(segments_C == slot + 1)
      assert (np.diff(cells) == 1).all()
      found.append((tuple(items_C[cells].tolist()), int(targets_S[slot])))
  return found


def spelled_out(examples):
  return [
    (tuple(examples.items[start:end].tolist()), int(target))
    for start, end, target in zip(examples.start, examples.end, examples.targets)
  ]


def assert_plan_is_sound(plan, lengths_N):
  assert plan.lengths_N.tolist() == sorted(lengths_N.tolist(), reverse=True)
  taken = np.zeros((plan.rows, plan.row_items), int)
  for length, row, offset in zip(plan.lengths_N, plan.row_N, plan.offset_N):
    assert offset >= 0 and offset + length <= plan.row_items
    taken[row, offset : offset + length] += 1
  assert taken.max() == 1
  assert plan.slot_N.min() >= 0 and plan.slot_N.max() < plan.targets
  slots = set(zip(plan.row_N.tolist(), plan.slot_N.tolist()))
  assert len(slots) == len(plan.lengths_N) and {row for row, _ in slots} == set(range(plan.rows))
  assert plan.density == pytest.approx(taken.mean())


@pytest.mark.parametrize('lengths_U', LENGTHS_OF_USERS.values(), ids=LENGTHS_OF_USERS)
@pytest.mark.parametrize('row_items', [20, 24, 61])
def test_every_example_stands_in_every_epoch_exactly_once(lengths_U, row_items):
  examples, plan, batches = packed(lengths_U, row_items)
  assert_plan_is_sound(plan, examples.lengths)
  for epoch in (0, 5):
    found = [entry for batch in epoch_of(batches, epoch) for entry in unpacked(batch)]
    assert sorted(found) == sorted(spelled_out(examples))


@pytest.mark.parametrize('length', [1, 7, 20])
@pytest.mark.parametrize('count', [1, 2, 30])
def test_histories_of_one_length(length, count):
  for row_items in (20, 24):
    plan = packing.plan_packing(np.full(count, length), row_items)
    assert_plan_is_sound(plan, np.full(count, length))
    assert plan.rows >= -(-count // (row_items // length))
  assert packing.plan_packing(np.full(30, 20), 20).density == 1.0


def test_rows_are_nearly_full():
  examples, plan, batches = packed(realistic_lengths())
  assert plan.density > 0.95
  items = np.concatenate([batch['items_BxC'][: plan.rows] for batch in epoch_of(batches, 0)])
  assert (items != PAD_ITEM).sum() / (plan.rows * 24) > 0.95
  # Slots cost work as well as cells: not many more than are used.
  assert len(examples) / (plan.rows * plan.targets) > 0.6


def test_a_batch_follows_from_its_step_alone():
  _, plan, batches = packed(realistic_lengths(60))
  steps = [4, 0, batches.per_epoch + 2, 1, 4]
  first = {step: batch_of(batches, step) for step in steps}
  _, _, again = packed(realistic_lengths(60))
  for step in reversed(steps):
    for name, leaf in batch_of(again, step).items():
      assert leaf.dtype == np.int32
      np.testing.assert_array_equal(leaf, first[step][name])
      np.testing.assert_array_equal(leaf, batch_of(batches, step)[name])


def test_epochs_and_seeds_shuffle_rows_and_their_examples():
  def neighbours(batches, epoch):
    """Which examples share a row."""
    return {
      frozenset(row[row != PAD_ITEM].tolist()) for batch in epoch_of(batches, epoch) for row in batch['targets_BxS']
    }

  _, _, batches = packed(realistic_lengths(200))
  _, _, other_seed = packed(realistic_lengths(200), seed=4)
  rows = neighbours(batches, 0)
  for other in (neighbours(batches, 1), neighbours(other_seed, 0)):
    assert len(rows & other) < 0.1 * len(rows)
  assert not np.array_equal(batches.batch_of(0, 0)['items_BxC'], other_seed.batch_of(0, 0)['items_BxC'])


def test_streams_of_one_seed_shuffle_apart():
  examples, plan, batches = packed(realistic_lengths(200))
  first = batches.batch_of(1, 0)
  for stream in ((0, 1), (1, 0)):
    other = packing.PackedBatches(examples, plan, 5, 3, stream).batch_of(1, 0)
    assert not np.array_equal(first['items_BxC'], other['items_BxC'])


def test_next_is_the_item_that_follows_in_the_users_sequence():
  _, _, batches = packed(LENGTHS_OF_USERS['a few'])
  for batch in epoch_of(batches, 2):
    # numbered_interactions: the item that follows item i is i + 1
    expected = np.where(batch['items_BxC'] == PAD_ITEM, PAD_ITEM, batch['items_BxC'] + 1)
    np.testing.assert_array_equal(batch['next_BxC'], expected)
    for row, slot in zip(*np.nonzero(batch['targets_BxS'] != PAD_ITEM)):
      last = np.flatnonzero(batch['segments_BxC'][row] == slot + 1)[-1]
      assert batch['next_BxC'][row, last] == batch['targets_BxS'][row, slot]


def test_the_last_batch_of_an_epoch_is_filled_up_with_empty_rows():
  _, plan, batches = packed(realistic_lengths(60), rows=7)
  remainder = plan.rows % 7
  assert remainder and batches.per_epoch == plan.rows // 7 + 1
  last = epoch_of(batches, 0)[-1]
  assert {name: leaf.shape for name, leaf in last.items()} == {
    'items_BxC': (7, 24),
    'next_BxC': (7, 24),
    'segments_BxC': (7, 24),
    'targets_BxS': (7, plan.targets),
  }
  for name, filling in dict(items_BxC=PAD_ITEM, next_BxC=PAD_ITEM, segments_BxC=0, targets_BxS=PAD_ITEM).items():
    assert (last[name][remainder:] == filling).all()
    assert (last[name][:remainder] != filling).any(axis=1).all()


@pytest.mark.parametrize('multiple', [1, 3, 8, 1000])
def test_rows_per_batch(multiple):
  examples, plan, _ = packed(realistic_lengths())
  rows = packing.rows_per_batch(plan, 256, multiple)
  assert rows % multiple == 0 and rows > 0
  examples_per_row = len(examples) / plan.rows
  assert 256 - examples_per_row <= rows * examples_per_row < 256 + (multiple + 1) * examples_per_row
  assert packing.rows_per_batch(plan, 1, multiple) == multiple


def test_parts_of_a_batch_are_its_rows():
  _, _, batches = packed(realistic_lengths(60), rows=6)
  for index in (0, batches.per_epoch - 1):
    whole = batches.batch_of(1, index)
    parts = [batches.batch_of(1, index, np.arange(first, first + 2)) for first in (0, 2, 4)]
    for name, leaf in whole.items():
      np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), leaf)
  filled = batches.batch_of(1, 0, np.array([3, -1, 1]))
  for name, leaf in batches.batch_of(1, 0).items():
    np.testing.assert_array_equal(filled[name][[0, 2]], leaf[[3, 1]])
    assert set(filled[name][1].tolist()) == {0 if name == 'segments_BxC' else PAD_ITEM}
