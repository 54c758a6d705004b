"""The section of the report that shows real users: their history, the item they chose next, and the recommendations."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from letter_jax.reporting import page
from letter_jax.reporting.finished import Finished
from letter_jax.system.errors import InputError
from letter_jax.system.wording import counted
from letter_jax.workdir import PREDICTIONS, REDO_EVALUATION

USERS, RECOMMENDATIONS = 10, 10
_LATEST = 5  # items of a history that are shown without unfolding it


@dataclasses.dataclass(frozen=True)
class _Item:
  """An item as a card shows it: its index in the catalogue, its title, and its semantic ID such as '3-14-15'."""

  index: int
  title: str
  semantic_id: str


def section(run: Finished) -> page.Section:
  """`USERS` test users, drawn with the run's seed.

  Raises:
    InputError: `evaluation/predictions.jsonl` is damaged or has too few lines.
  """
  count = len(run.examples)
  users = np.sort(np.random.default_rng(run.config.seed).choice(count, min(USERS, count), replace=False)).tolist()
  cards = [_card(run, user, line) for user, line in zip(users, _read_lines(run, users))]
  return page.Section(
    'users',
    'Users',
    counted(len(users), 'user'),
    'These users are drawn at random with the seed, not picked, so expect misses: Recall@10 is '
    f'{page.number(run.metrics["test"]["recall@10"])}. Look at whether a miss is at least the right kind of item. The '
    'numbers after a title are its semantic ID.',
    [page.cards(cards)],
  )


def _read_lines(run: Finished, users: Sequence[int]) -> list[dict[str, Any]]:
  """The predictions for these users, which are in ascending order."""
  drawn = set(users)
  lines = [line for user, line in enumerate(run.workdir.read_predictions()) if user in drawn]
  if len(lines) < len(users):
    raise InputError(f'{run.workdir.evaluation / PREDICTIONS} ends before line {users[-1] + 1}; {REDO_EVALUATION}')
  return lines


def _card(run: Finished, user: int, line: dict[str, Any]) -> Markup:
  history = [_item(run, item) for item in line['history']]
  return page.render(
    'user.html',
    {
      'user': line['user'],
      'earlier': history[:-_LATEST],
      'latest': history[-_LATEST:],
      'target': _item(run, line['target']),
      'ranks': _ranks(run, user),
      'generator': run.generator_name,
      'recommendations': [_item(run, item) for item in line['items'][:RECOMMENDATIONS]],
    },
  )


def _item(run: Finished, item: int) -> _Item:
  return _Item(item, run.title(item), '-'.join(map(str, run.codes_NxL[item].tolist())))


def _ranks(run: Finished, user: int) -> list[str]:
  """Where each model ranks the item that the user chose, one sentence per model."""
  sentences = []
  for model, name in run.model_names().items():
    ahead, group, in_list = run.ranks[model][:, user].tolist()
    first, last = ahead + 1, ahead + group
    rank = 'not in the list' if not in_list else f'rank {first:,}' + (f'–{last:,}' if last > first else '')
    sentences.append(f'{name}: {rank}')
  return sentences
