"""The section of the report that shows real users: their history, the item they chose next, and the recommendations."""

import dataclasses
from typing import Any

from markupsafe import Markup

from letter_jax.evaluation import history
from letter_jax.reporting import page
from letter_jax.reporting.finished import Finished
from letter_jax.reporting.lists import Lists, recommended
from letter_jax.system.wording import counted

_LATEST = 5  # items of a history that are shown without unfolding it


@dataclasses.dataclass(frozen=True)
class _Item:
  """An item as a card shows it: its index in the catalogue, its title, and its semantic ID such as '3-14-15'."""

  index: int
  title: str
  semantic_id: str


def section(run: Finished, lists: Lists) -> page.Section:
  """The users of `lists.shown`: our list of each, and beside it that of SASRec, where it was trained."""
  models = {model: name for model, name in run.model_names().items() if model in lists.items_UxK}
  shown = {model: models[model] for model in (run.ours, 'sasrec') if model in models}
  recall = page.number(run.metrics_of(run.ours)[run.served_protocol]['test']['recall@10'])
  treated = 'left out' if run.served_protocol == history.HISTORY_OUT else 'kept'
  return page.Section(
    'users',
    'Users',
    counted(len(lists.shown), 'user'),
    f'These users are drawn at random with the seed, not picked, so expect misses: Recall@10 of {models[run.ours]} is '
    f'{recall}. Items of the history are {treated}, as in recommendations by default. A tick marks the item that was '
    'chosen next. Look at whether a miss is at least the right kind of item. The numbers after a title are its '
    'semantic ID.',
    [page.cards([_card(run, shown, user, line) for user, line in lists.shown.items()])],
  )


def _card(run: Finished, shown: dict[str, str], user: int, line: dict[str, Any]) -> Markup:
  had = [_item(run, item) for item in line['history']]
  return page.render(
    'user.html',
    {
      'user': line['user'],
      'earlier': had[:-_LATEST],
      'latest': had[-_LATEST:],
      'target': _item(run, line['target']),
      'ranks': _ranks(run, user),
      'lists': {name: [_item(run, item) for item in recommended(line, model) or ()] for model, name in shown.items()},
    },
  )


def _item(run: Finished, item: int) -> _Item:
  return _Item(item, run.title(item), '-'.join(map(str, run.codes_NxL[item].tolist())))


def _ranks(run: Finished, user: int) -> list[str]:
  """Where each model ranks the item that the user chose, one sentence per model."""
  sentences = []
  for model, name in run.model_names().items():
    ahead, group, in_list = run.served_ranks[model][:, user].tolist()
    first, last = ahead + 1, ahead + group
    rank = 'not in the list' if not in_list else f'rank {first:,}' + (f'–{last:,}' if last > first else '')
    sentences.append(f'{name}: {rank}')
  return sentences
