"""Several runs of one recipe that differ in some settings (`config.sweep`), and their comparison.

Each run has its own workdir, WORKDIR/NAME. The stages that a run has in common with an earlier one, up to the first
whose settings or inputs differ, are copied from there.
"""

import dataclasses
import functools
import pathlib
import shutil

from letter_jax.configuration import Config, default_config, expected_value, from_config_dict
from letter_jax.pipeline import estimate
from letter_jax.pipeline.graph import Graph
from letter_jax.pipeline.run import Run
from letter_jax.system import processes, time_left
from letter_jax.system.errors import InputError
from letter_jax.system.wording import counted


def variants(config: Config) -> dict[str, Config]:
  """The config of each run by its name; InputError for an invalid name or setting."""
  runs: dict[str, Config] = {}
  for name, overrides in config.sweep:
    if not name or name.startswith('.') or '/' in name or name in runs:
      raise InputError(f'config.sweep has a run named {name!r}; expected names of folders, each once')
    settings = default_config()
    settings.update(dataclasses.asdict(dataclasses.replace(config, sweep=())))
    for key, value in overrides:
      try:
        settings.update_from_flattened_dict({key: value})
      except (KeyError, AttributeError) as error:
        raise InputError(
          f'config.sweep: the run {name} sets config.{key}, which does not exist; expected a key of '
          'letter_jax/configuration'
        ) from error
      except (TypeError, ValueError) as error:
        raise InputError(
          f'config.sweep: the run {name} sets config.{key} to {value!r}; expected {expected_value(key)}'
        ) from error
    runs[name] = from_config_dict(settings)
  if len(runs) < 2:
    raise InputError(f'config.sweep has {counted(len(runs), "run")}; expected at least two, to compare')
  data = {
    name: (Graph(variant)['dataset'].settings_of(variant), variant.evaluation.users) for name, variant in runs.items()
  }
  first = next(iter(data))
  for name, settings_of_data in data.items():
    if settings_of_data != data[first]:
      raise InputError(
        f'config.sweep: the runs {first} and {name} have different data or test other users; expected the same, to '
        'compare'
      )
  return runs


def run(config: Config, workdir: pathlib.Path, stage: str = 'all', overwrite: bool = False) -> None:
  """Runs a stage, or all, of every run in turn; after all of them their comparison."""
  runs = variants(config)
  if config.checkpoints:
    raise InputError(
      f'config.checkpoints is {config.checkpoints!r}; expected none with config.sweep, as every run has its own'
    )
  done: list[pathlib.Path] = []
  with processes.locked(workdir):
    for number, (name, variant) in enumerate(runs.items(), 1):
      if processes.is_first():
        seconds = estimate.sweep_seconds(runs, done)
        left = f', about {time_left.duration(seconds)} left for all runs' if seconds else ''
        print(f'--- {name}, run {number} of {len(runs)}{left}', flush=True)
      with processes.locked(workdir / name):
        one = Run(variant, workdir / name, overwrite, done)
        processes.on_first_process(functools.partial(share, one, done))
        one.run(stage)
      done.append(workdir / name)
    if stage == 'all':
      processes.on_first_process(lambda: _compare(done, workdir))


def share(one: Run, others: list[pathlib.Path]) -> None:
  """Copies from other workdirs each stage that would come out the same in this run and has not begun.

  With `one.overwrite`, a stage that is present with different settings is replaced, too.

  Raises:
    InputError: the disk is full or cannot be written.
  """
  for stage in one.graph:
    directory = stage.directory(one.workdir)
    if directory.exists() and (not one.overwrite or one.is_complete(stage)):
      continue
    other = next((workdir for workdir in others if one.is_complete(stage, stage.directory(workdir))), None)
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
        f'{stage.directory(other)} could not be copied to {directory} ({str(error)[:200]}); expected a disk with room '
        'that can be written'
      ) from error
    print(f'{stage.name}: copied from {other.name}', flush=True)


def _compare(workdirs: list[pathlib.Path], directory: pathlib.Path) -> None:
  from letter_jax.reporting.compare import compare

  print(f'\n{compare(workdirs, directory)}')
