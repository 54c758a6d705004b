"""The ranking-guided generation loss (LETTER, section 3.3)."""

import jax
import jax.numpy as jnp


def ranking_guided_loss(logits: jax.Array, targets: jax.Array, weights: jax.Array,
                        temperature: float) -> tuple[jax.Array, jax.Array]:
  """Cross-entropy of logits / tau: tau < 1 weighs hard negatives, 1 is TIGER's loss.

  Args:
    logits: float [..., V].
    targets: int32 [...], tokens.
    weights: float32 [...], 0 where there is no target.
    temperature: tau.

  Returns:
    (sum over tokens, number of tokens), float32 scalars.
  """
  log_probs = jax.nn.log_softmax(logits.astype(jnp.float32) / temperature, axis=-1)
  # A comparison instead of a gather: its gradient is element-wise too, and no scatter.
  chosen = jnp.arange(logits.shape[-1]) == targets[..., None]
  return -jnp.sum(jnp.where(chosen, log_probs, 0).sum(-1) * weights), jnp.sum(weights)
