"""The section of the report on the origin of its numbers: settings, seed, machine, times and versions."""

import dataclasses
import importlib.metadata
import json
import platform

import numpy as np
from markupsafe import Markup

from letter_jax.configuration import Config
from letter_jax.reporting import page
from letter_jax.reporting.finished import Finished, duration, settings
from letter_jax.workdir import read_training_log

_PACKAGES = ('letter_jax', 'jax', 'jaxlib', 'flax', 'optax', 'numpy')


def section(run: Finished) -> page.Section:
  """The section with everything that is needed to reproduce the run."""
  values, defaults = settings(dataclasses.asdict(run.config)), settings(dataclasses.asdict(Config()))
  changed = [(key, str(value), str(defaults[key])) for key, value in values.items() if value != defaults[key]]
  return page.Section(
    'origin',
    'Settings, times, machine',
    'Origin of the results',
    f'What you need to reproduce these numbers. All randomness comes from config.seed = {run.config.seed}, including '
    'the bootstrap, the choice of users shown, and the map.',
    [
      page.heading('Time and machine of each stage'),
      _times(run),
      page.note(f'This page was made with {versions()}.'),
      page.heading('Settings'),
      page.table(['key', 'value', 'default'], changed, 'Settings that differ from the defaults.', words=True)
      if changed
      else page.paragraph('All settings have their defaults.'),
      page.details('All settings', page.preformatted(json.dumps(dataclasses.asdict(run.config), indent=2))),
      page.details('The data set', page.table(['', 'value'], _data_rows(run), words=True)),
    ],
  )


def _times(run: Finished) -> Markup:
  """The table of stages: time, training speed, machine."""
  records = run.workdir.read_records()
  if not records:
    return page.note('Not shown: this workdir has no stage.json.')
  rows = [
    (stage, duration(record['seconds']), _speed(run, stage), record['machine']) for stage, record in records.items()
  ]
  total = sum(record['seconds'] for record in records.values())
  return page.table(
    ['stage', 'time', 'examples per second', 'machine'],
    [*rows, ('all', duration(total), '', '')],
    'As recorded when each stage ran; examples per second is the median during training.',
  )


def _speed(run: Finished, stage: str) -> str:
  """The median training speed of a stage, '' for a stage without training."""
  log = read_training_log(run.workdir.root / stage)
  if log is None or 'examples_per_second' not in log['train']:
    return ''
  _, speeds = log['train']['examples_per_second']
  return f'{np.median(speeds):,.0f}'


def versions() -> str:
  """The versions of Python and of the installed packages that determine the results."""
  parts = [f'Python {platform.python_version()}']
  for name in _PACKAGES:
    try:
      parts.append(f'{name} {importlib.metadata.version(name)}')
    except importlib.metadata.PackageNotFoundError:  # letter_jax itself, run from a checkout
      continue
  return ', '.join(parts)


def _data_rows(run: Finished) -> list[tuple[str, str]]:
  """The entries of `dataset/summary.json` as rows of a table."""
  summary = {key: value for key, value in run.summary.items() if value is not None and key != 'content'}
  return [
    (key.replace('_', ' '), f'{value:,}' if isinstance(value, int) else str(value))
    for key, value in settings(summary).items()
  ]
