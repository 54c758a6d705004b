"""AdamW with warm-up, the optimizer of every training."""

import jax
import optax

from letter_jax.configuration import TrainingConfig


def learning_rate(config: TrainingConfig, total_steps: int) -> optax.Schedule:
  """The learning rate by step: linear warm-up over `warmup_fraction` of the steps, then cosine to 0 or constant.

  Args:
    config: the peak, the schedule and the warm-up.
    total_steps: optimizer steps of the whole training.
  """
  warmup = round(config.warmup_fraction * total_steps)
  if config.schedule == 'cosine':
    after = optax.cosine_decay_schedule(config.learning_rate, max(total_steps - warmup, 1))
  else:
    after = optax.constant_schedule(config.learning_rate)
  if warmup == 0:
    return after
  # The first step already learns: the ramp is 1/warmup, 2/warmup, ..., 1 of the peak.
  ramp = optax.linear_schedule(config.learning_rate / warmup, config.learning_rate, max(warmup - 1, 1))
  return optax.join_schedules([ramp, after], [warmup])


def adamw(config: TrainingConfig, total_steps: int) -> optax.GradientTransformation:
  """AdamW with the schedule of `learning_rate`; weight decay applies to matrices only, not to norms and biases.

  With `relative_updates` Adam's step is multiplied by each array's root mean square, at least 1e-3 (Shazeer and Stern
  2018, section 8; T5X's `multiply_by_parameter_scale`). T5's initial embeddings are 64 to 91 times as large as its
  queries, so that no single absolute rate suits both.
  """
  matrices = lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)
  decay = optax.add_decayed_weights(config.weight_decay, matrices)
  rate = optax.scale_by_learning_rate(learning_rate(config, total_steps))
  relative = [optax.scale_by_param_block_rms()] if config.relative_updates else []
  optimizer = optax.chain(optax.scale_by_adam(), *relative, decay, rate)
  if config.gradient_clip > 0:  # nested: the structure of the optimizer state in checkpoints
    optimizer = optax.chain(optax.clip_by_global_norm(config.gradient_clip), optimizer)
  return optimizer
