"""Several finished runs on the same users, beside each other: a table, `compare.html` and `compare.json`."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from letter_jax.configuration import Config
from letter_jax.evaluation import ranks
from letter_jax.reporting import figures, page
from letter_jax.reporting.bootstrap import RESAMPLES, interval, paired_difference
from letter_jax.reporting.finished import duration
from letter_jax.reporting.finished import settings as settings_by_key
from letter_jax.reporting.page import Html
from letter_jax.reporting.results_table import field_name
from letter_jax.system import artifacts
from letter_jax.system.errors import InputError
from letter_jax.workdir import RANKS, REDO_EVALUATION, Workdir, read_training_log

METRICS = ('recall@5', 'recall@10', 'ndcg@5', 'ndcg@10')
_SEED = 42  # of the bootstrap, the same for all runs, whatever their own seeds


@dataclasses.dataclass(frozen=True)
class Compared:
  """One run.

  Attributes:
    name: that no other run has.
    ranks_3xU: int32, of the generator (`evaluation/ranks.py`).
    config: by dotted key, as the stages ran.
    tokenizer: `reconstruction`, `collision_rate_nearest`, `collision_rate`, `perplexity` (by level); None: unknown.
  """

  name: str
  workdir: pathlib.Path
  users: list[str]
  targets: list[int]
  metrics: dict[str, float]
  ranks_3xU: np.ndarray
  config: dict
  tokenizer: dict
  seconds: dict[str, float]


def compare(workdirs: Sequence[pathlib.Path], directory: pathlib.Path) -> str:
  """Writes `compare.html` and `compare.json` under `directory`; returns the table for the terminal.

  Raises:
    InputError: fewer than two different workdirs, one whose evaluation is not complete, or one whose test users or
      targets are not those of the first.
  """
  folders = [pathlib.Path(folder).resolve() for folder in workdirs]
  if len(folders) < 2 or len(set(folders)) < len(folders):
    raise InputError(
      f'{", ".join(map(str, workdirs)) or "no workdir"}: expected two or more different workdirs to compare'
    )
  runs = [_read(folder, name) for folder, name in zip(folders, unique_names(folders))]
  for run in runs[1:]:
    _require_same_users(runs[0], run)
  values = [_values(run, runs[0]) for run in runs]
  keys = differing(run.config for run in runs)
  for run, found in zip(runs, values):
    found['config'] = {key: run.config.get(key) for key in keys}
  artifacts.write_json(
    directory / 'compare.json', {'users': len(runs[0].users), 'resamples': RESAMPLES, 'seed': _SEED, 'runs': values}
  )
  content = _page(runs, values, keys)
  artifacts.write(directory / 'compare.html', lambda path: path.write_text(content, encoding='utf-8'))
  return f'{_terminal(runs, values, keys)}\n\ncomparison       {directory / "compare.html"}'


def unique_names(folders: Sequence[pathlib.Path]) -> list[str]:
  """The last part of each path, and as many before it as tell them apart."""
  for parts in range(1, max(len(folder.parts) for folder in folders) + 1):
    names = ['/'.join(folder.parts[-parts:]) for folder in folders]
    if len(set(names)) == len(names):
      break
  return names


def differing(configs) -> list[str]:
  """Keys whose values are not the same in all; in the order of the configs."""
  configs = list(configs)
  keys = dict.fromkeys(key for config in configs for key in config)
  return [key for key in keys if any(key not in config or config[key] != configs[0].get(key) for config in configs)]


def _read(folder: pathlib.Path, name: str) -> Compared:
  metrics = Workdir(folder).read_metrics()
  asked = [(line['user'], line['target']) for line in Workdir(folder).read_predictions()]
  found = Workdir(folder).read_ranks()
  if ranks.GENERATOR not in found:
    raise InputError(f'{folder} has no ranks of each user in evaluation/{RANKS}; {REDO_EVALUATION}')
  if found[ranks.GENERATOR].shape[1] != len(asked):
    raise InputError(
      f'{folder}/evaluation has the ranks of {found[ranks.GENERATOR].shape[1]} users and the '
      f'recommendations of {len(asked)}; {REDO_EVALUATION}'
    )
  records = Workdir(folder).read_records()
  # Of each stage as it ran: a sweep's run may have a stage of another run, and one stage may have been done again.
  ran = {key: value for record in records.values() for key, value in record['settings'].items()}
  ids = Workdir(folder).read_ids_report()
  nearest = Workdir(folder).read_tokenizer_validation()
  return Compared(
    name,
    folder,
    [user for user, _ in asked],
    [target for _, target in asked],
    metrics['test'],
    found[ranks.GENERATOR],
    # A setting that came into the program after the run had its default then.
    {**settings_by_key(dataclasses.asdict(Config())), **settings_by_key(ran)},
    {
      'reconstruction': nearest.get('reconstruction'),
      'collision_rate_nearest': nearest.get('collision_rate'),
      'collision_rate': ids['collision_rate'],
      'perplexity': ids['perplexity'],
    },
    {stage: record['seconds'] for stage, record in records.items()},
  )


def _require_same_users(first: Compared, other: Compared) -> None:
  """Raises InputError, as the difference of a user is only defined where both runs answered the same question."""
  where = f'{other.workdir} cannot be compared with {first.workdir}'
  if len(first.users) != len(other.users):
    raise InputError(f'{where}: {len(other.users):,} test users against {len(first.users):,}; expected the same')
  for kind, ours, theirs in (('test user', first.users, other.users), ('target', first.targets, other.targets)):
    if ours != theirs:
      row = next(row for row, pair in enumerate(zip(ours, theirs)) if pair[0] != pair[1])
      raise InputError(
        f'{where}: the {kind} in line {row + 1} of evaluation/predictions.jsonl is {theirs[row]!r} '
        f'against {ours[row]!r}; expected the same {kind}s'
      )


def _values(run: Compared, first: Compared) -> dict:
  test, difference = {}, {}
  for metric in METRICS:
    gains_U = ranks.gains(run.ranks_3xU, metric)
    low, high = interval(gains_U, _SEED)
    test[metric] = {'value': run.metrics[metric], 'low': low, 'high': high}
    if run is not first:
      value, low, high = paired_difference(gains_U, ranks.gains(first.ranks_3xU, metric), _SEED)
      difference[metric] = {'value': value, 'low': low, 'high': high}
  return {
    'name': run.name,
    'workdir': str(run.workdir),
    'test': test,
    'difference_to_first': difference or None,
    'tokenizer': run.tokenizer,
    'seconds': run.seconds,
  }


def _excludes_zero(value: dict) -> bool:
  return not value['low'] <= 0 <= value['high']


def _shown(value) -> str:
  """A setting or figure in few characters."""
  if isinstance(value, float):
    return f'{value:.4g}'
  if isinstance(value, list | tuple):
    return ' '.join(map(_shown, value))
  return '–' if value is None else str(value)


def _cut(value: str) -> str:
  return value if len(value) <= 32 else f'{value[:31]}…'


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
  """Columns as wide as their widest cell; the first to the left, the others to the right."""
  width = [max(map(len, column)) for column in zip(*rows)]
  return [
    '  '.join([row[0].ljust(width[0]), *(cell.rjust(size) for cell, size in zip(row[1:], width[1:]))]).rstrip()
    for row in rows
  ]


def _terminal(runs: Sequence[Compared], values: Sequence[dict], keys: Sequence[str]) -> str:
  said = lambda value, mark='': (
    f'{page.number(value["value"])}{mark} [{page.number(value["low"])}, {page.number(value["high"])}]'
  )
  header = [field_name(metric) for metric in METRICS]
  results = _aligned(
    [['test', *header], *([found['name'], *(said(found['test'][metric]) for metric in METRICS)] for found in values)]
  )
  differences = _aligned(
    [
      [f'minus {runs[0].name}', *header],
      *(
        [
          found['name'],
          *(
            said(each, '*' if _excludes_zero(each) else ' ')
            for each in (found['difference_to_first'][metric] for metric in METRICS)
          ),
        ]
        for found in values[1:]
      ),
    ]
  )
  names = [run.name for run in runs]
  # A configuration can differ in many long keys: a line for each of them, runs side by side.
  settings = [[key, *(_cut(_shown(run.config.get(key))) for run in runs)] for key in keys]
  rest = _aligned([['', *names], *settings, *_facts(runs)])
  users = f'{len(runs[0].users):,} users; 95% intervals, differences user by user; * the interval excludes 0'
  return '\n'.join([*results, '', *differences, users, '', *rest])


def _facts(runs: Sequence[Compared]) -> list[list[str]]:
  """Rows of the tokenizer's figures and of times, a column for each run."""
  labels = {
    'reconstruction': 'reconstruction',
    'collision_rate_nearest': 'collision rate, nearest codes',
    'collision_rate': 'collision rate, IDs in use',
    'perplexity': 'perplexity by level',
  }
  rows = [[label, *(_shown(run.tokenizer[key]) for run in runs)] for key, label in labels.items()]
  for stage in dict.fromkeys(stage for run in runs for stage in run.seconds):
    rows.append([f'time of {stage}', *(duration(run.seconds.get(stage)) for run in runs)])
  return rows


def _page(runs: Sequence[Compared], values: Sequence[dict], keys: Sequence[str]) -> str:
  names = [run.name for run in runs]
  header = [field_name(metric) for metric in METRICS]
  best = {metric: max(found['test'][metric]['value'] for found in values) for metric in METRICS}
  results = page.table(
    ['run', *header],
    [
      (
        found['name'],
        *(
          page.estimate(*found['test'][metric].values(), best=found['test'][metric]['value'] == best[metric] > 0)
          for metric in METRICS
        ),
      )
      for found in values
    ],
    f'Test, {len(runs[0].users):,} users; 95% intervals from {RESAMPLES:,} bootstrap resamples.',
  )
  differences = page.table(
    ['run', *header],
    [
      (found['name'], *(page.difference(*found['difference_to_first'][metric].values()) for metric in METRICS))
      for found in values[1:]
    ],
    f'Of each run minus {names[0]}, both on the same resampled users. An asterisk: the interval excludes 0.',
  )
  plot = figures.intervals(
    'difference',
    names[1:],
    {
      field_name(metric): [tuple(found['difference_to_first'][metric].values()) for found in values[1:]]
      for metric in ('recall@10', 'ndcg@10')
    },
    f'minus {names[0]}',
    zero=True,
  )
  sections = [
    (
      'results',
      'Results',
      page.section(
        'results',
        'Results',
        'The generator of each run on the same users. An interval says how far a value could be '
        'off because other users might have been asked.',
        results,
      ),
    ),
    (
      'differences',
      'Differences',
      page.section(
        'differences',
        'Differences',
        'User by user, so that what is hard for both runs cancels out: an interval that '
        'excludes 0 is a difference that other users would most likely show, too. It says nothing of other seeds.',
        page.beside(differences, page.figure(plot, 'Difference', 'lines are 95% intervals; right of 0 is better')),
      ),
    ),
    (
      'curves',
      'Validation',
      page.section(
        'curves',
        'Validation while training',
        'NDCG@10 of the generators. Look for a run that was still rising when it ended.',
        _curves(runs),
      ),
    ),
    (
      'settings',
      'Settings',
      page.section(
        'settings',
        'Settings that differ',
        'All other settings are the same, so what differs in the results comes from '
        'these, from files given from outside, or from chance.',
        page.table(['key', *names], [(key, *(_shown(run.config.get(key)) for run in runs)) for key in keys], words=True)
        if keys
        else page.note('None: the runs have the same settings.'),
      ),
    ),
    (
      'facts',
      'Tokenizer and times',
      page.section(
        'facts',
        'Tokenizer and times',
        'What each tokenizer made of the items, and how long each stage took where it ran.',
        page.table(['', *names], _facts(runs)),
      ),
    ),
  ]
  return page.page(f'{len(runs)} runs compared', ', '.join(names), sections)


def _curves(runs: Sequence[Compared]) -> Html:
  logs = {run.name: read_training_log(Workdir(run.workdir).generator) for run in runs}
  series = {name: log['validation']['ndcg@10'] for name, log in logs.items() if log and 'ndcg@10' in log['validation']}
  if not series:
    return page.note('Not shown: no run has a training log of its generator.')
  return page.figures(
    [page.figure(figures.lines('ndcg', series, 'epoch', dots=frozenset(series)), 'NDCG@10', 'validation')]
  )
