"""What the preparation of raw data leaves out as a whole: users and items without any interaction that is kept.

The summary counts them, by the step that dropped the last of their interactions. The raw ids of the items are kept as
a CSV table, so that a program that meets one later can say why it is not in the catalogue.
"""

import csv
import io
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from letter_jax.data.dataset import MIN_LENGTH
from letter_jax.system.errors import InputError

FILE = 'left_out_items.csv'
HEADER = ['id', 'left_out']

# The steps, as `dropped` of a summary names them.
DATES = 'outside the dates'
SHORT = f'of users with fewer than {MIN_LENGTH} interactions'


def outside_core(core: int) -> str:
  """The step of the k-core."""
  return f'outside the {core}-core'


def way_back(step: str) -> str:
  """How an item that a step left out can be recommended all the same."""
  if step == DATES:
    return 'left out by the dates: --config.data.preparation.since and until, or --cold_items'
  if step == SHORT:
    return f'left out with all {step.removeprefix("of ")}: --cold_items'
  return f'left out by the {step.removeprefix("outside the ")}: --config.data.preparation.core, or --cold_items'


def in_words(summary: Mapping[str, Any]) -> list[str]:
  """A phrase for each step that left out users or items; none for data that was not prepared from raw files."""
  preparation = summary.get('preparation') or {}
  return [
    f'{gone["users"]:,} of {preparation["raw_users"]:,} users and {gone["items"]:,} of {preparation["raw_items"]:,} '
    f'items left out ({step.removeprefix("of ")})'
    for step, gone in preparation.get('left_out', {}).items()
    if gone['users'] or gone['items']
  ]


def table(items: Mapping[str, Iterable[str]]) -> str:
  """The content of the file; `items` has the raw ids of the items by the step that left them out."""
  rows = io.StringIO()
  writer = csv.writer(rows, lineterminator='\n', quoting=csv.QUOTE_ALL)  # Python 3.11 leaves a CR unquoted
  writer.writerow(HEADER)
  writer.writerows((item, step) for step, of_step in items.items() for item in of_step)
  return rows.getvalue()


def read(path: pathlib.Path) -> dict[str, str]:
  """Raw id -> step that left it out; empty where the file does not exist; InputError if it is damaged."""
  if not path.exists():
    return {}
  try:
    with path.open(encoding='utf-8', newline='') as file:
      rows = csv.reader(file, strict=True)
      if next(rows, None) != HEADER:
        raise ValueError(f'it does not begin with {",".join(HEADER)}')
      return {raw_id: step for raw_id, step in rows}
  except (OSError, ValueError, csv.Error) as error:
    raise InputError(f'{path} cannot be read ({error}); expected the table that the stage dataset writes') from error
