"""What is done with a workdir beside the stages that fill it. Nothing that a stage reads comes of it.

All but 'plan' take the settings from the workdir's own record; a recipe is only asked how the devices are arranged.
"""

import contextlib
import dataclasses
import os
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import BinaryIO, TextIO

from tqdm import tqdm

from letter_jax import artifacts, machine, pipeline, processes, stages
from letter_jax.configuration import Config, MeshConfig
from letter_jax.errors import InputError

RECOMMEND, EXPORT, COMPARE, PLAN = COMMANDS = 'recommend', 'export', 'compare', 'plan'
STANDARD = '-'


@dataclasses.dataclass(frozen=True)
class Options:
  """Flags of the commands; `command_line.define_flags` says what they mean."""

  overwrite: bool = False
  topology: str = ''
  input: str = STANDARD
  output: str = STANDARD
  k: int = 10
  beam: int = 20
  exclude_history: bool = True
  allow: str = ''
  deny: str = ''
  cold_items: str = ''
  platforms: tuple[str, ...] = ()
  workdirs: tuple[str, ...] = ()


def run(command: str, workdir: pathlib.Path, options: Options, config: Config | None = None) -> None:
  """Runs one of COMMANDS.

  Raises:
    InputError: a wrong input, or a workdir that lacks what the command needs.
  """
  if command == PLAN:
    _plan(config, workdir, options)
    return
  if processes.count() > 1:
    raise InputError(f'--stage={command} runs as one process; expected no --coordinator and no --distributed')
  mesh = config.mesh if config else MeshConfig()
  {RECOMMEND: _recommend, EXPORT: _export, COMPARE: _compare}[command](workdir, options, mesh)


def _plan(config: Config, workdir: pathlib.Path, options: Options) -> None:
  from letter_jax.planning.plan import plan, plan_mesh
  plan_mesh(config, options.topology)
  pipeline.run(config, workdir, 'dataset', options.overwrite)
  processes.first(lambda: plan(config, workdir, options.topology))


def _compare(workdir: pathlib.Path, options: Options, mesh: MeshConfig) -> None:
  from letter_jax.reporting.compare import compare
  print(compare([pathlib.Path(each) for each in options.workdirs], workdir))


def _recommend(workdir: pathlib.Path, options: Options, mesh: MeshConfig) -> None:
  from letter_jax.serving.cold_items import read_cold_items
  from letter_jax.serving.lines import recommend_lines
  from letter_jax.serving.recommender import Recommender
  if not 1 <= options.k <= options.beam:
    raise InputError(f'--k={options.k}; expected 1 to {options.beam}, the value of --beam')
  allow, deny = (_item_list(path) for path in (options.allow, options.deny))
  cold_items = read_cold_items(pathlib.Path(options.cold_items)) if options.cold_items else ()
  with _reading(options.input) as (lines, count):
    recommender = Recommender.from_workdir(workdir, options.beam, cold_items, mesh)
    among = recommender.among(allow, deny or ())
    said = f', {len(cold_items):,} of them cold' if cold_items else ''
    tqdm.write(f'recommend: {len(recommender.catalogue):,} items{said}, beam {options.beam}, {machine.devices()}',
               file=sys.stderr)
    answered, failed, start = 0, 0, time.perf_counter()
    with _writing(options.output, options.input) as file, tqdm(
        total=count, desc='recommend', unit='user', disable=None, dynamic_ncols=True) as bar:
      for good, line in recommend_lines(recommender, lines, options.k, options.exclude_history, among):
        file.write(f'{line}\n')
        answered, failed = answered + good, failed + (not good)
        bar.update()
  rate = answered / max(time.perf_counter() - start, 1e-9)
  lines_failed = f'{failed:,} line' + 's' * (failed != 1)
  wrong = f'; {lines_failed} could not be used, with an "error" in the output' if failed else ''
  tqdm.write(f'recommend: {answered:,} users, {rate:,.0f} a second{wrong}', file=sys.stderr)


def _item_list(path: str) -> list[str] | None:
  """Raw ids, one a line; None where no file is named."""
  if not path:
    return None
  try:
    found = [line.strip() for line in pathlib.Path(path).read_text(encoding='utf-8').splitlines() if line.strip()]
  except (OSError, UnicodeDecodeError) as error:
    raise InputError(f'{path} cannot be read ({error}); expected one raw id of an item a line') from error
  if not found:
    raise InputError(f'{path} names no item; expected one raw id of an item a line')
  return found


@contextlib.contextmanager
def _reading(path: str) -> Iterator[tuple[BinaryIO, int | None]]:
  """The lines, and how many there are where that can be known."""
  if path == STANDARD:
    yield sys.stdin.buffer, None
    return
  try:
    count = sum(1 for line in open(path, 'rb') if line.strip()) if pathlib.Path(path).is_file() else None  # noqa: SIM115
    with open(path, 'rb') as file:
      yield file, count
  except OSError as error:
    if error.filename != path:
      raise
    raise InputError(f'--input={path} cannot be read ({error}); expected a file of JSON lines, or - for the standard '
                     'input') from error


@contextlib.contextmanager
def _writing(path: str, read: str) -> Iterator[TextIO]:
  if path == STANDARD:
    try:
      # Half of a surrogate pair, which JSON can hold, is written as JSON escapes it.
      sys.stdout.reconfigure(encoding='utf-8', errors='backslashreplace')
      yield sys.stdout
      sys.stdout.flush()
    except BrokenPipeError:  # who reads has enough
      os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return
  if read != STANDARD and pathlib.Path(path).exists() and os.path.samefile(path, read):
    raise InputError(f'--output={path} is the input; expected another file')
  try:
    with open(path, 'w', encoding='utf-8', errors='backslashreplace') as file:
      yield file
  except OSError as error:
    raise InputError(f'--output={path} cannot be written ({error}); expected a file on a disk with room; what was '
                     'written stays') from error


def _export(workdir: pathlib.Path, options: Options, mesh: MeshConfig) -> None:
  from letter_jax.serving import export
  from letter_jax.serving.trained import TrainedGenerator
  export.require_platforms(options.platforms)
  generator, folder = TrainedGenerator.of_workdir(workdir, mesh), workdir / 'export'
  generator.require_beam(options.beam, len(generator.catalogue))
  index = (workdir / 'semantic_ids' / 'index.json').read_text(encoding='utf-8')
  artifacts.write(folder / 'index.json', lambda path: path.write_text(index, encoding='utf-8'))
  export.export_hugging_face(folder / 'hugging_face', generator, index)
  print(f'export: {stages.GENERATORS[generator.config.generator.architecture]} for transformers, in '
        f'{folder / "hugging_face"}', flush=True)
  export.export_search(folder, generator, options.beam, options.platforms)
  print(f'export: its search for {", ".join(options.platforms)}, in {folder}; try: python {folder / "recommend.py"} < '
        'users.jsonl', flush=True)
