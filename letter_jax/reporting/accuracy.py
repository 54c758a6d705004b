"""The part of the report on how well the models recommend: all users, and groups of them."""

import numpy as np

from letter_jax.evaluation import ranks
from letter_jax.reporting import figures, page
from letter_jax.reporting.bootstrap import RESAMPLES, interval, paired_difference
from letter_jax.reporting.finished import Finished
from letter_jax.reporting.page import Html
from letter_jax.reporting.results_table import COLUMNS, field_name

_GROUPS = 4
_NO_HITS = 'Recall@10 with 95% intervals; where no user of a group has a hit, resampling them cannot tell more than 0.'


def section(run: Finished) -> Html:
  names = run.model_names()
  return page.section(
    'results',
    'Results',
    'How often, and how high, each model ranks the item that a user really chose last. Look at whether the intervals '
    'of two models overlap before calling one better.',
    _results(run, names),
    _differences(run, names),
    _validation(run, names),
    page.tag('h3', 'By how popular the chosen item is'),
    page.paragraph(
      'Users grouped by the training interactions of their test item. A model that only knows what '
      'everybody buys does well in the last row alone.'
    ),
    *_grouped(run, names, 'popularity', run.counts_N[run.examples.targets], 'interactions'),
    page.tag('h3', 'By how much is known of the user'),
    page.paragraph(
      f'Users grouped by the length of their history before the test item (models see the latest '
      f'{run.config.data.history_length}).'
    ),
    *_grouped(run, names, 'history', run.lengths_U, 'items'),
  )


def _results(run: Finished, names: dict[str, str]) -> Html:
  best = {column: max(run.test_metrics(model)[column] for model in names) for column in COLUMNS}
  rows = []
  for model, name in names.items():
    cells = []
    for column in COLUMNS:
      value = run.test_metrics(model)[column]
      bounds = interval(ranks.gains(run.ranks[model], column), run.config.seed) if model in run.ranks else ()
      cells.append(page.estimate(value, *bounds, best=value == best[column] > 0))
    rows.append((name, *cells))
  without = [name for model, name in names.items() if model not in run.ranks]
  said = (
    f'Test, {run.metrics["users"]:,} users, ranked among all {run.summary["items"]:,} items; beam '
    f'{run.metrics["beam"]}. Below each value its 95% interval, from {RESAMPLES:,} bootstrap resamples of the '
    'users.'
  )
  if without:
    said += (
      f' No interval for {" and ".join(without)}: this workdir has no ranks of each user for it (an earlier '
      'version wrote it).'
    )
  return page.table(['model', *map(field_name, COLUMNS)], rows, said)


def _differences(run: Finished, names: dict[str, str]) -> Html:
  """A row for each baseline whose ranks are known."""
  rows = []
  for model, name in names.items():
    if model != ranks.GENERATOR and {model, ranks.GENERATOR} <= run.ranks.keys():
      rows.append(
        (
          name,
          *(
            page.difference(
              *paired_difference(
                ranks.gains(run.ranks[ranks.GENERATOR], metric), ranks.gains(run.ranks[model], metric), run.config.seed
              )
            )
            for metric in COLUMNS
          ),
        )
      )
  if not rows:
    return Html('')
  return page.table(
    [f'{run.generator_name} minus', *map(field_name, COLUMNS)],
    rows,
    'User by user, with 95% intervals: sharper than two intervals side by side. An asterisk: the interval excludes 0.',
  )


def _validation(run: Finished, names: dict[str, str]) -> Html:
  found = {
    name: run.metrics if model == ranks.GENERATOR else run.metrics['baselines'][model] for model, name in names.items()
  }
  rows = [
    (name, *(page.number(of_model['validation'][column]) for column in COLUMNS))
    for name, of_model in found.items()
    if 'validation' in of_model
  ]
  header = ['model', *map(field_name, COLUMNS)]
  parts = [page.table(header, rows, 'Validation: the item before the test item; models were chosen by these numbers.')]
  if 'test_string_match' in run.metrics:
    row = (run.generator_name, *(page.number(run.metrics['test_string_match'][column]) for column in COLUMNS))
    parts.append(
      page.table(
        header,
        [row],
        "Test, counted as LETTER's own code does: any item with the target's "
        'semantic ID is a hit. Too kind where items share an ID.',
      )
    )
  return page.details('Validation, and other ways to count', *parts)


def groups(values_U: np.ndarray, unit: str) -> list[tuple[str, np.ndarray]]:
  """(label, bool [U]) of about equally many users each, by a whole number of theirs; 0 is a group of its own.

  Users of one value stay together: a group ends with the value that fills its share of those who are left.
  """
  value_V, count_V = np.unique(values_U, return_counts=True)
  found = []
  if value_V[0] == 0:
    found.append((f'0 {unit}', values_U == 0))
    value_V, count_V = value_V[1:], count_V[1:]
  for number in range(_GROUPS):
    if not len(value_V):
      break
    filled_V = np.cumsum(count_V) >= count_V.sum() / (_GROUPS - number)
    last = int(np.argmax(filled_V))
    low, high = int(value_V[0]), int(value_V[last])
    found.append((f'{low}–{high} {unit}' if low < high else f'{low} {unit}', (values_U >= low) & (values_U <= high)))
    value_V, count_V = value_V[last + 1 :], count_V[last + 1 :]
  return found


def _grouped(run: Finished, names: dict[str, str], kind: str, values_U: np.ndarray, unit: str) -> list[Html]:
  """The table and the plot of Recall@10 by group, of the models whose ranks are known."""
  known = {model: name for model, name in names.items() if model in run.ranks}
  if not known:
    return [page.note('Not shown: this workdir has no ranks of each user (an earlier version wrote it).')]
  found = groups(values_U, unit)
  gains = {model: ranks.gains(run.ranks[model], 'recall@10') for model in known}
  estimates = {
    model: [
      (float(gains[model][member_U].mean()), *interval(gains[model][member_U], run.config.seed))
      for _, member_U in found
    ]
    for model in known
  }
  rows = [
    (label, f'{member_U.sum():,}', *(page.estimate(*estimates[model][place]) for model in known))
    for place, (label, member_U) in enumerate(found)
  ]
  plot = figures.intervals(
    kind, [label for label, _ in found], {known[model]: of_model for model, of_model in estimates.items()}, 'Recall@10'
  )
  return [
    page.beside(
      page.table(['group', 'users', *known.values()], rows, _NO_HITS),
      page.figure(plot, 'Recall@10', 'by group; lines are 95% intervals'),
    )
  ]
