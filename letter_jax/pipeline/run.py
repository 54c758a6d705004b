"""The stage graph: what each stage reads, writes and depends on; how a run skips, resumes or refuses.

A stage is a function of its settings and its input artifacts. Beside its results lies `stage.json` with both; a stage
that is complete for them is skipped, an interrupted one is resumed, and one whose settings or input have changed since
stops the run with the names of what changed (`overwrite` redoes it and what follows).
"""

import dataclasses
import functools
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

from etils import epath

from letter_jax.configuration import Config, flattened
from letter_jax.data import sources
from letter_jax.pipeline import stages
from letter_jax.system import artifacts, machine, processes
from letter_jax.system.errors import InputError

RECORD = 'stage.json'
# How often something is logged or saved, how many users are decoded at once, or how arrays lie on the devices does not
# change what comes out.
WITHOUT_EFFECT = (
  'partition',
  'log_every_steps',
  'checkpoint_every_steps',
  'keep_checkpoints',
  'evaluation.batch_size',
  'text_embeddings.batch_size',
)


@dataclasses.dataclass(frozen=True)
class Stage:
  """One step of the pipeline.

  Attributes:
    name: as in --stage.
    inputs: stages whose results it reads.
    settings: sections or keys of the config that it depends on.
    files: (config, ...) -> files given from outside that it reads, by the config key that names them.
    outputs: files that the next stages read, relative to its folder.
    run: does the work; (config, workdir). Every process runs it, and process 0 writes.
    alone: no other process than 0 is needed.
    trainings: labels of those whose checkpoints it writes.
    identity: those of the outputs that say what the result is; all, where empty. The next stages depend on them.
    folder: under the workdir.
  """

  name: str
  inputs: tuple[str, ...]
  settings: tuple[str, ...]
  outputs: tuple[str, ...]
  run: Callable[[Config, pathlib.Path], None]
  files: Callable[[Config], dict[str, pathlib.Path]] = lambda config: {}
  folder: str = ''
  identity: tuple[str, ...] = ()
  alone: bool = False
  trainings: tuple[str, ...] = ()

  def directory(self, workdir: pathlib.Path) -> pathlib.Path:
    return workdir / (self.folder or self.name)


def graph(config: Config) -> list[Stage]:
  """The stages that this config needs, in order; what is given from outside needs no stage before it."""
  learned_ids = not config.semantic_ids.path
  made = {'synthetic': ('seed', 'data.synthetic'), 'letter': ('data.name',), 'prepared': ()}.get(
    config.data.source, ('data.name', 'data.preparation')
  )
  all_stages = [
    Stage(
      'dataset',
      (),
      ('data.source', *made),
      ('tfds', 'lengths.npy', 'summary.json'),
      stages.dataset,
      lambda config: sources.source_files(config.data),
      identity=('summary.json',),
      alone=True,
    ),
    Stage(
      'text_embeddings',
      ('dataset',),
      ('seed', 'text_embeddings'),
      ('embeddings.npy',),
      stages.text_embeddings,
      stages.text_embeddings_files,
      alone=True,
    ),
    Stage(
      'collaborative',
      ('dataset',),
      ('seed', 'data.history_length', 'data.window_users', 'collaborative', 'tokenizer.model.latent_dim'),
      ('embeddings.npy', 'metrics.json'),
      stages.collaborative,
      lambda config: _given('collaborative.path', config.collaborative.path),
      trainings=('sasrec', 'lightgcn'),
    ),
    Stage(
      'tokenizer',
      ('text_embeddings', 'collaborative'),
      ('seed', 'tokenizer'),
      ('tokenizer.json', 'input_scale.npz'),
      stages.tokenizer,
      trainings=('tokenizer',),
    ),
    Stage(
      'semantic_ids',
      ('tokenizer',) if learned_ids else ('dataset',),
      ('seed', 'semantic_ids'),
      ('semantic_ids.npy', 'index.json', 'report.json'),
      stages.semantic_ids,
      lambda config: _given('semantic_ids.path', config.semantic_ids.path),
    ),
    Stage(
      'generator',
      ('dataset', 'semantic_ids'),
      ('seed', 'data.history_length', 'data.window_users', 'generator'),
      ('generator.json',),
      stages.generator,
      stages.generator_files,
      trainings=('generator',),
    ),
    Stage(
      'evaluate',
      ('dataset', 'collaborative', 'semantic_ids', 'generator'),
      ('data.history_length', 'evaluation'),
      ('metrics.json', 'predictions.jsonl', 'ranks.npz'),
      stages.evaluate,
      folder='evaluation',
    ),
    Stage(
      'report',
      (
        'collaborative',
        *(('text_embeddings', 'tokenizer') if learned_ids else ()),
        'semantic_ids',
        'generator',
        'evaluate',
      ),
      ('seed',),
      ('../report.html',),
      stages.report,
      alone=True,
    ),
  ]
  unneeded = () if learned_ids else ('text_embeddings', 'tokenizer')
  return [stage for stage in all_stages if stage.name not in unneeded]


STAGES = tuple(stage.name for stage in graph(Config()))


def run(config: Config, workdir: pathlib.Path, stage: str = 'all', overwrite: bool = False) -> None:
  """Runs one stage, or all in order.

  Args:
    overwrite: redo what changed and what follows from it; of a stage that is named, redo it in any case.

  Raises:
    InputError: a wrong input; a stage that changed since it ran (without `overwrite`); an input that is not there yet.
  """
  order = graph(config)
  if stage != 'all' and stage not in [each.name for each in order]:
    raise InputError(f'--stage={stage} has nothing to do: config.semantic_ids.path gives the semantic IDs from outside')
  processes.on_first_process(lambda: _require_files(order, config, workdir))
  if stage == 'all' or not next(each for each in order if each.name == stage).alone:
    stages.check_devices(config)
    print(stages.header(config, workdir), flush=True)
  by_name = {each.name: each for each in order}
  for each in order:
    if stage in ('all', each.name):
      _run_one(each, by_name, order, config, workdir, overwrite, redo=overwrite and stage == each.name)
    elif each.name in _ancestors(by_name[stage], by_name):
      processes.on_first_process(functools.partial(_require_complete, each, stage, by_name, config, workdir))
    if each.name == 'dataset' and stage != 'dataset':
      # Whatever can be known to be wrong is said before anything is trained.
      processes.on_first_process(lambda: stages.check_inputs(config, workdir))
  if stage in ('all', 'evaluate', 'report'):
    processes.on_first_process(lambda: stages.print_results(config, workdir))


def _require_files(order: list[Stage], config: Config, workdir: pathlib.Path) -> None:
  """Raises InputError where the workdir cannot be made, or a file is not there that the config names."""
  try:
    workdir.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise InputError(f'--workdir={workdir} cannot be used ({error}); expected a folder that can be written') from error
  for each in order:
    for key, path in each.files(config).items():
      if not path.exists() and not key.endswith('.item.json'):
        raise InputError(f'{path} is not there; config.{key.partition("/")[0]} names it')


@dataclasses.dataclass
class _Attempt:
  """A run of a stage, as process 0 knows it: its record, the seconds of attempts before, and what was put aside."""

  wanted: dict[str, Any] = dataclasses.field(default_factory=dict)
  spent: float = 0.0
  start: float = 0.0
  asides: list[tuple[epath.Path, epath.Path]] = dataclasses.field(default_factory=list)


def _run_one(stage: Stage, by_name, order, config: Config, workdir: pathlib.Path, overwrite: bool, redo: bool) -> None:
  attempt, directory = _Attempt(), stage.directory(workdir)
  try:
    if not processes.on_first_process(lambda: _begin(attempt, stage, by_name, order, config, workdir, overwrite, redo)):
      return
    if stage.alone:
      processes.on_first_process(lambda: stage.run(config, workdir))
    else:
      stage.run(config, workdir)
  except Exception:
    # A wrong setting does not cost what was there; a training that has begun is worth more than what it replaces.
    if not list(directory.rglob('checkpoints')) and not any(map(_holds_something, _remote(stage, config))):
      for aside, place in attempt.asides:
        _remove(place)
        aside.rename(place)
    raise
  processes.on_first_process(lambda: _finish(attempt, stage, order, config, workdir))


def _begin(
  attempt: _Attempt, stage: Stage, by_name, order, config: Config, workdir: pathlib.Path, overwrite: bool, redo: bool
) -> bool:
  """Whether the stage is to be run; if so, its record says that it has begun."""
  directory = stage.directory(workdir)
  record, wanted = _read_record(directory), _wanted(stage, by_name, config, workdir)
  if record is None and directory.exists() and any(directory.iterdir()):
    raise InputError(
      f'{directory} has files but no {RECORD}, so it is not of a run of this program; '
      'expected an empty folder, or another --workdir'
    )
  if record is not None and not record['complete'] and [path.name for path in directory.iterdir()] == [RECORD]:
    record = None  # an attempt that failed before it wrote anything binds nobody
  if record is not None:
    changes = _changes(record, wanted, stage)
    if changes and not overwrite:
      raise InputError(
        f'stage {stage.name} in {workdir} was made with another {_listed(changes)}; expected the same '
        'settings and inputs, another --workdir, or --overwrite to redo it and what follows'
      )
    if changes or redo:
      print(f'{stage.name}: redone' + (f' with another {_listed(changes)}' if changes else ''), flush=True)
      redone = [stage, *_descendants(stage, order)]
      attempt.asides = list(filter(None, [_put_aside(later.directory(workdir)) for later in redone]))
      for place in (place for later in redone for place in _remote(later, config) if place.exists()):
        aside = _aside(place)
        _remove(aside)
        place.rename(aside)
        attempt.asides.append((aside, place))
      record = None
    elif record['complete']:
      spoiled = _spoiled(record, directory)
      if not spoiled:
        print(f'{stage.name}: done before ({record["seconds"]:.1f} s), in {directory}', flush=True)
        return False
      print(f'{stage.name}: {", ".join(spoiled)} missing or not as it was written; made again', flush=True)
  taken = [place for place in _remote(stage, config) if record is None and _holds_something(place)]
  if taken:
    raise InputError(
      f'{taken[0]} holds checkpoints of another run; expected as config.checkpoints a folder for this run alone'
    )
  print(f'{stage.name}: {"running" if record is None else "resuming"}', flush=True)
  attempt.wanted, attempt.start = wanted, time.perf_counter()
  attempt.spent = _seconds_spent(record, directory) if record else 0.0
  artifacts.write_json(directory / RECORD, {**wanted, 'complete': False, 'seconds': attempt.spent})
  return True


def _finish(attempt: _Attempt, stage: Stage, order: list[Stage], config: Config, workdir: pathlib.Path) -> None:
  """The record says what was written; what it replaces is removed."""
  directory, seconds = stage.directory(workdir), time.perf_counter() - attempt.start
  for later in [stage, *_descendants(stage, order)]:
    for place in (epath.Path(later.directory(workdir)), *_remote(later, config)):
      _remove(_aside(place))
  outputs = {name: artifacts.fingerprint(directory / name) for name in stage.outputs}
  artifacts.write_json(
    directory / RECORD,
    {
      **attempt.wanted,
      'complete': True,
      'seconds': attempt.spent + seconds,
      'machine': machine.describe(),
      'outputs': outputs,
    },
  )
  print(f'{stage.name}: done in {seconds:.1f} s, in {directory}', flush=True)


def _seconds_spent(record: dict, directory: pathlib.Path) -> float:
  """Of the attempts so far; the last one, if it was killed, from its start to the last file that it wrote."""
  if record['complete']:
    return record['seconds']
  last = max(path.stat().st_mtime for path in directory.rglob('*'))
  return record['seconds'] + max(last - (directory / RECORD).stat().st_mtime, 0)


def _aside(directory: epath.Path) -> epath.Path:
  return directory.parent / f'.{directory.name}.replaced'


def _remote(stage: Stage, config: Config) -> list[epath.Path]:
  """Where its checkpoints lie, if that is not in its folder."""
  return [epath.Path(config.checkpoints) / label for label in stage.trainings] if config.checkpoints else []


def _holds_something(place: epath.Path) -> bool:
  return any((place / kind).exists() and any((place / kind).iterdir()) for kind in ('latest', 'best'))


def _remove(place: epath.Path) -> None:
  if place.exists():
    place.rmtree()


def _put_aside(directory: pathlib.Path) -> tuple[epath.Path, epath.Path] | None:
  """Moves a stage's folder out of the way; (where it is now, where it was), or None where there is none."""
  directory = epath.Path(directory)
  aside = _aside(directory)
  if not directory.exists():  # an attempt that was killed may have put it aside before
    return (aside, directory) if aside.exists() else None
  if aside.exists() and not (_read_record(directory) or {'complete': False})['complete']:
    directory.rmtree()  # half of what was to replace it; what was there before is worth more
  else:
    _remove(aside)
    directory.rename(aside)
  return aside, directory


def require_whole(workdir: pathlib.Path, *names: str) -> None:
  """Raises InputError unless these stages are complete in `workdir`, as they were written; whatever their settings."""
  by_name = {each.name: each for each in graph(Config())}
  for name in names:
    directory = by_name[name].directory(workdir)
    record = _read_record(directory)
    if record is None or not record['complete']:
      raise InputError(f'{workdir} has no finished {name}; expected the workdir of a run that is complete')
    spoiled = _spoiled(record, directory)
    if spoiled:
      raise InputError(
        f'{", ".join(spoiled)} missing or not as it was written; expected what the stage {name} wrote: run it again'
      )


def is_complete(
  stage: Stage, order: list[Stage], config: Config, workdir: pathlib.Path, directory: pathlib.Path
) -> bool:
  """Whether `directory` holds what the stage would make of this config and of its inputs in `workdir`."""
  record = _read_record(directory)
  by_name = {each.name: each for each in order}
  return (
    record is not None
    and record['complete']
    and not _spoiled(record, directory)
    and not _changes(record, _wanted(stage, by_name, config, workdir), stage)
  )


def _require_complete(stage: Stage, wanted_by: str, by_name, config: Config, workdir: pathlib.Path) -> None:
  directory = stage.directory(workdir)
  record = _read_record(directory)
  if record is None or not record['complete']:
    raise InputError(
      f'stage {wanted_by} needs {stage.name}, which is not complete in {workdir}; '
      f'run --stage={stage.name} first, or all stages'
    )
  changes = _changes(record, _wanted(stage, by_name, config, workdir), stage)
  if changes:
    raise InputError(
      f'stage {wanted_by} needs {stage.name}, which was made with another {_listed(changes)}; '
      f'expected the same, or --stage={stage.name} --overwrite first'
    )
  spoiled = _spoiled(record, directory)
  if spoiled:
    raise InputError(
      f'stage {wanted_by} needs {stage.name}, of which {", ".join(spoiled)} is missing or not as it was '
      f'written; run --stage={stage.name} first, or all stages'
    )


def _spoiled(record: dict, directory: pathlib.Path) -> list[str]:
  """Outputs of a complete stage that are missing or have another content than it wrote."""
  return [
    str(directory / name)
    for name, content in record['outputs'].items()
    if not (directory / name).exists() or artifacts.fingerprint(directory / name) != content
  ]


def _wanted(stage: Stage, by_name, config: Config, workdir: pathlib.Path) -> dict[str, Any]:
  """What the stage's record must hold to be the result of this config."""
  files = stage.files(config)
  settings = {key: value for key, value in settings_of(stage, config).items() if key not in files}
  inputs = {}
  for name in stage.inputs:
    outputs = (_read_record(by_name[name].directory(workdir)) or {}).get('outputs')
    inputs[name] = outputs and {output: outputs[output] for output in by_name[name].identity or outputs}
  contents = {key: artifacts.fingerprint(path) if path.is_file() else None for key, path in files.items()}
  return {'settings': settings, 'inputs': inputs, 'files': contents}


def settings_of(stage: Stage, config: Config) -> dict[str, Any]:
  """Those that its results depend on, by dotted key."""
  return {
    key: value
    for key, value in _settings(config).items()
    if any(key == prefix or key.startswith(f'{prefix}.') for prefix in stage.settings)
    and not key.endswith(WITHOUT_EFFECT)
  }


def _changes(record: dict, wanted: dict, stage: Stage) -> list[str]:
  if record['complete'] and not record['outputs'].keys() >= set(stage.outputs):
    missing = sorted(set(stage.outputs) - record['outputs'].keys())
    return [f'version of this program (which writes {", ".join(missing)})']
  changes = []
  # A setting that came into the program after the record was written had its default then.
  then = {**_settings(Config()), **record['settings']}
  keys = record['settings'].keys() | wanted['settings'].keys()
  if record['settings'].get('data.source') != wanted['settings'].get('data.source'):
    keys = {'data.source'}  # the settings of the one source do not exist for the other
  for key in sorted(keys):
    was, now = then.get(key), wanted['settings'].get(key)
    if was != now:
      changes.append(f'config.{key} ({was!r} then, {now!r} now)')
  for key in sorted(record['files'].keys() | wanted['files'].keys()):
    was, now = record['files'].get(key), wanted['files'].get(key)
    if was != now:
      changes.append(f'content of config.{key}')
  for name in sorted(record['inputs'].keys() | wanted['inputs'].keys()):
    if record['inputs'].get(name) != wanted['inputs'].get(name):
      changes.append(f'result of stage {name}')
  return changes


def _listed(changes: list[str], most: int = 4) -> str:
  """In one line, also where a folder of many files is another."""
  return ', '.join(changes[:most]) + (f' and {len(changes) - most} more' if len(changes) > most else '')


def _read_record(directory: pathlib.Path) -> dict | None:
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


def _ancestors(stage: Stage, by_name) -> set[str]:
  return {name for direct in stage.inputs for name in (direct, *_ancestors(by_name[direct], by_name))}


def _descendants(stage: Stage, order: list[Stage]) -> list[Stage]:
  by_name = {each.name: each for each in order}
  return [each for each in order if stage.name in _ancestors(each, by_name)]


def _settings(config: Config) -> dict[str, Any]:
  """By dotted key, values as JSON gives them back."""
  return {key: json.loads(json.dumps(value)) for key, value in flattened(dataclasses.asdict(config)).items()}


def _given(key: str, path: str) -> dict[str, pathlib.Path]:
  return {key: pathlib.Path(path)} if path else {}
