"""The data set that every source is read into: each user's interactions in time order, and the items' texts."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from letter_jax.system.wording import counted

TEXT_FIELDS = ('title', 'brand', 'categories', 'description')
CATEGORY_SEPARATOR = ' > '
TFDS, LENGTHS, SUMMARY = 'tfds', 'lengths.npy', 'summary.json'  # what a prepared data set consists of (`store.py`)
PREPARED_BY = 'letter_jax.cli.prepare_with_beam'  # what writes the source 'prepared'
MIN_LENGTH = 3  # interactions of a user: one item each for training, validation and test

Texts = Sequence[Mapping[str, str]]  # TEXT_FIELDS -> text, of every item


@dataclasses.dataclass(frozen=True)
class Interactions:
  """Interactions of all users, concatenated. They are also a single window (see `Windows`).

  Attributes:
    items: int32 [interactions], item ids, each user's in time order.
    offsets: int64 [users + 1]; user u has items[offsets[u]:offsets[u + 1]].
    num_items: size of the catalogue; ids are 0 .. num_items - 1.
    users: the raw id of each user.
  """

  items: np.ndarray
  offsets: np.ndarray
  num_items: int
  users: tuple[str, ...]

  @property
  def lengths(self) -> np.ndarray:
    """int64 [users], interactions of each user."""
    return np.diff(self.offsets)

  @property
  def num_windows(self) -> int:
    """1, as all users are one window."""
    return 1

  @property
  def parts(self) -> int:
    """1, as every process has all users."""
    return 1

  def lengths_of(self, window: int, part: int) -> np.ndarray:
    """int64 [users], interactions of each user; both arguments are 0."""
    return self.lengths

  def window(self, window: int) -> 'Interactions':
    """All interactions; the argument is 0."""
    return self

  def recent(self) -> 'Interactions':
    """All interactions."""
    return self

  def whole(self) -> 'Interactions':
    """All interactions."""
    return self


class Windows(Protocol):
  """Interactions that are read a window of users at a time: `Interactions` or `store.StreamedInteractions`."""

  @property
  def num_items(self) -> int:
    """Size of the catalogue."""

  @property
  def num_windows(self) -> int:
    """The number of windows that the users are divided into."""

  @property
  def parts(self) -> int:
    """The number of parts of each window, one per process; 1 if every process reads whole windows."""

  def lengths_of(self, window: int, part: int) -> np.ndarray:
    """int64 [users in the part of the window], interactions of each user."""

  def window(self, window: int) -> Interactions:
    """This process' part of the window."""

  def recent(self) -> Interactions:
    """The latest interactions of all users, enough for a model's input; users in the order of the data set."""

  def whole(self) -> Interactions:
    """All interactions of all users, for taking histories out of a ranking; users in the order of the data set."""


@dataclasses.dataclass(frozen=True)
class Dataset:
  """Interactions, and what else the source provides.

  Attributes:
    name: of the data set, for its summary.
    interactions: of all users.
    texts: for each item, a dict of TEXT_FIELDS to strings; None if the source has no texts.
    timestamps: int64 [interactions], microseconds since 1970; None if the source has none.
    item_names: the raw id of each item; None if the source has none.
    preparation: counts of what was dropped from raw files and of their problems, for the summary; None for other
      sources.
    left_out: step -> raw ids of the items of the raw files that it left out (`left_out.py`).
  """

  name: str
  interactions: Interactions
  texts: tuple[dict[str, str], ...] | None
  timestamps: np.ndarray | None = None
  item_names: tuple[str, ...] | None = None
  preparation: dict[str, Any] | None = None
  left_out: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)

  def summary(self) -> dict[str, Any]:
    """Counts, sparsity and quantiles, as written to `summary.json`."""
    popularity = np.bincount(self.interactions.items, minlength=self.interactions.num_items)
    return summarize(
      self.name,
      histogram(self.interactions.lengths),
      histogram(popularity),
      None if self.texts is None else sum(not any(text.values()) for text in self.texts),
      self.preparation,
    )


def described(summary: dict[str, Any]) -> str:
  """The name and the counts of a data set in one line; `summary` as in `summary.json`."""
  nouns = {'users': 'user', 'items': 'item', 'interactions': 'interaction', 'training_examples': 'training example'}
  return f'{summary["name"]}: {", ".join(counted(summary[name], noun) for name, noun in nouns.items())}'


def summarize(
  name: str,
  lengths: dict[int, int],
  popularity: dict[int, int],
  items_without_text: int | None,
  preparation: dict[str, Any] | None,
) -> dict[str, Any]:
  """Computes `Dataset.summary` from counts alone.

  Args:
    name: of the data set.
    lengths: number of interactions -> how many users have as many.
    popularity: number of interactions -> how many items have as many.
    items_without_text: how many items have no text; None if the source has no texts.
    preparation: as `Dataset.preparation`.
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
  """value -> how often it occurs."""
  return dict(zip(*(part.tolist() for part in np.unique(values, return_counts=True))))


def _quantiles(histogram: dict[int, int]) -> dict[str, float]:
  """The quantiles that `np.quantile` computes on the values themselves."""
  values = sorted(histogram)
  ends = np.cumsum([histogram[value] for value in values])
  quantiles = {}
  for quantile in (0, 0.25, 0.5, 0.75, 0.9, 0.99, 1):
    position = quantile * (int(ends[-1]) - 1)
    neighbours = [
      values[np.searchsorted(ends, min(rank, ends[-1] - 1), side='right')]
      for rank in (math.floor(position), math.floor(position) + 1)
    ]
    quantiles[str(quantile)] = float(np.quantile(neighbours, position - math.floor(position)))
  return quantiles
