"""AdamW with warm-up, as every training here uses it."""

import jax
import optax

from letter_jax.configuration import TrainingConfig


def learning_rate(config: TrainingConfig, total_steps: int) -> optax.Schedule:
  """Linear warm-up to the peak over `warmup_fraction` of the steps, then cosine to 0 or constant."""
  warmup = round(config.warmup_fraction * total_steps)
  if config.schedule == 'cosine':
    after = optax.cosine_decay_schedule(config.learning_rate, max(total_steps - warmup, 1))
  else:
    after = optax.constant_schedule(config.learning_rate)
  if warmup == 0:
    return after
  # The first step already learns: the ramp goes through warmup steps 1/warmup, 2/warmup, ... 1.
  ramp = optax.linear_schedule(config.learning_rate / warmup, config.learning_rate, max(warmup - 1, 1))
  return optax.join_schedules([ramp, after], [warmup])


def adamw(config: TrainingConfig, total_steps: int) -> optax.GradientTransformation:
  """AdamW; weight decay reaches matrices only, not norms and biases."""
  matrices = lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)
  optimizer = optax.adamw(learning_rate(config, total_steps), weight_decay=config.weight_decay, mask=matrices)
  if config.gradient_clip > 0:
    optimizer = optax.chain(optax.clip_by_global_norm(config.gradient_clip), optimizer)
  return optimizer
