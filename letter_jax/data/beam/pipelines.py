"""The pipelines of the preparation with Beam, one after the other, and what each has to know of those before.

    1. events -> histories      dates, duplicates, time order, repeats
    2. passes of the k-core     again and again, until one of them changes nothing
    3. numbers and texts        records of users and items
    4. tables                   TFDS's Beam writer

Between two of them the data lie in files of JSON lines under DIRECTORY/beam_intermediate, and a report of the counts.
"""

import contextlib
import io
import json
import math
import os
from collections.abc import Iterator

import apache_beam as beam
import tensorflow_datasets as tfds
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.runner import create_runner
from etils import epath

from letter_jax.configuration import RAW_SOURCES, DataConfig
from letter_jax.data.beam import transforms
from letter_jax.data.dataset import MIN_LENGTH, summarize
from letter_jax.data.preparation import nothing_left, seconds
from letter_jax.data.raw.read import find, nothing_usable, tell
from letter_jax.data.raw.reader import RawSource
from letter_jax.system.errors import InputError

# Beam has no loops: so many passes of the k-core are one pipeline, and it runs until one of them changes nothing.
PASSES = 4
INTERMEDIATE = 'beam_intermediate'  # a directory without it was never ours, and nothing in it is touched


def prepare_with_beam(config: DataConfig, directory: str | os.PathLike, beam_arguments: list[str]) -> dict:
  """Writes what `store.load` reads, and returns the summary.

  Args:
    directory: new, empty, or left by a run that was interrupted.
    beam_arguments: such as ['--runner=DirectRunner'].

  Raises:
    InputError: a wrong setting; a raw file that is missing or damaged; nothing is left.
  """
  options = _options(beam_arguments)
  if config.source not in RAW_SOURCES:
    raise InputError(f'config.data.source is {config.source!r}; expected one of {", ".join(map(repr, RAW_SOURCES))}')
  if not config.path:
    raise InputError('config.data.path is empty; expected the folder with the raw files')
  source, directory = find(config, absolute(config.path)), absolute(directory)
  if set(str(directory)) & set('*?['):
    raise InputError(f'--directory={directory} has one of *?[, which Beam takes for patterns; expected another name')
  try:
    return _prepare(config, source, directory, options)
  except OSError as error:
    raise InputError(
      f'--directory={directory} could not be written ({error}); expected a new folder on a disk with '
      'room; the same command starts again'
    ) from error


def _prepare(config: DataConfig, source: RawSource, directory: epath.Path, options: PipelineOptions) -> dict:
  intermediate = directory / INTERMEDIATE
  if intermediate.exists():  # a run that was interrupted
    for folder in (intermediate, directory / 'tfds'):
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
  partial = directory / 'summary.json.partial'
  partial.write_text(json.dumps(summary, indent=2) + '\n')
  partial.replace(directory / 'summary.json')
  intermediate.rmtree()
  tell(summary['preparation']['problems'])
  return summary


class _Run:
  """The pipelines before the last, which leave histories and reports in a folder, and what the reports said."""

  def __init__(self, config: DataConfig, source: RawSource, folder: epath.Path, options: PipelineOptions):
    self._config, self._source, self._folder, self._options = config, source, folder, options
    self._events = transforms.spans(source.files[0], 0, source.whole)
    self._texts = transforms.spans(source.files[1], len(self._events), source.whole)
    self._histories = folder / 'histories'
    self._found, self._dropped, self._rounds = {}, {}, 0

  def read(self) -> None:
    """Dates, duplicates, time order, repeats."""
    config = self._config.preparation
    with self._pipeline('reading events') as (pipeline, report):
      histories, tallies = transforms.read_histories(
        pipeline,
        self._source,
        self._events,
        seconds(config.since) if config.since else -math.inf,
        seconds(config.until) if config.until else math.inf,
        config.repeats == 'drop',
      )
      transforms.write_lines(histories, self._histories)
      report(tallies)
    if not self._count('usable'):
      raise nothing_usable(self._source, self._problems())
    for reason in ('outside the dates', 'duplicate', *['same item again'] * (config.repeats == 'drop')):
      self._dropped[reason] = self._count(reason)

  def k_core(self) -> None:
    """Passes up to and with the first that changes nothing."""
    core = max(self._config.preparation.core, 1)
    reason = f'outside the {self._config.preparation.core}-core'
    self._dropped[reason] = 0
    while True:
      before = self._histories
      numbers = range(self._rounds + 1, self._rounds + 1 + PASSES)
      self._histories = self._folder / f'core_{numbers[0]}'
      with self._pipeline(f'{core}-core, passes {numbers[0]} to {numbers[-1]}') as (pipeline, report):
        histories, tallies = transforms.read_lines(pipeline, before), []
        for number in numbers:
          histories, of_pass = transforms.k_core_pass(histories, core, number)
          tallies.append(of_pass)
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

  def tables(self) -> dict:
    """Records, numbered, in files; returns the summary."""
    with self._pipeline('numbers and texts') as (pipeline, report):
      histories = transforms.read_lines(pipeline, self._histories)
      users, items, tallies = transforms.tables(pipeline, histories, self._source, self._texts)
      transforms.write_lines(users, self._folder / 'users')
      transforms.write_lines(items, self._folder / 'items')
      report(tallies)
    if self._config.preparation.core < MIN_LENGTH:
      self._dropped[f'of users with fewer than {MIN_LENGTH}'] = self._count('too short')
    self._require_something()
    histogram = lambda wanted: {value: count for (kind, value), (count, _) in self._found.items() if kind == wanted}
    return summarize(
      self._config.name or self._config.source,
      histogram('length'),
      histogram('popularity'),
      self._count('without text'),
      {
        'raw_events': self._count('usable'),
        'dropped': self._dropped,
        'k_core_rounds': self._rounds,
        'items_without_metadata': self._count('not described'),
        'items_without_title': self._count('without title'),
        'metadata_of_an_item_again': self._count('described again'),
        'problems': self._problems(),
      },
    )

  @contextlib.contextmanager
  def _pipeline(self, label: str) -> Iterator:
    """A pipeline, and the function that gets its tallies; what they say is added to what was found before."""
    print(f'dataset: {label}', flush=True)
    path = self._folder / 'report.json'
    with _said_in_one_line(label), beam.Pipeline(options=self._options) as pipeline:
      yield pipeline, lambda tallies: transforms.write_report(tallies, path)
    for (kind, detail), (count, place) in json.loads(path.read_text()):
      so_far, first = self._found.get((kind, detail), (0, place))
      self._found[kind, detail] = (so_far + count, first)
    for kind, detail in self._found:
      if kind == 'refused':
        raise InputError(detail)

  def _count(self, kind: str, detail='') -> int:
    return self._found.get((kind, detail), (0,))[0]

  def _require_something(self) -> None:
    if sum(self._dropped.values()) == self._count('usable'):
      raise nothing_left(self._dropped, self._config.preparation)

  def _problems(self) -> dict[str, dict]:
    """As `Problems.summary`: a line of a span is counted from the start of the file."""
    found = sorted(
      (place, kind, count) for (tallied, kind), (count, place) in self._found.items() if tallied == 'problem'
    )
    problems = {}
    for (span, line), kind, count in found:
      first = 0 if span < len(self._events) else len(self._events)
      before = sum(self._count('lines', earlier) for earlier in range(first, span))
      problems[kind] = {'lines': count, 'first': f'{self._source.files[int(first > 0)].name}:{before + line}'}
    return problems


@contextlib.contextmanager
def _said_in_one_line(label: str) -> Iterator[None]:
  """Whatever a runner or a worker raises: a disk that is full, a service that does not answer."""
  try:
    yield
  except Exception as error:
    if isinstance(error, InputError):
      raise
    said = ' '.join(str(error).split())
    raise InputError(
      f'the Beam pipeline of {label!r} failed ({type(error).__name__}: ...{said[-300:]}); the same command starts again'
    ) from error


def _write_tables(directory: epath.Path, options: PipelineOptions) -> None:
  """TFDS's Beam writer, on the records of `_Run.tables`."""
  tfds.disable_progress_bar()
  for table in ('users', 'items'):
    print(f'dataset: writing {table}', flush=True)
    # TFDS says that it downloads.
    with _said_in_one_line(f'writing {table}'), contextlib.redirect_stdout(io.StringIO()):
      transforms.TablesFromRecords(
        records=directory / INTERMEDIATE / table, config=table, data_dir=directory / 'tfds'
      ).download_and_prepare(download_config=tfds.download.DownloadConfig(beam_options=options))
  if (directory / 'tfds' / 'downloads').exists():
    (directory / 'tfds' / 'downloads').rmtree()  # empty


def absolute(path: str | os.PathLike) -> epath.Path:
  """As every worker understands it; what has a scheme (gs://) is so already."""
  path = epath.Path(path)
  return path if '://' in os.fspath(path) else epath.Path(os.path.abspath(path.expanduser()))


def _options(arguments: list[str]) -> PipelineOptions:
  """Beam's PipelineOptions; InputError where they are wrong."""
  said = io.StringIO()
  try:
    with contextlib.redirect_stderr(said):
      options = PipelineOptions(arguments)
      known = options.get_all_options()
      unknown = options.get_all_options(retain_unknown_options=True).keys() - known.keys()
      runner = options.view_as(StandardOptions).runner or 'DirectRunner'
      if unknown and 'Direct' in runner:  # others hand them on to their services
        raise ValueError(f'{runner} does not know --{", --".join(sorted(unknown))}')
      create_runner(runner)
  except SystemExit as error:  # argparse
    raise InputError(f'Beam options {" ".join(arguments)}: {said.getvalue().strip().splitlines()[-1]}') from error
  except (ValueError, ImportError, AttributeError) as error:
    raise InputError(f'Beam options {" ".join(arguments)}: {error}') from error
  return options
