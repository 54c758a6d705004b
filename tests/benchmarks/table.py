"""What every benchmark ends with: a table, and the same as JSON where it is asked for."""

import argparse
import json
import pathlib
import statistics
from collections.abc import Callable


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('--json', type=pathlib.Path, help='file to write the table to')


def add_peer_arguments(parser: argparse.ArgumentParser, repeats: int = 5) -> None:
  add_arguments(parser)
  parser.add_argument('--repeats', type=int, default=repeats)
  parser.add_argument('--ours', action='store_true', help='without the peer, which then need not be installed')


def compare(
  name: str,
  unit: str,
  ours: Callable[[], float],
  peer: Callable[[], float] | None,
  repeats: int,
  lower_is_better: bool = False,
) -> dict:
  """A row of both, measured in turn so that what else the machine does hits them alike.

  Args:
    ours, peer: measure once and return the value in `unit`; both are warm. None: there is no peer.
    lower_is_better: of the unit; the ratio is above 1 where ours is better all the same.
  """
  measured = []
  for _ in range(repeats):
    values = {'ours': ours(), 'peer': peer() if peer else None, 'ratio': None}
    if peer:
      values['ratio'] = values['peer'] / values['ours'] if lower_is_better else values['ours'] / values['peer']
    measured.append(values)
  return {
    'name': name,
    'unit': unit,
    'repeats': measured,
    **{
      key: statistics.median(values[key] for values in measured) if values[key] is not None else None
      for key in ('ours', 'peer', 'ratio')
    },
  }


def report(rows: list[dict], arguments: argparse.Namespace) -> None:
  """Prints the rows and, with --json, writes {"rows": [...]}.

  Args:
    rows: {'name', 'unit', 'ours'}, and where it was measured several times or has a peer, what `compare` adds: medians
      as 'ours', 'peer' and 'ratio', and each measurement in 'repeats'.
  """
  rows = [{'peer': None, 'ratio': None, 'repeats': None, **row} for row in rows]
  columns = ['name', 'unit', 'ours'] + ['peer', 'ratio'] * any(row['peer'] is not None for row in rows)
  cells = [columns, *([_spread(row, column) for column in columns] for row in rows)]
  widths = [max(map(len, column)) for column in zip(*cells)]
  if any(row['repeats'] for row in rows):
    print('median (smallest to largest); a ratio above 1: ours is better')
  for line in cells:
    print('  '.join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
  if arguments.json:
    arguments.json.write_text(json.dumps({'rows': rows}, indent=1) + '\n')


def _spread(row: dict, column: str) -> str:
  """The median and, where there are several, the range."""
  if column in ('name', 'unit') or row[column] is None or len(row['repeats'] or ()) < 2:
    return _said(row[column])
  values = [each[column] for each in row['repeats']]
  return f'{_said(row[column])} ({_said(min(values))} to {_said(max(values))})'


def _said(value) -> str:
  if isinstance(value, float):
    return f'{value:,.0f}' if value >= 1000 else f'{value:.3g}'
  return '' if value is None else str(value)
