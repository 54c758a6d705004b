"""A small shop whose catalogue and habits change from day to day, as CSV files."""

import pathlib

import numpy as np

FIRST_DAY, DAY = 1_700_006_400, 86_400  # 2023-11-15, in seconds
NEW_A_DAY = 4  # items that come, and as many that go


def write_day(
  folder: pathlib.Path, day: int, users: int = 150, items: int = 60, window: int = 10, seed: int = 0
) -> None:
  """Writes what is known at the end of a day: the events of the `window` days before, of items that are still sold.

  Item i is sold from day (i - items) / NEW_A_DAY + 1 on, until as many others have come. A user's next item mostly is
  the one that follows the last, in an order that changes a little every day. Four of five users come every day.
  """
  lines, sold = ['user_id,item_id,timestamp'], _sold(day, items)
  for today in range(day - window + 1, day + 1):
    there = _sold(today, items)
    random = np.random.default_rng([seed, today + window])
    order = np.argsort(there * 7919 % 997 + random.normal(0, 20, len(there)))  # neighbours drift
    there = there[order]
    start_U = np.random.default_rng([seed, 1]).integers(0, items, users)
    for user in np.flatnonzero(random.random(users) < 0.8).tolist():
      place = start_U[user] + 2 * (today + window)
      for step in range(2):
        item = there[(place + step) % items] if random.random() < 0.85 else random.choice(there)
        if item in sold:
          lines.append(f'user-{user},item-{item:04},{FIRST_DAY + today * DAY + 60 * user + step}')
  folder.mkdir(parents=True, exist_ok=True)
  (folder / 'interactions.csv').write_text('\n'.join(lines) + '\n')
  titles = [f'item-{item:04},thing {item % 7} of kind {item % 12} in size {item % 5}' for item in sold]
  (folder / 'items.csv').write_text('\n'.join(['item_id,title', *titles]) + '\n')


def _sold(day: int, items: int) -> np.ndarray:
  """The numbers of the items that are sold on a day."""
  return np.arange(items) + NEW_A_DAY * (day + 20)
