"""The matrix product of dense layers, with a gradient that is fast on XLA's CPU backend."""

import jax


@jax.custom_vjp
def dense(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """x [..., I] @ kernel [I, O], as one flat matrix product.

  The kernel's gradient contracts the first axis of both operands. On the CPU such a product takes XLA 1.5 to 3 times as
  long as a plain one, so there the narrower operand is transposed first.

  Returns:
    [..., O], the dtype of the product.
  """
  return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], kernel.shape[1])


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  return dense(x, kernel), (x, kernel)


def _backward(saved: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
  x, kernel = saved
  x_NxI, gradient_NxO = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
  kernel_gradient = jax.lax.platform_dependent(
    x_NxI, gradient_NxO, cpu=_gradient_on_cpu, default=lambda x_NxI, gradient_NxO: x_NxI.T @ gradient_NxO
  )
  return (gradient_NxO @ kernel.T).reshape(x.shape), kernel_gradient


def _gradient_on_cpu(x_NxI: jax.Array, gradient_NxO: jax.Array) -> jax.Array:
  materialised = jax.lax.optimization_barrier  # otherwise XLA folds the transposition back into the product
  if x_NxI.shape[1] > gradient_NxO.shape[1]:
    return materialised(materialised(gradient_NxO.T) @ x_NxI).T
  return materialised(x_NxI.T) @ gradient_NxO


dense.defvjp(_forward, _backward)
