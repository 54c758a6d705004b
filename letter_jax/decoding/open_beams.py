"""The step of a model for those beams only that it can still tell apart.

Where the softmax is taken over the codes that continue some item's semantic ID, a node of the trie with a single leaf
below it is settled: all that follows has probability one. With 2,500 items and 4 codes of 256, that is so for most
nodes after two codes. The beams that are open are gathered into few places, and the model sees only those.

Shapes: B users, W beams, R places that the model takes at once, K codes.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from letter_jax.decoding.step import Step
from letter_jax.ops.top_k import take


def step_of_open(
  step: Step, level: int, codes_BxW: jax.Array, cache: Any, open_BxW: jax.Array, quarters: int
) -> tuple[jax.Array, Any, jax.Array]:
  """`step` for the open beams. Pure.

  Args:
    step, level, codes_BxW, cache: as in `beam_search`, for all W beams.
    open_BxW: bool, the beams that are asked about.
    quarters: static, of the W beams that are taken at once (`ItemTrie.open_quarters`); more if need be, in turns.

  Returns:
    log_probs_BxWxK: float32, of each open beam; any finite numbers for the others.
    cache: of the open beams, in their places [B, P, ...].
    place_BxW: int32, the place of each beam in it; of a beam that is not open, any.
  """
  users, beams = codes_BxW.shape
  width = math.ceil(beams * quarters / 4)
  if width == beams:
    return *step(level, codes_BxW, cache), jnp.broadcast_to(jnp.arange(beams, dtype=jnp.int32), codes_BxW.shape)
  turns = math.ceil(beams / width)
  count_BxW = jnp.cumsum(open_BxW, axis=1, dtype=jnp.int32)
  # The open ones come first, in their order. Where there are fewer, any beam fills the place.
  place_BxW = jnp.where(open_BxW, count_BxW - 1, turns * width)
  beam_BxP = jnp.zeros((users, turns * width), jnp.int32)
  beam_BxP = beam_BxP.at[jnp.arange(users)[:, None], place_BxW].set(
    jnp.arange(beams, dtype=jnp.int32), mode='drop', unique_indices=True
  )

  def ask(turn: jax.Array | int) -> tuple[jax.Array, Any]:
    beam_BxR = jax.lax.dynamic_slice_in_dim(beam_BxP, turn * width, width, axis=1)
    return step(level, take(codes_BxW, beam_BxR), jax.tree.map(lambda leaf: take(leaf, beam_BxR), cache))

  def go_on(state: tuple[jax.Array, Any]) -> jax.Array:
    return state[0] * width < jnp.max(count_BxW[:, -1])

  def turn(state: tuple[jax.Array, Any]) -> tuple[jax.Array, Any]:
    number, found = state
    write = lambda whole, part: jax.lax.dynamic_update_slice_in_dim(whole, part, number * width, axis=1)
    return number + 1, jax.tree.map(write, found, ask(number))

  nothing = jax.tree.map(
    lambda leaf: jnp.zeros((users, turns * width, *leaf.shape[2:]), leaf.dtype), jax.eval_shape(ask, 0)
  )
  _, (log_probs_BxPxK, cache) = jax.lax.while_loop(go_on, turn, (jnp.int32(0), nothing))
  place_BxW = jnp.minimum(place_BxW, turns * width - 1)
  return take(log_probs_BxPxK, place_BxW), cache, place_BxW
