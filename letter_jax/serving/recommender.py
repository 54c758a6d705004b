"""A trained generator as a recommender: histories in, items out."""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

import jax
import numpy as np

from letter_jax.configuration import MeshConfig
from letter_jax.decoding.candidates import Candidates
from letter_jax.generators.generator import user_search
from letter_jax.ops.rounding import next_power_of_two
from letter_jax.serving.catalogue import Catalogue, Item
from letter_jax.serving.cold_items import with_cold_items
from letter_jax.serving.loaded_generator import LoadedGenerator
from letter_jax.system.errors import InputError
from letter_jax.workdir import Workdir


@dataclasses.dataclass(frozen=True)
class Recommendations:
  """For U histories, best first.

  Attributes:
    items_UxK: int32, numbers of items; -1 where fewer than K may come out.
    scores_UxK: float32, log-likelihoods of their semantic IDs; -inf there.
    skipped_U: int32, items of each history that are unknown.
  """

  items_UxK: np.ndarray
  scores_UxK: np.ndarray
  skipped_U: np.ndarray


@dataclasses.dataclass(frozen=True)
class Choice:
  """Which items may come out; of `Recommender.among`, and for that recommender alone."""

  recommender: 'Recommender' = dataclasses.field(repr=False)
  candidates: Candidates = dataclasses.field(repr=False)


class Recommender:
  """The best generator of a finished workdir, on all devices of this process.

  Attributes:
    catalogue: the items, with their raw ids, titles and semantic IDs.
    beam: beams of the search; the most items that can be asked for.
    batch: users that are searched at once.
  """

  def __init__(self, search, params, catalogue: Catalogue, history_length: int):
    """`search`: a `decoding.user_search.UserSearch` over the catalogue's semantic IDs; `params`: the generator's."""
    self._search, self._params, self.catalogue = search, params, catalogue
    self.beam, self.batch = search.beam, search.batch
    self._widths = search.widths(history_length)
    self._all = Choice(self, search.candidates(np.ones(len(catalogue), bool)))

  @classmethod
  def from_workdir(
    cls, workdir: str | os.PathLike, beam: int = 20, cold_items: Sequence[Mapping] = (), mesh: MeshConfig | None = None
  ) -> 'Recommender':
    """The recommender of a `--workdir` whose generator stage has run; a T5 or a language model.

    Args:
      beam: a wider search finds better items in more time.
      cold_items: items that came after the training, each a mapping with 'id' (a new raw id) and its texts 'title',
        'brand', 'categories', 'description', or, where the training was given text embeddings, its row 'embedding'. The
        trained tokenizer gives them semantic IDs that no other item has.
      mesh: how the devices are arranged; by default each has the whole generator and a share of the users.

    Raises:
      InputError: no generator there, or one that cannot be read; a cold item that cannot be tokenised.
    """
    folder = Workdir(workdir)
    loaded = LoadedGenerator.for_serving(folder, mesh or MeshConfig())
    catalogue = Catalogue.of_workdir(folder, loaded.ids)
    if cold_items:
      catalogue = with_cold_items(catalogue, cold_items, loaded.config, folder)
      loaded = loaded.over(catalogue.ids)
    loaded.require_beam(beam)
    search = user_search(loaded.generator, beam, loaded.config.evaluation.batch_size)
    return cls(search, loaded.params, catalogue, loaded.config.data.history_length)

  def among(self, allow: Iterable[Item] | None = None, deny: Iterable[Item] = (), skip_unknown: bool = False) -> Choice:
    """What `recommend` is to choose from: all items, or those of `allow`, without those of `deny`.

    Takes milliseconds and compiles nothing: stock, region or age may be another for every call.

    Args:
      skip_unknown: passes over items of `allow` that are unknown; those of `deny` do not matter.

    Raises:
      InputError: `allow` has an item that is unknown; no item is left.
    """
    return Choice(self, self._search.candidates(self.catalogue.allowed(allow, deny, skip_unknown)))

  def recommend(
    self, histories: Sequence[Sequence[Item]], k: int = 10, exclude_history: bool = True, among: Choice | None = None
  ) -> Recommendations:
    """The `k` best next items for each of U histories.

    Args:
      histories: numbers or raw ids of items, the oldest first; the latest count, as many as in the training
        (`config.data.history_length`). Those that are unknown are skipped and counted. One may be empty.
      k: at most `beam`.
      exclude_history: whether items of the history (all of it) are ruled out.
      among: of `Recommender.among`.

    Raises:
      InputError: `k` is out of range; an item that is neither a number nor a text; `among` is of another recommender.
    """
    self.require(k)
    known, skipped_U = self._known(histories)
    items_UxK = np.full((len(known), k), -1, np.int32)
    scores_UxK = np.full((len(known), k), -np.inf, np.float32)
    for users, found in self.searches(known, exclude_history, among):
      items_UxK[users], scores_UxK[users] = (np.asarray(part)[: len(users), :k] for part in found)
    return Recommendations(items_UxK, scores_UxK, skipped_U)

  def require(self, k: int) -> None:
    if not 1 <= k <= self.beam:
      raise InputError(f'k is {k}; expected 1 to {self.beam}, the beams of the search')

  def searches(
    self, known: Sequence[Sequence[int]], exclude_history: bool = True, among: Choice | None = None, rows: int = 0
  ) -> Iterator[tuple[np.ndarray, tuple[jax.Array, jax.Array]]]:
    """Histories in batches of like lengths, each begun before the one before is given back.

    Args:
      rows: of a batch; 0: few rows for few histories, which is quicker but compiled for itself.

    Yields:
      indices of the batch's users, and its (items int32, scores float32 [rows, beam]) on the devices, of which rows
      behind the users' do not count.
    """
    among = among or self._all
    if among.recommender is not self:
      raise InputError('among is of another recommender; expected one of Recommender.among of this one')
    lengths_U = np.array([len(history) for history in known], np.int64)
    rows = rows or self._search.batch_rows(len(known))
    order_U, begun = np.argsort(lengths_U, kind='stable'), None
    for first in range(0, len(known), rows):
      users = order_U[first : first + rows]
      longest = int(lengths_U[users[-1]])
      width = int(self._widths[np.searchsorted(self._widths, min(longest, self._widths[-1]))])
      latest_BxC = _padded([known[user][-width:] for user in users.tolist()], rows, width)
      had_BxH = np.zeros((rows, 0), np.int32)
      if exclude_history:
        had = [list(set(known[user])) for user in users.tolist()]
        most = max(map(len, had))
        had_BxH = _padded(had, rows, width if most <= width else next_power_of_two(most))
      before, begun = begun, (users, self._search.search(self._params, latest_BxC, had_BxH, among.candidates))
      if before:
        yield before
    if begun:
      yield begun

  def _known(self, histories: Sequence[Sequence[Item]]) -> tuple[list[list[int]], np.ndarray]:
    known = []
    for user, history in enumerate(histories):
      if isinstance(history, str) or not hasattr(history, '__len__'):
        raise InputError(f'history {user} is {history!r}; expected a sequence of items')
      try:
        numbers = [self.catalogue.number(item) for item in history]
      except TypeError as error:
        raise InputError(f'history {user} has an item that is neither a number nor a raw id ({error})') from error
      known.append([number for number in numbers if number is not None])
    skipped_U = np.array([len(history) - len(found) for history, found in zip(histories, known)], np.int32)
    return known, skipped_U


def _padded(histories: Sequence[Sequence[int]], rows: int, width: int) -> np.ndarray:
  """int32 [rows, width], -1 behind each history."""
  padded = np.full((rows, width), -1, np.int32)
  for row, history in enumerate(histories):
    padded[row, : len(history)] = history
  return padded
