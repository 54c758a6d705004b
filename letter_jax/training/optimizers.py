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
  """AdamW; weight decay reaches matrices only, not norms and biases.

  With `relative_updates` a step is a share of each parameter's root mean square (Shazeer and Stern 2018, section 8).
  T5 starts with embeddings a hundred times as large as its queries: no one absolute rate suits both.
  """
  matrices = lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)
  parts = [optax.clip_by_global_norm(config.gradient_clip)] if config.gradient_clip > 0 else []
  parts.append(optax.scale_by_adam())
  if config.relative_updates:
    parts.append(optax.scale_by_param_block_rms())
  parts += [optax.add_decayed_weights(config.weight_decay, matrices),
            optax.scale_by_learning_rate(learning_rate(config, total_steps))]
  return optax.chain(*parts)
