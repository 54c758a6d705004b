"""A run: the stages of a config in one workdir, each skipped, resumed, redone or refused.

Next to a stage's results is `stage.json` with its settings and inputs. A stage that is complete for the wanted ones is
skipped, an interrupted one is resumed, and one whose settings or inputs have changed stops the run with the names of
what changed (`overwrite` redoes it and what follows).
"""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Iterable, Sequence

from etils import epath

from letter_jax.configuration import Config
from letter_jax.pipeline import estimate, inputs, refresh, stages
from letter_jax.pipeline import record as records
from letter_jax.pipeline.graph import Graph, Stage, json_settings
from letter_jax.pipeline.record import Record
from letter_jax.system import artifacts, machine, processes, time_left
from letter_jax.system.errors import InputError
from letter_jax.training import trackers
from letter_jax.workdir import CHECKPOINT_FOLDERS, CHECKPOINTS, RECORD, Workdir


@dataclasses.dataclass(frozen=True)
class _Attempt:
  """A stage about to run, as process 0 knows it.

  Attributes:
    wanted: its record, but for what only its end tells.
    spent: seconds of earlier attempts.
    start: of this one.
    set_aside: (where it is now, where it was) of each folder that this attempt replaces.
  """

  wanted: Record
  spent: float
  start: float
  set_aside: tuple[tuple[epath.Path, epath.Path], ...] = ()


class Run:
  """The stages of one config in one workdir, whose lock is held (`processes.locked`) while they run.

  Attributes:
    graph: the stages.
    overwrite: redo what changed and what follows from it; of a stage that is named, redo it in any case.
  """

  def __init__(
    self, config: Config, workdir: pathlib.Path, overwrite: bool = False, others: Sequence[pathlib.Path] = ()
  ):
    """`others` are workdirs of similar runs, which tell how long stages take."""
    self.config, self.workdir, self.overwrite = config, workdir, overwrite
    self.graph = Graph(config)
    self._given = inputs.GivenInputs(config, Workdir(workdir))
    self._earlier = estimate.earlier_results(self.graph, [workdir, *others]) if processes.is_first() else {}

  def run(self, name: str = 'all') -> None:
    """Runs one stage, or all in order.

    Raises:
      InputError: a wrong input; a stage that changed since it ran (without `overwrite`); an input that does not exist.
    """
    config = self.config
    if name != 'all' and name not in self.graph:
      raise InputError(f'--stage={name} has nothing to do: config.semantic_ids.path gives the semantic IDs')
    processes.on_first_process(self._require_files)
    if name == 'all' or not self.graph[name].alone:
      stages.check_devices(config)
      print(stages.header(config, self.workdir), flush=True)
    settings = {key: value for key, value in json_settings(config).items() if key not in ('tracker', 'sweep')}
    with trackers.tracking(config.tracker, self.workdir, settings):
      self._run_stages(name)
    if name in ('all', 'evaluate', 'report'):
      processes.on_first_process(self._print_results)

  def _run_stages(self, name: str) -> None:
    needed = set() if name == 'all' else self.graph.ancestors(self.graph[name])
    for stage in self.graph:
      if name in ('all', stage.name):
        self._run_stage(stage, redo=self.overwrite and name == stage.name, with_later=name == 'all')
      elif stage.name in needed:
        processes.on_first_process(functools.partial(self._require_complete, stage, name))
      if stage.name == 'dataset' and name != 'dataset':
        # Everything that can be known to be wrong is reported before anything is trained.
        processes.on_first_process(self._check_inputs)
      self._given.forget(stage.name)

  def is_complete(self, stage: Stage, directory: pathlib.Path | None = None) -> bool:
    """Whether a folder, by default the stage's own, holds the result of this config and its inputs in this workdir."""
    directory = directory or stage.directory(self.workdir)
    record = records.read_complete(directory)
    return (
      record is not None
      and not records.damaged_outputs(record, directory)
      and not records.changes(record, self._wanted(stage), stage)
    )

  def _check_inputs(self) -> None:
    workdir = Workdir(self.workdir)
    if self._reads_earlier_run():
      refresh.check(self.config, workdir, self._given)
    inputs.check_inputs(self.config, workdir, self._given)

  def _print_results(self) -> None:
    from letter_jax.reporting.results_table import final_results  # imported when needed, as by the stages

    print(f'\n{final_results(self.config, self.workdir)}')

  def _reads_earlier_run(self) -> bool:
    """Whether a stage that begins with the earlier run is not complete: a finished run no longer needs it."""
    return any(
      refresh.KEY in stage.files(self.config) and records.read_complete(stage.directory(self.workdir)) is None
      for stage in self.graph
    )

  def _require_files(self) -> None:
    refresh.require_other_workdir(self.config, self.workdir)
    if self._reads_earlier_run():
      require_complete(pathlib.Path(self.config.refresh.previous), *refresh.stages_needed(self.config))
    for stage in self.graph:
      for key, path in stage.files(self.config).items():
        if not path.exists() and not key.endswith('.item.json') and key != refresh.KEY:
          raise InputError(f'{path} does not exist; config.{key.partition("/")[0]} names it')

  def _run_stage(self, stage: Stage, redo: bool, with_later: bool) -> None:
    attempt: _Attempt | None = None  # on process 0

    def begin() -> bool:
      nonlocal attempt
      attempt = self._begin(stage, redo)
      return attempt is not None

    def finish() -> None:
      assert attempt is not None
      self._finish(stage, attempt)

    if not processes.on_first_process(begin):
      return
    outlook = time_left.Outlook()
    if with_later and processes.is_first():
      outlook = estimate.outlook(self.graph, self.config, self.workdir, stage, self._earlier)
    trackers.begin()
    try:
      with time_left.followed_by(outlook):
        if stage.alone:
          processes.on_first_process(lambda: stage.run(self.config, self.workdir, self._given))
        else:
          stage.run(self.config, self.workdir, self._given)
    except Exception:
      if attempt is not None:
        self._put_back(stage, attempt)
      raise
    processes.on_first_process(finish)
    if outlook.seconds:
      done, of_all = len(self.graph.stages) - len(outlook.seconds), len(self.graph.stages)
      print(f'letter_jax: {done} of {of_all} stages are done; left: {outlook.in_words()}', flush=True)

  def _begin(self, stage: Stage, redo: bool) -> _Attempt | None:
    """Marks the stage as begun; None where it is complete already."""
    directory, wanted = stage.directory(self.workdir), self._wanted(stage)
    record = self._read_own_record(directory)
    changes = records.changes(record, wanted, stage) if record else []
    if changes and not self.overwrite:
      raise InputError(
        f'stage {stage.name} in {self.workdir} was made with a different {records.listed(changes)}; expected the same '
        'settings and inputs, a different --workdir, or --overwrite to redo it and what follows'
      )
    set_aside: list[tuple[epath.Path, epath.Path]] = []
    try:
      if record and (changes or redo):
        reason = f' with a different {records.listed(changes)}' if changes else ''
        print(f'{stage.name}: redone{reason}', flush=True)
        self._set_aside([stage, *self.graph.descendants(stage)], set_aside)
        record = None
      elif record and record['complete']:
        damaged = records.damaged_outputs(record, directory)
        if not damaged:
          print(f'{stage.name}: done before ({record["seconds"]:.1f} s), in {directory}', flush=True)
          return None
        print(f'{stage.name}: {", ".join(damaged)} missing or changed since it was written; made again', flush=True)
      if record is None:
        self._require_free_checkpoint_folders(stage)
      print(f'{stage.name}: {"running" if record is None else "resuming"}', flush=True)
      spent = records.seconds_spent(record, directory) if record else 0.0
      records.write(directory, {**wanted, 'complete': False, 'seconds': spent})
      return _Attempt(wanted, spent, time.perf_counter(), tuple(set_aside))
    except Exception:
      _restore(set_aside)
      raise

  def _read_own_record(self, directory: pathlib.Path) -> Record | None:
    """The record in a folder of this workdir; None also where an attempt failed before it wrote anything."""
    record = records.read(directory)
    if record is None and directory.exists() and any(directory.iterdir()):
      raise InputError(
        f'{directory} has files but no {RECORD}, so no run of this program wrote it; expected an empty folder, or a '
        'different --workdir'
      )
    if record and not record['complete'] and [path.name for path in directory.iterdir()] == [RECORD]:
      return None
    return record

  def _finish(self, stage: Stage, attempt: _Attempt) -> None:
    """Records what was written, and removes what it replaces."""
    directory, seconds = stage.directory(self.workdir), time.perf_counter() - attempt.start
    for later in [stage, *self.graph.descendants(stage)]:
      for place in (epath.Path(later.directory(self.workdir)), *self._checkpoint_folders(later)):
        _remove(_aside(place))
    records.write(
      directory,
      {
        **attempt.wanted,
        'complete': True,
        'seconds': attempt.spent + seconds,
        'machine': machine.describe(),
        'outputs': records.fingerprints(stage, directory),
      },
    )
    print(f'{stage.name}: done in {seconds:.1f} s, in {directory}', flush=True)

  def _set_aside(self, redone: list[Stage], moved: list[tuple[epath.Path, epath.Path]]) -> None:
    """Moves the results of stages out of the way until what replaces them is complete; appends each pair to `moved`."""
    for stage in redone:
      pair = _set_folder_aside(stage.directory(self.workdir))
      if pair is not None:
        moved.append(pair)
    for place in (place for stage in redone for place in self._checkpoint_folders(stage) if place.exists()):
      _remove(_aside(place))
      place.rename(_aside(place))
      moved.append((_aside(place), place))

  def _put_back(self, stage: Stage, attempt: _Attempt) -> None:
    """After a failure: restores what was set aside, unless a training that has begun is worth more."""
    directory = stage.directory(self.workdir)
    if not list(directory.rglob(CHECKPOINTS)) and not any(map(_has_checkpoints, self._checkpoint_folders(stage))):
      _restore(attempt.set_aside)

  def _require_complete(self, stage: Stage, needed_by: str) -> None:
    directory = stage.directory(self.workdir)
    record = records.read_complete(directory)
    if record is None:
      raise InputError(
        f'stage {needed_by} needs {stage.name}, which is not complete in {self.workdir}; '
        f'run --stage={stage.name} first, or all stages'
      )
    changes = records.changes(record, self._wanted(stage), stage)
    if changes:
      raise InputError(
        f'stage {needed_by} needs {stage.name}, which was made with a different {records.listed(changes)}; '
        f'expected the same, or --stage={stage.name} --overwrite first'
      )
    damaged = records.damaged_outputs(record, directory)
    if damaged:
      raise InputError(
        f'stage {needed_by} needs {stage.name}, of which {", ".join(damaged)} is missing or changed since it was '
        f'written; run --stage={stage.name} first, or all stages'
      )

  def _wanted(self, stage: Stage) -> Record:
    """What the stage's record must hold to be the result of this config."""
    files = stage.files(self.config)
    settings = {key: value for key, value in stage.settings_of(self.config).items() if key not in files}
    results = {}
    for name in stage.inputs:
      outputs = (records.read(self.graph[name].directory(self.workdir)) or {}).get('outputs')
      results[name] = outputs and {output: outputs[output] for output in self.graph[name].identity or outputs}
    contents = {key: artifacts.fingerprint(path) if path.is_file() else None for key, path in files.items()}
    return {'settings': settings, 'inputs': results, 'files': contents}

  def _checkpoint_folders(self, stage: Stage) -> list[epath.Path]:
    """Where the checkpoints of a stage are, if not in its folder."""
    root = self.config.checkpoints
    return [epath.Path(root) / label for label in stage.trainings] if root else []

  def _require_free_checkpoint_folders(self, stage: Stage) -> None:
    taken = [place for place in self._checkpoint_folders(stage) if _has_checkpoints(place)]
    if taken:
      raise InputError(
        f'{taken[0]} holds checkpoints of a different run; expected as config.checkpoints a folder for this run alone'
      )


def run(config: Config, workdir: pathlib.Path, stage: str = 'all', overwrite: bool = False) -> None:
  """`Run(config, workdir, overwrite).run(stage)`, while no other run writes to the workdir; raises as that does."""
  with processes.locked(workdir):
    Run(config, workdir, overwrite).run(stage)


def require_complete(workdir: pathlib.Path, *names: str) -> None:
  """Raises InputError unless these stages are complete in a workdir, undamaged; whatever their settings."""
  if not workdir.is_dir():
    raise InputError(f'{workdir} does not exist; expected the workdir of a run that is complete')
  graph = Graph(Config())
  for name in names:
    directory = graph[name].directory(workdir)
    record = records.read_complete(directory)
    if record is None:
      raise InputError(f'{workdir} has no finished {name}; expected the workdir of a run that is complete')
    damaged = records.damaged_outputs(record, directory)
    if damaged:
      raise InputError(
        f'{", ".join(damaged)} missing or changed since it was written; expected the output of the stage {name}: '
        'run it again'
      )


def _aside(directory: epath.Path) -> epath.Path:
  return directory.parent / f'.{directory.name}.replaced'


def _set_folder_aside(folder: pathlib.Path) -> tuple[epath.Path, epath.Path] | None:
  """(where it is now, where it was), or None where there is none."""
  directory = epath.Path(folder)
  aside = _aside(directory)
  if not directory.exists():  # a killed attempt may have set it aside before
    return (aside, directory) if aside.exists() else None
  if aside.exists() and records.read_complete(folder) is None:
    directory.rmtree()  # half of a replacement; the original is worth more
  else:
    _remove(aside)
    directory.rename(aside)
  return aside, directory


def _restore(set_aside: Iterable[tuple[epath.Path, epath.Path]]) -> None:
  """Moves folders back to where they were."""
  for aside, place in set_aside:
    _remove(place)
    aside.rename(place)


def _has_checkpoints(place: epath.Path) -> bool:
  return any((place / kind).exists() and any((place / kind).iterdir()) for kind in CHECKPOINT_FOLDERS)


def _remove(place: epath.Path) -> None:
  if place.exists():
    place.rmtree()
