"""Dense layers of the generators."""

import jax


@jax.custom_vjp
def dense(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """x [..., I] @ kernel [I, O], as one flat matrix product.

  The kernel's gradient is computed with the shorter side in front: XLA's CPU product of [I, N] and [N, O] is three
  times slower where I is the long side. On other backends it makes no difference.
  """
  return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], kernel.shape[1])


def _forward(x, kernel):
  return dense(x, kernel), (x, kernel)


def _backward(saved, gradient):
  x, kernel = saved
  x_NxI, gradient_NxO = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
  if kernel.shape[0] > kernel.shape[1]:
    # The barrier keeps XLA from folding the transposition back into the product.
    kernel_gradient = jax.lax.optimization_barrier(gradient_NxO.T @ x_NxI).T
  else:
    kernel_gradient = x_NxI.T @ gradient_NxO
  return (gradient_NxO @ kernel.T).reshape(x.shape), kernel_gradient


dense.defvjp(_forward, _backward)
