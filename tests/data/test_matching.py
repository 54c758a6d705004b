"""Rows given from outside, matched to a catalogue by raw id or by position."""

import json

import numpy as np
import pytest

from letter_jax.data import matching
from letter_jax.system.errors import InputError
from tests.data.json_input import one_line

RAW_IDS = ('b', 'a,1', 'ö "x"', '7')
ROWS_NxD = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.fixture
def path(tmp_path):
  matching.write_rows(tmp_path / 'rows.npy', ROWS_NxD, RAW_IDS)
  return tmp_path / 'rows.npy'


def _read(path, raw_ids, num_items=None):
  return matching.read_rows(path, raw_ids, num_items or len(raw_ids), 'text embeddings')


def test_rows_in_a_different_order(path):
  rows_NxD, matched = _read(path, ('7', 'b', 'ö "x"', 'a,1'))
  assert matched and rows_NxD.dtype == np.float32
  np.testing.assert_array_equal(rows_NxD, ROWS_NxD[[3, 0, 2, 1]])


def test_ids_are_compared_in_their_normal_form(path):
  matching.ids_file(path).write_text(json.dumps([' b', 'a,1\u00a0', 'o\u0308 "x"', '7\n']))
  rows_NxD, matched = _read(path, ('7', 'b', 'ö "x"', 'a,1'))
  assert matched
  np.testing.assert_array_equal(rows_NxD, ROWS_NxD[[3, 0, 2, 1]])
  matching.ids_file(path).write_text(json.dumps(['b', 'a,1', 'ö "x"', ' b']))
  one_line(lambda: _read(path, ('b', 'a,1')), 'rows.ids.json', "id 'b' is listed more than once")


def test_rows_of_items_outside_the_catalogue_are_ignored(path):
  rows_NxD, matched = _read(path, ('a,1', '7'))
  assert matched
  np.testing.assert_array_equal(rows_NxD, ROWS_NxD[[1, 3]])


def test_an_item_without_a_row_is_named(path):
  parts = ('rows.ids.json', 'different catalogue', '1 of the 4 items', "'new'", "'b'", 'a row for every item')
  one_line(lambda: _read(path, ('b', 'a,1', 'new', '7')), *parts)


def test_few_of_many_missing_items_are_named(path):
  with pytest.raises(ValueError, match="5 of the 5 items .* such as 'n0', 'n1', 'n2' "):
    _read(path, tuple(f'n{item}' for item in range(5)))


def test_an_id_with_two_rows_is_named(path):
  matching.ids_file(path).write_text(json.dumps(['b', 'a,1', 'b', '7']))
  one_line(lambda: _read(path, ('b', 'a,1', '7')), 'rows.ids.json', "id 'b' is listed more than once")


def test_more_or_fewer_ids_than_rows(path):
  for ids in (RAW_IDS[:3], (*RAW_IDS, 'more')):
    matching.ids_file(path).write_text(json.dumps(ids))
    one_line(lambda: _read(path, RAW_IDS[:3]), 'rows.npy', '4 rows')


@pytest.mark.parametrize('content', ['', '["b", ', '[]', '{"b": 0}', '["b", 1, "c", "d"]', '"b"'])
def test_a_damaged_list_of_ids(path, content):
  matching.ids_file(path).write_text(content)
  one_line(lambda: _read(path, RAW_IDS), 'rows.ids.json', 'expected a JSON list with the raw id of every row')


def test_ids_that_are_not_utf_8(path):
  matching.ids_file(path).write_bytes(b'["\xff"]')
  one_line(lambda: _read(path, RAW_IDS), 'rows.ids.json cannot be read')


def test_rows_without_ids_are_taken_by_position(path):
  matching.ids_file(path).unlink()
  rows_NxD, matched = _read(path, RAW_IDS[::-1])
  assert not matched
  np.testing.assert_array_equal(rows_NxD, ROWS_NxD)
  one_line(lambda: _read(path, RAW_IDS[:3]), 'rows.npy', '4 rows', '3 items')


def test_rows_of_data_without_raw_ids_are_matched_by_position_and_their_number_must_fit(tmp_path):
  matching.write_rows(tmp_path / 'rows.npy', ROWS_NxD, None)
  rows_NxD, matched = matching.read_rows(tmp_path / 'rows.npy', None, 4, 'text embeddings')
  assert not matched
  np.testing.assert_array_equal(rows_NxD, ROWS_NxD)
  with pytest.raises(InputError, match='4 rows; expected one for each of the 3 items'):
    matching.read_rows(tmp_path / 'rows.npy', None, 3, 'text embeddings')


def test_rows_with_raw_ids_do_not_fit_data_without_them(tmp_path):
  matching.write_rows(tmp_path / 'rows.npy', ROWS_NxD, ('3', '2', '1', '0'))
  with pytest.raises(InputError, match="raw ids such as '3', and the items of the data have none"):
    matching.read_rows(tmp_path / 'rows.npy', None, 4, 'text embeddings')
