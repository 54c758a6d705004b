"""Preparation of raw events, compared with one in plain Python."""

import numpy as np
import polars as pl
import pytest

from letter_jax.configuration import PreparationConfig
from letter_jax.data.preparation import k_core, prepare
from letter_jax.system.errors import InputError


def table(rows):
  return pl.DataFrame(rows, {'user': pl.String, 'item': pl.String, 'timestamp': pl.Int64}, orient='row')


def random_events(seed, count=1500, users=120, items=90):
  random = np.random.default_rng(seed)
  return [
    (f'u{random.integers(users)}', f'i{int(items * random.random() ** 2)}', int(random.integers(0, 300)))
    for _ in range(count)
  ]


def prepare_in_python(rows, core, repeats):
  """{user: [(item, time)]}, by dicts and loops."""
  histories, seen = {}, set()
  for row in rows:
    if row not in seen:
      seen.add(row)
      histories.setdefault(row[0], []).append(row[1:])
  for user, history in histories.items():
    history.sort(key=lambda entry: entry[1])
    if repeats == 'drop':
      histories[user] = [entry for i, entry in enumerate(history) if i == 0 or entry[0] != history[i - 1][0]]
  while True:
    counts = {}
    for history in histories.values():
      for item, _ in history:
        counts[item] = counts.get(item, 0) + 1
    smaller = {
      user: [entry for entry in history if counts[entry[0]] >= core]
      for user, history in histories.items()
      if len(history) >= core
    }
    if smaller == histories:
      return histories
    histories = smaller


@pytest.mark.parametrize('core', [3, 5, 8])
@pytest.mark.parametrize('repeats', ['keep', 'drop'])
def test_gives_the_result_of_plain_python(core, repeats):
  rows = random_events(core)
  rows += rows[:40]  # twice
  expected = prepare_in_python(rows, core, repeats)
  prepared = prepare(table(rows), PreparationConfig(core=core, repeats=repeats))
  assert prepared.items.dtype == np.int32 and prepared.timestamps.dtype == prepared.offsets.dtype == np.int64
  assert prepared.user_names == sorted(expected) and len(expected) > 20
  assert prepared.item_names == sorted({item for history in expected.values() for item, _ in history})
  for user, name in enumerate(prepared.user_names):
    part = slice(prepared.offsets[user], prepared.offsets[user + 1])
    names = [prepared.item_names[item] for item in prepared.items[part]]
    assert list(zip(names, prepared.timestamps[part].tolist())) == expected[name]
  assert sum(prepared.dropped.values()) == len(rows) - len(prepared.items)
  assert prepared.dropped['duplicate'] >= 40


def test_events_with_the_same_timestamp_keep_the_order_of_the_source():
  rows = [('u', f'i{n}', 7) for n in (3, 1, 4, 2, 0)] + [('u', 'i5', 6)]
  prepared = prepare(table(rows), PreparationConfig(core=1))
  assert [prepared.item_names[item] for item in prepared.items] == ['i5', 'i3', 'i1', 'i4', 'i2', 'i0']


def test_the_core_is_a_fixed_point_of_many_passes():
  # A chain: each pass removes the ends that the previous pass exposed.
  length = 40
  user = np.repeat(np.arange(length), 2)
  item = np.stack([np.arange(length), np.arange(length) + 1], axis=1).reshape(-1)
  kept, rounds = k_core(user, item, 2)
  assert len(kept) == 0 and rounds > 10
  square_user, square_item = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
  kept, rounds = k_core(np.append(square_user, 2), np.append(square_item, 0), 2)
  assert kept.tolist() == [0, 1, 2, 3]


def test_events_outside_the_dates_are_dropped():
  day = 86400 * 10**6
  rows = [('u', f'i{n}', n * day) for n in range(10)]
  prepared = prepare(table(rows), PreparationConfig(core=1, since='1970-01-03', until='1970-01-07'))
  assert prepared.timestamps.tolist() == [2 * day, 3 * day, 4 * day, 5 * day]
  assert prepared.dropped['outside the dates'] == 6


def test_users_too_short_for_a_split_are_dropped_below_core_three():
  rows = [('a', f'i{n}', n) for n in range(3)] + [('b', 'i0', 0), ('b', 'i9', 1)]
  prepared = prepare(table(rows), PreparationConfig(core=1))
  assert prepared.user_names == ['a'] and prepared.item_names == ['i0', 'i1', 'i2']
  assert prepared.dropped['of users with fewer than 3 interactions'] == 2


@pytest.mark.parametrize('rows', [[], [('u', 'i', 1), ('u', 'j', 2)]])
def test_dropping_every_interaction_is_an_input_error(rows):
  said = 'no interaction is left .*; before it no time: 2 lines.*config.data.preparation.core than 5'
  with pytest.raises(InputError, match=said):
    prepare(table(rows), PreparationConfig(), 'no time: 2 lines, first a.csv:3')
