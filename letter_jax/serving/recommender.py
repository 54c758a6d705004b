"""A trained generator as a recommender: histories in, items out."""

import contextlib
import dataclasses
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from letter_jax.configuration import MeshConfig
from letter_jax.decoding.candidates import Candidates
from letter_jax.decoding.user_search import ListSearch
from letter_jax.evaluation.history import excludes
from letter_jax.generators.generator import user_search
from letter_jax.serving.catalogue import Catalogue, Item, require_items
from letter_jax.serving.cold_items import with_cold_items
from letter_jax.serving.loaded_generator import LoadedGenerator, serving_config
from letter_jax.system import compilation_cache
from letter_jax.system.errors import InputError
from letter_jax.system.progress import Progress
from letter_jax.workdir import Workdir

# Excluded items are padded to the first of these numbers that is large enough, or to a power of two.
EXCLUDED = (64, 1024)

COMPILED = 2  # programs at a time

_ONE_AT_A_TIME = threading.Lock()

_Array = jax.Array | np.ndarray


@dataclasses.dataclass(frozen=True)
class Recommendations:
  """The recommendations for U histories, best first.

  Attributes:
    items_UxK: int32, indices of items; -1 where fewer than K items are allowed.
    scores_UxK: float32, log-likelihoods of their semantic IDs, or of a first purchase; -inf where there is no item.
    skipped_U: int32, number of unknown items of each history.
    from_popularity_U: bool, whether the history is empty or wholly unknown: the list is then the popularity of first
      purchases, the same for all such users.
  """

  items_UxK: np.ndarray
  scores_UxK: np.ndarray
  skipped_U: np.ndarray
  from_popularity_U: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Choice:
  """The items that may be recommended, as `Recommender.among` makes it; valid for that recommender only.

  Attributes:
    made_by: stands for the recommender that made it, without keeping it alive.
    candidates: the items, on its devices.
    popular: the list of a user without a known item, int32 and float32 [beam].
    repeat_N: bool, the items that may be recommended to users who had them; None where nothing was said about it.
  """

  made_by: object = dataclasses.field(repr=False)
  candidates: Candidates = dataclasses.field(repr=False)
  popular: tuple[np.ndarray, np.ndarray] = dataclasses.field(repr=False)
  repeat_N: np.ndarray | None = dataclasses.field(default=None, repr=False)


class Recommender:
  """The best generator of a finished workdir, on all devices of this process.

  Attributes:
    catalogue: the items, with their raw ids, titles and semantic IDs.
    beam: beams of the search, the largest number of items for each user.
    batch: users that are searched at once.
    exclude_history: whether `recommend` excludes the items of a history, where it is not told.
    chosen: why, as `evaluation.history.choose` returned it; None where no evaluation has chosen.
  """

  def __init__(
    self,
    search: ListSearch,
    params: Any,
    catalogue: Catalogue,
    history_length: int,
    chosen: Mapping[str, Any] | None = None,
  ):
    """Places the set of all items on the devices; compiles nothing yet.

    Args:
      search: over the semantic IDs of `catalogue`.
      params: as `search` takes them.
      catalogue: the items.
      history_length: latest items of a history that the generator was trained with.
      chosen: what decides whether `recommend` excludes the items of a history; None: it does.
    """
    self._search, self._params, self.catalogue = search, params, catalogue
    self._identity = object()
    self.beam, self.batch, self.chosen = search.beam, search.batches.size, chosen
    self.exclude_history = excludes(chosen)
    self._widths = search.batches.widths(history_length)
    self._few_widths = search.batches.few_widths(history_length)
    self._all = self._choice(np.ones(len(catalogue), bool))

  @classmethod
  def from_workdir(
    cls,
    workdir: str | os.PathLike,
    beam: int = 20,
    cold_items: Sequence[Mapping[str, Any]] = (),
    mesh: MeshConfig | None = None,
    fusion: bool = True,
    warm_up: bool = False,
  ) -> 'Recommender':
    """The recommender of a run whose generator stage is complete, with either kind of generator.

    If the run's evaluation has joined the generator with partners (`config.fusion`), so does the recommender: scores
    are then log p(generator) + sum of weight * log p(partner). Whether items of a history may be recommended is by
    default what was better on validation (`exclude_history`); they may not where no evaluation has chosen.

    Args:
      workdir: the run's --workdir.
      beam: beams of the search; a wider search finds better items and takes longer.
      cold_items: items newer than the training, each a mapping with 'id' (a new raw id) and its texts 'title', 'brand',
        'categories', 'description', or, where the training was given text embeddings, its row 'embedding'. The trained
        tokenizer gives them semantic IDs that no other item has.
      mesh: how the devices are arranged; by default each has the whole generator and a share of the users.
      fusion: False for the generator alone. Cold items are recommended by the generator alone: they have no row in the
        partners.
      warm_up: whether to compile everything at once, by `warm_up`, instead of on the first call that needs it.

    Raises:
      InputError: the workdir has no generator that can be read, or a cold item cannot be tokenised.
    """
    folder = Workdir(workdir)
    config = serving_config(folder, mesh or MeshConfig())
    catalogue = Catalogue.of_workdir(folder, folder.read_semantic_ids())
    cold_text_MxT = None
    if cold_items:
      catalogue, cold_text_MxT = with_cold_items(catalogue, cold_items, config, folder)
    loaded = LoadedGenerator.for_serving(folder, config, catalogue.ids, cold_text_MxT, room=True)
    loaded.require_beam(beam)
    joined = folder.read_fusion() if fusion and not cold_items else None
    history_length, chosen = config.data.history_length, folder.read_served_protocol(fused=joined is not None)
    search = user_search(loaded.generator, beam, config.evaluation.batch_size)
    if joined:
      partners = list(map(loaded.partner, joined['partners']))
      fused_search, models = loaded.fused_search(search, partners, joined['candidates'])
      params = (*models, np.array(joined['weights'], np.float32))
      recommender = cls(fused_search, params, catalogue, history_length, chosen)
    else:
      recommender = cls(search, loaded.params, catalogue, history_length, chosen)
    if warm_up:
      recommender.warm_up()
    return recommender

  def warm_up(self, users: int | None = None, progress: bool = True) -> None:
    """Compiles every program that `recommend` runs, so that no later call has to wait for one.

    There is one for each number of rows of a batch, and for short and long histories and those of users with many
    excluded items (EXCLUDED); a user who had even more items needs one more. They depend on the architecture and on the
    rounded shape of the catalogue and its trie: a recommender of another training, or of a catalogue that grew a
    little, mostly finds them compiled. They are compiled again where a rounded number takes its next step, and where
    items share a semantic ID for the first time. Where JAX has no persistent cache, it gets that of the command line,
    so that the next process finds them too.

    Args:
      users: only the programs for calls with so many users at most; None for any number.
      progress: whether it is shown how far it is.
    """
    compilation_cache.use()
    # Whoever had many items has a long history.
    widths = [*((width, EXCLUDED[0]) for width in self._few_widths), *((self._widths[-1], had) for had in EXCLUDED[1:])]
    batches = self._search.batches
    most = batches.rows(batches.size if users is None else users)
    shapes = [(rows, *of_row) for rows in batches.all_rows if rows <= most for of_row in widths]

    def run(shape: tuple[int, int, int]) -> None:
      rows, width, had_width = shape
      nobody_BxC, nobody_BxH = np.full((rows, width), -1, np.int32), np.full((rows, had_width), -1, np.int32)
      nobody_BxC[:, 0] = 0
      jax.block_until_ready(self._start(nobody_BxC, nobody_BxH, self._all.candidates))

    with Progress('warm up' if progress else '', len(shapes), 'program') as bar, ThreadPoolExecutor(COMPILED) as pool:
      for _ in pool.map(run, shapes):
        bar.update(1)

  def among(
    self,
    allow: Iterable[Item] | None = None,
    deny: Iterable[Item] = (),
    skip_unknown: bool = False,
    repeat: Iterable[Item] | None = None,
  ) -> Choice:
    """The items that `recommend` chooses from: all items, or those of `allow`, without those of `deny`.

    Takes milliseconds and compiles nothing, so stock, region or age limits can change with every call.

    Args:
      allow: items as in a history of `recommend`; None for all items.
      deny: items in the same way; unknown ones are ignored.
      skip_unknown: ignore unknown items of `allow`.
      repeat: the items that may be recommended although the user had them, in the same way, while the other items of
        the history may not; unknown ones are ignored. None where `exclude_history` decides about all items.

    Raises:
      InputError: `allow` has an unknown item that is not to be skipped, or no item is left.
    """
    require_items('repeat', repeat)
    repeat_N = None if repeat is None else self.catalogue.mask(repeat)[0]
    return self._choice(self.catalogue.allowed(allow, deny, skip_unknown), repeat_N)

  def _choice(self, allowed_N: np.ndarray, repeat_N: np.ndarray | None = None) -> Choice:
    popular = self.catalogue.newcomers.best(allowed_N, self.beam)
    return Choice(
      self._identity, self._search.candidates(self._search.ids.with_room(allowed_N, False)), popular, repeat_N
    )

  def recommend(
    self,
    histories: Sequence[Sequence[Item]],
    k: int = 10,
    exclude_history: bool | None = None,
    among: Choice | None = None,
  ) -> Recommendations:
    """The `k` best next items for each of U histories.

    Args:
      histories: raw ids of items, the oldest first; a number is the raw id with these digits, or the index of the item
        where the data has no ids of its own. The generator sees the latest items, as many as in the training
        (`config.data.history_length`). Unknown items are skipped and counted. A history without a known item gets the
        popularity of first purchases.
      k: at most `beam`.
      exclude_history: whether items of the history, however long it is, are excluded; None for the recommender's
        `exclude_history`, and True where `among` names the items that may repeat.
      among: the items to choose from, made by `among` of this recommender; by default all.

    Raises:
      InputError: `k` is out of range, an item is neither a string nor an integer, `among` was made by a different
        recommender, or `exclude_history` is False although `among` names the items that may repeat.
    """
    if not 1 <= k <= self.beam:
      raise InputError(f'k is {k}; expected 1 to {self.beam}, the beams of the search')
    known, skipped_U = self._known(histories)
    items_UxW, scores_UxW = self.lists(known, exclude_history, among)
    items_UxK, scores_UxK = items_UxW[:, :k], scores_UxW[:, :k]
    return Recommendations(items_UxK, scores_UxK, skipped_U, np.array([not history for history in known], bool))

  def lists(
    self, known: Sequence[Sequence[int]], exclude_history: bool | None = None, among: Choice | None = None
  ) -> tuple[np.ndarray, np.ndarray]:
    """Items int32 and scores float32 [U, beam], -1 and -inf where there are fewer.

    Args:
      known, exclude_history, among: as in `searches`, which says what it raises.
    """
    items_UxW = np.full((len(known), self.beam), -1, np.int32)
    scores_UxW = np.full(items_UxW.shape, -np.inf, np.float32)
    for users, batch in self.searches(known, exclude_history, among):
      items_UxW[users], scores_UxW[users] = (part[: len(users)] for part in jax.device_get(batch))
    return items_UxW, scores_UxW

  def searches(
    self,
    known: Sequence[Sequence[int]],
    exclude_history: bool | None = None,
    among: Choice | None = None,
    rows: int = 0,
  ) -> Iterator[tuple[np.ndarray, tuple[_Array, _Array]]]:
    """Searches for histories in batches of similar lengths; a batch is yielded when the next one has been started.

    Histories without an item are not searched for: they get the popularity of first purchases.

    Args:
      known: indices of items, the oldest first.
      exclude_history: as in `recommend`.
      among: as in `recommend`.
      rows: rows of a batch. Each history is then padded as it would be alone, and what is found for it is bit by bit
        independent of the other histories. 0 for as few rows and batches as the histories need, by one of the programs
        of `warm_up`: faster for a few of them, but scores may differ in their last bits.

    Yields:
      int64, indices into `known` of the batch's users, and (items int32, scores float32 [rows, beam]), on the devices
      where they were searched for; rows after those of the users are padding.

    Raises:
      InputError: `among` was made by a different recommender, or it names the items that may repeat and
        `exclude_history` is False.
    """
    among = among or self._all
    if among.made_by is not self._identity:
      raise InputError('`among` was made by a different Recommender; expected the result of among() of this one')
    exclude = self._excludes(exclude_history, among)
    nothing = np.array([user for user, history in enumerate(known) if not history], np.int64)
    if len(nothing):
      items, scores = (np.broadcast_to(part, (len(nothing), self.beam)) for part in among.popular)
      yield nothing, (items, scores)
    had = [list(set(history)) if exclude else [] for history in known]
    started: tuple[np.ndarray, tuple[jax.Array, jax.Array]] | None = None
    for users, (width, had_width) in self._batches(known, had, rows):
      shape = rows or self._search.batches.rows(len(known) - len(nothing))
      latest_BxC = _padded([known[user][-width:] for user in users.tolist()], shape, width)
      had_BxH = _padded([had[user] for user in users.tolist()], shape, had_width)
      if among.repeat_N is not None:
        had_BxH = np.where(among.repeat_N[had_BxH], -1, had_BxH)
      previous, started = started, (users, self._start(latest_BxC, had_BxH, among.candidates))
      if previous:
        yield previous
    if started:
      yield started

  def _start(self, items_BxC: np.ndarray, had_BxH: np.ndarray, candidates: Candidates) -> tuple[jax.Array, jax.Array]:
    """Starts a search."""
    # Programs with collectives have to be started in one order on all devices, whichever threads start them.
    with _ONE_AT_A_TIME if self._search.batches.sharded_params else contextlib.nullcontext():
      return self._search.search(self._params, items_BxC, had_BxH, candidates)

  def _excludes(self, exclude_history: bool | None, among: Choice) -> bool:
    """Whether the items of a history are excluded, but for those that may repeat."""
    if among.repeat_N is None:
      return self.exclude_history if exclude_history is None else exclude_history
    if exclude_history is False:
      raise InputError(
        'exclude_history is False, but `among` names the items that may repeat; expected True, or no such items'
      )
    return True

  def width(self, items: int) -> int:
    """The width that a history of so many items is padded to; users of one width are searched for together."""
    return int(_next_width(self._few_widths, items))

  def _batches(
    self, known: Sequence[Sequence[int]], had: Sequence[Sequence[int]], rows: int
  ) -> Iterator[tuple[np.ndarray, tuple[int, int]]]:
    """The users of each batch, shortest histories first, with C and H, the widths of what is padded.

    Args:
      known: indices of the items of each history.
      had: the items that are excluded, each once.
      rows: as in `searches`; unless it is 0, all users of a batch have the C and H that they would have alone.
    """
    length_U, excluded_U = (np.array(list(map(len, lists)), np.int64) for lists in (known, had))
    # Wide where there are few users, which costs little, so that a few programs serve all of them.
    widths = self._widths if rows else self._few_widths
    width_U = _next_width(widths, length_U)
    had_width_U = 2 ** np.ceil(np.log2(np.maximum(excluded_U, 1))).astype(np.int64)
    for had_width in reversed(EXCLUDED):
      had_width_U = np.where(excluded_U <= had_width, had_width, had_width_U)
    if rows:
      had_width_U = np.where(excluded_U > 0, had_width_U, 0)
    order_U = np.lexsort((had_width_U, width_U, length_U > 0))
    order_U = order_U[np.count_nonzero(length_U == 0) :]
    shape_Ux2 = np.stack([width_U, had_width_U], axis=1)[order_U]
    size = rows or self._search.batches.rows(len(order_U))
    changes = np.flatnonzero((shape_Ux2[1:] != shape_Ux2[:-1]).any(axis=1)) + 1
    for alike_U in np.split(order_U, changes) if rows else [order_U]:
      for first in range(0, len(alike_U), size):
        users = alike_U[first : first + size]
        yield users, (int(width_U[users].max()), int(had_width_U[users].max()))

  def _known(self, histories: Sequence[Sequence[Item]]) -> tuple[list[list[int]], np.ndarray]:
    """The indices of the known items of each history, and int32 [U], the number of unknown ones."""
    known = []
    for user, history in enumerate(histories):
      if isinstance(history, str | bytes) or not hasattr(history, '__len__'):
        raise InputError(f'history {user} is {history!r}; expected a sequence of items')
      try:
        indices = [self.catalogue.index_of(item) for item in history]
      except TypeError as error:
        raise InputError(f'history {user} has an item that is neither a string nor an integer ({error})') from error
      known.append([index for index in indices if index is not None])
    skipped_U = np.array([len(history) - len(indices) for history, indices in zip(histories, known)], np.int32)
    return known, skipped_U


def _next_width(widths: np.ndarray, length: Any) -> Any:
  """The first of the ascending `widths` that has room for `length` items, or else the last one; element by element."""
  return widths[np.searchsorted(widths, np.minimum(length, widths[-1]))]


def _padded(histories: Sequence[Sequence[int]], rows: int, width: int) -> np.ndarray:
  """int32 [rows, width], -1 after the last item of each history."""
  padded = np.full((rows, width), -1, np.int32)
  for row, history in enumerate(histories):
    padded[row, : len(history)] = history
  return padded
