"""Do the tokenizer's numbers hold on this machine? `python -m tests.parity.rqvae FILE.npz`

FILE.npz holds one forward and backward pass of LETTER's reference tokenizer in training mode, PyTorch parameter names
included; every size is read from it. Prints `name  relative_error` for every quantity and exits 0 only when all hold:
losses to 1e-5, outputs and gradients to 1e-4, indices equal (their error is the share that differs).
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

LOSS, OUTPUT, EXACT = 1e-5, 1e-4, 0.0
# The plan of the stand-alone Sinkhorn case has its own epsilons, whatever the model's.
PLAN_ITERATIONS, PLAN_EPSILONS = 50, {'sinkhorn_out': 0.003, 'sinkhorn_out_eps05': 0.05}


def main(arguments: list[str]) -> int:
  if len(arguments) != 1:
    print('usage: python -m tests.parity.rqvae FILE.npz', file=sys.stderr)
    return 2
  with np.load(arguments[0]) as file:
    golden = dict(file)
  # What is asked here is whether the mathematics holds, not how a device rounds a bf16 or TF32 product.
  with jax.default_matmul_precision('highest'):
    failed = [name for name, error, limit in compare(golden) if not report(name, error, limit)]
  if failed:
    print(f'{len(failed)} quantities differ: {", ".join(failed)}', file=sys.stderr)
  return 1 if failed else 0


def report(name: str, error: float, limit: float) -> bool:
  holds = error <= limit  # False for NaN
  print(f'{name}  {error:.3e}' + ('' if holds else f'  FAILED, limit {limit:g}'))
  return holds


def compare(golden):
  """Yields (name, relative error, limit) for every quantity of the file."""
  config, text_dim = read_config(golden)
  params = jax.tree.map(jnp.asarray, read_tree(golden, 'param', config))
  x_NxT = jnp.asarray(golden['x'])
  collaborative_Nxd = jnp.asarray(golden['cf'][golden['item_index']])
  positives_NxL = jnp.asarray(golden['positives'], jnp.int32)
  model = RQVAE(config, text_dim)

  def total(params):
    output = model.apply({'params': params}, x_NxT, training=True)
    losses = tokenizer_losses(config, output, params['codebooks'], x_NxT, collaborative_Nxd, positives_NxL)
    return losses.total, (output, losses)

  gradients, (output, losses) = jax.jit(jax.grad(total, has_aux=True))(params)
  nearest = jax.jit(lambda params: model.apply({'params': params}, x_NxT, training=False))(params)

  for name, value in (('reconstruction_loss', losses.reconstruction), ('contrastive_loss', losses.contrastive),
                      ('diversity_loss_per_level', losses.diversity_L), ('mse_per_level', losses.codebook_L),
                      ('quantizer_loss', losses.quantizer), ('total_loss', losses.total)):
    yield name, relative_error(value, golden[name]), LOSS
  # The same number by value; what differs between the two is whom the gradient reaches.
  yield 'commitment_per_level', relative_error(losses.commitment_L, golden['mse_per_level']), LOSS
  for name, value in (('indices', output.quantized.codes_NxL), ('indices_nearest', nearest.quantized.codes_NxL)):
    yield name, share_different(value, golden[name]), EXACT
  for name, value in (('latent', output.latent_Nxd), ('quantized', output.quantized.z_Nxd),
                      ('reconstruction', output.reconstruction_NxT)):
    yield name, relative_error(value, golden[name]), OUTPUT

  centered = jax.jit(center_distances)(jnp.asarray(golden['sinkhorn_in'], jnp.float32))
  yield 'sinkhorn_centered', relative_error(centered, golden['sinkhorn_centered']), OUTPUT
  for name, epsilon in PLAN_EPSILONS.items():
    plan = jax.jit(sinkhorn, static_argnums=(1, 2))(centered, epsilon, PLAN_ITERATIONS)
    yield name, relative_error(plan, golden[name]), OUTPUT

  expected = flatten(read_tree(golden, 'grad', config))
  for name, value in flatten(gradients).items():
    yield f'grad/{name}', relative_error(value, expected[name]), OUTPUT


def read_config(golden) -> tuple[RQVAEConfig, int]:
  """Sizes and weights of the file's model, and its text width."""
  widths = [golden[f'param/encoder.mlp_layers.{i}.weight'].shape for i in layers(golden, 'encoder')]
  levels = golden['indices'].shape[1]
  codebook_size, latent_dim = golden['param/rq.vq_layers.0.embedding.weight'].shape
  config = RQVAEConfig(
    hidden=tuple(out for out, _ in widths[:-1]), latent_dim=latent_dim, levels=levels, codebook_size=codebook_size,
    commitment=float(golden['mu']), alpha=float(golden['alpha']), beta=float(golden['beta']),
    sinkhorn_epsilon=float(golden['sinkhorn_epsilon'][-1]), sinkhorn_iterations=int(golden['sinkhorn_iters']))
  return config, widths[0][1]


def read_tree(golden, kind: str, config: RQVAEConfig):
  """The `param` or `grad` arrays of the file in the shape of `RQVAE`'s parameters."""
  def mlp(name):
    return {f'layer_{layer}': {'kernel': golden[f'{kind}/{name}.mlp_layers.{i}.weight'].T,
                               'bias': golden[f'{kind}/{name}.mlp_layers.{i}.bias']}
            for layer, i in enumerate(layers(golden, name))}
  codebooks = [golden[f'{kind}/rq.vq_layers.{level}.embedding.weight'] for level in range(config.levels)]
  return {'encoder': mlp('encoder'), 'decoder': mlp('decoder'), 'codebooks': np.stack(codebooks)}


def layers(golden, name: str) -> list[int]:
  """Indices of the Dense layers in PyTorch's Sequential (dropout and ReLU take numbers too)."""
  matches = (re.fullmatch(rf'param/{name}\.mlp_layers\.(\d+)\.weight', key) for key in golden)
  return sorted(int(match[1]) for match in matches if match)


def flatten(tree):
  """One entry per tensor of the reference: the codebooks count level by level."""
  named = {}
  for path, value in jax.tree_util.tree_leaves_with_path(tree):
    name = '/'.join(key.key for key in path)
    if name == 'codebooks':
      named.update({f'{name}/{level}': codebook for level, codebook in enumerate(value)})
    else:
      named[name] = value
  return named


def relative_error(value, expected) -> float:
  """Largest deviation over the largest magnitude expected."""
  value, expected = np.asarray(value, np.float64), np.asarray(expected, np.float64)
  if value.shape != expected.shape:
    return float('inf')
  return float(np.abs(value - expected).max() / max(np.abs(expected).max(), 1e-30))


def share_different(value, expected) -> float:
  value, expected = np.asarray(value), np.asarray(expected)
  return float(np.mean(value != expected)) if value.shape == expected.shape else float('inf')


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
