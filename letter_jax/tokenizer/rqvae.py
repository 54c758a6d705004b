"""The RQ-VAE of LETTER: encoder, codebooks, decoder (Linen modules; LETTER's RQ-VAE/models/rqvae.py).

Shapes: N items, T text dimensions, L levels, K codes per level, d latent width.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax

from letter_jax.configuration import RQVAEConfig
from letter_jax.ops.dense import dense
from letter_jax.tokenizer.quantizer import Quantized, Sinkhorn, quantize


class RQVAEOutput(NamedTuple):
  """One pass over a batch."""

  latent_Nxd: jax.Array  # encoder output, r_0
  quantized: Quantized
  reconstruction_NxT: jax.Array


def _product(x: jax.Array, kernel: jax.Array, dimension_numbers: Any, precision: Any) -> jax.Array:
  """`dense` with the signature of `nn.Dense.dot_general`; contracts the last axis of x with the first of the kernel."""
  del dimension_numbers
  assert precision is None, precision
  return dense(x, kernel)


class MLP(nn.Module):
  """Dense layers with ReLU between them and none after the last; Xavier-normal kernels, zero biases."""

  widths: tuple[int, ...]  # of every layer's output

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    for layer, width in enumerate(self.widths):
      x = nn.Dense(width, kernel_init=nn.initializers.xavier_normal(), dot_general=_product, name=f'layer_{layer}')(x)
      if layer < len(self.widths) - 1:
        x = nn.relu(x)
    return x


class RQVAE(nn.Module):
  """Text embeddings -> latents -> codes of L levels -> reconstructed text embeddings.

  Parameters: `encoder/layer_i`, `decoder/layer_i` (kernel, bias) and `codebooks` [L, K, d]. The codebooks are
  initialised small and uniform; training replaces them by `clustering.start_codebooks` of all items' latents.
  """

  config: RQVAEConfig
  text_dim: int

  def setup(self) -> None:
    config = self.config
    self.encoder = MLP((*config.hidden, config.latent_dim))
    self.decoder = MLP((*reversed(config.hidden), self.text_dim))

    def start(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
      return jax.random.uniform(key, shape, minval=-1, maxval=1) / config.codebook_size

    self.codebooks = self.param('codebooks', start, (config.levels, config.codebook_size, config.latent_dim))

  def encode(self, x_NxT: jax.Array) -> jax.Array:
    """Latents [N, d] of text embeddings [N, T]."""
    return self.encoder(x_NxT)

  def decode(self, z_Nxd: jax.Array) -> jax.Array:
    """Text embeddings [N, T] of latents or quantised latents [N, d]."""
    return self.decoder(z_Nxd)

  def __call__(self, x_NxT: jax.Array, *, training: bool, weight_N: jax.Array | None = None) -> RQVAEOutput:
    """One pass over a batch.

    Args:
      x_NxT: float32 text embeddings, centred and scaled (docs/design.md, input scale).
      training: True assigns the last level by Sinkhorn, False takes nearest codes.
      weight_N: 0 for padded rows; None: all rows count.
    """
    sinkhorn = Sinkhorn(self.config.sinkhorn_epsilon, self.config.sinkhorn_iterations) if training else None
    latent_Nxd = self.encode(x_NxT)
    quantized = quantize(latent_Nxd, self.codebooks, sinkhorn, weight_N)
    return RQVAEOutput(latent_Nxd, quantized, self.decode(quantized.z_Nxd))
