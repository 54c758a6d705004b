"""What every source of data becomes: interactions in time order per user, and the items' texts.

Saved by the `dataset` stage as `interactions.npz`, `items.json` (texts), `item_names.json`, `users.json` and
`summary.json`.
"""

import dataclasses
import json
import pathlib

import numpy as np

from letter_jax.errors import InputError

TEXT_FIELDS = ('title', 'brand', 'categories', 'description')
CATEGORY_SEPARATOR = ' > '
MIN_LENGTH = 3  # interactions of a user: one item each for training, validation and test


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
    lengths = self.interactions.lengths
    popularity = np.bincount(self.interactions.items, minlength=self.interactions.num_items)
    users, items, count = len(lengths), self.interactions.num_items, len(self.interactions.items)
    quantiles = (0, 0.25, 0.5, 0.75, 0.9, 0.99, 1)
    return {
      'name': self.name, 'users': users, 'items': items, 'interactions': count,
      'sparsity': 1 - count / (users * items),
      'training_examples': int(np.maximum(lengths - 3, 0).sum()),
      'history_length_quantiles': {str(q): float(np.quantile(lengths, q)) for q in quantiles},
      'popularity_quantiles': {str(q): float(np.quantile(popularity, q)) for q in quantiles},
      'items_without_interactions': int((popularity == 0).sum()),
      'items_without_text': None if self.texts is None else sum(not any(text.values()) for text in self.texts),
      **({} if self.preparation is None else {'preparation': self.preparation}),
    }

  def save(self, directory: pathlib.Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    data = self.interactions
    times = {} if self.timestamps is None else {'timestamps': self.timestamps}
    np.savez(directory / 'interactions.npz', items=data.items, offsets=data.offsets, num_items=data.num_items, **times)
    (directory / 'users.json').write_text(json.dumps(data.users), encoding='utf-8')
    (directory / 'item_names.json').write_text(json.dumps(self.item_names), encoding='utf-8')
    (directory / 'items.json').write_text(json.dumps(self.texts, ensure_ascii=False), encoding='utf-8')
    (directory / 'summary.json').write_text(json.dumps(self.summary(), indent=2) + '\n', encoding='utf-8')


def load(directory: pathlib.Path) -> Dataset:
  """The data set that `Dataset.save` wrote; InputError where it is damaged."""
  try:
    with np.load(directory / 'interactions.npz', allow_pickle=False) as arrays:
      items, offsets, num_items = arrays['items'], arrays['offsets'], int(arrays['num_items'])
      timestamps = arrays.get('timestamps')
    users = tuple(json.loads((directory / 'users.json').read_text(encoding='utf-8')))
    texts = json.loads((directory / 'items.json').read_text(encoding='utf-8'))
    item_names = json.loads((directory / 'item_names.json').read_text(encoding='utf-8'))
    summary = json.loads((directory / 'summary.json').read_text(encoding='utf-8'))
    name, preparation = summary['name'], summary.get('preparation')
  except Exception as error:
    raise InputError(f'{directory}: the prepared data set cannot be read ({error}); '
                     'run again with --stage=dataset --overwrite') from error
  return Dataset(name, Interactions(items, offsets, num_items, users), None if texts is None else tuple(texts),
                 timestamps, None if item_names is None else tuple(item_names), preparation)
