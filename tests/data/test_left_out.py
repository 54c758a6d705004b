"""Users and items that the preparation leaves out: counted by step, kept by name, and told how to come back."""

import numpy as np
import polars as pl
import pytest

from letter_jax.configuration import PreparationConfig
from letter_jax.data import left_out, store
from letter_jax.data.dataset import Dataset, Interactions
from letter_jax.data.preparation import prepare
from letter_jax.system.errors import InputError
from letter_jax.workdir import Workdir

DAY = 86400 * 10**6  # microseconds


def prepared(rows, **settings):
  schema = {'user': pl.String, 'item': pl.String, 'timestamp': pl.Int64}
  return prepare(pl.DataFrame(rows, schema, orient='row'), PreparationConfig(**settings))


def test_each_user_and_item_is_left_out_by_the_step_that_drops_its_last_event():
  rows = [(user, item, 3 * DAY) for user in ('a', 'b', 'c') for item in ('i', 'j', 'k')]
  rows += [('a', 'old', DAY), ('gone', 'old', DAY), ('gone', 'i', DAY)]  # before the dates
  rows += [('a', 'rare', 4 * DAY), ('few', 'i', 4 * DAY), ('few', 'rare', DAY)]
  found = prepared(rows, core=3, since='1970-01-03')
  assert (found.raw_users, found.raw_items) == (5, 5)
  assert found.user_names == ['a', 'b', 'c'] and found.item_names == ['i', 'j', 'k']
  assert found.left_out_items == {left_out.DATES: ['old'], 'outside the 3-core': ['rare']}
  assert found.left_out() == {left_out.DATES: {'users': 1, 'items': 1}, 'outside the 3-core': {'users': 1, 'items': 1}}


def test_users_too_short_for_a_split_take_their_items_along():
  rows = [('a', f'i{n}', n) for n in range(3)] + [('b', 'i0', 0), ('b', 'i9', 1)]
  found = prepared(rows, core=1)
  assert found.left_out_items == {left_out.DATES: [], 'outside the 1-core': [], left_out.SHORT: ['i9']}
  assert found.left_out()[left_out.SHORT] == {'users': 1, 'items': 1}


@pytest.mark.parametrize('seed', range(4))
def test_nobody_is_lost_or_counted_twice(seed):
  random = np.random.default_rng(seed)
  rows = [
    (f'u{random.integers(60)}', f'i{int(50 * random.random() ** 3)}', int(random.integers(20)) * DAY)
    for _ in range(400)
  ]
  found = prepared(rows, core=2 + 2 * (seed % 2), since='1970-01-04', repeats='drop')
  gone = [item for of_step in found.left_out_items.values() for item in of_step]
  assert sorted([*gone, *found.item_names]) == sorted({item for _, item, _ in rows})
  users_gone = sum(of_step['users'] for of_step in found.left_out().values())
  assert users_gone + len(found.user_names) == found.raw_users == len({user for user, _, _ in rows})
  assert gone and users_gone


def test_the_summary_in_words():
  steps = {left_out.DATES: {'users': 0, 'items': 0}, 'outside the 5-core': {'users': 1200, 'items': 30}}
  summary = {'preparation': {'raw_users': 4000, 'raw_items': 60, 'left_out': steps}}
  assert left_out.in_words(summary) == ['1,200 of 4,000 users and 30 of 60 items left out (outside the 5-core)']
  for without in ({}, {'preparation': None}, {'preparation': {'dropped': {}}}):
    assert left_out.in_words(without) == []


def test_the_way_back():
  core = left_out.way_back(left_out.outside_core(5))
  assert core == 'left out by the 5-core: --config.data.preparation.core, or --cold_items'
  assert '--config.data.preparation.since and until' in left_out.way_back(left_out.DATES)
  assert left_out.way_back(left_out.SHORT) == 'left out with all users with fewer than 3 interactions: --cold_items'


NAMES = {'outside the 5-core': ('a,1', 'line\nid', '"q"', 'ünï'), left_out.SHORT: ('', 'x')}


def test_names_are_kept_with_the_data_set(tmp_path):
  interactions = Interactions(np.arange(3, dtype=np.int32), np.array([0, 3]), 3, ('u',))
  data = Dataset('shop', interactions, None, item_names=('p', 'q', 'r'), preparation={'raw_users': 1}, left_out=NAMES)
  workdir = Workdir(tmp_path / 'workdir')
  assert workdir.read_left_out() == {}
  store.save(data, workdir.dataset)
  assert workdir.read_left_out() == {item: step for step, items in NAMES.items() for item in items}
  store.adopt(workdir.dataset, tmp_path / 'adopted')
  assert left_out.read(tmp_path / 'adopted' / left_out.FILE) == workdir.read_left_out()
  store.save(Dataset('shop', interactions, None), workdir.dataset)  # of a source without a preparation
  assert workdir.read_left_out() == {}


@pytest.mark.parametrize('content', [b'', b'item\nx\n', b'id,left_out\nx\n', b'id,left_out\n\xff,y\n'])
def test_a_damaged_table(tmp_path, content):
  (tmp_path / left_out.FILE).write_bytes(content)
  with pytest.raises(InputError, match=f'{left_out.FILE} cannot be read'):
    left_out.read(tmp_path / left_out.FILE)


def test_the_table_keeps_every_raw_id(tmp_path):
  ids = ['plain', 'a\rb', 'a\nb', 'a"b', 'a,b', ' b']
  path = tmp_path / left_out.FILE
  path.write_text(left_out.table({left_out.DATES: ids}), encoding='utf-8', newline='')
  assert left_out.read(path) == dict.fromkeys(ids, left_out.DATES)
