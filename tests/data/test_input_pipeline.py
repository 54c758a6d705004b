"""Batches of a training, in memory and streamed, of one process and of several."""

import functools
import gc
import weakref

import grain
import numpy as np
import pytest

from letter_jax.data import packing, splits, store
from letter_jax.data.dataset import Dataset
from letter_jax.data.input_pipeline import Batching, PackedEpochs
from letter_jax.data.splits import PAD_ITEM
from letter_jax.system.errors import InputError
from tests.data.test_packing import realistic_lengths, spelled_out, unpacked
from tests.small_data import numbered_interactions

USERS = 300


@pytest.fixture(scope='module')
def interactions():
  return numbered_interactions(realistic_lengths(USERS))


@pytest.fixture(scope='module')
def directory(interactions, tmp_path_factory):
  directory = tmp_path_factory.mktemp('dataset')
  store.save(Dataset('numbered', interactions, None), directory)
  return directory


def epochs_of(data, process=0, processes=1, batch_size=64, **changes):
  arguments = dict(batch_size=batch_size, devices=2 * processes, seed=3, epochs=4, part=process, parts=processes)
  make_examples = functools.partial(splits.training_examples, history_length=20)
  return PackedEpochs(data, make_examples, 24, Batching(**{**arguments, **changes}))


def examples_in(batches):
  return [entry for batch in batches for entry in unpacked(batch)]


def epoch(batches, number):
  return [batches[number * batches.per_epoch + index] for index in range(batches.per_epoch)]


def everything(interactions):
  return sorted(spelled_out(splits.training_examples(interactions, 20)))


def test_a_stream_has_recent_and_whole_histories(interactions, directory):
  stream = store.StreamedInteractions(directory, 77, keep=5)
  whole, recent = stream.whole(), stream.recent()
  np.testing.assert_array_equal(whole.items, interactions.items)
  np.testing.assert_array_equal(whole.offsets, interactions.offsets)
  np.testing.assert_array_equal(recent.lengths, np.minimum(interactions.lengths, 5))
  examples = splits.test_examples(whole, 20)
  np.testing.assert_array_equal(examples.whole_histories(whole).lengths, interactions.lengths - 1)


@pytest.mark.parametrize('window_users', [1000, 100, 77, 7])
def test_a_streamed_epoch_has_every_example_once(interactions, directory, window_users):
  batches = epochs_of(store.StreamedInteractions(directory, window_users, 22))
  first, second = (epoch(batches, number) for number in (0, 1))
  assert sorted(examples_in(first)) == sorted(examples_in(second)) == everything(interactions)
  assert examples_in(first) != examples_in(second)
  assert batches.examples == len(everything(interactions)) and len(batches) == 4 * batches.per_epoch
  shapes = {tuple(leaf.shape for leaf in batch.values()) for batch in first + second}
  assert len(shapes) == 1


def test_windows_come_in_a_different_order_every_epoch(directory):
  data = store.StreamedInteractions(directory, 50, 22)
  window_of_item = {int(item): window for window in range(data.num_windows) for item in data.window(window).items}
  batches = epochs_of(data)
  orders = []
  for number in range(4):
    seen = [window_of_item[history[0]] for history, _ in examples_in(epoch(batches, number))]
    orders.append(tuple(dict.fromkeys(seen)))
    assert len(orders[-1]) == data.num_windows and seen == sorted(seen, key=orders[-1].index)
  assert len(set(orders)) == 4


@pytest.mark.parametrize('processes, devices, micro_batches', [(2, 2, 1), (4, 8, 1), (2, 8, 3), (1, 16, 2)])
def test_a_batch_does_not_depend_on_processes_and_devices(interactions, processes, devices, micro_batches):
  whole = epochs_of(interactions, devices=1, accumulation_steps=micro_batches)
  parts = [
    epochs_of(interactions, process, processes, devices=devices, accumulation_steps=micro_batches)
    for process in range(processes)
  ]
  assert all((part.per_epoch, part.rows) == (whole.per_epoch, whole.rows) for part in parts)
  by_micro_batch = lambda leaf: leaf if micro_batches > 1 else leaf[None]
  for step in (0, 3, whole.per_epoch - 1, whole.per_epoch + 1):
    for name, leaf in whole[step].items():
      joined = np.concatenate([by_micro_batch(part[step][name]) for part in parts], axis=1)
      alone = by_micro_batch(leaf)
      assert len(joined) == micro_batches and joined.shape[1] % devices == 0
      np.testing.assert_array_equal(joined[:, : alone.shape[1]], alone)
      assert (joined[:, alone.shape[1] :] == (0 if name == 'segments_BxC' else PAD_ITEM)).all()


@pytest.mark.parametrize('window_users', [1000, 60])
def test_processes_read_their_share_of_a_stream(interactions, directory, window_users, monkeypatch):
  read = {0: set(), 1: set(), 2: set()}

  def of_process(process):
    data = store.StreamedInteractions(directory, window_users, 22, process, 3)
    whole_window = data.window
    monkeypatch.setattr(
      data, 'window', lambda window: read[process].update(whole_window(window).users) or whole_window(window)
    )
    return epochs_of(data, process, 3)

  parts = [of_process(process) for process in range(3)]
  assert len({part.per_epoch for part in parts}) == len({part.rows for part in parts}) == 1
  found = [examples_in(epoch(part, 1)) for part in parts]
  assert sorted(sum(found, [])) == everything(interactions)
  rows = {batch['items_BxC'].shape[0] for part in parts for batch in epoch(part, 0)}
  assert rows == {-(-parts[0].rows // 6) * 2}  # of 3 processes, each with 2 devices
  assert not read[0] & read[1] and not read[1] & read[2] and len(read[0] | read[1] | read[2]) == USERS
  assert max(map(len, read.values())) < 0.4 * USERS


def test_no_more_than_two_windows_are_in_memory(directory, monkeypatch):
  data = store.StreamedInteractions(directory, 60, 22)
  alive, read = weakref.WeakSet(), []
  make = packing.PackedBatches
  monkeypatch.setattr(packing, 'PackedBatches', lambda *arguments: alive.add(made := make(*arguments)) or made)
  read_window = data.window
  monkeypatch.setattr(data, 'window', lambda window: read.append(window) or read_window(window))
  batches = epochs_of(data)
  gc.disable()  # what only the collector would free is too much already
  try:
    for step in range(len(batches)):
      batches[step]
      assert len(alive) <= 3  # the third may be on its way in another thread
  finally:
    gc.enable()
  changes = sum(1 for a, b in zip(read, read[1:]) if a != b)
  assert len(read) == changes + 1 and len(read) <= 4 * data.num_windows  # none twice in a row, none past the end


def test_what_is_in_memory_is_packed_once(interactions, monkeypatch):
  made = []
  make = packing.PackedBatches
  monkeypatch.setattr(packing, 'PackedBatches', lambda *arguments: made.append(1) or make(*arguments))
  batches = epochs_of(interactions)
  for step in range(len(batches)):
    batches[step]
  assert len(made) == 1


def test_a_batch_follows_from_its_step_alone(directory):
  data = store.StreamedInteractions(directory, 60, 22)
  batches, again = epochs_of(data), epochs_of(data)
  steps = [0, len(batches) - 1, 5, batches.per_epoch, 1]
  first = {step: batches[step] for step in steps}
  for step in reversed(steps):
    for name, leaf in again[step].items():
      np.testing.assert_array_equal(leaf, first[step][name])


@pytest.mark.parametrize('threads', [1, 3])
def test_grain_gives_the_same_batches_and_resumes_where_it_was(directory, threads):
  batches = epochs_of(store.StreamedInteractions(directory, 60, 22))
  options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=5)
  iterator = iter(batches.dataset().to_iter_dataset(options))
  for step in range(batches.per_epoch + 2):
    np.testing.assert_array_equal(next(iterator)['items_BxC'], batches[step]['items_BxC'])
  state = iterator.get_state()
  expected = [batch['targets_BxS'] for batch in iterator]
  assert len(expected) == len(batches) - batches.per_epoch - 2
  resumed = iter(batches.dataset().to_iter_dataset(options))
  resumed.set_state(state)
  for batch, targets in zip(resumed, expected, strict=True):
    np.testing.assert_array_equal(batch['targets_BxS'], targets)


def test_seeds_shuffle(interactions):
  one, other = epochs_of(interactions), epochs_of(interactions, seed=4)
  assert not np.array_equal(one[0]['items_BxC'], other[0]['items_BxC'])


def test_the_recent_interactions_are_those_of_validation_and_test(interactions, directory):
  recent = store.StreamedInteractions(directory, 60, 7).recent()
  assert recent.users == interactions.users and recent.lengths.max() == 7
  for of_split in (splits.validation_examples, splits.test_examples):
    ours, expected = of_split(recent, 5), of_split(interactions, 5)
    assert spelled_out(ours) == spelled_out(expected)
  assert (ours.histories(5) != PAD_ITEM).any()


def test_users_without_examples_are_refused():
  with pytest.raises(InputError, match='no user has more than 3 interactions'):
    epochs_of(numbered_interactions([3, 3, 3]))


def test_windows_without_examples_are_skipped(tmp_path):
  data = numbered_interactions([3] * 20 + [9])
  store.save(Dataset('sparse', data, None), tmp_path)
  batches = epochs_of(store.StreamedInteractions(tmp_path, 2, 22), batch_size=4)
  assert sorted(examples_in(epoch(batches, 0))) == everything(data)
