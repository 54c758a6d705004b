import numpy as np
import pytest

from letter_jax.data import letter_format, splits, store
from tests.data.json_input import one_line, write

SEQUENCES = {'zoe': [0, 1, 2, 3], 'abe': [3, 2, 4], 'kim': [4, 0, 1, 2, 3]}


def test_users_and_items_keep_the_order_of_the_file(tmp_path):
  write(tmp_path, 'Shop.inter.json', SEQUENCES)
  data = letter_format.read_letter_folder(tmp_path, 'Shop')
  assert data.name == 'Shop' and data.texts is None
  assert data.interactions.users == ('zoe', 'abe', 'kim')
  np.testing.assert_array_equal(data.interactions.items, [0, 1, 2, 3, 3, 2, 4, 4, 0, 1, 2, 3])
  np.testing.assert_array_equal(data.interactions.offsets, [0, 4, 7, 12])
  assert data.interactions.items.dtype == np.int32 and data.interactions.offsets.dtype == np.int64
  assert data.interactions.num_items == 5
  assert len(splits.training_examples(data.interactions, 20)) == 3 == data.summary()['training_examples']


def test_the_item_file_sets_the_number_of_items_and_its_fields_are_optional(tmp_path):
  write(tmp_path, 'Shop.inter.json', SEQUENCES)
  write(
    tmp_path,
    'Shop.item.json',
    {
      '6': {'title': 'last', 'asin': 'B00'},
      '0': {'title': ' Hot\n Stuff ', 'brand': None, 'description': ['a', 'b']},
      '1': {'categories': ['Tapes, Glue', 'Glue']},
      '2': {'categories': 'Industrial,Tapes, Glue,Glue'},
      '3': {'categories': 'Beauty, Nails'},
      '4': {},
      '5': {'title': 'half an emoji \ud83d'},
    },
  )
  data = letter_format.read_letter_folder(tmp_path, '')
  assert data.name == 'Shop' and data.interactions.num_items == 7 == len(data.texts)
  assert data.texts[0] == {'title': 'Hot Stuff', 'brand': '', 'categories': '', 'description': 'a b'}
  assert [data.texts[item]['categories'] for item in (1, 2, 3)] == [
    'Tapes, Glue > Glue',
    'Industrial > Tapes, Glue > Glue',
    'Beauty > Nails',
  ]
  assert data.texts[6]['title'] == 'last'
  store.save(data, tmp_path / 'saved')


def test_a_folder_with_two_data_sets_needs_a_name(tmp_path):
  write(tmp_path, 'A.inter.json', SEQUENCES)
  write(tmp_path, 'B.inter.json', SEQUENCES)
  one_line(lambda: letter_format.read_letter_folder(tmp_path, ''), tmp_path, 'A, B', 'config.data.name')
  one_line(lambda: letter_format.read_letter_folder(tmp_path, 'C'), 'C.inter.json', 'A, B')
  assert letter_format.read_letter_folder(tmp_path, 'B').name == 'B'


def test_missing_folder_and_file(tmp_path):
  one_line(lambda: letter_format.read_letter_folder(tmp_path / 'no', 'A'), tmp_path / 'no', 'config.data.path')
  one_line(lambda: letter_format.read_letter_folder(tmp_path, 'A'), 'A.inter.json', 'does not exist')
  one_line(lambda: letter_format.read_letter_folder(tmp_path, ''), 'NAME.inter.json')


@pytest.mark.parametrize(
  'content, parts',
  [
    ('{"a": [1, 2, 3],\n "b": [1, 2', ('not JSON', 'line 2')),
    ('', ('not JSON', 'line 1')),
    ([[1, 2, 3]], ('list', 'object')),
    ({}, ('no users',)),
    ({'a': [0, 1, 2], 'b': [0, 1]}, ('"b"', '2 items', 'at least 3')),
    ({'a': []}, ('"a"', '0 items')),
    ({'a': [0, 1, 2], 'b\nc': 'xyz'}, ('"b c"', '"xyz"', 'list')),
    ({'a': [0, 1, 2], 'b': [0, 1.0, 2]}, ('"b"', '1.0', 'position 1', 'integer')),
    ({'a': [0, True, 2]}, ('"a"', 'true', 'integer')),
    ({'a': [0, '1', 2]}, ('"a"', '"1"', 'integer')),
    ({'a': [0, None, 2]}, ('"a"', 'null', 'integer')),
    ({'a': [0, [1], 2]}, ('"a"', '[1]', 'integer')),
    ({'a': [0, 1, 2], 'b': [2, 1, -1]}, ('"b"', '-1', 'position 2')),
    ({'a': [0, 1, 10**12]}, ('"a"', 10**12, 'NAME.item.json')),
    ('{"a": [0, 1, 2], "a": [2, 1, 0]}', ('"a"', 'twice')),
    ('{"a": ' + '[' * 100_000 + ']' * 100_000 + '}', ('cannot be read',)),
  ],
)
def test_invalid_interactions(tmp_path, content, parts):
  path = write(tmp_path, 'A.inter.json', content)
  one_line(lambda: letter_format.read_letter_folder(tmp_path, 'A'), path, *parts)


def test_bytes_that_are_not_utf8(tmp_path):
  (tmp_path / 'A.inter.json').write_bytes(b'{"\xff": [0, 1, 2]}')
  one_line(lambda: letter_format.read_letter_folder(tmp_path, 'A'), 'A.inter.json', 'UTF-8')


@pytest.mark.parametrize(
  'items, parts',
  [
    ({'0': {}, '1': {}, '2': {}}, ('A.inter.json', '"a"', 'item id 3', '0 to 2', 'A.item.json')),
    ({'0': {}, '1': {}, '3': {}}, ('A.item.json', 'item 2 is missing', '0 to 2')),
    ({'0': {}, '1': {}, 'x2': {}}, ('A.item.json', '"x2"', 'not an integer')),
    ({'0': {}, '1': {}, '02': {}}, ('A.item.json', '"02"', 'not an integer')),
    ({'0': {}, '1': {}, '-2': {}}, ('A.item.json', '"-2"', 'not an integer')),
    ({'0': {}, '1': [], '2': {}, '3': {}}, ('A.item.json', 'item 1', '[]', 'object')),
    ({'0': {}, '1': {}, '2': {'title': 7}, '3': {}}, ('A.item.json', 'item 2', 'title', '7', 'string')),
    ({'0': {}, '1': {'categories': [1]}, '2': {}, '3': {}}, ('A.item.json', 'item 1', 'categories', '[1]')),
    ({}, ('A.item.json', 'no items')),
    ([], ('A.item.json', 'list', 'object')),
  ],
)
def test_invalid_items(tmp_path, items, parts):
  write(tmp_path, 'A.inter.json', {'a': [0, 1, 3]})
  write(tmp_path, 'A.item.json', items)
  one_line(lambda: letter_format.read_letter_folder(tmp_path, 'A'), *parts)
