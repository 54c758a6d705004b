import json

import numpy as np
import pytest

from letter_jax.data import letter_format, splits, store
from letter_jax.system.errors import InputError

SEQUENCES = {'zoe': [0, 1, 2, 3], 'abe': [3, 2, 4], 'kim': [4, 0, 1, 2, 3]}


def write(folder, name, value):
  (folder / name).write_text(value if isinstance(value, str) else json.dumps(value), encoding='utf-8')
  return folder / name


def one_line(call, *parts):
  with pytest.raises(InputError) as caught:
    call()
  message = str(caught.value)
  assert '\n' not in message
  for part in parts:
    assert str(part) in message


def test_users_and_items_keep_the_order_of_the_file(tmp_path):
  write(tmp_path, 'Shop.inter.json', SEQUENCES)
  data = letter_format.read_dataset(tmp_path, 'Shop')
  assert data.name == 'Shop' and data.texts is None
  assert data.interactions.users == ('zoe', 'abe', 'kim')
  np.testing.assert_array_equal(data.interactions.items, [0, 1, 2, 3, 3, 2, 4, 4, 0, 1, 2, 3])
  np.testing.assert_array_equal(data.interactions.offsets, [0, 4, 7, 12])
  assert data.interactions.items.dtype == np.int32 and data.interactions.offsets.dtype == np.int64
  assert data.interactions.num_items == 5
  assert len(splits.training_examples(data.interactions, 20)) == 3 == data.summary()['training_examples']


def test_item_file_says_how_many_items_there_are_and_its_fields_are_optional(tmp_path):
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
  data = letter_format.read_dataset(tmp_path, '')
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
  one_line(lambda: letter_format.read_dataset(tmp_path, ''), tmp_path, 'A, B', 'config.data.name')
  one_line(lambda: letter_format.read_dataset(tmp_path, 'C'), 'C.inter.json', 'A, B')
  assert letter_format.read_dataset(tmp_path, 'B').name == 'B'


def test_missing_folder_and_file(tmp_path):
  one_line(lambda: letter_format.read_dataset(tmp_path / 'no', 'A'), tmp_path / 'no', 'config.data.path')
  one_line(lambda: letter_format.read_dataset(tmp_path, 'A'), 'A.inter.json', 'does not exist')
  one_line(lambda: letter_format.read_dataset(tmp_path, ''), 'NAME.inter.json')
  one_line(lambda: letter_format.read_index(tmp_path / 'A.index.json', 3), 'A.index.json', 'does not exist')
  one_line(lambda: letter_format.read_embeddings(tmp_path / 'x.npy', 3, 'text embeddings'), 'x.npy', 'does not exist')
  one_line(lambda: letter_format.read_embeddings(tmp_path, 3, 'text embeddings'), 'is a folder')


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
def test_bad_interactions(tmp_path, content, parts):
  path = write(tmp_path, 'A.inter.json', content)
  one_line(lambda: letter_format.read_dataset(tmp_path, 'A'), path, *parts)


def test_bytes_that_are_not_utf8(tmp_path):
  (tmp_path / 'A.inter.json').write_bytes(b'{"\xff": [0, 1, 2]}')
  one_line(lambda: letter_format.read_dataset(tmp_path, 'A'), 'A.inter.json', 'UTF-8')


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
def test_bad_items(tmp_path, items, parts):
  write(tmp_path, 'A.inter.json', {'a': [0, 1, 3]})
  write(tmp_path, 'A.item.json', items)
  one_line(lambda: letter_format.read_dataset(tmp_path, 'A'), *parts)


def test_index_round_trip(tmp_path):
  codes_NxL = np.random.default_rng(0).integers(0, 256, (50, 4), dtype=np.int32)
  letter_format.write_index(tmp_path / 'index.json', codes_NxL)
  table = json.loads((tmp_path / 'index.json').read_text())
  assert list(table) == [str(item) for item in range(50)]
  assert table['7'] == [f'<{letter}_{code}>' for letter, code in zip('abcd', codes_NxL[7])]
  read_NxL = letter_format.read_index(tmp_path / 'index.json', 50)
  assert read_NxL.dtype == np.int32
  np.testing.assert_array_equal(read_NxL, codes_NxL)


def test_index_with_more_levels_than_letters(tmp_path):
  assert [letter_format.level_letter(level) for level in (0, 25, 26, 27, 51, 52, 701, 702)] == [
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
  letter_format.write_index(tmp_path / 'index.json', codes_NxL)
  np.testing.assert_array_equal(letter_format.read_index(tmp_path / 'index.json', 2), codes_NxL)


def test_index_items_may_come_in_any_order(tmp_path):
  path = write(tmp_path, 'index.json', {'1': ['<a_1>', '<b_5>'], '0': ['<a_0>', '<b_7>']})
  np.testing.assert_array_equal(letter_format.read_index(path, 2), [[0, 7], [1, 5]])


@pytest.mark.parametrize(
  'change, parts',
  [
    ({'1': None}, ('item 1', 'null', 'list of tokens')),
    ({'1': []}, ('item 1', '[]', 'list of tokens')),
    ({'1': ['<a_1>']}, ('item 1', '1 tokens', 'item 0 has 2')),
    ({'1': ['<a_1>', '<b_1>', '<c_1>']}, ('item 1', '3 tokens', 'item 0 has 2')),
    ({'1': ['<a_1>', 'b_1']}, ('item 1', '"b_1"', 'level 1', '<b_CODE>')),
    ({'1': ['<a_1>', '<b_1> ']}, ('item 1', '<b_CODE>')),
    ({'1': ['<a_1>', '<b_-1>']}, ('item 1', '"<b_-1>"', '<b_CODE>')),
    ({'1': ['<a_1>', '<b_x>']}, ('item 1', '"<b_x>"', '<b_CODE>')),
    ({'1': ['<a_1>', 5]}, ('item 1', '5', '<b_CODE>')),
    ({'1': ['<a_1>', '<a_1>']}, ('item 1', '"<a_1>"', 'level 1', '<b_CODE>')),
    ({'1': ['<a_1>', '<b_9999999>']}, ('item 1', '"<b_9999999>"', letter_format.MAX_CODE)),
    ({'3': ['<a_1>', '<b_1>']}, ('item 3', '3 items, 0 to 2')),
    ({'x': ['<a_1>', '<b_1>']}, ('"x"', 'not an integer')),
  ],
)
def test_bad_index(tmp_path, change, parts):
  path = write(tmp_path, 'A.index.json', {str(item): [f'<a_{item}>', '<b_0>'] for item in range(3)} | change)
  one_line(lambda: letter_format.read_index(path, 3), path, *parts)


def test_index_with_missing_items(tmp_path):
  path = write(tmp_path, 'A.index.json', {'0': ['<a_1>'], '2': ['<a_1>'], '5': ['<a_1>']})
  one_line(lambda: letter_format.read_index(path, 4), path, 'item 1 is missing (2 in all)', '0 to 3')
  one_line(lambda: letter_format.read_index(write(tmp_path, 'B.index.json', '{"0": ["<a_1>"'), 1), 'not JSON')


@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64, '>f4'])
def test_embeddings_of_any_float_dtype(tmp_path, dtype):
  rows_NxD = np.random.default_rng(0).standard_normal((5, 3)).astype(dtype)
  np.save(tmp_path / 'rows.npy', np.asfortranarray(rows_NxD))
  read_NxD = letter_format.read_embeddings(tmp_path / 'rows.npy', 5, 'text embeddings')
  assert read_NxD.dtype == np.float32 and read_NxD.flags.c_contiguous
  np.testing.assert_array_equal(read_NxD, rows_NxD.astype(np.float32))


@pytest.mark.parametrize(
  'rows, parts',
  [
    (np.zeros((4, 3)), ('4 rows', '5 items')),
    (np.zeros((6, 3)), ('6 rows', '5 items')),
    (np.zeros(5), ('shape [5]', '5 items')),
    (np.zeros((5, 0)), ('shape [5, 0]',)),
    (np.zeros((5, 3, 1)), ('shape [5, 3, 1]',)),
    (np.zeros((5, 3), int), ('int64', 'float32')),
    (np.where(np.arange(15).reshape(5, 3) == 7, np.nan, 0), ('nan in row 2, column 1', '1 such')),
    (np.where(np.arange(15).reshape(5, 3) > 8, np.inf, 0), ('inf in row 3, column 0', '2 such')),
    (np.where(np.arange(15).reshape(5, 3) == 0, 1e300, 0), ('1e+300 in row 0', 'float32')),
  ],
)
def test_bad_embeddings(tmp_path, rows, parts):
  np.save(tmp_path / 'rows.npy', rows)
  one_line(lambda: letter_format.read_embeddings(tmp_path / 'rows.npy', 5, 'CF rows'), 'rows.npy', 'CF rows', *parts)


def test_embeddings_that_are_no_npy_file(tmp_path):
  read = lambda name: lambda: letter_format.read_embeddings(tmp_path / name, 5, 'text embeddings')
  np.save(tmp_path / 'pickled.npy', np.array([{}, None], dtype=object), allow_pickle=True)
  one_line(read('pickled.npy'), 'pickled.npy', 'cannot be read')
  np.save(tmp_path / 'whole.npy', np.zeros((5, 3)))
  (tmp_path / 'half.npy').write_bytes((tmp_path / 'whole.npy').read_bytes()[:-20])
  one_line(read('half.npy'), 'half.npy', 'cannot be read')
  for name, content in ('empty.npy', b''), ('text.npy', b'hello'), ('head.npy', b'\x93NUMPY\x01\x00'):
    (tmp_path / name).write_bytes(content)
    one_line(read(name), name, 'cannot be read')
  np.savez(tmp_path / 'many.npz', a=np.zeros(3))
  one_line(read('many.npz'), 'many.npz', 'archive')
