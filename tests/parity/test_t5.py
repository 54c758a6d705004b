import numpy as np

from tests.parity import t5
from tests.paths import GOLDEN

T5_GOLDEN = GOLDEN / 't5_reference.npz'


def test_the_reference_numbers_hold(capsys):
  assert t5.main(str(T5_GOLDEN)) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[-1] == 'all hold'
  with np.load(T5_GOLDEN) as golden:
    inputs = {'input_ids', 'labels', 'codes', 'tokens', 'config', 'num_beams'}
    compared = {name for name in golden if name not in inputs and not name.startswith('param/')}
  errors = dict(line.split('  ') for line in lines[:-1])
  assert errors.keys() == compared
  assert all(0 <= float(error) <= 1e-4 for error in errors.values())


def test_numbers_that_do_not_hold_are_named(capsys, tmp_path):
  with np.load(T5_GOLDEN) as golden:
    changed = dict(golden)
  swapped = changed['beam_sequences'].copy()
  swapped[0, [0, 1]] = swapped[0, [1, 0]]
  gradient = 'grad/encoder.block.1.layer.0.SelfAttention.k.weight'
  changed.update(
    {
      'loss_tau07': changed['loss_tau07'] * (1 + 3e-5),
      'beam_sequences': swapped,
      gradient: changed[gradient] + 3e-4 * np.abs(changed[gradient]).max(),
      'item_log_likelihood': np.full_like(changed['item_log_likelihood'], np.nan),
      'logits': changed['logits'][:-1],
    }
  )
  np.savez(tmp_path / 'changed.npz', **changed)
  assert t5.main(str(tmp_path / 'changed.npz')) == 1
  lines = capsys.readouterr().out.splitlines()
  expected = ['logits', 'loss_tau07', gradient, 'beam_sequences', 'item_log_likelihood']
  assert lines[-1] == f'FAILED: {", ".join(expected)}'
  assert [line.split('  ')[0] for line in lines if line.endswith('TOO LARGE')] == expected
