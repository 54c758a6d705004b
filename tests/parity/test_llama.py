import numpy as np
import pytest

from tests.parity import llama
from tests.paths import GOLDEN

pytestmark = pytest.mark.slow

FILES = ('llama_reference.npz', 'qwen3_reference.npz')


@pytest.mark.parametrize('file', FILES)
def test_the_reference_numbers_hold(capsys, file):
  assert llama.main(str(GOLDEN / file)) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[-1] == 'all hold'
  with np.load(GOLDEN / file) as golden:
    compared = {'logits', 'packed_logits', 'cached_logits', 'loss', *(name for name in golden if 'grad/' in name)}
    assert {name.removeprefix('param/') for name in golden if 'param/' in name} == {
      name.removeprefix('grad/') for name in compared if 'grad/' in name
    }
  errors = dict(line.split('  ') for line in lines[:-1])
  assert errors.keys() == compared
  assert all(0 <= float(error) <= 1e-4 for error in errors.values())


def test_numbers_that_do_not_hold_are_named(capsys, tmp_path):
  with np.load(GOLDEN / FILES[1]) as golden:
    changed = dict(golden)
  gradient = 'grad/model.layers.1.self_attn.k_norm.weight'
  changed.update(
    {'loss': changed['loss'] * (1 + 3e-5), gradient: changed[gradient] + 3e-4 * np.abs(changed[gradient]).max()}
  )
  np.savez(tmp_path / 'changed.npz', **changed)
  assert llama.main(str(tmp_path / 'changed.npz')) == 1
  lines = capsys.readouterr().out.splitlines()
  assert lines[-1] == f'FAILED: loss, {gradient}'


def test_another_scaling_of_positions_fails(capsys, tmp_path):
  with np.load(GOLDEN / FILES[0]) as golden:
    changed = dict(golden)
  config = str(changed['config']).replace('"low_freq_factor": 1.0', '"low_freq_factor": 0.5')
  np.savez(tmp_path / 'changed.npz', **{**changed, 'config': config})
  assert config != str(changed['config']) and llama.main(str(tmp_path / 'changed.npz')) == 1
  assert 'cached_logits' in capsys.readouterr().out.splitlines()[-1]
