"""Dropout whose mask is a hash of each element's position: it generates no random bits and is the same on every mesh.

Threefry bits for the masks took 43% of a train step on CPU; three multiply-xorshift rounds fuse into the element-wise
kernel around them. The backward pass hashes again instead of keeping the mask.
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp


def keep_mask(shape: tuple[int, ...], rate: float, seed: jax.Array) -> jax.Array:
  """A mask, bool `shape`, that is True with probability 1 - rate.

  Args:
    shape: of the mask; positions are counted modulo 2^32.
    rate: probability of False.
    seed: uint32 scalar; equal seeds give equal masks.

  The mixing constants are those of the `lowbias32` integer hash (public domain, C. Wellons).
  """
  position = jnp.zeros(shape, jnp.uint32)
  for axis in range(len(shape)):
    stride = math.prod(shape[axis + 1 :]) % 2**32
    position += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride)
  bits = position * jnp.uint32(0x9E3779B9) ^ seed
  bits = (bits ^ (bits >> 16)) * jnp.uint32(0x21F0AAAD)
  bits = (bits ^ (bits >> 15)) * jnp.uint32(0x735A2D97)
  bits = bits ^ (bits >> 15)
  return bits >= jnp.uint32(min(round(rate * 2**32), 2**32 - 1))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def hashed_dropout(x: jax.Array, rate: float, seed: jax.Array) -> jax.Array:
  """x with each element 0 with probability `rate` and divided by 1 - rate otherwise; `seed` as for `keep_mask`."""
  return jnp.where(keep_mask(x.shape, rate, seed), x * (1 / (1 - rate)), 0).astype(x.dtype)


def _forward(x: jax.Array, rate: float, seed: jax.Array) -> tuple[jax.Array, jax.Array]:
  return hashed_dropout(x, rate, seed), seed


def _backward(rate: float, seed: jax.Array, gradient: jax.Array) -> tuple[jax.Array, None]:
  return hashed_dropout(gradient, rate, seed), None


hashed_dropout.defvjp(_forward, _backward)


class Dropout(nn.Module):
  """Linen layer around `hashed_dropout`; draws one seed per call from the 'dropout' stream.

  Attributes:
    rate: probability that an element is set to 0.
  """

  rate: float

  @nn.compact
  def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
    """x, any shape, with dropout unless `deterministic`."""
    if deterministic or self.rate == 0:
      return x
    return hashed_dropout(x, self.rate, jax.random.bits(self.make_rng('dropout'), (), jnp.uint32))
