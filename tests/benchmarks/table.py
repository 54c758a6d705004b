"""What every benchmark ends with: a table, and the same as JSON where it is asked for."""

import argparse
import json
import pathlib


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('--json', type=pathlib.Path, help='file to write the table to')


def report(rows: list[dict], arguments: argparse.Namespace) -> None:
  """Prints the rows and, with --json, writes {"rows": [...]}.

  Args:
    rows: {'name', 'unit', 'ours'}, and 'peer', 'ratio', 'repeats' where there is a peer.
  """
  rows = [{'peer': None, 'ratio': None, 'repeats': None, **row} for row in rows]
  columns = ['name', 'unit', 'ours'] + ['peer', 'ratio'] * any(row['peer'] is not None for row in rows)
  cells = [columns, *([_said(row[column]) for column in columns] for row in rows)]
  widths = [max(map(len, column)) for column in zip(*cells)]
  for line in cells:
    print('  '.join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
  if arguments.json:
    arguments.json.write_text(json.dumps({'rows': rows}, indent=2) + '\n', encoding='utf-8')


def _said(value) -> str:
  if isinstance(value, float):
    return f'{value:,.0f}' if value >= 1000 else f'{value:.4g}'
  return '' if value is None else str(value)
