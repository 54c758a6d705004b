"""The catalogue: raw ids, titles and semantic IDs, and lookup of items by id or index."""

import dataclasses
import functools
import operator
from collections.abc import Iterable, Sequence

import numpy as np

from letter_jax.data.index_format import tokens_of
from letter_jax.semantic_ids.ids import SemanticIds
from letter_jax.system.errors import InputError
from letter_jax.workdir import Workdir

# An item as users of the program refer to it: its index, 0 .. N - 1, or its raw id in the source of the data.
Item = int | str


@dataclasses.dataclass(frozen=True, eq=False)
class Catalogue:
  """N items; those with an index of at least `trained` are newer than the training (cold items).

  Attributes:
    raw_ids: ids of the items in the source of the data; '0', '1', ... where the source has none.
    titles: '' for an item without a title.
    ids: semantic IDs of the items.
    trained: number of items that the generator was trained with.
  """

  raw_ids: tuple[str, ...]
  titles: tuple[str, ...]
  ids: SemanticIds
  trained: int

  @classmethod
  def of_workdir(cls, workdir: Workdir, ids: SemanticIds) -> 'Catalogue':
    """The items of a workdir's data set, all of them trained with.

    Args:
      workdir: a workdir whose dataset stage is complete.
      ids: semantic IDs of the items, in the order of the data set.
    """
    texts = workdir.read_texts()
    titles = tuple(text['title'] for text in texts) if texts else ('',) * len(ids)
    return cls(workdir.read_item_names(), titles, ids, len(ids))

  def __len__(self) -> int:
    return len(self.raw_ids)

  @functools.cached_property
  def _index_by_raw_id(self) -> dict[str, int]:
    return {raw_id: index for index, raw_id in enumerate(self.raw_ids)}

  def index_of(self, item: Item) -> int | None:
    """The index of an item, None for an unknown item.

    Raises:
      TypeError: `item` is neither an integer nor a string.
    """
    if isinstance(item, str):
      return self._index_by_raw_id.get(item)
    if isinstance(item, bool | np.bool_):
      raise TypeError('a bool is not an item')
    index = operator.index(item)
    return index if 0 <= index < len(self) else None

  def semantic_id(self, index: int) -> str:
    """The semantic ID of an item as text, such as '<a_12><b_3><c_41>'."""
    return ''.join(tokens_of(self.ids.codes_NxL[index].tolist()))

  def extended(self, raw_ids: Sequence[str], titles: Sequence[str], codes_MxL: np.ndarray) -> 'Catalogue':
    """A catalogue with M cold items after the items of this one.

    Args:
      raw_ids: M raw ids that this catalogue does not have.
      titles: M titles.
      codes_MxL: int32, semantic IDs with the levels and the codebook size of this catalogue.
    """
    ids = SemanticIds(np.concatenate([self.ids.codes_NxL, codes_MxL]), self.ids.codebook_size)
    return Catalogue((*self.raw_ids, *raw_ids), (*self.titles, *titles), ids, self.trained)

  def allowed(self, allow: Iterable[Item] | None, deny: Iterable[Item], skip_unknown: bool) -> np.ndarray:
    """The items of `allow` that are not in `deny`, as a mask.

    Args:
      allow: None for all items.
      deny: unknown items are ignored.
      skip_unknown: ignore unknown items of `allow`.

    Returns:
      bool [N].

    Raises:
      InputError: `allow` has an unknown item that is not to be skipped, or no item is left.
    """
    allowed_N = np.ones(len(self), bool)
    if allow is not None:
      allowed_N, unknown = self._mask(allow)
      if unknown and not skip_unknown:
        raise InputError(
          f'{len(unknown)} of the allowed items are unknown, the first is {unknown[0]!r}; expected an index below '
          f'{len(self)} or a raw id such as {self.raw_ids[0]!r}, or skip_unknown to ignore unknown items'
        )
    allowed_N &= ~self._mask(deny)[0]
    if not allowed_N.any():
      raise InputError('no item is allowed; expected at least one item to recommend')
    return allowed_N

  def _mask(self, items: Iterable[Item]) -> tuple[np.ndarray, list[Item]]:
    """bool [N], True for the given items, and those of them that are unknown."""
    mask_N = np.zeros(len(self), bool)
    unknown = []
    for item in items:
      index = self.index_of(item)
      if index is None:
        unknown.append(item)
      else:
        mask_N[index] = True
    return mask_N, unknown
