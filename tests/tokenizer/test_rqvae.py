import functools

import jax
import numpy as np

from letter_jax.configuration import RQVAEConfig
from letter_jax.tokenizer.rqvae import RQVAE

CONFIG = RQVAEConfig(hidden=(40, 24), latent_dim=6, levels=2, codebook_size=8)


@functools.cache
def initial_variables():
  init = jax.jit(lambda key: RQVAE(CONFIG, 60).init(key, np.zeros((2, 60), np.float32), training=False))
  return init(jax.random.key(0))


def test_parameters_are_born_as_the_design_says():
  params = initial_variables()['params']
  shapes = jax.tree.map(np.shape, params)
  widths = {'encoder': (60, 40, 24, 6), 'decoder': (6, 24, 40, 60)}
  expected = {
    name: {f'layer_{i}': {'kernel': (width[i], width[i + 1]), 'bias': (width[i + 1],)} for i in range(3)}
    for name, width in widths.items()
  }
  assert shapes == {**expected, 'codebooks': (2, 8, 6)}
  kernel = np.asarray(params['encoder']['layer_0']['kernel'])
  np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (60 + 40)), rtol=0.05)
  assert not np.any(params['encoder']['layer_0']['bias'])
  assert 0 < np.abs(params['codebooks']).max() <= 1 / 8


def test_relu_between_the_layers_and_none_after_the_last():
  x_NxT = np.random.default_rng(0).normal(size=(16, 60)).astype(np.float32)
  model = RQVAE(CONFIG, 60)
  variables = initial_variables()
  hidden = x_NxT
  for layer in range(3):
    hidden = hidden @ np.asarray(variables['params']['encoder'][f'layer_{layer}']['kernel'])
    hidden = np.maximum(hidden, 0) if layer < 2 else hidden
  output = jax.jit(lambda variables: model.apply(variables, x_NxT, training=False))(variables)
  np.testing.assert_allclose(output.latent_Nxd, hidden, atol=1e-4)
  assert np.any(hidden < 0)
  decoded_NxT = model.apply(variables, output.quantized.z_Nxd, method=RQVAE.decode)
  np.testing.assert_allclose(output.reconstruction_NxT, decoded_NxT, atol=1e-6)
