"""Files of a workdir."""

import os
import stat

import numpy as np
import pytest
import safetensors.numpy

from letter_jax.system import artifacts


@pytest.fixture(params=[0o022, 0o027, 0o002, 0o077])
def umask(request):
  before = os.umask(request.param)
  yield request.param
  os.umask(before)


def test_all_files_have_the_mode_of_the_umask(tmp_path, umask):
  arrays = {'x': np.zeros(2, np.float32)}
  artifacts.write_json(tmp_path / 'x.json', {})
  artifacts.write_npy(tmp_path / 'x.npy', arrays['x'])
  artifacts.write_npz(tmp_path / 'x.npz', arrays)
  for _ in range(2):
    artifacts.write(tmp_path / 'x.safetensors', lambda path: safetensors.numpy.save_file(arrays, str(path)))
  (tmp_path / '.left.partial').touch(0o600)  # of a killed attempt
  artifacts.write(tmp_path / 'left', lambda path: path.write_text('new'))
  modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
  assert len(modes) == 5 and set(modes.values()) == {0o666 & ~umask}, modes
