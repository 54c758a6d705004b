"""Several runs of one recipe that differ in some settings (`config.sweep`), and their comparison.

Each run has a workdir of its own, WORKDIR/NAME. What a run has in common with one before it, up to the first stage
whose settings or inputs differ, is copied from there.
"""

import dataclasses
import pathlib
import shutil

from letter_jax import pipeline, processes
from letter_jax.configuration import Config, from_config_dict
from letter_jax.errors import InputError


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
        raise InputError(f'config.sweep: the run {name} sets config.{key}, which does not exist; expected a key of '
                         'letter_jax/configuration.py')
      section[last] = value
    found[name] = from_config_dict(values)
  return found


def run(config: Config, workdir: pathlib.Path, stage: str = 'all', overwrite: bool = False) -> None:
  """Runs a stage, or all, of every run in turn; after all of them their comparison."""
  runs = variants(config)
  if config.checkpoints:
    raise InputError(f'config.checkpoints is {config.checkpoints!r}; expected none with config.sweep, whose runs have '
                     'folders of their own')
  done = []
  for place, (name, each) in enumerate(runs.items(), 1):
    print(f'--- {name}, run {place} of {len(runs)}', flush=True)
    processes.first(lambda name=name, each=each: share(each, workdir / name, done))
    pipeline.run(each, workdir / name, stage, overwrite)
    done.append(workdir / name)
  if stage == 'all':
    processes.first(lambda: _compare(done, workdir))


def share(config: Config, workdir: pathlib.Path, others: list[pathlib.Path]) -> None:
  """Copies from other workdirs each stage that would come out the same here and has not begun."""
  order = pipeline.graph(config)
  for stage in order:
    directory = stage.directory(workdir)
    if directory.exists():
      continue
    for other in others:
      if pipeline.is_complete(stage, order, config, workdir, stage.directory(other)):
        partial = directory.with_name(f'.{directory.name}.partial')
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(stage.directory(other), partial)
        partial.rename(directory)
        print(f'{stage.name}: that of {other.name}', flush=True)
        break


def _compare(workdirs: list[pathlib.Path], directory: pathlib.Path) -> None:
  from letter_jax.reporting.compare import compare
  print(compare(workdirs, directory))
