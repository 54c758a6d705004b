"""The results table printed at the end of a run."""

from collections.abc import Mapping

COLUMNS = ('recall@1', 'recall@5', 'recall@10', 'recall@20', 'ndcg@5', 'ndcg@10', 'ndcg@20')


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
