"""The Beam pipelines that prepare raw data, run in sequence, and the state passed between them.

    1. events -> histories      dates, duplicates, time order, repeats
    2. passes of the k-core     repeated until a pass changes nothing
    3. numbers and texts        records of users and items
    4. tables                   TFDS's Beam writer

Each pipeline writes files of JSON lines under DIRECTORY/beam_intermediate, and a report with counts.
"""

import contextlib
import io
import json
import math
import os
from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam
import tensorflow_datasets as tfds
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.runner import create_runner
from etils import epath

from letter_jax.configuration import RAW_SOURCES, DataConfig
from letter_jax.data import left_out
from letter_jax.data.beam import reading, transforms
from letter_jax.data.beam.left_out_items import EXAMPLE
from letter_jax.data.dataset import MIN_LENGTH, SUMMARY, TFDS, summarize
from letter_jax.data.preparation import no_interaction_left
from letter_jax.data.raw.common_ids import require_common_ids
from letter_jax.data.raw.read import find_raw_source, listed, no_usable_event, print_problems, print_time_unit
from letter_jax.data.raw.reader import RawSource
from letter_jax.data.raw.reading import described
from letter_jax.data.times import day_start
from letter_jax.system.errors import InputError

# Passes of the k-core in one pipeline, as Beam has no loops; the pipeline is repeated until a pass changes nothing.
PASSES = 4
INTERMEDIATE = 'beam_intermediate'  # marks a directory that this program may clear


def prepare_with_beam(config: DataConfig, directory: str | os.PathLike, beam_arguments: list[str]) -> dict[str, Any]:
  """Prepares raw files as the `dataset` stage does, and writes tables that `store.load` and `store.adopt` read.

  Args:
    config: the source, the folder with its files and the preparation.
    directory: a folder that does not exist or is empty, or the folder of an interrupted run.
    beam_arguments: Beam's options, such as ['--runner=DirectRunner'].

  Returns:
    The summary, as `dataset.Dataset.summary`.

  Raises:
    InputError: a setting is invalid, a raw file is missing or damaged, the preparation drops all events, `directory`
      cannot be written, or a pipeline failed.
  """
  options = _options(beam_arguments)
  if config.source not in RAW_SOURCES:
    raise InputError(f'config.data.source is {config.source!r}; expected one of {", ".join(map(repr, RAW_SOURCES))}')
  if not config.path:
    raise InputError('config.data.path is empty; expected the folder with the raw files')
  source, folder = find_raw_source(config, absolute(config.path)), absolute(directory)
  if set(str(folder)) & set('*?['):
    raise InputError(f'--directory={folder} contains one of *?[, which Beam takes for a pattern; expected a plain name')
  try:
    return _prepare(config, source, folder, options)
  except OSError as error:
    raise InputError(
      f'--directory={folder} could not be written ({error}); expected a new folder on a disk with enough space; '
      'the same command starts again'
    ) from error


def _prepare(config: DataConfig, source: RawSource, directory: epath.Path, options: PipelineOptions) -> dict[str, Any]:
  intermediate = directory / INTERMEDIATE
  if intermediate.exists():  # left by an interrupted run
    for folder in (intermediate, directory / TFDS):
      if folder.exists():
        folder.rmtree()
  elif directory.exists() and any(directory.iterdir()):
    raise InputError(f'{directory} is not empty; expected a new folder as --directory')
  intermediate.mkdir(parents=True)
  run = _Run(config, source, intermediate, options)
  run.read()
  run.k_core()
  summary = run.tables()
  _write_tables(directory, options)
  (directory / left_out.FILE).write_text(left_out.table(run.left_out_items()))
  partial = directory / f'{SUMMARY}.partial'
  partial.write_text(json.dumps(summary, indent=2) + '\n')
  partial.replace(directory / SUMMARY)
  intermediate.rmtree()
  print_problems(summary['preparation']['problems'])
  return summary


class _Run:
  """The pipelines before the last, and the tallies that they reported."""

  def __init__(self, config: DataConfig, source: RawSource, folder: epath.Path, options: PipelineOptions):
    self._config, self._source, self._folder, self._options = config, source, folder, options
    self._events = reading.spans(source.files[0], 0, source.whole)
    self._texts = reading.spans(source.files[1], len(self._events), source.whole)
    self._histories, self._raw_items = folder / 'histories', folder / 'raw_items'
    self._tallies: dict[tuple[str, Any], tuple[int, list[Any]]] = {}
    self._dropped: dict[str, int] = {}
    self._unread = ''
    self._rounds = 0

  def read(self) -> None:
    """Reads events into histories, within the dates, without duplicates, in time order."""
    config = self._config.preparation
    with self._pipeline('reading events') as (pipeline, report):
      histories, raw_items, tallies = reading.read_histories(
        pipeline,
        self._source,
        self._events,
        day_start(config.since) if config.since else -math.inf,
        day_start(config.until) if config.until else math.inf,
        config.repeats == 'drop',
      )
      transforms.write_lines(histories, self._histories)
      transforms.write_lines(raw_items, self._raw_items)
      report(tallies)
    if not self._count('usable'):
      raise no_usable_event(self._source, self._problems())
    self._unread = listed(self._problems())
    print_time_unit(self._source)
    for reason in (left_out.DATES, 'duplicate', *['same item again'] * (config.repeats == 'drop')):
      self._dropped[reason] = self._count(reason)

  def k_core(self) -> None:
    """Runs passes of the k-core, up to and including the first that changes nothing."""
    core = max(self._config.preparation.core, 1)
    reason = left_out.outside_core(self._config.preparation.core)
    self._dropped[reason] = 0
    while True:
      before = self._histories
      numbers = range(self._rounds + 1, self._rounds + 1 + PASSES)
      self._histories = self._folder / f'core_{numbers[0]}'
      with self._pipeline(f'{core}-core, passes {numbers[0]} to {numbers[-1]}') as (pipeline, report):
        histories, tallies = transforms.read_lines(pipeline, before), []
        for number in numbers:
          histories, pass_tallies = transforms.k_core_pass(histories, core, number)
          tallies.append(pass_tallies)
        transforms.write_lines(histories, self._histories)
        report(tallies)
      for path in self._folder.glob(f'{before.name}-*'):
        path.unlink()
      for self._rounds in numbers:
        pruned = self._count('pruned', self._rounds)
        if not pruned:
          self._require_something()
          return
        self._dropped[reason] += pruned

  def tables(self) -> dict[str, Any]:
    """Numbers users and items and writes their records to files; returns the summary."""
    core = self._config.preparation.core
    with self._pipeline('numbers and texts') as (pipeline, report):
      histories, raw_items = (transforms.read_lines(pipeline, path) for path in (self._histories, self._raw_items))
      users, items, without, tallies = transforms.tables(
        pipeline, histories, raw_items, core, self._source, self._texts
      )
      for name, values in (('users', users), ('items', items), ('left_out', without)):
        transforms.write_lines(values, self._folder / name)
      report(tallies)
    if core < MIN_LENGTH:
      self._dropped[left_out.SHORT] = self._count('too short')
    self._require_something()
    self._require_common_ids()
    return summarize(
      self._config.name or self._config.source,
      self._histogram('length'),
      self._histogram('popularity'),
      self._count('without text'),
      {
        'time_unit_of_source': self._source.time_unit,
        'raw_events': self._count('usable'),
        'raw_users': self._raw('user'),
        'raw_items': self._raw('item'),
        'dropped': self._dropped,
        'left_out': self._left_out(),
        'k_core_rounds': self._rounds,
        'items_without_metadata': self._count('not described'),
        'items_without_title': self._count('without title'),
        'metadata_of_an_item_again': self._count('described again'),
        'problems': self._problems(),
      },
    )

  def left_out_items(self) -> dict[str, list[str]]:
    """Step -> raw ids of the items that it left out, sorted, as `Dataset.left_out`."""
    items: dict[str, list[str]] = {step: [] for step in self._left_out()}
    for path in self._folder.glob('left_out-*'):
      for item, step in map(json.loads, path.read_text().splitlines()):
        items[step].append(item)
    return {step: sorted(of_step) for step, of_step in items.items()}

  def _left_out(self) -> dict[str, dict[str, int]]:
    """As `Prepared.left_out`."""
    outside, short = self._count('raw user', left_out.DATES), self._count('short user')
    core = self._raw('user') - outside - short - sum(self._histogram('length').values())
    users = {left_out.DATES: outside, left_out.outside_core(self._config.preparation.core): core}
    if self._config.preparation.core < MIN_LENGTH:
      users[left_out.SHORT] = short
    return {step: {'users': count, 'items': self._count('left out', step)} for step, count in users.items()}

  def _raw(self, column: str) -> int:
    """The number of raw users or items."""
    return sum(count for (tallied, _), (count, _) in self._tallies.items() if tallied == f'raw {column}')

  def _require_common_ids(self) -> None:
    common, only_described = self._count('common'), self._count('only_described')
    shown = [
      sorted(name for tallied, name in self._tallies if tallied == f'{EXAMPLE}{kind}')
      for kind in ('only_bought', 'only_described')
    ]
    require_common_ids(self._source.files, common, self._raw('item'), common + only_described, *shown)

  @contextlib.contextmanager
  def _pipeline(self, label: str) -> Iterator[tuple[beam.Pipeline, Callable[[list[Any]], None]]]:
    """Runs a pipeline; yields it and the function that reports its tallies, which are added to the earlier ones."""
    print(f'dataset: {label}', flush=True)
    path = self._folder / 'report.json'
    with _failure_in_one_line(label), beam.Pipeline(options=self._options) as pipeline:
      yield pipeline, lambda tallies: transforms.write_report(tallies, path)
    for (kind, detail), (count, place) in json.loads(path.read_text()):
      earlier_count, first = self._tallies.get((kind, detail), (0, place))
      self._tallies[kind, detail] = (earlier_count + count, first)
    for kind, detail in self._tallies:
      if kind == 'refused':
        raise InputError(detail)

  def _count(self, kind: str, detail: str | int = '') -> int:
    return self._tallies.get((kind, detail), (0, []))[0]

  def _histogram(self, kind: str) -> dict[int, int]:
    return {value: count for (tallied, value), (count, _) in self._tallies.items() if tallied == kind}

  def _require_something(self) -> None:
    if sum(self._dropped.values()) == self._count('usable'):
      raise no_interaction_left(self._dropped, self._config.preparation, self._unread)

  def _problems(self) -> dict[str, dict[str, Any]]:
    """As `Problems.summary`; lines are numbered from the start of the file."""
    in_order = sorted(
      (place, kind, count) for (tallied, kind), (count, place) in self._tallies.items() if tallied == 'problem'
    )
    problems = {}
    for (span, line, value), kind, count in in_order:
      first = 0 if span < len(self._events) else len(self._events)
      before = sum(self._count('lines', earlier) for earlier in range(first, span))
      problems[kind] = described(count, f'{self._source.files[int(first > 0)].name}:{before + line}', value)
    return problems


@contextlib.contextmanager
def _failure_in_one_line(label: str) -> Iterator[None]:
  """Turns any error of a runner or a worker, such as a full disk, into an InputError of one line."""
  try:
    yield
  except Exception as error:
    if isinstance(error, InputError):
      raise
    reason = ' '.join(str(error).split())[-300:]
    raise InputError(
      f'the Beam pipeline {label!r} failed ({type(error).__name__}: ...{reason}); the same command starts again'
    ) from error


def _write_tables(directory: epath.Path, options: PipelineOptions) -> None:
  """Writes the records of `_Run.tables` with TFDS's Beam writer."""
  tfds.disable_progress_bar()
  for table in ('users', 'items'):
    print(f'dataset: writing {table}', flush=True)
    # TFDS always prints that it downloads.
    with _failure_in_one_line(f'writing {table}'), contextlib.redirect_stdout(io.StringIO()):
      transforms.TablesFromRecords(
        records=directory / INTERMEDIATE / table, config=table, data_dir=directory / TFDS
      ).download_and_prepare(download_config=tfds.download.DownloadConfig(beam_options=options))
  if (directory / TFDS / 'downloads').exists():
    (directory / TFDS / 'downloads').rmtree()  # empty


def absolute(path: str | os.PathLike) -> epath.Path:
  """The path in a form that has the same meaning for every worker; one with a scheme (gs://) is unchanged."""
  location = epath.Path(path)
  return location if '://' in os.fspath(location) else epath.Path(os.path.abspath(location.expanduser()))


def _options(arguments: list[str]) -> PipelineOptions:
  """Parses Beam's options; InputError if they are invalid."""
  stderr = io.StringIO()
  try:
    with contextlib.redirect_stderr(stderr):
      options = PipelineOptions(arguments)
      known = options.get_all_options()
      unknown = options.get_all_options(retain_unknown_options=True).keys() - known.keys()
      runner = options.view_as(StandardOptions).runner or 'DirectRunner'
      if unknown and 'Direct' in runner:  # other runners pass them on to their services
        raise ValueError(f'{runner} does not know --{", --".join(sorted(unknown))}')
      create_runner(runner)
  except SystemExit as error:  # argparse
    raise InputError(f'Beam options {" ".join(arguments)}: {stderr.getvalue().strip().splitlines()[-1]}') from error
  except (ValueError, ImportError, AttributeError) as error:
    raise InputError(f'Beam options {" ".join(arguments)}: {error}') from error
  return options
