"""The items that can be recommended: what they are called, and which of them are meant."""

import dataclasses
import functools
import operator
from collections.abc import Iterable, Sequence

import numpy as np

from letter_jax.data.index_format import tokens_of
from letter_jax.semantic_ids.ids import SemanticIds
from letter_jax.system.errors import InputError
from letter_jax.workdir import Workdir

# An item as a user names it: its number, 0 .. N - 1, or its id in the source of the data.
Item = int | str


@dataclasses.dataclass(frozen=True, eq=False)
class Catalogue:
  """N items; those from `trained` on are newer than the training (cold items).

  Attributes:
    raw_ids: the items' ids in the source; their row numbers as text where the source has none.
    titles: '' where an item has none.
    ids: their semantic IDs.
    trained: number of items that the generator was trained with.
  """

  raw_ids: tuple[str, ...]
  titles: tuple[str, ...]
  ids: SemanticIds
  trained: int

  @classmethod
  def of_workdir(cls, workdir: Workdir, ids: SemanticIds) -> 'Catalogue':
    """The items of a workdir's data set."""
    texts = workdir.read_items()[1]
    titles = tuple(text['title'] for text in texts) if texts else ('',) * len(ids)
    return cls(workdir.read_raw_ids(), titles, ids, len(ids))

  def __len__(self) -> int:
    return len(self.raw_ids)

  @functools.cached_property
  def _number_of(self) -> dict[str, int]:
    return {raw_id: number for number, raw_id in enumerate(self.raw_ids)}

  def number(self, item: Item) -> int | None:
    """Of an item that is known, else None; TypeError for what is neither a number nor a raw id."""
    if isinstance(item, str):
      return self._number_of.get(item)
    if isinstance(item, bool | np.bool_):
      raise TypeError('a truth value is no item')
    number = operator.index(item)
    return number if 0 <= number < len(self) else None

  def semantic_id(self, item: int) -> str:
    """Such as '<a_12><b_3><c_41>'."""
    return ''.join(tokens_of(self.ids.codes_NxL[item].tolist()))

  def having(self, raw_ids: Sequence[str], titles: Sequence[str], codes_MxL: np.ndarray) -> 'Catalogue':
    """The catalogue with M cold items after the others."""
    ids = SemanticIds(np.concatenate([self.ids.codes_NxL, codes_MxL]), self.ids.codebook_size)
    return Catalogue((*self.raw_ids, *raw_ids), (*self.titles, *titles), ids, self.trained)

  def allowed(self, allow: Iterable[Item] | None, deny: Iterable[Item], skip_unknown: bool) -> np.ndarray:
    """bool [N]: those of `allow` (all, where it is None) that are not in `deny`, which may have unknown items.

    Raises:
      InputError: `allow` has an unknown item, and those are not skipped; no item is left.
    """
    allowed_N = np.ones(len(self), bool)
    if allow is not None:
      allowed_N, unknown = self._mask(allow)
      if unknown and not skip_unknown:
        raise InputError(
          f'{len(unknown)} of the items that are allowed are unknown, the first {unknown[0]!r}; '
          f'expected numbers below {len(self)} or raw ids such as {self.raw_ids[0]!r}, or that unknown '
          'ones are to be passed over (skip_unknown)'
        )
    allowed_N &= ~self._mask(deny)[0]
    if not allowed_N.any():
      raise InputError('no item is allowed; expected one at least to recommend')
    return allowed_N

  def _mask(self, items: Iterable[Item]) -> tuple[np.ndarray, list[Item]]:
    """bool [N], and the items that are unknown."""
    mask_N, unknown = np.zeros(len(self), bool), []
    for item in items:
      number = self.number(item)
      if number is None:
        unknown.append(item)
      else:
        mask_N[number] = True
    return mask_N, unknown
