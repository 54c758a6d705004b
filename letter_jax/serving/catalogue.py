"""The catalogue: raw ids, titles and semantic IDs, and lookup of items by id."""

import collections
import dataclasses
import functools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from letter_jax.data import left_out
from letter_jax.data.index_format import tokens_of
from letter_jax.data.raw_ids import as_raw_id
from letter_jax.evaluation.first_purchases import FirstPurchases
from letter_jax.semantic_ids.ids import SemanticIds
from letter_jax.system.errors import InputError
from letter_jax.system.wording import counted
from letter_jax.workdir import Workdir

# An item as users of the program refer to it: its raw id in the source of the data, or a number (`Catalogue.index_of`).
Item = int | str

SHOWN = 3  # ids that a message lists


def require_items(name: str, items: Iterable[Item] | None) -> None:
  """Raises InputError where an argument is a single text, which would be taken for a sequence of one-letter items."""
  if isinstance(items, str | bytes):
    raise InputError(f'{name} is {items!r}; expected a sequence of items')


@dataclasses.dataclass(frozen=True, eq=False)
class Catalogue:
  """N items; those with an index of at least `trained` are newer than the training (cold items).

  Attributes:
    raw_ids: ids of the items in the source of the data; '0', '1', ... where the source has none.
    titles: '' for an item without a title.
    ids: semantic IDs of the items.
    trained: number of items that the generator was trained with.
    own_ids: whether the raw ids are those of the source; False where it has none.
    newcomers: the ranking for users without a known item.
    left_out: reads the items that the preparation left out, raw id -> step (`data/left_out.py`).
  """

  raw_ids: tuple[str, ...]
  titles: tuple[str, ...]
  ids: SemanticIds
  trained: int
  own_ids: bool
  newcomers: FirstPurchases
  left_out: Callable[[], Mapping[str, str]] = dict

  @classmethod
  def of_workdir(cls, workdir: Workdir, ids: SemanticIds) -> 'Catalogue':
    """The items of a workdir's data set, all of them trained with.

    Args:
      workdir: a workdir whose dataset stage is complete.
      ids: semantic IDs of the items, in the order of the data set.
    """
    texts = workdir.read_texts()
    titles = tuple(text['title'] for text in texts) if texts else ('',) * len(ids)
    raw_ids = workdir.read_raw_ids()
    names = raw_ids or tuple(map(str, range(len(ids))))
    newcomers = workdir.read_first_purchases()
    return cls(names, titles, ids, len(ids), raw_ids is not None, newcomers, workdir.read_left_out)

  def __len__(self) -> int:
    return len(self.raw_ids)

  @functools.cached_property
  def _left_out_by(self) -> Mapping[str, str]:
    return self.left_out()

  @functools.cached_property
  def _index_by_raw_id(self) -> dict[str, int]:
    return {as_raw_id(raw_id) or raw_id: index for index, raw_id in enumerate(self.raw_ids)}

  def index_of(self, item: Item) -> int | None:
    """The index of an item in this catalogue, None for an unknown item.

    A raw id is looked up in its normal form (`data/raw_ids.py`). A number is the raw id with these digits; where the
    data has no ids of its own, it is the index.

    Raises:
      TypeError: `item` is neither an integer nor a string.
    """
    if not isinstance(item, str):
      if isinstance(item, bool | np.bool_):
        raise TypeError('a bool is not an item')
      number = operator.index(item)
      if not self.own_ids:
        return number if 0 <= number < len(self) else None
      item = str(number)
    return self._index_by_raw_id.get(as_raw_id(item) or item)

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
    return dataclasses.replace(
      self,
      raw_ids=(*self.raw_ids, *raw_ids),
      titles=(*self.titles, *titles),
      ids=ids,
      newcomers=self.newcomers.extended(len(raw_ids)),
    )

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
    require_items('allow', allow)
    require_items('deny', deny)
    allowed_N, given = np.ones(len(self), bool), [] if allow is None else list(allow)
    unknown: list[Item] = []
    if allow is not None:
      allowed_N, unknown = self.mask(given)
      if unknown and not skip_unknown:
        index = '' if self.own_ids else f'an index below {len(self)} or '
        raise InputError(
          f'{counted(len(unknown), "allowed item")} {"is" if len(unknown) == 1 else "are"} unknown, the first is '
          f'{unknown[0]!r}'
          f'{self.about_unknown(unknown, len(given))}; expected {index}a raw id such as {self.raw_ids[0]!r}, or '
          'skip_unknown to ignore unknown items'
        )
    allowed_N &= ~self.mask(deny)[0]
    if not allowed_N.any():
      about = self.about_unknown(unknown, len(given)) if unknown else ''
      raise InputError(f'no item is allowed{about}; expected at least one item to recommend')
    return allowed_N

  def about_unknown(self, unknown: Sequence[Item], total: int) -> str:
    """What a message adds about unknown items: examples, where most ids are not of this data, and who was left out.

    Args:
      unknown: the unknown ones among `total` given items.
    """
    left_out_by = self._left_out_by
    steps = [left_out_by.get(as_raw_id(str(item)) or '') for item in unknown]
    strange = [item for item, step in zip(unknown, steps) if step is None]
    parts = []
    if 2 * len(strange) > total:
      parts.append(self.apart(strange))
    for step, count in collections.Counter(filter(None, steps)).items():
      parts.append(f'{count:,} of them {left_out.way_back(step)}')
    return ''.join(f'; {part}' for part in parts)

  def apart(self, strange: Sequence[Item]) -> str:
    """Three of the given ids next to three of the catalogue's, in words."""
    given, known = (', '.join(map(repr, ids[:SHOWN])) for ids in (strange, self.raw_ids))
    return f'they are such as {given}, and the ids of the catalogue are such as {known}'

  def mask(self, items: Iterable[Item]) -> tuple[np.ndarray, list[Item]]:
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
