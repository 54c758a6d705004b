"""The section of the report on how well each model recommends, for all users and for groups of them.

Shapes: U test users.
"""

from collections.abc import Mapping

import numpy as np
from markupsafe import Markup

from letter_jax.evaluation import history, ranks
from letter_jax.evaluation.both_protocols import WEIGHED
from letter_jax.evaluation.short_histories import KEY, LENGTHS, METRICS, WHOLE
from letter_jax.reporting import figures, page
from letter_jax.reporting.bootstrap import RESAMPLES, interval, paired_difference
from letter_jax.reporting.finished import Finished
from letter_jax.reporting.results_table import COLUMNS, field_name
from letter_jax.system.wording import counted, part_of

_IN_WORDS = {
  history.HISTORY_IN: 'The items of the history are in the ranking.',
  history.HISTORY_OUT: "The items of each user's history are out of the ranking.",
}
_GROUPS = 4
_GROUP_CAPTION = (
  'Recall@10 with 95% intervals. Where no user of a group has a hit, every resample is 0, and so is the interval.'
)


def section(run: Finished) -> page.Section:
  """Test results with intervals, differences to the baselines, and results by popularity and history length."""
  names = run.model_names()
  return page.Section(
    'results',
    'Results',
    'Results',
    'How often, and how high, each model ranks the item that the user actually chose. Check whether the intervals of '
    'two models overlap before calling one of them better.',
    [
      _results(run, names),
      _results_of_other_protocol(run, names),
      _differences(run, names),
      _validation(run, names),
      page.heading('By popularity of the chosen item'),
      page.paragraph(
        'Users are grouped by the number of training interactions of their test item. A model that has only learned '
        'which items are popular does well in the last row alone.'
      ),
      _grouped(run, names, run.counts_N[run.examples.targets], 'interactions'),
      page.heading('By length of the history'),
      page.paragraph(
        'Users are grouped by the length of their history before the test item; models see its latest '
        f'{counted(run.config.data.history_length, "item")}.'
      ),
      _grouped(run, names, run.lengths_U, 'items'),
      *_short_histories(run, names),
    ],
  )


def _results(run: Finished, names: Mapping[str, str]) -> Markup:
  users = part_of(run.metrics['users'], run.summary['users'], 'user')
  caption = (
    f'Test, {users}, ranking all of {counted(run.summary["items"], "item")}; beam {run.metrics["beam"]}. '
    f'{_IN_WORDS[run.protocol]}{_repeats(run)} '
    f'Below each value is its 95% interval, from {RESAMPLES:,} bootstrap resamples of the users.'
  )
  return _estimates(run, names, {model: run.metrics_of(model)['test'] for model in names}, run.ranks, caption)


def _results_of_other_protocol(run: Finished, names: Mapping[str, str]) -> Markup:
  metrics = {model: run.metrics_of(model)[run.other_protocol]['test'] for model in names}
  return _estimates(run, names, metrics, run.other_ranks, f'The same. {_IN_WORDS[run.other_protocol]}')


def _repeats(run: Finished) -> str:
  """The share of targets that can be found in one protocol only."""
  return (
    f' {run.metrics[history.REPEATS]["test"]:.1%} of the chosen items are ones that the user had: where those are out '
    'of the ranking, they cannot be found.'
  )


def _estimates(
  run: Finished,
  names: Mapping[str, str],
  metrics: Mapping[str, Mapping[str, float]],
  ranks_of: Mapping[str, np.ndarray],
  caption: str,
) -> Markup:
  """A table of values with their intervals; the best of each column is marked."""
  best = {column: max(of_model[column] for of_model in metrics.values()) for column in COLUMNS}
  rows = []
  for model, name in names.items():
    cells = []
    for column in COLUMNS:
      value = metrics[model][column]
      bounds = interval(ranks.gains(ranks_of[model], column), run.config.seed)
      cells.append(page.estimate(value, *bounds, best=value == best[column] > 0))
    rows.append((name, *cells))
  return page.table(['model', *map(field_name, COLUMNS)], rows, caption)


def _differences(run: Finished, names: Mapping[str, str]) -> Markup:
  """The generator minus each baseline."""
  rows = []
  for model, name in names.items():
    if model == ranks.GENERATOR:
      continue
    cells = []
    for metric in COLUMNS:
      generator_U, baseline_U = (ranks.gains(run.ranks[key], metric) for key in (ranks.GENERATOR, model))
      cells.append(page.difference(*paired_difference(generator_U, baseline_U, run.config.seed)))
    rows.append((name, *cells))
  return page.table(
    [f'{run.generator_name} minus', *map(field_name, COLUMNS)],
    rows,
    'Differences are paired by user, with 95% intervals; this is a sharper test than comparing two separate intervals. '
    'An asterisk marks an interval that excludes 0. ' + _IN_WORDS[run.protocol],
  )


def _validation(run: Finished, names: Mapping[str, str]) -> Markup:
  """Validation results, and results by string match where items share IDs."""
  header = ['model', *map(field_name, COLUMNS)]
  rows = []
  for model, name in names.items():
    rows.append((name, *(page.number(run.metrics_of(model)['validation'][column]) for column in COLUMNS)))
  fused = ''
  if ranks.FUSED in names:
    fused = (
      f'That of the models together is of at most {WEIGHED:,} users, by whom their weights were chosen: a little too '
      'high. '
    )
  tables = [
    page.table(
      header,
      rows,
      'Validation: the target is the item before the test item. Checkpoints are chosen by validation with the items of '
      'the history in the ranking. ' + fused + _IN_WORDS[run.protocol],
    )
  ]
  if 'test_string_match' in run.metrics:
    row = (run.generator_name, *(page.number(run.metrics['test_string_match'][column]) for column in COLUMNS))
    tables.append(
      page.table(
        header,
        [row],
        "Test, counted as in LETTER's own code: any item with the target's semantic ID is a hit, which overestimates "
        'where items share an ID. ' + _IN_WORDS[history.HISTORY_IN],
      )
    )
  return page.details('Validation, and other ways to count', *tables)


def _short_histories(run: Finished, names: Mapping[str, str]) -> list[Markup]:
  """The figures of `evaluation/short_histories.py`, of the models that have them."""
  found = {name: run.metrics_of(model)[KEY] for model, name in names.items() if KEY in run.metrics_of(model)}
  rows = []
  for length in ('0', *map(str, LENGTHS), WHOLE):
    cells = [page.number(of_model[length][metric]) for of_model in found.values() for metric in METRICS]
    rows.append(('all' if length == WHOLE else length, *cells))
  return [
    page.heading('By what is known of the history'),
    page.paragraph(
      f'The same {run.metrics[KEY]["users"]:,} test users each time, with no more than the latest items of their '
      'histories, as newcomers have them. Without any item, users are shown the popularity of first purchases.'
    ),
    page.table(
      ['items', *(f'{name}: {field_name(metric)}' for name in found for metric in METRICS)],
      rows,
      'Test, with the items of the history in the ranking.',
    ),
  ]


def groups(values_U: np.ndarray, unit: str) -> list[tuple[str, np.ndarray]]:
  """Divides users by an integer each has into a few groups of about equal size.

  Users with equal values are never separated, so a group ends with the value that fills its share of the remaining
  users; users with the value 0 are a group by themselves.

  Args:
    values_U: int [U], U >= 1.
    unit: what the values count, in the plural.

  Returns:
    For each group, in ascending order, its label such as '3–5 items' and its members, bool [U].
  """
  value_V, count_V = np.unique(values_U, return_counts=True)
  labelled = []
  if value_V[0] == 0:
    labelled.append((f'0 {unit}', values_U == 0))
    value_V, count_V = value_V[1:], count_V[1:]
  for number in range(_GROUPS):
    if not len(value_V):
      break
    filled_V = np.cumsum(count_V) >= count_V.sum() / (_GROUPS - number)
    last = int(np.argmax(filled_V))
    low, high = int(value_V[0]), int(value_V[last])
    label = f'{low}–{high} {unit}' if low < high else f'{low} {unit}'
    labelled.append((label, (values_U >= low) & (values_U <= high)))
    value_V, count_V = value_V[last + 1 :], count_V[last + 1 :]
  return labelled


def _grouped(run: Finished, names: Mapping[str, str], values_U: np.ndarray, unit: str) -> Markup:
  """A table and a plot of Recall@10 by group of users."""
  labelled = groups(values_U, unit)
  estimates: dict[str, list[figures.Estimate]] = {}
  for model, name in names.items():
    gains_U = ranks.gains(run.ranks[model], 'recall@10')
    estimates[name] = [
      (float(gains_U[member_U].mean()), *interval(gains_U[member_U], run.config.seed)) for _, member_U in labelled
    ]
  rows = [
    (label, f'{member_U.sum():,}', *(page.estimate(*of_model[row]) for of_model in estimates.values()))
    for row, (label, member_U) in enumerate(labelled)
  ]
  plot = figures.intervals([label for label, _ in labelled], estimates, 'Recall@10')
  return page.side_by_side(
    page.table(['group', 'users', *estimates], rows, _GROUP_CAPTION),
    page.figure(plot, 'Recall@10', 'by group; lines are 95% intervals'),
  )
