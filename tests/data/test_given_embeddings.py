import numpy as np
import pytest

from letter_jax.data import given_embeddings
from tests.data.json_input import one_line


@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64, '>f4'])
def test_embeddings_of_any_float_dtype(tmp_path, dtype):
  rows_NxD = np.random.default_rng(0).standard_normal((5, 3)).astype(dtype)
  np.save(tmp_path / 'rows.npy', np.asfortranarray(rows_NxD))
  read_NxD = given_embeddings.read_embeddings(tmp_path / 'rows.npy', 5, 'text embeddings')
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
def test_invalid_embeddings(tmp_path, rows, parts):
  np.save(tmp_path / 'rows.npy', rows)
  one_line(lambda: given_embeddings.read_embeddings(tmp_path / 'rows.npy', 5, 'CF rows'), 'rows.npy', 'CF rows', *parts)


def test_files_that_are_not_npy_arrays(tmp_path):
  read = lambda name: lambda: given_embeddings.read_embeddings(tmp_path / name, 5, 'text embeddings')
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


def test_a_missing_file_and_a_folder(tmp_path):
  one_line(
    lambda: given_embeddings.read_embeddings(tmp_path / 'x.npy', 3, 'text embeddings'), 'x.npy', 'does not exist'
  )
  one_line(lambda: given_embeddings.read_embeddings(tmp_path, 3, 'text embeddings'), 'is a folder')
