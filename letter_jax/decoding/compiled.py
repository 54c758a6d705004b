"""Jitted functions of searches, kept by value: two equal searches share one compiled program for equal shapes.

JAX's cache of compiled programs knows a function by its identity. A recommender that is loaded again makes its
functions anew, and would trace and compile everything again, although only the arrays have changed. Functions that are
`Bound` to hashable arguments are equal where those are, and the caches here return what was jitted for the first.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from letter_jax.ops.interleave import interleaved_halves

_KEPT = 32  # functions, of whatever number of searches

# Rows on a device from which a CPU searches for two halves side by side. A smaller batch runs beside other searches,
# and as a whole it compiles in half the time.
HALVED = 32


@dataclasses.dataclass(frozen=True)
class Bound:
  """A function with its first arguments, as of functools.partial, but equal to another one with equal arguments.

  Attributes:
    function: a function of a module or a class, pure.
    arguments: hashable.
  """

  function: Callable[..., Any]
  arguments: tuple

  def __call__(self, *rest: Any) -> Any:
    return self.function(*self.arguments, *rest)


@functools.lru_cache(_KEPT)
def compiled(function: Callable[..., Any], out: NamedSharding) -> jax.stages.Wrapped:
  """Jits a function whose results are laid out as `out`."""
  return jax.jit(function, out_shardings=out)


@functools.lru_cache(_KEPT)
def compiled_for_users(
  local: Callable[..., Any], num_user_arrays: int, out: NamedSharding, sharded_params: bool
) -> jax.stages.Wrapped:
  """Jits `local(params, *arrays)` over all devices.

  Args:
    local: treats users independently.
    num_user_arrays: the first arrays, which have a row per user; the rest are replicated.
    out: of arrays with one row per user.
    sharded_params: keep the parameters sharded, and let XLA add the communication.
  """
  if sharded_params:
    return jax.jit(local, out_shardings=out)
  on_cpu = out.mesh.devices.flat[0].platform == 'cpu'

  def on_device(params: Any, *arrays: Any) -> Any:
    user_arrays, rest = arrays[:num_user_arrays], arrays[num_user_arrays:]

    def search(*user_arrays: jax.Array) -> Any:
      return local(params, *user_arrays, *rest)

    halved = on_cpu and len(user_arrays[0]) >= HALVED
    return interleaved_halves(search, *user_arrays) if halved else search(*user_arrays)

  # Users are independent, but under plain jit the top-k of the search would gather all of them on every device.
  def on_devices(params: Any, *arrays: Any) -> Any:
    whole = PartitionSpec()
    specs = (whole, *([out.spec] * num_user_arrays), *([whole] * (len(arrays) - num_user_arrays)))
    mapped = jax.shard_map(on_device, mesh=out.mesh, in_specs=specs, out_specs=out.spec, check_vma=False)
    return mapped(params, *arrays)

  return jax.jit(on_devices)
