"""Prepares raw events: removes duplicates, applies the k-core, sorts by time, numbers users and items.

Events are columns in memory; there is no Python loop over them.
"""

import dataclasses

import numpy as np
import polars as pl

from letter_jax.configuration import PreparationConfig
from letter_jax.data import left_out
from letter_jax.data.dataset import MIN_LENGTH
from letter_jax.data.times import day_start
from letter_jax.system.errors import InputError


@dataclasses.dataclass(frozen=True)
class Prepared:
  """Prepared interactions; users and items are numbered in the order of their raw ids.

  Attributes:
    items: int32 [interactions], item numbers, each user's in time order.
    timestamps: int64 [interactions], microseconds since 1970.
    offsets: int64 [users + 1]; user u has items[offsets[u]:offsets[u + 1]].
    user_names: raw id of each user.
    item_names: raw id of each item.
    dropped: reason -> number of events dropped for it, in the order of the steps.
    rounds: number of passes of the k-core.
    raw_users, raw_items: how many the events had.
    left_out_users: step -> how many users it left out, as in `left_out.py`.
    left_out_items: step -> raw ids of the items that it left out, sorted.
  """

  items: np.ndarray
  timestamps: np.ndarray
  offsets: np.ndarray
  user_names: list[str]
  item_names: list[str]
  dropped: dict[str, int]
  rounds: int
  raw_users: int
  raw_items: int
  left_out_users: dict[str, int]
  left_out_items: dict[str, list[str]]

  def left_out(self) -> dict[str, dict[str, int]]:
    """Step -> {'users': how many it left out, 'items': how many}, for the summary."""
    return {
      step: {'users': users, 'items': len(self.left_out_items[step])} for step, users in self.left_out_users.items()
    }


def prepare(events: pl.DataFrame, config: PreparationConfig, unread: str = '') -> Prepared:
  """Prepares events, given in the order of their source.

  Of duplicate events (user, item, timestamp) one is kept. The k-core removes users and items until each has at least
  `config.core` interactions. A user's events with the same timestamp keep the order of the source.

  Args:
    events: columns `user` and `item` (strings) and `timestamp` (int64, microseconds).
    config: dates, repeats and core.
    unread: what was not read as an event before, for the message.

  Raises:
    InputError: all events are dropped.
  """
  dropped: dict[str, int] = {}
  count = len(events)
  user_names, item_names = (events[column].unique().sort() for column in ('user', 'item'))
  if config.since:
    events = events.filter(pl.col('timestamp') >= day_start(config.since))
  if config.until:
    events = events.filter(pl.col('timestamp') < day_start(config.until))
  dropped[left_out.DATES], count = count - len(events), len(events)

  user_E, item_E = _numbered(events['user'], user_names), _numbered(events['item'], item_names)
  time_E = events['timestamp'].to_numpy()
  del events
  gone = _LeftOut(user_names, item_names)
  gone.add(left_out.DATES, user_E, item_E)

  order_E = np.lexsort((time_E, user_E))  # a stable sort
  user_E, item_E, time_E = user_E[order_E], item_E[order_E], time_E[order_E]
  kept_E = ~_duplicates(user_E, item_E, time_E)
  user_E, item_E, time_E = user_E[kept_E], item_E[kept_E], time_E[kept_E]
  dropped['duplicate'], count = count - len(user_E), len(user_E)

  if config.repeats == 'drop':
    repeat_E = np.zeros(len(user_E), bool)
    repeat_E[1:] = (user_E[1:] == user_E[:-1]) & (item_E[1:] == item_E[:-1])
    user_E, item_E, time_E = user_E[~repeat_E], item_E[~repeat_E], time_E[~repeat_E]
    dropped['same item again'], count = count - len(user_E), len(user_E)

  kept_E, rounds = k_core(user_E, item_E, max(config.core, 1))
  user_E, item_E, time_E = user_E[kept_E], item_E[kept_E], time_E[kept_E]
  outside_core = left_out.outside_core(config.core)
  dropped[outside_core], count = count - len(user_E), len(user_E)
  gone.add(outside_core, user_E, item_E)
  if config.core < MIN_LENGTH:
    kept_E = np.bincount(user_E, minlength=len(user_names))[user_E] >= MIN_LENGTH
    user_E, item_E, time_E = user_E[kept_E], item_E[kept_E], time_E[kept_E]
    dropped[left_out.SHORT], count = count - len(user_E), len(user_E)
    gone.add(left_out.SHORT, user_E, item_E)
  if not count:
    raise no_interaction_left(dropped, config, unread)

  user_E, users = _renumbered(user_E, user_names)
  item_E, items = _renumbered(item_E, item_names)
  offsets = np.searchsorted(user_E, np.arange(len(users) + 1)).astype(np.int64)
  return Prepared(
    item_E, time_E, offsets, users, items, dropped, rounds, len(user_names), len(item_names), gone.users, gone.items
  )


class _LeftOut:
  """Users and items that lose their last event in each step.

  Attributes:
    users, items: as `Prepared.left_out_users` and `left_out_items`.
  """

  def __init__(self, user_names: pl.Series, item_names: pl.Series):
    self._item_names, self._users_there = item_names, len(user_names)
    self._there_N = np.ones(len(item_names), bool)
    self.users: dict[str, int] = {}
    self.items: dict[str, list[str]] = {}

  def add(self, step: str, user_E: np.ndarray, item_E: np.ndarray) -> None:
    """Notes whom and what the step left out; the arguments are the events after it."""
    users_there = int(np.count_nonzero(np.bincount(user_E)))
    there_N = np.bincount(item_E, minlength=len(self._there_N)) > 0
    self.users[step] = self._users_there - users_there
    self.items[step] = self._item_names.filter(pl.Series(self._there_N & ~there_N)).to_list()
    self._users_there, self._there_N = users_there, there_N


def k_core(user_E: np.ndarray, item_E: np.ndarray, core: int) -> tuple[np.ndarray, int]:
  """Finds the largest set of interactions in which every user and item has at least `core`.

  Args:
    user_E: int32 [interactions], user numbers.
    item_E: int32 [interactions], item numbers.
    core: minimum number of interactions.

  Returns:
    The ascending indices of the interactions that are kept, and the number of passes.
  """
  kept_E = np.arange(len(user_E))
  rounds = 0
  while True:
    rounds += 1
    few_U, few_I = np.bincount(user_E) < core, np.bincount(item_E) < core
    stays_E = ~(few_U[user_E] | few_I[item_E])
    if stays_E.all():
      return kept_E, rounds
    user_E, item_E, kept_E = user_E[stays_E], item_E[stays_E], kept_E[stays_E]


def _duplicates(user_E: np.ndarray, item_E: np.ndarray, time_E: np.ndarray) -> np.ndarray:
  """bool [events], True for every (user, item, time) but its first; events must be sorted by user and time, stably."""
  together = (user_E[1:] == user_E[:-1]) & (time_E[1:] == time_E[:-1])
  # Only events of one user at one time can be duplicates, so not all are sorted again.
  candidate_C = np.flatnonzero(np.append(together, False) | np.append(False, together))
  user_C, item_C, time_C = user_E[candidate_C], item_E[candidate_C], time_E[candidate_C]
  order_C = np.lexsort((item_C, time_C, user_C))
  before, after = order_C[:-1], order_C[1:]
  same = (user_C[after] == user_C[before]) & (item_C[after] == item_C[before]) & (time_C[after] == time_C[before])
  duplicate_E = np.zeros(len(user_E), bool)
  duplicate_E[candidate_C[after[same]]] = True
  return duplicate_E


def _numbered(names: pl.Series, distinct: pl.Series) -> np.ndarray:
  """Returns the number of each name, int32, in the order of `distinct`, which has all of them."""
  return names.cast(pl.Enum(distinct)).to_physical().to_numpy().astype(np.int32)


def _renumbered(number_E: np.ndarray, names: pl.Series) -> tuple[np.ndarray, list[str]]:
  """Returns numbers without gaps, int32, and the names that are used."""
  used = np.bincount(number_E, minlength=len(names)) > 0
  return (np.cumsum(used) - 1).astype(np.int32)[number_E], names.filter(pl.Series(used)).to_list()


def no_interaction_left(dropped: dict[str, int], config: PreparationConfig, unread: str) -> InputError:
  """The error for a preparation that drops all events; `dropped` as in `Prepared`, `unread` as in `prepare`."""
  counts = ', '.join(f'{count:,} {reason}' for reason, count in dropped.items() if count)
  dates = ', different dates (config.data.preparation.since and until)' if dropped[left_out.DATES] else ''
  return InputError(
    f'no interaction is left after preparation ({counts}{unread and f"; before it {unread}"}); expected more data'
    f'{dates}, or a smaller config.data.preparation.core than {config.core}'
  )
