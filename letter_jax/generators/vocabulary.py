"""Tokens of the generators: 0 pad and start, 1 end (never generated), then code c of level l is 2 + l * K + c."""

import dataclasses

import jax
import jax.numpy as jnp

PAD = 0
END = 1
FIRST_CODE = 2


@dataclasses.dataclass(frozen=True)
class Vocabulary:
  """Attributes: levels L; codebook_size K."""

  levels: int
  codebook_size: int

  @property
  def size(self) -> int:
    return FIRST_CODE + self.levels * self.codebook_size

  def level(self, level: int) -> slice:
    """Where the K codes of a level stand."""
    first = FIRST_CODE + level * self.codebook_size
    return slice(first, first + self.codebook_size)

  def tokens(self, codes: jax.Array) -> jax.Array:
    """int32 [..., L] codes -> tokens."""
    return codes + FIRST_CODE + jnp.arange(self.levels) * self.codebook_size

  def item_tokens(self, items: jax.Array, codes_NxL: jax.Array) -> jax.Array:
    """int32 [..., C] items -> [..., C * L] tokens; negative items become PAD."""
    tokens = jnp.where(items[..., None] < 0, PAD, self.tokens(jnp.asarray(codes_NxL)[jnp.maximum(items, 0)]))
    return tokens.reshape(*items.shape[:-1], items.shape[-1] * self.levels)
