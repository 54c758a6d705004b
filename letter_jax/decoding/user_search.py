"""The constrained search for batches of users: on all devices, compiled once for each padded history length."""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import jax
import numpy as np

from letter_jax import sharding
from letter_jax.decoding.beam_search import Allowed, Beams, Step, beam_search
from letter_jax.decoding.candidates import Candidates, best_items, still_allowed
from letter_jax.decoding.compiled import Bound, compiled
from letter_jax.decoding.user_batches import UserBatches
from letter_jax.semantic_ids.ids import PlacedIds
from letter_jax.semantic_ids.item_trie import ItemTrie, Paths

# (params, items_BxC, codes_NxL) -> (step, cache) of `beam_search`, pure. Items are padded with negative numbers.
Begin = Callable[..., tuple[Step, Any]]


@dataclasses.dataclass(frozen=True)
class Search:
  """A model's part of the search.

  Attributes:
    begin: reads the histories. Searches whose `begin` is equal share their compiled programs.
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


def _beams(model: Search, beam: int, params: Any, items_BxC: jax.Array, codes_NxL: jax.Array, trie: ItemTrie) -> Beams:
  return model.beams(params, items_BxC, codes_NxL, trie, beam)


class ListSearch(Protocol):
  """What finds lists of items for batches of users: the search of a generator, or of two models.

  Attributes:
    ids: the catalogue.
    batches: the batches of users.
    beam: items returned for each user.
  """

  ids: PlacedIds
  batches: UserBatches
  beam: int

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
    ...

  def candidates(self, allowed_N: np.ndarray) -> Candidates:
    """The items `allowed_N` (bool [items]) as `search` takes them, on the devices."""
    ...


class UserSearch:
  """A generator's search over one catalogue.

  The model's parameters are arguments of each call, since they change during a training.

  Attributes:
    model: the model's part.
    ids: the catalogue, on the devices.
    batches: the batches of users.
    beam: items returned for each user.
  """

  def __init__(self, model: Search, ids: PlacedIds, batches: UserBatches, beam: int):
    """Compiles nothing yet.

    Args:
      model: the model's part.
      ids: the catalogue, on the devices of `batches`.
      batches: the batches of users.
      beam: beams of the search.
    """
    self.model, self.ids, self.batches, self.beam = model, ids, batches, beam
    self._beams = batches.compiled(Bound(_beams, (model, beam)), 1)
    self._items = batches.compiled(Bound(Search.items, (model, beam)), 2)
    self._candidates = compiled(Candidates.of, sharding.replicated(batches.mesh))

  def __call__(self, params: Any, items_BxC: np.ndarray) -> Beams:
    """The beams, on the devices, of a batch of histories int32 [size, C] padded with negative numbers."""
    return self._beams(params, self.batches.put(items_BxC), self.ids.codes_NxL, self.ids.trie)

  def search(
    self, params: Any, items_BxC: np.ndarray, had_BxH: np.ndarray, candidates: Candidates
  ) -> tuple[jax.Array, jax.Array]:
    """As `ListSearch.search`."""
    batch = self.batches.put((items_BxC, had_BxH))
    return self._items(params, *batch, self.ids.codes_NxL, self.ids.trie, self.ids.paths, candidates)

  def candidates(self, allowed_N: np.ndarray) -> Candidates:
    """As `ListSearch.candidates`."""
    return self._candidates(self.ids.trie, allowed_N)

  def trace_compiled(self, params: Any, width: int) -> tuple[int, jax.stages.Traced]:
    """The number of users in a batch, and the traced search for histories of `width` items, ready to be compiled."""
    histories = self.batches.put(np.zeros((self.batches.size, width), np.int32))
    return self.batches.size, self._beams.trace(params, histories, self.ids.codes_NxL, self.ids.trie)
