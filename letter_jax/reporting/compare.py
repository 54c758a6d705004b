"""Compares finished runs on the same users: a table for the terminal, `compare.html` and `compare.json`."""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from letter_jax.configuration import Config
from letter_jax.evaluation import history, ranks
from letter_jax.reporting import figures, page
from letter_jax.reporting.bootstrap import RESAMPLES, interval, paired_difference
from letter_jax.reporting.finished import duration
from letter_jax.reporting.finished import settings as settings_by_key
from letter_jax.reporting.results_table import field_name
from letter_jax.system import artifacts
from letter_jax.system.errors import InputError
from letter_jax.system.wording import counted
from letter_jax.workdir import REDO_EVALUATION, Workdir, read_training_log

METRICS = ('recall@5', 'recall@10', 'ndcg@5', 'ndcg@10')
_SEED = 42  # of the bootstrap; the same for all runs, whatever their own seeds
_MOST_CHARACTERS = 32  # of a setting in the terminal

_Interval = dict[str, float]  # 'value', 'low' and 'high'


@dataclasses.dataclass(frozen=True)
class Compared:
  """One of the runs that are compared.

  Attributes:
    name: a name that is unique among the runs.
    workdir: the folder the run wrote.
    users: the test users, in the order of the data set.
    targets: the raw ids of their test items.
    metrics: the test metrics of the generator.
    ranks_3xU: int32, the ranks of the targets by the generator (`evaluation/ranks.py`).
    config: the settings by dotted key, as the stages ran.
    tokenizer: `reconstruction`, `collision_rate_nearest`, `collision_rate` and `perplexity` (by level); the first two
      are None if the semantic IDs were given.
    seconds: the time each stage took.
  """

  name: str
  workdir: pathlib.Path
  users: list[str]
  targets: list[str]
  metrics: dict[str, float]
  ranks_3xU: np.ndarray
  config: dict[str, Any]
  tokenizer: dict[str, Any]
  seconds: dict[str, float]


def compare(workdirs: Sequence[pathlib.Path], directory: pathlib.Path) -> str:
  """Compares runs with the first of them.

  Args:
    workdirs: two or more different workdirs.
    directory: where `compare.html` and `compare.json` are written.

  Returns:
    The table for the terminal.

  Raises:
    InputError: there are fewer than two different workdirs, an evaluation is not complete, or the test users or
      targets of a run differ from those of the first.
  """
  folders = [pathlib.Path(folder).resolve() for folder in workdirs]
  if len(folders) < 2 or len(set(folders)) < len(folders):
    raise InputError(
      f'{", ".join(map(str, workdirs)) or "none"} in --workdirs; expected two or more different workdirs to compare'
    )
  protocol = Workdir(folders[0]).read_metrics()[history.MAIN]
  runs = [_read(folder, name, protocol) for folder, name in zip(folders, unique_names(folders))]
  for run in runs[1:]:
    _require_same_users(runs[0], run)
  keys = differing([run.config for run in runs])
  results = [{**_result(run, runs[0]), 'config': {key: run.config.get(key) for key in keys}} for run in runs]
  workdir = Workdir(directory)
  artifacts.write_json(
    workdir.comparison,
    {'users': len(runs[0].users), 'protocol': protocol, 'resamples': RESAMPLES, 'seed': _SEED, 'runs': results},
  )
  title = f'test, {protocol.replace("_", " ")}'
  page.write(workdir.comparison_page, _page(runs, results, keys, title))
  return f'{_terminal(runs, results, keys, title)}\n\ncomparison       {workdir.comparison_page}'


def unique_names(folders: Sequence[pathlib.Path]) -> list[str]:
  """The last part of each path, with as many parts before it as are needed to make the names unique."""
  for parts in range(1, max(len(folder.parts) for folder in folders) + 1):
    names = ['/'.join(folder.parts[-parts:]) for folder in folders]
    if len(set(names)) == len(names):
      break
  return names


def differing(configs: Sequence[Mapping[str, Any]]) -> list[str]:
  """The keys that do not have the same value in all configurations, in the order of the configurations."""
  keys = dict.fromkeys(key for config in configs for key in config)
  return [key for key in keys if any(key not in config or config[key] != configs[0].get(key) for config in configs)]


def _read(folder: pathlib.Path, name: str, protocol: str) -> Compared:
  """A run, with its results in a protocol (`evaluation/history.py`), the main one of the first run."""
  metrics = Workdir(folder).read_metrics()[protocol]
  of_users = Workdir(folder).read_ranks()
  if ranks.key(ranks.GENERATOR, protocol) not in of_users:
    raise InputError(
      f'{Workdir(folder).evaluation} has no ranks for {protocol.replace("_", " ")}, in which the first run is '
      f'evaluated; {REDO_EVALUATION}'
    )
  names = Workdir(folder).read_item_names()
  tests = [(line['user'], line['target']) for line in Workdir(folder).read_predictions()]
  ranks_3xU = of_users[ranks.key(ranks.GENERATOR, protocol)]
  if ranks_3xU.shape[1] != len(tests):
    raise InputError(
      f'{Workdir(folder).evaluation} has ranks of {counted(ranks_3xU.shape[1], "user")}, but recommendations of '
      f'{len(tests)}; {REDO_EVALUATION}'
    )
  targets = [target for _, target in tests]
  if max(targets, default=0) >= len(names):
    raise InputError(
      f'{Workdir(folder).predictions} has the target {max(targets)}; expected 0 to {len(names) - 1}; {REDO_EVALUATION}'
    )
  records = Workdir(folder).read_records()
  # The settings of each stage as it ran: a run of a sweep may share a stage with a different run, and a single stage
  # may have been run again. Settings of stages that did not run have their defaults.
  ran = {key: value for record in records.values() for key, value in record['settings'].items()}
  ids = Workdir(folder).read_ids_report()
  nearest = Workdir(folder).read_tokenizer_validation()
  return Compared(
    name=name,
    workdir=folder,
    users=[user for user, _ in tests],
    targets=[names[target] for target in targets],
    metrics=metrics['test'],
    ranks_3xU=ranks_3xU,
    config={**settings_by_key(dataclasses.asdict(Config())), **settings_by_key(ran)},
    tokenizer={
      'reconstruction': nearest.get('reconstruction'),
      'collision_rate_nearest': nearest.get('collision_rate'),
      'collision_rate': ids['collision_rate'],
      'perplexity': ids['perplexity'],
    },
    seconds={stage: record['seconds'] for stage, record in records.items()},
  )


def _require_same_users(first: Compared, other: Compared) -> None:
  """Raises InputError unless both runs have the same test users and targets: differences are paired by user."""
  pair = f'{other.workdir} cannot be compared with {first.workdir}'
  if len(first.users) != len(other.users):
    raise InputError(f'{pair}: {len(other.users):,} test users against {len(first.users):,}; expected the same')
  for kind, of_first, of_other in (('test user', first.users, other.users), ('target', first.targets, other.targets)):
    if of_first != of_other:
      row = next(row for row, values in enumerate(zip(of_first, of_other)) if values[0] != values[1])
      file = Workdir(other.workdir).predictions.relative_to(other.workdir)
      raise InputError(
        f'{pair}: the {kind} in line {row + 1} of {file} is {of_other[row]!r} '
        f'against {of_first[row]!r}; expected the same {kind}s'
      )


def _result(run: Compared, first: Compared) -> dict[str, Any]:
  """The entry of a run in `compare.json`, without 'config'."""
  test, difference = {}, {}
  for metric in METRICS:
    gains_U = ranks.gains(run.ranks_3xU, metric)
    test[metric] = _interval(run.metrics[metric], *interval(gains_U, _SEED))
    if run is not first:
      difference[metric] = _interval(*paired_difference(gains_U, ranks.gains(first.ranks_3xU, metric), _SEED))
  return {
    'name': run.name,
    'workdir': str(run.workdir),
    'test': test,
    'difference_to_first': difference or None,
    'tokenizer': run.tokenizer,
    'seconds': run.seconds,
  }


def _interval(value: float, low: float, high: float) -> _Interval:
  return {'value': value, 'low': low, 'high': high}


def _excludes_zero(difference: _Interval) -> bool:
  return not difference['low'] <= 0 <= difference['high']


def _short(value: Any) -> str:
  """A setting or a measured value in few characters."""
  if isinstance(value, float):
    return f'{value:.4g}'
  if isinstance(value, list | tuple):
    return ' '.join(map(_short, value))
  return '–' if value is None else str(value)


def _truncated(value: str) -> str:
  return value if len(value) <= _MOST_CHARACTERS else f'{value[: _MOST_CHARACTERS - 1]}…'


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
  """A line per row, with columns as wide as their widest cell; the first is left-aligned, the others right-aligned."""
  widths = [max(map(len, column)) for column in zip(*rows)]
  return [
    '  '.join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]).rstrip()
    for row in rows
  ]


def _terminal(runs: Sequence[Compared], results: Sequence[dict[str, Any]], keys: Sequence[str], title: str) -> str:
  def cell(estimate: _Interval, mark: str = '') -> str:
    return f'{page.number(estimate["value"])}{mark} {page.interval(estimate["low"], estimate["high"])}'

  def differences(result: dict[str, Any]) -> Iterable[str]:
    for metric in METRICS:
      difference = result['difference_to_first'][metric]
      yield cell(difference, '*' if _excludes_zero(difference) else ' ')

  header = [field_name(metric) for metric in METRICS]
  test = [[result['name'], *(cell(result['test'][metric]) for metric in METRICS)] for result in results]
  to_first = [[result['name'], *differences(result)] for result in results[1:]]
  settings = [[key, *(_truncated(_short(run.config.get(key))) for run in runs)] for key in keys]
  lines = [
    *_aligned([[title, *header], *test]),
    '',
    *_aligned([[f'minus {runs[0].name}', *header], *to_first]),
    f'{counted(len(runs[0].users), "user")}; 95% intervals, differences paired by user; * the interval excludes 0',
    '',
    # Runs can differ in many long keys, so keys are rows and runs are columns.
    *_aligned([['', *(run.name for run in runs)], *settings, *_facts(runs)]),
  ]
  return '\n'.join(lines)


def _facts(runs: Sequence[Compared]) -> list[list[str]]:
  """Rows with the tokenizer's measures and the times of the stages, and a column per run."""
  labels = {
    'reconstruction': 'reconstruction',
    'collision_rate_nearest': 'collision rate, nearest codes',
    'collision_rate': 'collision rate, IDs in use',
    'perplexity': 'perplexity by level',
  }
  rows = [[label, *(_short(run.tokenizer[key]) for run in runs)] for key, label in labels.items()]
  for stage in dict.fromkeys(stage for run in runs for stage in run.seconds):
    rows.append([f'time of {stage}', *(duration(run.seconds.get(stage)) for run in runs)])
  return rows


def _page(runs: Sequence[Compared], results: Sequence[dict[str, Any]], keys: Sequence[str], title: str) -> str:
  names = [run.name for run in runs]
  settings = [(key, *(_short(run.config.get(key)) for run in runs)) for key in keys]
  sections = [
    page.Section(
      'results',
      'Results',
      'Results',
      'The generator of each run on the same users. An interval shows how much a value could vary with the choice of '
      'users.',
      [_test_table(runs, results, title)],
    ),
    page.Section(
      'differences',
      'Differences',
      'Differences',
      'Paired by user, so that users who are hard for both runs cancel out. A difference whose interval excludes 0 '
      'would most likely also be found with other users; it says nothing about other seeds.',
      [_differences(runs, results)],
    ),
    page.Section(
      'curves',
      'Validation',
      'Validation during training',
      'NDCG@10 of the generators. Look for a run that was still improving when it ended.',
      [_curves(runs)],
    ),
    page.Section(
      'settings',
      'Settings',
      'Settings that differ',
      'All other settings are equal, so any difference in the results comes from these, from input files, or from '
      'chance.',
      [page.table(['key', *names], settings, words=True) if settings else page.note('None: all settings are equal.')],
    ),
    page.Section(
      'facts',
      'Tokenizer and times',
      'Tokenizer and times',
      'The result of each tokenizer, and how long each stage took on the machine it ran on.',
      [page.table(['', *names], _facts(runs))],
    ),
  ]
  return page.document(f'Comparison of {len(runs)} runs', ', '.join(names), sections)


def _test_table(runs: Sequence[Compared], results: Sequence[dict[str, Any]], title: str) -> Markup:
  best = {metric: max(result['test'][metric]['value'] for result in results) for metric in METRICS}
  rows = []
  for result in results:
    estimates = result['test']
    cells = (
      page.estimate(**estimates[metric], best=estimates[metric]['value'] == best[metric] > 0) for metric in METRICS
    )
    rows.append((result['name'], *cells))
  return page.table(
    ['run', *map(field_name, METRICS)],
    rows,
    f'{title.capitalize()}, {counted(len(runs[0].users), "user")}; 95% intervals from {RESAMPLES:,} bootstrap '
    'resamples.',
  )


def _differences(runs: Sequence[Compared], results: Sequence[dict[str, Any]]) -> Markup:
  """A table and a plot of each run minus the first."""
  first, others = runs[0].name, results[1:]
  table = page.table(
    ['run', *map(field_name, METRICS)],
    [
      (result['name'], *(page.difference(**result['difference_to_first'][metric]) for metric in METRICS))
      for result in others
    ],
    f'Each run minus {first}, on the same resampled users. An asterisk marks an interval that excludes 0.',
  )
  plot = figures.intervals(
    [result['name'] for result in others],
    {
      field_name(metric): [tuple(result['difference_to_first'][metric].values()) for result in others]
      for metric in ('recall@10', 'ndcg@10')
    },
    f'minus {first}',
    zero=True,
  )
  return page.side_by_side(table, page.figure(plot, 'Difference', 'lines are 95% intervals; right of 0 is better'))


def _curves(runs: Sequence[Compared]) -> Markup:
  logs = {run.name: read_training_log(Workdir(run.workdir).generator) for run in runs}
  series = {name: log['validation']['ndcg@10'] for name, log in logs.items() if log and 'ndcg@10' in log['validation']}
  if not series:
    return page.note('Not shown: no run has a training log of its generator.')
  plot = figures.lines(series, 'epoch', dots=frozenset(series))
  return page.figures([page.figure(plot, 'NDCG@10', 'validation')])
