"""The constrained search for batches of users: on all devices, compiled once for each padded history length."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from letter_jax import sharding
from letter_jax.decoding.beam_search import Allowed, Beams, Step, beam_search
from letter_jax.decoding.candidates import Candidates, Paths, best_items, still_allowed
from letter_jax.ops.interleave import interleaved_halves
from letter_jax.ops.rounding import next_power_of_two, round_up
from letter_jax.semantic_ids import item_trie
from letter_jax.semantic_ids.ids import PlacedIds
from letter_jax.semantic_ids.item_trie import ItemTrie

# Histories are padded to the next of these widths (in items), with one compiled program for each. Three eighths of the
# test histories of 5-core data have four items, seven eighths at most ten.
BUCKETS = (4, 5, 6, 8, 11, 15, 20)

# (params, items_BxC, codes_NxL) -> (step, cache) of `beam_search`, pure. Items are padded with negative numbers.
Begin = Callable[..., tuple[Step, Any]]


@dataclasses.dataclass(frozen=True)
class Search:
  """A model's part of the search.

  Attributes:
    begin: reads the histories.
    renormalise: as in `beam_search`.
  """

  begin: Begin
  renormalise: bool

  def beams(
    self,
    params: Any,
    items_BxC: jax.Array,
    codes_NxL: jax.Array,
    trie: ItemTrie,
    beam: int,
    allowed: Allowed | None = None,
  ) -> Beams:
    """The `beam` best next items of each history. Pure.

    Args:
      params: the model's parameters.
      items_BxC: int32, histories as the model sees them, padded with negative numbers.
      codes_NxL: int32, the semantic IDs that the trie was built from.
      trie: the catalogue.
      beam: W, items for each user.
      allowed: as in `beam_search`.
    """
    step, cache = self.begin(params, items_BxC, codes_NxL)
    return beam_search(step, cache, trie, beam, items_BxC.shape[0], renormalise=self.renormalise, allowed=allowed)

  def items(
    self,
    beam: int,
    params: Any,
    items_BxC: jax.Array,
    had_BxH: jax.Array,
    codes_NxL: jax.Array,
    trie: ItemTrie,
    paths: Paths,
    candidates: Candidates,
  ) -> tuple[jax.Array, jax.Array]:
    """The best allowed items of each user. Pure.

    Args:
      beam: W, items for each user.
      params, items_BxC, codes_NxL, trie: as for `beams`.
      had_BxH: int32, excluded items, as in `candidates.still_allowed`.
      paths, candidates: of the catalogue.

    Returns:
      items int32 and scores float32 [B, W], best first; -1 and -inf where there are fewer.
    """
    allowed = still_allowed(paths, candidates, had_BxH)
    beams = self.beams(params, items_BxC, codes_NxL, trie, beam, allowed)
    return best_items(beams, trie, paths, candidates, had_BxH)


class UserSearch:
  """A generator's search over one catalogue.

  The model's parameters are arguments of each call, since they change during a training.

  Attributes:
    beam: items returned for each user.
    batch: users searched at once, over all devices.
    longest: the most history items that the model has room for; None: any number.
    leaf_of_item: int32 [items] on the host.
    codes, trie: the catalogue, replicated on the devices.
    users: the sharding of arrays with one row per user.
  """

  def __init__(
    self,
    search: Search,
    ids: PlacedIds,
    beam: int,
    batch_size: int,
    longest: int | None = None,
    sharded_params: bool = False,
  ):
    """Compiles nothing yet.

    Args:
      search: the model's part.
      ids: the catalogue.
      beam: beams of the search.
      batch_size: users searched at once, over all devices; rounded up to a multiple of the devices.
      longest: the most history items that the model has room for; longer histories keep their latest items.
      sharded_params: keep the parameters sharded, for models that fit on no single device, and let XLA add the
        communication; otherwise every device has all parameters and its own users.
    """
    self.beam, self.longest, self.mesh = beam, longest, ids.mesh
    self.batch = round_up(batch_size, ids.mesh.size)
    self.leaf_of_item = item_trie.leaves_of_items(ids.host.host_trie)
    self._host_trie = ids.host.host_trie
    self._whole = sharding.replicated(ids.mesh)
    self.codes, self.trie = ids.codes_NxL, ids.trie
    self.users = sharding.split_over_data(ids.mesh) if sharded_params else sharding.split_over_all(ids.mesh)
    self._sharded_params = sharded_params
    self._beams = self._over_users(functools.partial(search.beams, beam=beam), 1, self.users)
    self._items = self._over_users(functools.partial(search.items, beam), 2, self.users)
    self._candidates = jax.jit(Candidates.of, out_shardings=self._whole)

  def __call__(self, params: Any, items_BxC: np.ndarray) -> Beams:
    """The beams, on the devices, of a batch of histories int32 [batch, C] padded with negative numbers."""
    return self._beams(params, sharding.put(items_BxC, self.users), self.codes, self.trie)

  def search(
    self, params: Any, items_BxC: np.ndarray, had_BxH: np.ndarray, candidates: Candidates
  ) -> tuple[jax.Array, jax.Array]:
    """The best allowed items of each user; each shape of the arguments is compiled once.

    Args:
      items_BxC: int32, histories as the model sees them, padded with negative numbers; B is a multiple of the number
        of devices.
      had_BxH: int32, items that are excluded, each at most once in a row; negative where there is none.
      candidates: the items that may be returned to anyone.

    Returns:
      items int32 and scores float32 [B, beam] on the devices, best first; -1 and -inf where there are fewer.
    """
    batch = sharding.put((items_BxC, had_BxH), self.users)
    return self._items(params, *batch, self.codes, self.trie, self._paths, candidates)

  def candidates(self, allowed_N: np.ndarray) -> Candidates:
    """The items `allowed_N` (bool [items]) as `search` takes them, on the devices."""
    return self._candidates(self.trie, allowed_N)

  def batch_rows(self, users: int) -> int:
    """The rows of a batch for `users` users: a power of two rounded up to the devices, at most the whole batch."""
    return min(self.batch, round_up(next_power_of_two(users), self.mesh.size))

  def widths(self, longest: int) -> np.ndarray:
    """The widths that histories of up to `longest` items are padded to, in ascending order."""
    if self.longest is not None:
      longest = min(longest, self.longest)
    return np.array(sorted({*(width for width in BUCKETS if width < longest), longest}))

  def trace_compiled(self, params: Any, width: int) -> tuple[int, jax.stages.Traced]:
    """The number of users in a batch, and the traced search for histories of `width` items, ready to be compiled."""
    histories = sharding.put(np.zeros((self.batch, width), np.int32), self.users)
    return self.batch, self._beams.trace(params, histories, self.codes, self.trie)

  @functools.cached_property
  def _paths(self) -> Paths:
    return sharding.put(Paths.of(self._host_trie), self._whole)

  def _over_users(self, local: Callable[..., Any], num_user_arrays: int, out: NamedSharding) -> jax.stages.Wrapped:
    """Jits `local(params, *arrays)` over all devices; the first arrays have a row per user, the rest are replicated."""
    if self._sharded_params:
      return jax.jit(local, out_shardings=out)
    on_cpu = self.mesh.devices.flat[0].platform == 'cpu'

    def on_device(params: Any, *arrays: Any) -> Any:
      user_arrays, rest = arrays[:num_user_arrays], arrays[num_user_arrays:]

      def search(*user_arrays: jax.Array) -> Any:
        return local(params, *user_arrays, *rest)

      return interleaved_halves(search, *user_arrays) if on_cpu else search(*user_arrays)

    # Users are independent, but under plain jit the top-k of the search would gather all of them on every device.
    def on_devices(params: Any, *arrays: Any) -> Any:
      whole = PartitionSpec()
      specs = (whole, *([out.spec] * num_user_arrays), *([whole] * (len(arrays) - num_user_arrays)))
      mapped = jax.shard_map(on_device, mesh=self.mesh, in_specs=specs, out_specs=out.spec, check_vma=False)
      return mapped(params, *arrays)

    return jax.jit(on_devices)
