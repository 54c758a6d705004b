"""Semantic IDs: their checks, the table on disk, and IDs given from outside."""

import numpy as np
import pytest

from letter_jax.data import index_format
from letter_jax.semantic_ids import table
from letter_jax.semantic_ids.ids import SemanticIds, read_given
from letter_jax.semantic_ids.item_trie import ItemTrie
from letter_jax.system.errors import InputError
from tests.data.json_input import one_line

CODES_NxL = np.array([[0, 3], [1, 2], [2, 2], [3, 0], [0, 1]], np.int32)
RAW_IDS = ('B00,X', 'say "hi"', 'Größe 😀', ' with spaces ', 'plain')


def _write_table(folder, raw_ids=RAW_IDS, codes_NxL=CODES_NxL):
  table.write(folder / table.TABLE, raw_ids, codes_NxL)
  return folder / table.TABLE


def test_shape_levels_and_dtype():
  ids = SemanticIds(CODES_NxL.astype(np.int64), 4)
  assert len(ids) == 5 and ids.levels == 2 and ids.codes_NxL.dtype == np.int32
  assert ids.vocabulary().size == 2 + 2 * 4 and ids.vocabulary(10).size == 10 + 2 * 4
  assert ids.trie is ids.trie and ids.trie.levels == 2


@pytest.mark.parametrize(
  'codes, codebook_size, parts',
  [
    (np.zeros(3, np.int32), 4, ('int32 [3]', 'expected integers [items, levels]')),
    (np.zeros((0, 2), np.int32), 4, ('int32 [0, 2]',)),
    (np.zeros((2, 0), np.int32), 4, ('int32 [2, 0]',)),
    (np.zeros((2, 2), np.float32), 4, ('float32 [2, 2]',)),
    (np.array([[0, 4]]), 4, ('codes from 0 to 4', 'expected 0 to 3')),
    (np.array([[-1, 3]]), 4, ('codes from -1 to 3', 'expected 0 to 3')),
  ],
)
def test_invalid_codes(codes, codebook_size, parts):
  one_line(lambda: SemanticIds(codes, codebook_size), *parts)


def test_the_table_keeps_raw_ids_of_any_kind(tmp_path):
  ids, codes_MxL = table.read(_write_table(tmp_path))
  assert tuple(ids) == RAW_IDS and codes_MxL.dtype == np.int32
  np.testing.assert_array_equal(codes_MxL, CODES_NxL)


@pytest.mark.parametrize(
  'content, parts',
  [
    ('', (':1',)),
    ('id\na\n', (':1', 'code_1, ..., code_L')),
    ('id,code_2\na,1\n', (':1', 'id,code_2')),
    ('item,code_1\na,1\n', (':1', 'item,code_1')),
    ('id,code_1,code_2\n', ('has no rows',)),
    ('id,code_1,code_2\na,1,2\nb,1\n', (':3', 'b,1')),
    ('id,code_1,code_2\na,1,2,3\n', (':2', 'a,1,2,3')),
    ('id,code_1,code_2\n,1,2\n', (':2', ',1,2')),
    ('id,code_1,code_2\na,1,x\n', (':2', 'a,1,x')),
    ('id,code_1,code_2\na,1,-2\n', (':2', 'a,1,-2')),
    ('id,code_1,code_2\na,1,1.5\n', (':2', 'a,1,1.5')),
    ('id,code_1\na,²\n', (':2', 'a,²')),
    (f'id,code_1\na,{index_format.MAX_CODE + 1}\n', (':2', f'from 0 to {index_format.MAX_CODE}')),
    ('id,code_1\n"a,1\n', ('cannot be read',)),
  ],
)
def test_malformed_tables(tmp_path, content, parts):
  path = tmp_path / table.TABLE
  path.write_text(content, encoding='utf-8')
  one_line(lambda: table.read(path), path.name, 'expected the columns id, code_1', *parts)


def test_a_table_that_is_missing_or_not_text(tmp_path):
  one_line(lambda: table.read(tmp_path / 'nowhere.csv'), 'nowhere.csv cannot be read')
  (tmp_path / 'bytes.csv').write_bytes(b'id,code_1\n\xff,1\n')
  one_line(lambda: table.read(tmp_path / 'bytes.csv'), 'bytes.csv cannot be read')


def test_a_table_is_matched_by_raw_id_in_any_order(tmp_path):
  path = _write_table(tmp_path)
  order = [3, 0, 4, 2, 1]
  ids, matched = read_given(path, [RAW_IDS[row] for row in order], 5)
  assert matched and ids.codebook_size == 4
  np.testing.assert_array_equal(ids.codes_NxL, CODES_NxL[order])


def test_rows_of_items_outside_the_catalogue_are_ignored(tmp_path):
  ids, matched = read_given(_write_table(tmp_path), (RAW_IDS[2], RAW_IDS[1]), 2)
  assert matched
  np.testing.assert_array_equal(ids.codes_NxL, CODES_NxL[[2, 1]])


def test_an_item_without_a_row_is_named(tmp_path):
  path = _write_table(tmp_path)
  one_line(
    lambda: read_given(path, (*RAW_IDS, 'new-1', 'new-2'), 7),
    path,
    'different catalogue',
    '2 of the 7 items',
    "'new-1'",
  )


def test_an_id_with_two_rows_is_named(tmp_path):
  with pytest.raises(InputError, match="the raw id 'a' stands twice"):
    _write_table(tmp_path, ('a', 'b', 'a', 'c', 'd'))
  path = _write_table(tmp_path, ('a', 'b', 'z', 'c', 'd'))
  path.write_text(path.read_text().replace('z', 'a'))
  one_line(lambda: read_given(path, ('a', 'b', 'c', 'd'), 4), path, "id 'a' is listed more than once")


def test_raw_ids_and_items_must_be_as_many(tmp_path):
  one_line(lambda: read_given(_write_table(tmp_path), RAW_IDS, 6), '5 raw ids for 6 items; expected one for each')


def test_raw_ids_of_other_items_are_not_written(tmp_path):
  with pytest.raises(InputError, match='2 raw ids for 5 semantic IDs; expected one for each'):
    _write_table(tmp_path, RAW_IDS[:2])
  assert not list(tmp_path.iterdir())


def test_a_table_without_raw_ids_is_matched_by_position_and_its_length_must_fit(tmp_path):
  SemanticIds(CODES_NxL, 4).write(tmp_path, None)
  for raw_ids in (None, RAW_IDS):
    ids, matched = read_given(tmp_path / 'semantic_ids.csv', raw_ids, 5)
    assert not matched
    np.testing.assert_array_equal(ids.codes_NxL, CODES_NxL)
  with pytest.raises(InputError, match='5 rows without raw ids; expected one for each of the 4 items'):
    read_given(tmp_path / 'index.json', None, 4)


def test_row_numbers_are_not_raw_ids(tmp_path):
  """The items of MovieLens are called 1, 2, ...: a table of positions does not fit them by name, nor the reverse."""
  SemanticIds(CODES_NxL, 4).write(tmp_path, None)
  with pytest.raises(InputError, match='expected one for each of the 4 items'):
    read_given(tmp_path / 'semantic_ids.csv', ('1', '2', '3', '4'), 4)
  path = _write_table(tmp_path, ('4', '3', '2', '1', '0'))
  with pytest.raises(InputError, match="raw ids such as '4', and the items of the data have none"):
    read_given(path, None, 5)


def test_plain_lists_are_semantic_ids_too():
  assert SemanticIds([[0, 1], [1, 0]], 2).codes_NxL.dtype == np.int32
  assert ItemTrie.build([[0, 1], [1, 0]]).num_leaves == 2
  with pytest.raises(InputError, match='must be integers'):
    ItemTrie.build([[0.5]])


def test_an_index_next_to_a_table_is_matched_by_raw_id(tmp_path):
  SemanticIds(CODES_NxL, 4).write(tmp_path, RAW_IDS)
  ids, matched = read_given(tmp_path / 'index.json', RAW_IDS[::-1], 5)
  assert matched
  np.testing.assert_array_equal(ids.codes_NxL, CODES_NxL[::-1])


def test_an_index_with_other_codes_than_the_table_next_to_it_is_refused(tmp_path):
  _write_table(tmp_path)
  index_format.write_index(tmp_path / 'index.json', CODES_NxL[::-1])
  one_line(lambda: read_given(tmp_path / 'index.json', RAW_IDS, 5), 'index.json', table.TABLE)


def test_the_codebook_size_is_given_or_the_smallest(tmp_path):
  ids = SemanticIds(np.array([[0, 1], [1, 0]]), 8)
  ids.write(tmp_path, ('a', 'b'))
  path = tmp_path / 'index.json'
  assert SemanticIds.read(path, ('a', 'b'), 2).codebook_size == 2
  assert SemanticIds.read(path, ('a', 'b'), 2, codebook_size=8).codebook_size == 8
  one_line(lambda: SemanticIds.read(path, ('a', 'b'), 2, codebook_size=1), 'has the code 1; expected codes below 1')


def test_an_index_alone_is_taken_by_position(tmp_path):
  index_format.write_index(tmp_path / 'index.json', CODES_NxL)
  ids, matched = read_given(tmp_path / 'index.json', RAW_IDS[::-1], 5)
  assert not matched
  np.testing.assert_array_equal(ids.codes_NxL, CODES_NxL)
  with pytest.raises(InputError, match='index.json'):
    read_given(tmp_path / 'index.json', RAW_IDS[:4], 4)
