"""The results table that ends a run."""

COLUMNS = ('recall@1', 'recall@5', 'recall@10', 'recall@20', 'ndcg@5', 'ndcg@10', 'ndcg@20')


def field_name(metric: str) -> str:
  """'recall@10' as papers write it, 'Recall@10'."""
  return metric.replace('recall', 'Recall').replace('ndcg', 'NDCG')


def results_table(rows: dict[str, dict[str, float]]) -> str:
  """One line per model with the columns of COLUMNS; the best value of each column is marked with '*'."""
  width = max(len(name) for name in rows)
  header = f'{"test":<{width}}  ' + '  '.join(f'{field_name(column):>9}' for column in COLUMNS)
  best = {column: max(metrics[column] for metrics in rows.values()) for column in COLUMNS}
  lines = [header, '-' * len(header)]
  for name, metrics in rows.items():
    cells = (f'{metrics[column]:.4f}' + ('*' if metrics[column] == best[column] > 0 else ' ') for column in COLUMNS)
    lines.append(f'{name:<{width}}  ' + '  '.join(f'{cell:>9}' for cell in cells))
  return '\n'.join(lines)
