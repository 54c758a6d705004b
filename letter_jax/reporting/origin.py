"""The part of the report that says where its numbers come from: settings, seed, machine, times, versions."""

import dataclasses
import importlib.metadata
import json
import platform

import numpy as np

from letter_jax.configuration import Config
from letter_jax.reporting import page
from letter_jax.reporting.finished import Finished, duration, settings
from letter_jax.reporting.page import Html
from letter_jax.workdir import read_training_log

_PACKAGES = ('letter_jax', 'jax', 'jaxlib', 'flax', 'optax', 'numpy')


def section(run: Finished) -> Html:
  ours, defaults = settings(dataclasses.asdict(run.config)), settings(dataclasses.asdict(Config()))
  changed = [(key, str(value), str(defaults[key])) for key, value in ours.items() if value != defaults[key]]
  return page.section(
    'origin',
    'Where this comes from',
    f'What is needed to get the same numbers again. Everything random comes from config.seed = {run.config.seed}, the '
    'bootstrap, the drawn users and the map included.',
    page.tag('h3', 'Time and machine of each stage'),
    _times(run),
    page.note(f'This page was made with {versions()}.'),
    page.tag('h3', 'Settings'),
    page.table(['key', 'value', 'default'], changed, 'Settings that are not the defaults', words=True)
    if changed
    else page.paragraph('All settings are the defaults.'),
    page.details('All settings', page.tag('pre', json.dumps(dataclasses.asdict(run.config), indent=2))),
    page.details('The data set', page.table(['', 'value'], _data(run), words=True)),
  )


def _times(run: Finished) -> Html:
  records = run.workdir.read_records()
  if not records:
    return page.note('Not shown: this workdir has no stage.json.')
  rows = [
    (stage, duration(record['seconds']), _speed(run, stage), record.get('machine', 'not recorded'))
    for stage, record in records.items()
  ]
  total = sum(record['seconds'] for record in records.values())
  return page.table(
    ['stage', 'time', 'examples per second', 'machine'],
    [*rows, ('all', duration(total), '', '')],
    'As each stage recorded it, where it ran; examples per second is the median while training.',
  )


def _speed(run: Finished, stage: str) -> str:
  log = read_training_log(run.workdir.root / stage)
  speeds = log and log['train'].get('examples_per_second')
  return f'{np.median(speeds[1]):,.0f}' if speeds else ''


def versions() -> str:
  found = [f'Python {platform.python_version()}']
  for name in _PACKAGES:
    try:
      found.append(f'{name} {importlib.metadata.version(name)}')
    except importlib.metadata.PackageNotFoundError:  # letter_jax itself, run from its folder
      continue
  return ', '.join(found)


def _data(run: Finished) -> list[tuple[str, str]]:
  summary = {key: value for key, value in run.summary.items() if value is not None and key != 'content'}
  return [
    (key.replace('_', ' '), f'{value:,}' if isinstance(value, int) else str(value))
    for key, value in settings(summary).items()
  ]
