"""Several runs of one recipe that differ in some settings (`config.sweep`), and their comparison.

Each run has a workdir of its own, WORKDIR/NAME. What a run has in common with one before it, up to the first stage
whose settings or inputs differ, is copied from there.
"""

import dataclasses
import pathlib
import shutil

from letter_jax.configuration import Config, from_config_dict
from letter_jax.pipeline import run as pipeline
from letter_jax.system import processes
from letter_jax.system.errors import InputError


def variants(config: Config) -> dict[str, Config]:
  """The config of each run by its name; InputError for a name or a setting that is none."""
  found = {}
  for name, overrides in config.sweep:
    if not name or name.startswith('.') or '/' in name or name in found:
      raise InputError(f'config.sweep has a run named {name!r}; expected names of folders, each once')
    values = dataclasses.asdict(dataclasses.replace(config, sweep=()))
    for key, value in overrides:
      *sections, last = key.split('.')
      section = values
      for part in sections:
        section = section.get(part) if isinstance(section, dict) else None
      if not isinstance(section, dict) or last not in section or isinstance(section[last], dict):
        raise InputError(
          f'config.sweep: the run {name} sets config.{key}, which does not exist; expected a key of '
          'letter_jax/configuration/schema.py'
        )
      section[last] = value
    found[name] = from_config_dict(values)
  if len(found) < 2:
    raise InputError(f'config.sweep has {len(found)} run; expected two at least, to compare')
  of_data = {name: pipeline.settings_of(pipeline.graph(each)[0], each) for name, each in found.items()}
  first = next(iter(of_data))
  for name, settings in of_data.items():
    if settings != of_data[first]:
      raise InputError(
        f'config.sweep: the runs {first} and {name} have other data; expected the same users, to compare'
      )
  return found


def run(config: Config, workdir: pathlib.Path, stage: str = 'all', overwrite: bool = False) -> None:
  """Runs a stage, or all, of every run in turn; after all of them their comparison."""
  runs = variants(config)
  if config.checkpoints:
    raise InputError(
      f'config.checkpoints is {config.checkpoints!r}; expected none with config.sweep, whose runs have '
      'folders of their own'
    )
  done = []
  for place, (name, each) in enumerate(runs.items(), 1):
    print(f'--- {name}, run {place} of {len(runs)}', flush=True)
    processes.on_first_process(lambda name=name, each=each: share(each, workdir / name, done, overwrite))
    pipeline.run(each, workdir / name, stage, overwrite)
    done.append(workdir / name)
  if stage == 'all':
    processes.on_first_process(lambda: _compare(done, workdir))


def share(config: Config, workdir: pathlib.Path, others: list[pathlib.Path], overwrite: bool = False) -> None:
  """Copies from other workdirs each stage that would come out the same here and has not begun.

  Args:
    overwrite: replaces also what is there, if it is of other settings.

  Raises:
    InputError: the disk is full or cannot be written.
  """
  order = pipeline.graph(config)
  for stage in order:
    directory = stage.directory(workdir)
    if directory.exists() and (not overwrite or pipeline.is_complete(stage, order, config, workdir, directory)):
      continue
    other = next(
      (each for each in others if pipeline.is_complete(stage, order, config, workdir, stage.directory(each))), None
    )
    if other is None:
      continue
    partial = directory.with_name(f'.{directory.name}.partial')
    try:
      shutil.rmtree(partial, ignore_errors=True)
      shutil.copytree(stage.directory(other), partial)
      shutil.rmtree(directory, ignore_errors=True)
      partial.rename(directory)
    except OSError as error:
      shutil.rmtree(partial, ignore_errors=True)
      raise InputError(
        f'{stage.directory(other)} could not be copied to {directory} ({str(error)[:200]}); expected a '
        'disk with room that can be written'
      ) from error
    print(f'{stage.name}: that of {other.name}', flush=True)


def _compare(workdirs: list[pathlib.Path], directory: pathlib.Path) -> None:
  from letter_jax.reporting.compare import compare

  print(compare(workdirs, directory))
