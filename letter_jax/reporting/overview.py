"""The beginning of the report, for readers who do not train models: what came out, of which data, and how it was found.

`sentence` is the page's first line.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup

from letter_jax.configuration import DataConfig
from letter_jax.data import left_out
from letter_jax.data.dataset import MIN_LENGTH
from letter_jax.evaluation import history, ranks
from letter_jax.evaluation.catalogue_use import CatalogueUse, catalogue_use
from letter_jax.reporting import page
from letter_jax.reporting.finished import RULE_NAMES, Finished
from letter_jax.reporting.lists import RECOMMENDATIONS, Lists
from letter_jax.system.wording import counted, part_of

# The simplest first: without the history in the ranking, buy again is popularity.
_RULES = {
  ranks.POPULARITY: 'popularity shows everybody the items with the most interactions',
  ranks.BOUGHT_TOGETHER: "bought together shows what others had together with the user's last items",
  ranks.BUY_AGAIN: 'buy again shows what the user had before, the most frequent first',
}
_IN = "the items of the user's own history among them"
_OUT = "except those of the user's own history"


def section(run: Finished, lists: Lists) -> page.Section:
  """How the first line was measured, the data, what was left out and why, and how lists use the catalogue."""
  return page.Section(
    'overview',
    'In short',
    'In short',
    'What the first line means, which data it is about, and how much of the catalogue the recommendations show.',
    [
      page.paragraph(_protocol(run)),
      page.heading('The data'),
      page.paragraph(_data(run)),
      page.heading('What was left out, and why'),
      *_left_out(run.summary, run.config.data),
      page.heading('How much of the catalogue is recommended'),
      _catalogue(run, lists),
    ],
  )


def sentence(run: Finished) -> str:
  """The result in words, such as 'The next item is among ten recommendations for 57 of 100 users; ...'."""
  recalls = _recalls(run, run.served_protocol)
  return in_words(recalls[run.ours], recalls, run.metrics['users'])


def _recalls(run: Finished, protocol: str) -> dict[str, float]:
  """Model -> Recall@10 of the test in a protocol."""
  return {model: run.metrics_of(model)[protocol]['test']['recall@10'] for model in run.model_names()}


def in_words(first: float, recalls: Mapping[str, float], users: int) -> str:
  """How often the model that recommends is right, and how often the best simple rule is.

  Args:
    first: Recall@10 of the model that recommends.
    recalls: model -> Recall@10; with at least one of the simple rules.
    users: that it was measured on.
  """
  rule = _best_rule(recalls)
  second = recalls[rule]
  # Small or similar shares need more users to tell them apart.
  per = 1000 if users >= 1000 and (first < 0.1 or round(100 * first) == round(100 * second)) else min(users, 100)
  ours, rules = (f'{recall * per:.0f}' for recall in (first, second))
  if ours == rules:
    judged = 'a simple rule does as well'
  else:
    judged = 'a simple rule does better' if first < second else 'best simple rule'
  return (
    f'The next item is among ten recommendations for {ours} of {per:,} users; {judged} ({RULE_NAMES[rule]}): {rules}.'
  )


def _best_rule(recalls: Mapping[str, float]) -> str:
  """The best simple rule, to the digits that a page shows; of equal ones the first."""
  return max((rule for rule in _RULES if rule in recalls), key=lambda rule: round(recalls[rule], 4))


def _protocol(run: Finished) -> str:
  """Exactly what was measured, and the same with the other treatment of the history."""
  names, served = run.model_names(), run.served_protocol
  recalls, excluded = _recalls(run, served), served == history.HISTORY_OUT
  rules = '; '.join(text for rule, text in _RULES.items() if rule in names)
  first = (
    f'The last item of each of {part_of(run.metrics["users"], run.summary["users"], "user")} was hidden. From the '
    f'earlier ones, every model ranked all of {counted(run.summary["items"], "item")}, {_OUT if excluded else _IN}, as '
    'recommendations are made by default. The share of users whose hidden item is among the first ten (Recall@10) is '
    f'{page.number(recalls[run.ours])} for {names[run.ours]}, the model that recommends'
    + (
      f', and {page.number(recalls["sasrec"])} for SASRec alone, which knows no semantic IDs'
      if 'sasrec' in names
      else ''
    )
    + f'. The rules: {rules}.'
  )
  others = _recalls(run, history.protocol_of(not excluded))
  rule = _best_rule(others)
  return (
    f'{first} {"With" if excluded else "Without"} the items of the history in the ranking, {names[run.ours]} has '
    f'{page.number(others[run.ours])} and the best rule ({RULE_NAMES[rule]}) {page.number(others[rule])}.'
  )


def _data(run: Finished) -> str:
  summary = run.summary
  kept = ', '.join(counted(summary[f'{kind}s'], kind) for kind in ('user', 'item', 'interaction'))
  if 'first_day' in summary:
    dates = f', from {summary["first_day"]} to {summary["last_day"]}'
  else:
    dates = '; the source has no dates, only an order' if run.config.data.source in ('letter', 'synthetic') else ''
  return f'{run.data_title}: {kept}{dates}. ' + (
    f'{run.repeats:.1%} of the hidden items are repeats: the user had had the item before. A ranking without '
    'the items of the history can never find those.'
    if run.repeats
    else 'None of the hidden items is a repeat: no user had had it before.'
  )


def _left_out(summary: Mapping[str, Any], data: DataConfig) -> list[Markup]:
  """A table of what the preparation dropped, by reason."""
  preparation = summary.get('preparation') or {}
  if not preparation:
    made = data.source == 'synthetic'
    return [page.paragraph('Nothing.' if made else 'Nothing here; what was left out before is not known.')]
  users_and_items = preparation.get('left_out', {})
  rows = []
  for reason, interactions in preparation.get('dropped', {}).items():
    gone = users_and_items.get(reason, {'users': 0, 'items': 0})
    if interactions:
      rows.append((_why(reason, data), f'{gone["users"]:,}', f'{gone["items"]:,}', f'{interactions:,}'))
  kept = tuple(f'{summary[kind]:,}' for kind in ('users', 'items', 'interactions'))
  pieces = [
    page.table(
      ['why', 'users', 'items', 'interactions'],
      [*rows, ('kept', *kept)],
      'Users and items count as left out where none of their interactions is kept. left_out_items.csv names the items.',
    )
  ]
  if in_words := left_out.in_words(summary):
    pieces.insert(0, page.paragraph(f'{"; ".join(in_words)}.'))
  if problems := preparation.get('problems'):
    counts = '; '.join(f'{kind}: {counted(problem["lines"], "line")}' for kind, problem in problems.items())
    pieces.append(page.note(f'Of the files themselves, some lines were unusual or could not be read ({counts}).'))
  return pieces


def _why(reason: str, data: DataConfig) -> str:
  """The reason for which interactions were dropped, for readers who do not know the settings."""
  dates = data.preparation
  if reason == left_out.DATES:
    return f'outside the dates ({dates.since or "the beginning"} to {dates.until or "the end"})'
  if reason == left_out.SHORT:
    return f'of users with fewer than {MIN_LENGTH} interactions, who cannot be tested'
  if reason.startswith('outside the ') and reason.endswith('-core'):
    core = reason.removeprefix('outside the ').removesuffix('-core')
    return f'{reason}: users or items with fewer than {core} interactions, over and over until all have {core}'
  return {
    'duplicate': 'the same user, item and time again',
    'same item again': 'the same item again, directly after itself',
  }.get(reason, reason)


def _catalogue(run: Finished, lists: Lists) -> Markup:
  names, items = run.model_names(), run.summary['items']
  uses = {name: catalogue_use(lists.items_UxK[key], items) for key, name in names.items() if key in lists.items_UxK}
  chosen = catalogue_use(np.asarray(run.examples.targets)[:, None], items)
  return page.table(
    ['lists of ten', 'items on any list', 'share of the catalogue', 'places of the top 1% of items', 'Gini'],
    [*(_use_cells(name, use) for name, use in uses.items()), _use_cells('what users chose', chosen)],
    f'The first {RECOMMENDATIONS} recommendations of {counted(run.metrics["users"], "test user")}, '
    f"{run.metrics['users'] * RECOMMENDATIONS:,} places; the last row is the users' own next item, one of "
    'each. The more of all places the most recommended hundredth of the items takes, the more alike the lists are. The '
    'Gini coefficient is 0 where every item has as many places as any other, and nearly 1 where one item has all.',
  )


def _use_cells(name: str, use: CatalogueUse) -> tuple[str, ...]:
  return name, f'{use.items:,}', f'{use.coverage:.1%}', f'{use.top_share:.1%}', page.number(use.gini)
