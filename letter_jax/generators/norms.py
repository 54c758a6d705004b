"""The norm of both generators."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class RMSNorm(nn.Module):
  """x / sqrt(mean(x ** 2) + epsilon) * scale over the last axis, in float32 inside (Zhang and Sennrich 2019)."""

  epsilon: float = 1e-6

  @nn.compact
  def __call__(self, x):
    scale = self.param('scale', nn.initializers.ones, (x.shape[-1],))
    wide = x.astype(jnp.float32)
    normed = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + self.epsilon)
    return (normed * scale).astype(x.dtype)
