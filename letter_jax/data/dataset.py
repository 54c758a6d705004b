"""What every source of data becomes: interactions in time order per user, and the items' texts."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

TEXT_FIELDS = ('title', 'brand', 'categories', 'description')
CATEGORY_SEPARATOR = ' > '
MIN_LENGTH = 3  # interactions of a user: one item each for training, validation and test

Texts = Sequence[Mapping[str, str]]  # TEXT_FIELDS -> text, of every item


@dataclasses.dataclass(frozen=True)
class Interactions:
  """Interactions of all users, concatenated.

  Attributes:
    items: int32 [interactions], item ids, each user's in time order.
    offsets: int64 [users + 1]; user u has items[offsets[u]:offsets[u + 1]].
    num_items: size of the catalogue; ids are 0 .. num_items - 1.
    users: the users' names in the source, one each.
  """

  items: np.ndarray
  offsets: np.ndarray
  num_items: int
  users: tuple[str, ...]

  @property
  def lengths(self) -> np.ndarray:
    return np.diff(self.offsets)

  # All users are one window (see `Windows`).
  num_windows = parts = 1

  def lengths_of(self, window: int, part: int) -> np.ndarray:
    return self.lengths

  def window(self, window: int) -> 'Interactions':
    return self

  def recent(self) -> 'Interactions':
    return self


class Windows(Protocol):
  """Interactions that are read a window of users at a time: `Interactions` themselves, or `store.StreamedInteractions`.

  Attributes:
    num_items: size of the catalogue.
    num_windows: windows that the users are divided into.
    parts: of each window's users, one for each process to read; 1 where every process reads all.
  """

  num_items: int
  num_windows: int
  parts: int

  def lengths_of(self, window: int, part: int) -> np.ndarray:
    """int64 [users of the part of the window], interactions of each."""

  def window(self, window: int) -> Interactions:
    """This process' users of the window."""

  def recent(self) -> Interactions:
    """The latest interactions of all users, enough for validation and test; users in the order of the data set."""


@dataclasses.dataclass(frozen=True)
class Dataset:
  """Interactions and what else the source has.

  Attributes:
    texts: one dict of TEXT_FIELDS (strings) per item.
    timestamps: int64 [interactions], seconds.
    item_names: the items' ids in the source.
    preparation: what was dropped from raw files, and what was wrong in them; part of the summary.
  """

  name: str
  interactions: Interactions
  texts: tuple[dict[str, str], ...] | None
  timestamps: np.ndarray | None = None
  item_names: tuple[str, ...] | None = None
  preparation: dict | None = None

  def summary(self) -> dict:
    """Counts, sparsity and quantiles, as written to `summary.json`."""
    popularity = np.bincount(self.interactions.items, minlength=self.interactions.num_items)
    return summarize(
      self.name,
      histogram(self.interactions.lengths),
      histogram(popularity),
      None if self.texts is None else sum(not any(text.values()) for text in self.texts),
      self.preparation,
    )


def summarize(
  name: str,
  lengths: dict[int, int],
  popularity: dict[int, int],
  items_without_text: int | None,
  preparation: dict | None,
) -> dict:
  """What `Dataset.summary` says, of counts alone.

  Args:
    lengths: interactions of a user -> users.
    popularity: interactions of an item -> items.
  """
  users, items = sum(lengths.values()), sum(popularity.values())
  count = sum(length * number for length, number in lengths.items())
  return {
    'name': name,
    'users': users,
    'items': items,
    'interactions': count,
    'sparsity': 1 - count / (users * items),
    'training_examples': sum(max(length - 3, 0) * number for length, number in lengths.items()),
    'history_length_quantiles': _quantiles(lengths),
    'popularity_quantiles': _quantiles(popularity),
    'items_without_interactions': popularity.get(0, 0),
    'items_without_text': items_without_text,
    **({} if preparation is None else {'preparation': preparation}),
  }


def histogram(values: np.ndarray) -> dict[int, int]:
  """value -> how often it is there."""
  return dict(zip(*(part.tolist() for part in np.unique(values, return_counts=True))))


def _quantiles(histogram: dict[int, int]) -> dict[str, float]:
  """Those of `np.quantile` on the values themselves."""
  values = sorted(histogram)
  ends = np.cumsum([histogram[value] for value in values])
  found = {}
  for quantile in (0, 0.25, 0.5, 0.75, 0.9, 0.99, 1):
    place = quantile * (int(ends[-1]) - 1)
    pair = [
      values[np.searchsorted(ends, min(rank, ends[-1] - 1), side='right')]
      for rank in (math.floor(place), math.floor(place) + 1)
    ]
    found[str(quantile)] = float(np.quantile(pair, place - math.floor(place)))
  return found
