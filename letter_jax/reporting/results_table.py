"""The results printed at the end of a run."""

import pathlib
from collections.abc import Mapping
from typing import Any

from letter_jax.configuration import Config
from letter_jax.evaluation import history
from letter_jax.generators.generator import NAMES
from letter_jax.reporting.finished import BASELINE_NAMES, fused_name
from letter_jax.system.wording import part_of
from letter_jax.workdir import TENSORBOARD, TRAINING_LOG, Workdir

COLUMNS = ('recall@1', 'recall@5', 'recall@10', 'recall@20', 'ndcg@5', 'ndcg@10', 'ndcg@20')


def final_results(config: Config, root: pathlib.Path) -> str:
  """The tables of an evaluated run, with the history in the ranking and out of it, and where each result is."""
  metrics = Workdir(root).read_metrics()
  name = NAMES[config.generator.architecture]
  sasrec = f'SASRec ({config.collaborative.model.loss.replace("_", " ")})'
  labels = {**BASELINE_NAMES, 'sasrec': sasrec}
  models = {
    **({fused_name(name, metrics): metrics['fused']} if 'fused' in metrics else {}),
    name: metrics,
    **{label: metrics['baselines'][key] for key, label in labels.items() if key in metrics['baselines']},
  }
  main, titles = metrics[history.MAIN], zip(history.PROTOCOLS, ('test, history in', 'test, history out'))
  tables = []
  for protocol, title in sorted(titles, key=lambda pair: pair[0] != main):
    tables.append(results_table({label: found[protocol]['test'] for label, found in models.items()}, title))
  users = part_of(metrics['users'], Workdir(root).read_summary()['users'], 'user')
  parts = [
    *tables,
    f'{users}, full ranking, beam {metrics["beam"]}; history out: without the items that the user had'
    f'{_repeats(metrics)}',
    '\n'.join(f'{meaning:<16} {place}' for meaning, place in _places(Workdir(root)).items()),
  ]
  return '\n\n'.join(parts)


def _repeats(metrics: Mapping[str, Any]) -> str:
  """The share of targets that no model can find without the history."""
  share = metrics[history.REPEATS]['test']
  if not share:
    return '; no test item is one that the user had before'
  return f', where {share:.1%} of the test items cannot be found, as the user had them before'


def _places(workdir: Workdir) -> dict[str, str | pathlib.Path]:
  """What a run leaves, and where."""
  return {
    'report': workdir.report,
    'all metrics': workdir.metrics,
    'recommendations': workdir.predictions,
    'semantic IDs': workdir.codes_table,
    'generator': workdir.checkpoints,
    'training curves': f'{workdir.root / "**" / TENSORBOARD} and **/{TRAINING_LOG}',
  }


def field_name(metric: str) -> str:
  """The name of a metric as papers write it: 'recall@10' -> 'Recall@10', 'ndcg@10' -> 'NDCG@10'."""
  return metric.replace('recall', 'Recall').replace('ndcg', 'NDCG')


def results_table(rows: Mapping[str, Mapping[str, float]], title: str = 'test') -> str:
  """A text table with a line per model; '*' marks the best value of each column.

  Args:
    rows: model name -> {metric: value}, with at least the metrics in COLUMNS.
    title: of the column of names.
  """
  width = max(map(len, [title, *rows]))
  header = f'{title:<{width}}  ' + '  '.join(f'{field_name(column):>9}' for column in COLUMNS)
  best = {column: max(metrics[column] for metrics in rows.values()) for column in COLUMNS}
  lines = [header, '-' * len(header)]
  for name, metrics in rows.items():
    cells = (f'{metrics[column]:.4f}' + ('*' if metrics[column] == best[column] > 0 else ' ') for column in COLUMNS)
    lines.append(f'{name:<{width}}  ' + '  '.join(f'{cell:>9}' for cell in cells))
  return '\n'.join(lines)
