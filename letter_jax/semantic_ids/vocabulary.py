"""Tokens of the codes: code c of level l is token first_code + l * K + c.

The tokens before `first_code` belong to the model: a T5 has 0, padding and start, and 1, end (never generated); a
language model has its text tokens.
"""

import dataclasses

import jax
import jax.numpy as jnp

PAD = 0
END = 1
FIRST_CODE = 2


@dataclasses.dataclass(frozen=True)
class Vocabulary:
  """The token vocabulary of a generator.

  Attributes:
    levels: L, codes per semantic ID.
    codebook_size: K, codes per level.
    first_code: number of tokens before the codes.
  """

  levels: int
  codebook_size: int
  first_code: int = FIRST_CODE

  @property
  def size(self) -> int:
    """Number of tokens, the codes included."""
    return self.first_code + self.levels * self.codebook_size

  def tokens_of_level(self, level: int) -> slice:
    """The K tokens of the codes of a level."""
    first = self.first_code + level * self.codebook_size
    return slice(first, first + self.codebook_size)

  def tokens(self, codes: jax.Array) -> jax.Array:
    """int32 [..., L] codes -> tokens."""
    return codes + self.first_code + jnp.arange(self.levels) * self.codebook_size

  def item_tokens(self, items: jax.Array, codes_NxL: jax.Array) -> jax.Array:
    """int32 [..., C] items -> [..., C * L] tokens; negative items become PAD."""
    tokens = jnp.where(items[..., None] < 0, PAD, self.tokens(jnp.asarray(codes_NxL)[jnp.maximum(items, 0)]))
    return tokens.reshape(*items.shape[:-1], items.shape[-1] * self.levels)
