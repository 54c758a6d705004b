"""The recommendations of all test users, read once from `evaluation/predictions.jsonl`.

Shapes: U test users, K items of a list.
"""

import collections
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from letter_jax.evaluation import ranks
from letter_jax.reporting.finished import Finished
from letter_jax.system.errors import InputError
from letter_jax.workdir import REDO_EVALUATION, SERVED

SHOWN_USERS, RECOMMENDATIONS = 10, 10
# Model -> the key of its items in a line. SASRec's lists are there if it was trained.
KEYS = {ranks.GENERATOR: 'items', ranks.FUSED: 'fused_items', 'sasrec': 'sasrec_items'}


@dataclasses.dataclass(frozen=True)
class Lists:
  """The lists of the test.

  Attributes:
    items_UxK: model -> int32 [U, RECOMMENDATIONS] as `recommended`, best first; -1 where there are fewer.
    shown: user -> line of the file, of a few users that are drawn with the run's seed, in the order of the data set.
  """

  items_UxK: dict[str, np.ndarray]
  shown: dict[int, dict[str, Any]]


def recommended(line: Mapping[str, Any], model: str) -> list[int] | None:
  """The first RECOMMENDATIONS of a model in a line of the file, in the protocol of `recommend`; None without a list."""
  key = KEYS[model]
  items = line.get(f'{SERVED}{key}', line.get(key))
  return None if items is None else items[:RECOMMENDATIONS]


def read_lists(run: Finished) -> Lists:
  """Reads the lists.

  Raises:
    InputError: the file is damaged or has too few lines.
  """
  count = len(run.examples)
  drawn = np.random.default_rng(run.config.seed).choice(count, min(SHOWN_USERS, count), replace=False)
  shown: dict[int, dict[str, Any]] = {user: {} for user in np.sort(drawn).tolist()}
  items_UxK: dict[str, np.ndarray] = collections.defaultdict(lambda: np.full((count, RECOMMENDATIONS), -1, np.int32))
  lines = 0
  for user, line in enumerate(run.workdir.read_predictions()):
    if user in shown:
      shown[user] = line
    for model in KEYS:
      found = recommended(line, model)
      if found is not None and user < count:
        items_UxK[model][user, : len(found)] = found
    lines = user + 1
  if lines < count:
    raise InputError(f'{run.workdir.predictions} ends before line {count}; {REDO_EVALUATION}')
  return Lists(dict(items_UxK), shown)
