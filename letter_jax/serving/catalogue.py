"""The items that can be recommended: what they are called, and which of them are meant."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from letter_jax.data import store
from letter_jax.data.letter_format import level_letter
from letter_jax.errors import InputError

# An item as a user names it: its number, 0 .. N - 1, or its id in the source of the data.
Item = int | str


@dataclasses.dataclass(frozen=True)
class Catalogue:
  """N items; those from `trained` on came after the training (cold items).

  Attributes:
    raw_ids: the items' ids in the source; their numbers as text where the source has none.
    titles: '' where an item has none.
    codes_NxL: int32, semantic IDs.
    trained: items that the generator was trained with.
  """

  raw_ids: tuple[str, ...]
  titles: tuple[str, ...]
  codes_NxL: np.ndarray
  trained: int

  @classmethod
  def of_workdir(cls, workdir: pathlib.Path, codes_NxL: np.ndarray) -> 'Catalogue':
    names, texts = store.load_items(workdir / 'dataset')
    items = len(codes_NxL)
    return cls(names or tuple(map(str, range(items))),
               tuple(text['title'] for text in texts) if texts else ('',) * items, codes_NxL, items)

  def __len__(self) -> int:
    return len(self.raw_ids)

  @functools.cached_property
  def _number_of(self) -> dict[str, int]:
    return {raw_id: number for number, raw_id in enumerate(self.raw_ids)}

  def number(self, item: Item) -> int | None:
    """Of an item that is known, else None."""
    if isinstance(item, str):
      return self._number_of.get(item)
    return int(item) if 0 <= item < len(self) else None

  def semantic_id(self, item: int) -> str:
    """Such as '<a_12><b_3><c_41>'."""
    return ''.join(f'<{level_letter(level)}_{code}>' for level, code in enumerate(self.codes_NxL[item].tolist()))

  def having(self, raw_ids: Sequence[str], titles: Sequence[str], codes_MxL: np.ndarray) -> 'Catalogue':
    """With M cold items behind the others."""
    return Catalogue((*self.raw_ids, *raw_ids), (*self.titles, *titles), np.concatenate([self.codes_NxL, codes_MxL]),
                     self.trained)

  def allowed(self, allow: Iterable[Item] | None, deny: Iterable[Item]) -> np.ndarray:
    """bool [N]: those of `allow` (all, where it is None) that are not in `deny`.

    Raises:
      InputError: an item that is unknown; no item is left.
    """
    allowed_N = np.ones(len(self), bool)
    if allow is not None:
      allowed_N = self._mask(allow, 'the items that are allowed')
    allowed_N &= ~self._mask(deny, 'the items that are denied')
    if not allowed_N.any():
      raise InputError('no item is allowed; expected one at least to recommend')
    return allowed_N

  def _mask(self, items: Iterable[Item], what: str) -> np.ndarray:
    mask_N, unknown = np.zeros(len(self), bool), []
    for item in items:
      number = self.number(item)
      if number is None:
        unknown.append(item)
      else:
        mask_N[number] = True
    if unknown:
      raise InputError(f'{len(unknown)} of {what} are unknown, the first {unknown[0]!r}; expected numbers below '
                       f'{len(self)} or raw ids such as {self.raw_ids[0]!r}')
    return mask_N
