"""Tokens of the codes: code c of level l is first_code + l * K + c.

Before them a T5 has 0, pad and start, and 1, end (never generated); a language model has its text's tokens.
"""

import dataclasses

import jax
import jax.numpy as jnp

PAD = 0
END = 1
FIRST_CODE = 2


@dataclasses.dataclass(frozen=True)
class Vocabulary:
  """Attributes: levels L; codebook_size K; first_code, the tokens before the codes."""

  levels: int
  codebook_size: int
  first_code: int = FIRST_CODE

  @property
  def size(self) -> int:
    return self.first_code + self.levels * self.codebook_size

  def tokens_of_level(self, level: int) -> slice:
    """Where the K codes of a level stand."""
    first = self.first_code + level * self.codebook_size
    return slice(first, first + self.codebook_size)

  def tokens(self, codes: jax.Array) -> jax.Array:
    """int32 [..., L] codes -> tokens."""
    return codes + self.first_code + jnp.arange(self.levels) * self.codebook_size

  def item_tokens(self, items: jax.Array, codes_NxL: jax.Array) -> jax.Array:
    """int32 [..., C] items -> [..., C * L] tokens; negative items become PAD."""
    tokens = jnp.where(items[..., None] < 0, PAD, self.tokens(jnp.asarray(codes_NxL)[jnp.maximum(items, 0)]))
    return tokens.reshape(*items.shape[:-1], items.shape[-1] * self.levels)
