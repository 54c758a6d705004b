import numpy as np

from tests.parity import rqvae
from tests.paths import GOLDEN

RQVAE_GOLDEN = GOLDEN / 'rqvae_reference.npz'
INPUTS = {
  'x',
  'item_index',
  'cf',
  'cluster_labels',
  'positives',
  'alpha',
  'beta',
  'mu',
  'sinkhorn_epsilon',
  'sinkhorn_iters',
  'sinkhorn_in',
}


def test_the_reference_numbers_hold(capsys):
  assert rqvae.main(str(RQVAE_GOLDEN)) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[-1] == 'all hold'
  with np.load(RQVAE_GOLDEN) as golden:
    compared = {name for name in golden if name not in INPUTS and not name.startswith('param/')}
  errors = dict(line.split('  ') for line in lines[:-1])
  assert errors.keys() == compared | {'commitment_per_level'}
  assert all(0 <= float(error) <= 1e-4 for error in errors.values())


def test_numbers_that_do_not_hold_are_named(capsys, tmp_path):
  with np.load(RQVAE_GOLDEN) as golden:
    changed = dict(golden)
  codes_NxL = changed['indices'].copy()
  codes_NxL[5, 3] += 1
  gradient = 'grad/encoder.mlp_layers.4.weight'
  changed.update(
    {
      'diversity_loss_per_level': changed['diversity_loss_per_level'] * (1 + np.array([0, 0, 3e-5, 0])),
      'indices': codes_NxL,
      gradient: changed[gradient] + 3e-4 * np.abs(changed[gradient]).max(),
      'latent': changed['latent'][:-1],
      'sinkhorn_out': np.full_like(changed['sinkhorn_out'], np.nan),
    }
  )
  np.savez(tmp_path / 'changed.npz', **changed)
  assert rqvae.main(str(tmp_path / 'changed.npz')) == 1
  lines = capsys.readouterr().out.splitlines()
  expected = ['diversity_loss_per_level', 'indices', 'latent', gradient, 'sinkhorn_out']
  assert lines[-1] == f'FAILED: {", ".join(expected)}'


def test_changed_inputs_fail_too(tmp_path):
  with np.load(RQVAE_GOLDEN) as golden:
    changed = dict(golden)
  np.savez(tmp_path / 'changed.npz', **{**changed, 'mu': changed['mu'] * 1.01})
  assert rqvae.main(str(tmp_path / 'changed.npz')) == 1
