"""Looking items up: raw ids in every form, numbers, and what is said of those that are unknown."""

import numpy as np
import pytest

from letter_jax.data import left_out
from letter_jax.evaluation.first_purchases import FirstPurchases
from letter_jax.semantic_ids.ids import SemanticIds
from letter_jax.serving.catalogue import Catalogue
from letter_jax.system.errors import InputError
from tests.small_data import distinct_codes

RAW_IDS = ('7', '10', 'caf\u00e9', 'a b', '0017', '3')
LEFT_OUT = {
  'rare': left_out.outside_core(5),
  'r2': left_out.outside_core(5),
  'old': left_out.DATES,
  '88': left_out.SHORT,
}


def catalogue(raw_ids=RAW_IDS, own_ids=True):
  count = len(raw_ids)
  ids = SemanticIds(distinct_codes(count, 2, 8), 8)
  newcomers = FirstPurchases(np.zeros((2, count), np.int64))
  return Catalogue(raw_ids, ('',) * count, ids, count, own_ids, newcomers, lambda: LEFT_OUT)


@pytest.mark.parametrize(
  'item, index',
  [
    ('7', 0),
    (' 7\t', 0),
    (7, 0),
    (np.int64(10), 1),
    (3, 5),
    (0, None),  # no index
    (17, None),  # '0017' is another id
    ('0017', 4),
    ('cafe\u0301', 2),
    ('\u00a0caf\u00e9 ', 2),
    ('a b', 3),
    ('a  b', None),
    ('7.0', None),
    ('', None),
    (-7, None),
    (10**30, None),
  ],
)
def test_items_of_data_with_ids_of_its_own(item, index):
  assert catalogue().index_of(item) == index


def test_numbers_are_positions_where_the_data_has_no_ids():
  found = catalogue(tuple(map(str, range(6))), own_ids=False)
  assert [found.index_of(item) for item in (0, 5, 6, -1, '5', ' 5 ', '6')] == [0, 5, None, None, 5, 5, None]
  cold = found.extended(['new'], [''], np.array([[7, 7]], np.int32))
  assert cold.index_of(6) == cold.index_of('new ') == 6


@pytest.mark.parametrize('own_ids', [True, False])
@pytest.mark.parametrize('item', [True, np.True_, 1.0, None, b'7', [7]])
def test_what_is_no_item(item, own_ids):
  with pytest.raises(TypeError):
    catalogue(own_ids=own_ids).index_of(item)


def test_lists_of_allowed_and_denied_items():
  allowed_N = catalogue().allowed([' 7', 'cafe\u0301', 10, 'a b'], ['caf\u00e9 ', 10], False)
  assert np.flatnonzero(allowed_N).tolist() == [0, 3]


def test_where_most_ids_are_of_something_else_three_of_each_are_shown():
  with pytest.raises(InputError) as caught:
    catalogue().allowed(iter(['7.0', '10.0', '3.0', '0017', '4.0']), (), False)
  message = str(caught.value)
  assert "4 allowed items are unknown, the first is '7.0'" in message
  assert "such as '7.0', '10.0', '3.0'" in message and "'4.0'" not in message
  assert "the catalogue are such as '7', '10', 'caf\u00e9'" in message
  with pytest.raises(InputError, match="no item is allowed; they are such as '7.0'"):
    catalogue().allowed(['7.0'], (), True)
  with pytest.raises(InputError) as caught:
    catalogue().allowed(['7', '10', '4.0'], (), False)
  assert 'such as' not in str(caught.value).partition(';')[0]


def test_unknown_items_that_the_raw_data_has_are_told_why():
  with pytest.raises(InputError) as caught:
    catalogue().allowed(['7', 'old', 'rare ', 'r2', 88], (), False)
  message = str(caught.value)
  assert '2 of them left out by the 5-core: --config.data.preparation.core, or --cold_items' in message
  assert '1 of them left out by the dates: --config.data.preparation.since and until, or --cold_items' in message
  assert '1 of them left out with all users with fewer than 3 interactions: --cold_items' in message
  assert 'the ids of the catalogue' not in message  # these ids are of this data
