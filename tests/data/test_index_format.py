import json

import numpy as np
import pytest

from letter_jax.data import index_format
from tests.data.json_input import one_line, write


def test_index_round_trip(tmp_path):
  codes_NxL = np.random.default_rng(0).integers(0, 256, (50, 4), dtype=np.int32)
  index_format.write_index(tmp_path / 'index.json', codes_NxL)
  table = json.loads((tmp_path / 'index.json').read_text())
  assert list(table) == [str(item) for item in range(50)]
  assert table['7'] == [f'<{letter}_{code}>' for letter, code in zip('abcd', codes_NxL[7])]
  read_NxL = index_format.read_index(tmp_path / 'index.json', 50)
  assert read_NxL.dtype == np.int32
  np.testing.assert_array_equal(read_NxL, codes_NxL)


def test_index_with_more_levels_than_letters(tmp_path):
  assert [index_format.level_letter(level) for level in (0, 25, 26, 27, 51, 52, 701, 702)] == [
    'a',
    'z',
    'aa',
    'ab',
    'az',
    'ba',
    'zz',
    'aaa',
  ]
  codes_NxL = np.arange(60).reshape(2, 30)
  index_format.write_index(tmp_path / 'index.json', codes_NxL)
  np.testing.assert_array_equal(index_format.read_index(tmp_path / 'index.json', 2), codes_NxL)


def test_index_items_may_come_in_any_order(tmp_path):
  path = write(tmp_path, 'index.json', {'1': ['<a_1>', '<b_5>'], '0': ['<a_0>', '<b_7>']})
  np.testing.assert_array_equal(index_format.read_index(path, 2), [[0, 7], [1, 5]])


@pytest.mark.parametrize(
  'change, parts',
  [
    ({'1': None}, ('item 1', 'null', 'list of tokens')),
    ({'1': []}, ('item 1', '[]', 'list of tokens')),
    ({'1': ['<a_1>']}, ('item 1', '1 token,', 'item 0 has 2')),
    ({'1': ['<a_1>', '<b_1>', '<c_1>']}, ('item 1', '3 tokens', 'item 0 has 2')),
    ({'1': ['<a_1>', 'b_1']}, ('item 1', '"b_1"', 'level 1', '<b_CODE>')),
    ({'1': ['<a_1>', '<b_1> ']}, ('item 1', '<b_CODE>')),
    ({'1': ['<a_1>', '<b_-1>']}, ('item 1', '"<b_-1>"', '<b_CODE>')),
    ({'1': ['<a_1>', '<b_x>']}, ('item 1', '"<b_x>"', '<b_CODE>')),
    ({'1': ['<a_1>', 5]}, ('item 1', '5', '<b_CODE>')),
    ({'1': ['<a_1>', '<a_1>']}, ('item 1', '"<a_1>"', 'level 1', '<b_CODE>')),
    ({'1': ['<a_1>', '<b_9999999>']}, ('item 1', '"<b_9999999>"', index_format.MAX_CODE)),
    ({'3': ['<a_1>', '<b_1>']}, ('item 3', '3 items, 0 to 2')),
    ({'x': ['<a_1>', '<b_1>']}, ('"x"', 'not an integer')),
  ],
)
def test_invalid_index(tmp_path, change, parts):
  path = write(tmp_path, 'A.index.json', {str(item): [f'<a_{item}>', '<b_0>'] for item in range(3)} | change)
  one_line(lambda: index_format.read_index(path, 3), path, *parts)


def test_index_with_missing_items(tmp_path):
  path = write(tmp_path, 'A.index.json', {'0': ['<a_1>'], '2': ['<a_1>'], '5': ['<a_1>']})
  one_line(lambda: index_format.read_index(path, 4), path, 'item 1 is missing (2 in all)', '0 to 3')
  one_line(lambda: index_format.read_index(write(tmp_path, 'B.index.json', '{"0": ["<a_1>"'), 1), 'not JSON')


def test_a_missing_index(tmp_path):
  one_line(lambda: index_format.read_index(tmp_path / 'A.index.json', 3), 'A.index.json', 'does not exist')
