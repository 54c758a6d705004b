"""Do this project's RQ-VAE, its losses and its Sinkhorn give the reference's numbers?

    python -m tests.parity.rqvae FILE.npz

prints `name  relative_error` per quantity and exits 0 only when all hold: losses to 1e-5, outputs and gradients to
1e-4, indices equal. FILE.npz is of the form of tests/golden/rqvae_reference.npz (one forward and backward pass in
training mode, PyTorch parameter names); every size is read from it. Useful on a new accelerator.
"""

import re
import sys

import jax
import jax.numpy as jnp
import numpy as np

from letter_jax.configuration import RQVAEConfig
from letter_jax.tokenizer.losses import tokenizer_losses
from letter_jax.tokenizer.rqvae import RQVAE
from letter_jax.tokenizer.sinkhorn import center_distances, sinkhorn
from tests.parity.comparison import Comparison

# The stand-alone Sinkhorn case has its own settings, whatever the model's.
PLAN_ITERATIONS, PLAN_EPSILONS = 50, {'sinkhorn_out': 0.003, 'sinkhorn_out_eps05': 0.05}


def main(path: str) -> int:
  golden = dict(np.load(path, allow_pickle=False))
  config, text_dim = read_config(golden)
  params = jax.tree.map(jnp.asarray, read_params(golden, config))
  x_NxT = jnp.asarray(golden['x'])
  collaborative_Nxd = jnp.asarray(golden['cf'][golden['item_index']])
  positives_NxL = jnp.asarray(golden['positives'], jnp.int32)
  model = RQVAE(config, text_dim)
  compare = Comparison()

  def total(params):
    output = model.apply({'params': params}, x_NxT, training=True)
    losses = tokenizer_losses(config, output, params['codebooks'], x_NxT, collaborative_Nxd, positives_NxL)
    return losses.total, (output, losses)

  # What is asked is whether the mathematics holds, not how a device rounds a bf16 or TF32 product.
  with jax.default_matmul_precision('highest'):
    gradients, (output, losses) = jax.jit(jax.grad(total, has_aux=True))(params)
    nearest = jax.jit(lambda params: model.apply({'params': params}, x_NxT, training=False))(params)
  for name, value in (
    ('reconstruction_loss', losses.reconstruction),
    ('contrastive_loss', losses.contrastive),
    ('diversity_loss_per_level', losses.diversity_L),
    ('mse_per_level', losses.codebook_L),
    ('quantizer_loss', losses.quantizer),
    ('total_loss', losses.total),
  ):
    compare(name, value, golden[name], 1e-5)
  # By value the codebook term again; the two differ in whom the gradient reaches.
  compare('commitment_per_level', losses.commitment_L, golden['mse_per_level'], 1e-5)
  compare.equal('indices', output.quantized.codes_NxL, golden['indices'])
  compare.equal('indices_nearest', nearest.quantized.codes_NxL, golden['indices_nearest'])
  compare('latent', output.latent_Nxd, golden['latent'], 1e-4)
  compare('quantized', output.quantized.z_Nxd, golden['quantized'], 1e-4)
  compare('reconstruction', output.reconstruction_NxT, golden['reconstruction'], 1e-4)
  for name, value in by_reference_name(gradients, golden).items():
    compare(f'grad/{name}', value, golden[f'grad/{name}'], 1e-4)

  centered = jax.jit(center_distances)(jnp.asarray(golden['sinkhorn_in'], jnp.float32))
  compare('sinkhorn_centered', centered, golden['sinkhorn_centered'], 1e-4)
  for name, epsilon in PLAN_EPSILONS.items():
    plan = jax.jit(sinkhorn, static_argnums=(1, 2))(centered, epsilon, PLAN_ITERATIONS)
    compare(name, plan, golden[name], 1e-4)
  return compare.exit_code()


def read_config(golden) -> tuple[RQVAEConfig, int]:
  """Sizes and weights of the file's model, and its text width."""
  widths = [golden[f'param/encoder.mlp_layers.{i}.weight'].shape for i in layers(golden, 'encoder')]
  levels = golden['indices'].shape[1]
  codebook_size, latent_dim = golden['param/rq.vq_layers.0.embedding.weight'].shape
  config = RQVAEConfig(
    hidden=tuple(out for out, _ in widths[:-1]),
    latent_dim=latent_dim,
    levels=levels,
    codebook_size=codebook_size,
    commitment=float(golden['mu']),
    alpha=float(golden['alpha']),
    beta=float(golden['beta']),
    sinkhorn_epsilon=float(golden['sinkhorn_epsilon'][-1]),
    sinkhorn_iterations=int(golden['sinkhorn_iters']),
  )
  return config, widths[0][1]


def read_params(golden, config: RQVAEConfig):
  """The file's parameters in the shape of `RQVAE`'s."""

  def mlp(name):
    return {
      f'layer_{layer}': {
        'kernel': golden[f'param/{name}.mlp_layers.{i}.weight'].T,
        'bias': golden[f'param/{name}.mlp_layers.{i}.bias'],
      }
      for layer, i in enumerate(layers(golden, name))
    }

  codebooks = [golden[f'param/rq.vq_layers.{level}.embedding.weight'] for level in range(config.levels)]
  return {'encoder': mlp('encoder'), 'decoder': mlp('decoder'), 'codebooks': np.stack(codebooks)}


def by_reference_name(tree, golden):
  """The arrays of a tree like `RQVAE`'s parameters, by the reference's names and in its layout."""
  named = {}
  for name in ('encoder', 'decoder'):
    for layer, i in enumerate(layers(golden, name)):
      named[f'{name}.mlp_layers.{i}.weight'] = tree[name][f'layer_{layer}']['kernel'].T
      named[f'{name}.mlp_layers.{i}.bias'] = tree[name][f'layer_{layer}']['bias']
  named.update(
    {f'rq.vq_layers.{level}.embedding.weight': codebook_Kxd for level, codebook_Kxd in enumerate(tree['codebooks'])}
  )
  return named


def layers(golden, name: str) -> list[int]:
  """Numbers of the Dense layers in PyTorch's Sequential (dropout and ReLU are numbered too)."""
  matches = (re.fullmatch(rf'param/{name}\.mlp_layers\.(\d+)\.weight', key) for key in golden)
  return sorted(int(match[1]) for match in matches if match)


if __name__ == '__main__':
  if len(sys.argv) != 2:
    sys.exit(__doc__)
  sys.exit(main(sys.argv[1]))
