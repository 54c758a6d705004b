"""What is done with a workdir beside the stages that fill it. Nothing that a stage reads comes of it.

All but 'plan' take the settings from the workdir's own record; a recipe is only asked how the devices are arranged.
"""

import collections
import contextlib
import dataclasses
import functools
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO, TextIO

from tqdm import tqdm

from letter_jax.configuration import Config, MeshConfig
from letter_jax.data import index_format
from letter_jax.pipeline import run as pipeline
from letter_jax.reporting.results_table import GENERATORS
from letter_jax.system import artifacts, machine, processes
from letter_jax.system.errors import InputError

RECOMMEND, EXPORT, COMPARE, PLAN = COMMANDS = 'recommend', 'export', 'compare', 'plan'
STANDARD = '-'


@dataclasses.dataclass(frozen=True)
class Options:
  """Flags of the commands; `command_line.define_flags` says what they mean."""

  overwrite: bool = False
  topology: str = ''
  input: str = STANDARD
  output: str = STANDARD
  k: int = 0
  beam: int = 20
  exclude_history: bool = True
  allow: str = ''
  deny: str = ''
  skip_unknown: bool = False
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
  processes.on_first_process(lambda: plan(config, workdir, options.topology))


def _compare(workdir: pathlib.Path, options: Options, mesh: MeshConfig) -> None:
  from letter_jax.reporting.compare import compare

  folders = [pathlib.Path(each) for each in options.workdirs]
  for folder in folders:
    pipeline.require_whole(folder, 'evaluate')
  print(compare(folders, workdir))


def _recommend(workdir: pathlib.Path, options: Options, mesh: MeshConfig) -> None:
  from letter_jax.serving import jsonl as json_lines
  from letter_jax.serving.cold_items import read_cold_items
  from letter_jax.serving.recommender import Recommender

  k = options.k or min(10, options.beam)
  if not 1 <= k <= options.beam:
    raise InputError(f'--k={k}; expected 1 to {options.beam}, the value of --beam')
  pipeline.require_whole(workdir, 'semantic_ids', 'generator')
  allow, deny = (_item_list(path) for path in (options.allow, options.deny))
  cold_items = read_cold_items(pathlib.Path(options.cold_items)) if options.cold_items else ()
  with _reading(options.input) as (lines, count), _writing(options.output, options.input) as write:
    recommender = Recommender.from_workdir(workdir, options.beam, cold_items, mesh)
    try:
      among = recommender.among(allow, deny or (), options.skip_unknown)
    except InputError as error:
      raise InputError(
        f'--allow={options.allow}: {error}' if options.allow else f'--deny={options.deny}: {error}'
      ) from error
    said = f', {len(cold_items):,} of them cold' if cold_items else ''
    _say(f'{len(recommender.catalogue):,} items{said}, beam {options.beam}, {machine.devices()}')
    for what, items in (('--allow', allow), ('--deny', deny)):
      unknown = sum(recommender.catalogue.number(item) is None for item in items or ())
      if unknown:
        _say(f'{unknown:,} of the {len(items):,} items of {what} are unknown')
    chunks = json_lines.ready_chunks(lines) if count is None else json_lines.whole_chunks(lines)
    quiet = True if options.output == STANDARD and sys.stdout.isatty() else None  # the answers are to be seen
    total, started = collections.Counter(), None
    with tqdm(total=count, desc=RECOMMEND, unit='user', disable=quiet, dynamic_ncols=True) as bar:
      for answers in json_lines.recommend_lines(recommender, chunks, k, options.exclude_history, among):
        if not write(''.join(f'{answer.line}\n' for answer in answers)):
          break
        good = sum(answer.good for answer in answers)
        total.update(
          answered=good,
          failed=len(answers) - good,
          skipped=sum(answer.skipped for answer in answers),
          timed=good if started else 0,
        )
        started = started or time.perf_counter()
        bar.update(len(answers))
  said = [f'{total["answered"]:,} users']
  if total['timed']:  # without the first ones, for which programs are compiled
    said.append(f'{total["timed"] / (time.perf_counter() - started):,.0f} a second')
  if total['skipped']:
    said.append(f'{total["skipped"]:,} items of their histories are unknown and were skipped')
  if total['failed']:
    lines_failed = f'{total["failed"]:,} line' + 's' * (total['failed'] > 1)
    said.append(f'{lines_failed} could not be used, with an "error" in the output')
  _say('; '.join(said))


def _say(what: str) -> None:
  """On the standard error: the standard output may be the recommendations."""
  tqdm.write(f'{RECOMMEND}: {what}', file=sys.stderr)


def _item_list(path: str) -> list[str] | None:
  """Raw ids, one a line; None where no file is named."""
  if not path:
    return None
  try:
    text = pathlib.Path(path).read_text(encoding='utf-8-sig')
  except (OSError, UnicodeDecodeError) as error:
    raise InputError(f'{path} cannot be read ({error}); expected one raw id of an item a line') from error
  found = [line.strip() for line in text.split('\n') if line.strip()]
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
    file = open(path, 'rb')  # noqa: SIM115, closed below
  except OSError as error:
    raise InputError(
      f'--input={path} cannot be read ({error}); expected a file of JSON lines, or - for the standard input'
    ) from error
  with file:
    count = None
    if file.seekable():  # for the progress bar
      count = sum(1 for line in file if line.strip())
      file.seek(0)
    yield file, count


@contextlib.contextmanager
def _writing(path: str, read: str) -> Iterator[Callable[[str], bool]]:
  """What writes and says whether anybody still reads."""
  if path == STANDARD:
    # Half of a surrogate pair, which JSON can hold, is written as JSON escapes it.
    sys.stdout.reconfigure(encoding='utf-8', errors='backslashreplace')
    yield functools.partial(_write, sys.stdout, path)
    return
  if read != STANDARD and pathlib.Path(path).exists() and os.path.samefile(path, read):
    raise InputError(f'--output={path} is the input; expected another file')
  try:
    file = open(path, 'w', encoding='utf-8', errors='backslashreplace')  # noqa: SIM115, closed below
  except OSError as error:
    raise InputError(
      f'--output={path} cannot be written ({error}); expected a file in a folder that is there'
    ) from error
  with file:
    yield functools.partial(_write, file, path)


def _write(file: TextIO, path: str, text: str) -> bool:
  try:
    file.write(text)
    file.flush()
    return True
  except BrokenPipeError:  # who reads has enough
    os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())
    return False
  except OSError as error:
    raise InputError(
      f'--output={path} cannot be written ({error}); expected a disk with room; what was written stays'
    ) from error


def _export(workdir: pathlib.Path, options: Options, mesh: MeshConfig) -> None:
  from letter_jax.serving import export
  from letter_jax.serving.loaded_generator import TrainedGenerator

  export.require_platforms(options.platforms)
  pipeline.require_whole(workdir, 'semantic_ids', 'generator')
  generator, folder = TrainedGenerator.of_workdir(workdir, mesh), workdir / 'export'
  generator.require_beam(options.beam, len(generator.catalogue))
  artifacts.write(folder / 'index.json', lambda path: index_format.write_index(path, generator.catalogue.codes_NxL))
  export.export_hugging_face(folder / 'hugging_face', generator)
  print(
    f'export: {GENERATORS[generator.config.generator.architecture]} for transformers, in {folder / "hugging_face"}',
    flush=True,
  )
  export.export_search(folder, generator, options.beam, options.platforms)
  print(
    f'export: its search for {", ".join(options.platforms)}, in {folder}; try: python {folder / "recommend.py"} < '
    'users.jsonl',
    flush=True,
  )
