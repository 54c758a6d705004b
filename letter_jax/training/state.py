"""The state of a training, and the optimizer step that all trainings share."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from letter_jax.sharding import Layout, replicated

Metrics = dict[str, tuple[jax.Array, jax.Array]]  # name -> (sum, count), divided once on the host
# (params, batch, key) -> (sum of the loss over the batch, count to divide it by, metrics)
LossSum = Callable[[Any, Any, jax.Array], tuple[jax.Array, jax.Array, Metrics]]


class TrainState(flax.struct.PyTreeNode):
  """The state of a training, a pytree.

  Attributes:
    step: int32 [], optimizer steps done.
    params: pytree of float32 arrays.
    opt_state: the optimizer's state, a pytree of float32 arrays and counters.
  """

  step: jax.Array
  params: Any
  opt_state: Any

  @classmethod
  def create(cls, params: Any, optimizer: optax.GradientTransformation) -> 'TrainState':
    """The state before the first step."""
    return cls(jnp.zeros((), jnp.int32), params, optimizer.init(params))


def make_step(
  loss_sum: LossSum,
  optimizer: optax.GradientTransformation,
  seed_key: jax.Array,
  layout: Layout,
  accumulation_steps: int = 1,
) -> Callable[[TrainState, Any], tuple[TrainState, Metrics]]:
  """Returns the optimizer step, a pure function `(state, batch) -> (state, metrics)`.

  Gradients and the new state have the shardings of `layout`: each device keeps what it updates. Sums over micro-batches
  are added up before the division, so the result is that of the whole batch at once.

  Args:
    loss_sum: the loss.
    optimizer: applied to the gradient of the mean loss.
    seed_key: randomness depends only on this key and the step.
    layout: shardings of parameters and state.
    accumulation_steps: with more than 1, the leaves of a batch have a leading axis of that many micro-batches.
  """

  def gradients(params: Any, batch: Any, key: jax.Array) -> tuple[Any, jax.Array, Metrics]:
    def summed(params: Any) -> tuple[jax.Array, tuple[jax.Array, Metrics]]:
      loss, count, metrics = loss_sum(layout.gathered(params), batch, key)
      return loss, (count, metrics)

    (loss, (count, metrics)), gradient = jax.value_and_grad(summed, has_aux=True)(params)
    return layout.constrain(gradient), count, {'loss': (loss, count), **metrics}

  def step(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
    key = jax.random.fold_in(seed_key, state.step)
    if accumulation_steps == 1:
      gradient, count, metrics = gradients(state.params, batch, key)
    else:

      def accumulate(total: Any, index_and_batch: tuple[jax.Array, Any]) -> tuple[Any, None]:
        index, micro_batch = index_and_batch
        part = gradients(state.params, micro_batch, jax.random.fold_in(key, index))
        return jax.tree.map(jnp.add, total, part), None

      first = jax.tree.map(lambda leaf: leaf[0], batch)
      zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(gradients, state.params, first, key))
      (gradient, count, metrics), _ = jax.lax.scan(accumulate, zeros, (jnp.arange(accumulation_steps), batch))
    scale = 1 / jnp.maximum(count, 1)
    gradient = jax.tree.map(lambda g: g * scale, gradient)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    metrics['gradient_norm'] = (optax.tree.norm(gradient), jnp.ones(()))
    metrics = jax.lax.with_sharding_constraint(metrics, replicated(layout.mesh))
    return layout.constrain(TrainState(state.step + 1, optax.apply_updates(state.params, updates), opt_state)), metrics

  return step
