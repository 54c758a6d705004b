"""The constrained search for batches of users: on all devices, compiled once for each width of the histories."""

import functools
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import PartitionSpec

from letter_jax import sharding
from letter_jax.decoding import item_trie
from letter_jax.decoding.beam_search import Beams
from letter_jax.decoding.candidates import Candidates, Paths, best_items, still_allowed
from letter_jax.decoding.item_trie import ItemTrie
from letter_jax.ops.interleave import interleaved_halves
from letter_jax.ops.rounding import next_power_of_two, round_up

# Histories are padded to the next of these widths (in items), one compiled program each. Of eight users' test histories
# in 5-core data, three have four items and seven at most ten.
BUCKETS = (4, 5, 6, 8, 11, 15, 20)

# (params, items_BxC, codes_NxL, trie, beam[, allowed]) -> Beams, pure; items are padded with negative numbers, and
# `allowed` is `beam_search`'s.
Search = Callable[..., Beams]


def search_candidates(
  search: Search,
  beam: int,
  params,
  items_BxC: jax.Array,
  had_BxH: jax.Array,
  codes_NxL: jax.Array,
  trie: ItemTrie,
  paths: Paths,
  candidates: Candidates,
) -> tuple[jax.Array, jax.Array]:
  """The best items that may come out: int32 and float32 [B, beam], -1 and -inf where there are fewer; pure."""
  allowed = still_allowed(paths, candidates, had_BxH)
  beams = search(params, items_BxC, codes_NxL, trie, beam=beam, allowed=allowed)
  return best_items(beams, trie, paths, candidates, had_BxH)


class UserSearch:
  """A generator's search over one catalogue. Its parameters are passed: those of a training change."""

  def __init__(
    self,
    search: Search,
    semantic_ids: np.ndarray,
    beam: int,
    batch_size: int,
    mesh: jax.sharding.Mesh,
    longest: int | None = None,
    sharded_params: bool = False,
  ):
    """`search` is the model's part; `semantic_ids` is int32 [items, L].

    Args:
      batch_size: users at once, over all devices.
      longest: items that the model has room for; of longer histories the latest are taken.
      sharded_params: parameters stay sharded, for models that fit on no single device, and XLA adds the communication;
        otherwise every device has all parameters and its own users.
    """
    self.beam, self.longest, self.mesh = beam, longest, mesh
    self.batch = round_up(batch_size, mesh.size)
    host_trie = item_trie.build(semantic_ids)
    self.leaf_of_item = item_trie.leaves_of_items(host_trie)
    self._whole = sharding.replicated(mesh)
    self.codes, self.trie = sharding.put((semantic_ids, host_trie), self._whole)
    self.users = sharding.split_over_data(mesh) if sharded_params else sharding.split_over_all(mesh)
    self._sharded_params = sharded_params
    self._beams = self._over_users(functools.partial(search, beam=beam), 1, self.users)
    self._items = self._over_users(functools.partial(search_candidates, search, beam), 2, self.users)
    self._candidates = jax.jit(Candidates.of, out_shardings=self._whole)

  def __call__(self, params, items_BxC: np.ndarray) -> Beams:
    """The beams of a batch of histories, int32 [batch, C], on the devices."""
    return self._beams(params, sharding.put(items_BxC, self.users), self.codes, self.trie)

  def search(
    self, params, items_BxC: np.ndarray, had_BxH: np.ndarray, candidates: Candidates
  ) -> tuple[jax.Array, jax.Array]:
    """Items int32 and scores float32 [B, beam] on the devices, best first; -1 and -inf where there are fewer.

    B is any number that the devices divide; each is compiled for itself.

    Args:
      items_BxC: int32, histories as the model sees them, negative behind the last item.
      had_BxH: int32, items that may not come out, none twice in a row of it; negative where there is none.
    """
    batch = sharding.put((items_BxC, had_BxH), self.users)
    return self._items(params, *batch, self.codes, self.trie, self._paths, candidates)

  def candidates(self, allowed_N: np.ndarray) -> Candidates:
    return self._candidates(self.trie, allowed_N)

  def batch_rows(self, users: int) -> int:
    """Of a batch for so many users: a power of two that the devices divide, up to the whole batch."""
    return min(self.batch, round_up(next_power_of_two(users), self.mesh.size))

  def widths(self, longest: int) -> np.ndarray:
    """The widths that histories of up to `longest` items are padded to."""
    if self.longest is not None:
      longest = min(longest, self.longest)
    return np.array(sorted({*(width for width in BUCKETS if width < longest), longest}))

  def trace_compiled(self, params, width: int) -> tuple[int, jax.stages.Traced]:
    """Users of a batch and the search for histories of `width` items, to be compiled."""
    histories = sharding.put(np.zeros((self.batch, width), np.int32), self.users)
    return self.batch, self._beams.trace(params, histories, self.codes, self.trie)

  @functools.cached_property
  def _paths(self) -> Paths:
    return sharding.put(Paths.of(jax.device_get(self.trie)), self._whole)

  def _over_users(self, local, of_users: int, out):
    """`local` (params, arrays of users, arrays for all) over all devices."""
    if self._sharded_params:
      return jax.jit(local, out_shardings=out)
    on_cpu = self.mesh.devices.flat[0].platform == 'cpu'

    def of_device(params, *arrays):
      users, rest = arrays[:of_users], arrays[of_users:]

      def search(*some):
        return local(params, *some, *rest)

      return interleaved_halves(search, *users) if on_cpu else search(*users)

    # Users are independent. Left to jit, the top-k of the search would gather all of them on every device.
    def mapped(params, *arrays):
      whole = PartitionSpec()
      specs = (whole, *([out.spec] * of_users), *([whole] * (len(arrays) - of_users)))
      of_devices = jax.shard_map(of_device, mesh=self.mesh, in_specs=specs, out_specs=out.spec, check_vma=False)
      return of_devices(params, *arrays)

    return jax.jit(mapped)
