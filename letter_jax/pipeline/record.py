"""`stage.json`: what a stage was made from and what it wrote; compared with the settings and inputs of a run."""

import json
import pathlib
from typing import Any

from letter_jax.configuration import Config
from letter_jax.pipeline import refresh
from letter_jax.pipeline.graph import Stage, json_settings
from letter_jax.system import artifacts
from letter_jax.system.errors import InputError
from letter_jax.workdir import RECORD

Record = dict[str, Any]  # settings, inputs, files, complete, seconds; machine and outputs, once complete


def read(directory: pathlib.Path) -> Record | None:
  """The record in a stage's folder; None where there is none.

  Raises:
    InputError: it is damaged.
  """
  path = directory / RECORD
  if not path.exists():
    return None
  try:
    record = json.loads(path.read_text(encoding='utf-8'))
    missing = {'settings', 'inputs', 'files', 'complete', 'seconds'} - record.keys()
    if missing or (record['complete'] and 'outputs' not in record):
      raise ValueError(f'it lacks {sorted(missing) or "outputs"}')
    return record
  except (ValueError, AttributeError) as error:
    raise InputError(
      f'{path} is damaged ({error}); expected the record of a stage; remove {directory} to redo it'
    ) from error


def read_complete(directory: pathlib.Path) -> Record | None:
  """The record of a complete stage, else None."""
  record = read(directory)
  return record if record is not None and record['complete'] else None


def write(directory: pathlib.Path, record: Record) -> None:
  """Writes the record into a stage's folder."""
  artifacts.write_json(directory / RECORD, record)


def fingerprints(stage: Stage, directory: pathlib.Path) -> dict[str, str]:
  """Output -> fingerprint of its content."""
  return {name: artifacts.fingerprint(directory / name) for name in stage.outputs}


def damaged_outputs(record: Record, directory: pathlib.Path) -> list[str]:
  """Outputs of a complete stage that are missing or have a different content than it wrote."""
  return [
    str(directory / name)
    for name, content in record['outputs'].items()
    if not (directory / name).exists() or artifacts.fingerprint(directory / name) != content
  ]


def changes(record: Record, wanted: Record, stage: Stage) -> list[str]:
  """The differences between how a stage was made and what a run expects, in words."""
  if record['complete'] and not record['outputs'].keys() >= set(stage.outputs):
    missing = sorted(set(stage.outputs) - record['outputs'].keys())
    return [f'version of this program (which writes {", ".join(missing)})']
  found = []
  # A setting that is newer than the record had its default value then.
  then = {**json_settings(Config()), **record['settings']}
  keys = record['settings'].keys() | wanted['settings'].keys()
  if record['settings'].get('data.source') != wanted['settings'].get('data.source'):
    keys = {'data.source'}  # the settings of one source do not exist for the other
  for key in sorted(keys):
    was, now = then.get(key), wanted['settings'].get(key)
    if was != now:
      found.append(f'config.{key} ({was!r} then, {now!r} now)')
  for key in sorted(record['files'].keys() | wanted['files'].keys()):
    if key == refresh.KEY and key in wanted['files'] and wanted['files'][key] is None:
      continue  # the earlier run is gone, which changes nothing that began with it
    if record['files'].get(key) != wanted['files'].get(key):
      found.append(f'content of config.{key}')
  for name in sorted(record['inputs'].keys() | wanted['inputs'].keys()):
    if record['inputs'].get(name) != wanted['inputs'].get(name):
      found.append(f'result of stage {name}')
  return found


def listed(changes: list[str], most: int = 4) -> str:
  """Changes in one line, at most `most` of them by name."""
  return ', '.join(changes[:most]) + (f' and {len(changes) - most} more' if len(changes) > most else '')


def seconds_spent(record: Record, directory: pathlib.Path) -> float:
  """Seconds of the attempts so far; a killed attempt counts from its start to the last file that it wrote."""
  if record['complete']:
    return record['seconds']
  last = max(path.stat().st_mtime for path in directory.rglob('*'))
  return record['seconds'] + max(last - (directory / RECORD).stat().st_mtime, 0)
