"""From raw events to a data set: duplicates, k-core, time order, numbers. Columns in memory, no loop over events."""

import dataclasses
import datetime

import numpy as np
import polars as pl

from letter_jax.configuration import PreparationConfig
from letter_jax.data.dataset import MIN_LENGTH
from letter_jax.system.errors import InputError


@dataclasses.dataclass(frozen=True)
class Prepared:
  """Users and items are numbered in the order of their raw ids, whatever the order of the files.

  Attributes:
    items: int32 [interactions], each user's in time order.
    timestamps: int64 [interactions], seconds.
    offsets: int64 [users + 1]; user u has items[offsets[u]:offsets[u + 1]].
    user_names, item_names: raw ids.
    dropped: events by the reason they were dropped for, in the order of the steps.
    rounds: passes that the k-core took.
  """

  items: np.ndarray
  timestamps: np.ndarray
  offsets: np.ndarray
  user_names: list[str]
  item_names: list[str]
  dropped: dict[str, int]
  rounds: int


def prepare(events: pl.DataFrame, config: PreparationConfig) -> Prepared:
  """Prepares events that stand in the order of their source.

  An event that is there twice (user, item, timestamp) counts once. The k-core is taken of interactions: it ends when
  every user and every item has at least `config.core`. Events of a user at one moment stay in the order of the source.

  Args:
    events: columns `user` and `item` (strings), `timestamp` (int64, seconds).

  Raises:
    InputError: nothing is left.
  """
  dropped = {}
  count = len(events)
  if config.since:
    events = events.filter(pl.col('timestamp') >= seconds(config.since))
  if config.until:
    events = events.filter(pl.col('timestamp') < seconds(config.until))
  dropped['outside the dates'], count = count - len(events), len(events)

  user_E, user_names = _numbered(events['user'])
  item_E, item_names = _numbered(events['item'])
  time_E = events['timestamp'].to_numpy()
  del events

  order_E = np.lexsort((time_E, user_E))  # stable
  user_E, item_E, time_E = user_E[order_E], item_E[order_E], time_E[order_E]
  kept_E = ~_repeated(user_E, item_E, time_E)
  user_E, item_E, time_E = user_E[kept_E], item_E[kept_E], time_E[kept_E]
  dropped['duplicate'], count = count - len(user_E), len(user_E)

  if config.repeats == 'drop':
    again_E = np.zeros(len(user_E), bool)
    again_E[1:] = (user_E[1:] == user_E[:-1]) & (item_E[1:] == item_E[:-1])
    user_E, item_E, time_E = user_E[~again_E], item_E[~again_E], time_E[~again_E]
    dropped['same item again'], count = count - len(user_E), len(user_E)

  kept_E, rounds = k_core(user_E, item_E, max(config.core, 1))
  user_E, item_E, time_E = user_E[kept_E], item_E[kept_E], time_E[kept_E]
  dropped[f'outside the {config.core}-core'], count = count - len(user_E), len(user_E)
  if config.core < MIN_LENGTH:
    kept_E = np.bincount(user_E, minlength=len(user_names))[user_E] >= MIN_LENGTH
    user_E, item_E, time_E = user_E[kept_E], item_E[kept_E], time_E[kept_E]
    dropped[f'of users with fewer than {MIN_LENGTH}'], count = count - len(user_E), len(user_E)
  if not count:
    raise nothing_left(dropped, config)

  user_E, users = _renumbered(user_E, user_names)
  item_E, items = _renumbered(item_E, item_names)
  offsets = np.searchsorted(user_E, np.arange(len(users) + 1)).astype(np.int64)
  return Prepared(item_E, time_E, offsets, users, items, dropped, rounds)


def k_core(user_E: np.ndarray, item_E: np.ndarray, core: int) -> tuple[np.ndarray, int]:
  """Indices, ascending, of the interactions of the largest set where every user and item has `core`; and the passes."""
  kept_E = np.arange(len(user_E))
  rounds = 0
  while True:
    rounds += 1
    few_U, few_I = np.bincount(user_E) < core, np.bincount(item_E) < core
    stays_E = ~(few_U[user_E] | few_I[item_E])
    if stays_E.all():
      return kept_E, rounds
    user_E, item_E, kept_E = user_E[stays_E], item_E[stays_E], kept_E[stays_E]


def _repeated(user_E, item_E, time_E) -> np.ndarray:
  """bool [events], True from the second of equal (user, item, time) on; events sorted by user and time, stably."""
  order_E = np.lexsort((item_E, time_E, user_E))
  same = (user_E[order_E[1:]] == user_E[order_E[:-1]]) & (item_E[order_E[1:]] == item_E[order_E[:-1]])
  same &= time_E[order_E[1:]] == time_E[order_E[:-1]]
  repeated_E = np.zeros(len(user_E), bool)
  repeated_E[order_E[1:][same]] = True
  return repeated_E


def _numbered(names: pl.Series) -> tuple[np.ndarray, pl.Series]:
  """int32 numbers in the order of the distinct names, and those."""
  distinct = names.unique().sort()
  return names.cast(pl.Enum(distinct)).to_physical().to_numpy().astype(np.int32), distinct


def _renumbered(number_E: np.ndarray, names: pl.Series) -> tuple[np.ndarray, list[str]]:
  """int32, without gaps, and the names that are left."""
  used = np.bincount(number_E, minlength=len(names)) > 0
  return (np.cumsum(used) - 1).astype(np.int32)[number_E], names.filter(pl.Series(used)).to_list()


def seconds(date: str) -> int:
  """The Unix time of the start of a day (YYYY-MM-DD, UTC)."""
  return int(datetime.datetime.fromisoformat(date).replace(tzinfo=datetime.UTC).timestamp())


def nothing_left(dropped: dict[str, int], config: PreparationConfig) -> InputError:
  """The error of a preparation that drops everything."""
  said = ', '.join(f'{count:,} {reason}' for reason, count in dropped.items() if count)
  dates = ', other dates (config.data.preparation.since and until)' if dropped['outside the dates'] else ''
  return InputError(
    f'no interaction is left of the raw ones ({said}); expected more data{dates}, or a smaller '
    f'config.data.preparation.core than {config.core}'
  )
