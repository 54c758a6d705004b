"""Experiment trackers: the metrics that TensorBoard gets, and the report, also for Weights & Biases or MLflow.

    with tracking('mlflow', workdir, settings):
      ...  # trainings

A run of the program is one run of the tracker, which a resumed one continues: `WORKDIR/tracker.json` has its id. Where
the tracker is, who the user is and the like are for the tracker's own environment variables (MLFLOW_TRACKING_URI,
WANDB_PROJECT, WANDB_MODE, ...). A tracker that fails ends the tracking, with one line, and not the training.
"""

import contextlib
import contextvars
import importlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from tqdm import tqdm

from letter_jax.system import artifacts, processes
from letter_jax.system.errors import InputError, Preempted

FILE = 'tracker.json'  # in the workdir
COMPLETE, FAILED, KILLED = 'complete', 'failed', 'killed'
PROJECT = 'letter_jax'  # of the run, where the environment names none

_PARAMS_AT_ONCE = 100  # that MLflow takes

_current: contextvars.ContextVar['_Tracking | None'] = contextvars.ContextVar('tracking', default=None)


class Tracker(Protocol):
  """A run of a tracker."""

  def begin(self, name: str, folder: pathlib.Path, settings: Mapping[str, Any], run_id: str | None) -> str:
    """Begins a run, or goes on with that of an id; returns the id."""

  def log(self, label: str, step: int, values: Mapping[str, float]) -> None:
    """Logs metrics of a training, whose steps are counted from 0; names begin with its label."""

  def file(self, path: pathlib.Path) -> None:
    """Uploads a file."""

  def close(self, outcome: str) -> None:
    """Ends the run, if it has begun; `outcome` is COMPLETE, FAILED or KILLED."""


@contextlib.contextmanager
def tracking(tracker: str, workdir: pathlib.Path, settings: Mapping[str, Any]) -> Iterator[None]:
  """A context in which the metrics of all trainings go to a tracker, too. Its run begins with `begin`.

  The run ends with the context: as complete, as killed where the context ends with Preempted or Ctrl-C, else as failed.

  Args:
    tracker: 'wandb' or 'mlflow'; '' for none.
    workdir: names the run, and holds its id.
    settings: of the run, by dotted key.

  Raises:
    InputError: the tracker's package is not installed.
  """
  if tracker:
    processes.on_first_process(lambda: _require(tracker))
  if not tracker or not processes.is_first():
    yield
    return
  run = _Tracking(tracker, workdir, settings)
  token, outcome = _current.set(run), FAILED
  try:
    yield
    outcome = COMPLETE
  except (Preempted, KeyboardInterrupt):
    outcome = KILLED
    raise
  finally:
    _current.reset(token)
    run.close(outcome)


def _require(tracker: str) -> None:
  try:
    importlib.import_module(tracker)
  except ImportError as error:
    raise InputError(
      f"config.tracker is {tracker!r}, which cannot be imported ({error}); expected pip install 'letter_jax[{tracker}]'"
    ) from error


def begin() -> None:
  """Begins or continues the run of the tracker of this context, if there is one: before a training, not in it."""
  run = _current.get()
  if run:
    run.attempt(lambda tracker: None)


def log(label: str, step: int, values: Mapping[str, float]) -> None:
  """Logs metrics of a training to the tracker of this context, if there is one."""
  run = _current.get()
  if run and values:
    run.attempt(lambda tracker: tracker.log(label, step, values))


def file(path: pathlib.Path) -> None:
  """Uploads a file to the tracker of this context, if there is one."""
  run = _current.get()
  if run:
    run.attempt(lambda tracker: tracker.file(path))


class _Tracking:
  """The tracker of a context, until it fails."""

  def __init__(self, tracker: str, workdir: pathlib.Path, settings: Mapping[str, Any]) -> None:
    self._name, self._workdir, self._settings = tracker, workdir, settings
    self._tracker: Tracker | None = None
    self._failed = False

  def attempt(self, do: Callable[[Tracker], None]) -> None:
    """Calls `do` with the tracker, whose run is begun if it is not; prints what goes wrong, once."""
    if self._failed:
      return
    try:
      if self._tracker is None:
        self._tracker = _BY_NAME[self._name]()
        run_id = self._tracker.begin(self._workdir.name, self._workdir, self._settings, self._read_id())
        artifacts.write_json(self._workdir / FILE, {'tracker': self._name, 'run': run_id})
      do(self._tracker)
    except Exception as error:  # of the network, of a server, of a disk: whatever it is, the training goes on
      self._failed = True
      self._say(error)

  def close(self, outcome: str) -> None:
    """Ends the run, also one that has failed: the next one would go on with it."""
    if self._tracker is None:
      return
    try:
      self._tracker.close(outcome)
    except Exception as error:
      if not self._failed:
        self._say(error)

  def _say(self, error: Exception) -> None:
    tqdm.write(f'{self._name} failed, and gets nothing more of this run: {" ".join(str(error).split())[:200]}')

  def _read_id(self) -> str | None:
    """The id of the run that an earlier start of the program began with the same tracker."""
    try:
      found = json.loads((self._workdir / FILE).read_text(encoding='utf-8'))
      return str(found['run']) if found['tracker'] == self._name else None
    except (OSError, ValueError, KeyError, TypeError):
      return None


class _MLflow:
  """A run of MLflow, in the store of MLFLOW_TRACKING_URI. Metrics are sent by a thread of MLflow's."""

  def begin(self, name: str, folder: pathlib.Path, settings: Mapping[str, Any], run_id: str | None) -> str:
    import mlflow

    self._mlflow = mlflow
    if 'MLFLOW_EXPERIMENT_NAME' not in os.environ and 'MLFLOW_EXPERIMENT_ID' not in os.environ:
      mlflow.set_experiment(PROJECT)
    run = mlflow.start_run(run_id=run_id, run_name=None if run_id else name)
    if run_id is None:
      params = [(key, str(value)[:500]) for key, value in settings.items()]
      for first in range(0, len(params), _PARAMS_AT_ONCE):
        mlflow.log_params(dict(params[first : first + _PARAMS_AT_ONCE]))
    return run.info.run_id

  def log(self, label: str, step: int, values: Mapping[str, float]) -> None:
    # A name may not have an @, as recall@10 has.
    named = {f'{label}/{name}'.replace('@', '_at_'): value for name, value in values.items()}
    self._mlflow.log_metrics(named, step=step, synchronous=False)

  def file(self, path: pathlib.Path) -> None:
    self._mlflow.log_artifact(str(path))

  def close(self, outcome: str) -> None:
    self._mlflow.end_run({COMPLETE: 'FINISHED', FAILED: 'FAILED', KILLED: 'KILLED'}[outcome])


class _WandB:
  """A run of Weights & Biases, in the project of WANDB_PROJECT. Metrics are sent by a process of wandb's."""

  def __init__(self) -> None:
    self._run: Any = None
    self._labels: set[str] = set()

  def begin(self, name: str, folder: pathlib.Path, settings: Mapping[str, Any], run_id: str | None) -> str:
    import wandb

    self._wandb = wandb
    project = os.environ.get('WANDB_PROJECT', PROJECT)
    self._run = wandb.init(
      project=project, name=name, id=run_id, resume='allow', dir=str(folder), config=dict(settings)
    )
    return self._run.id

  def log(self, label: str, step: int, values: Mapping[str, float]) -> None:
    if label not in self._labels:  # each training counts its own steps
      self._labels.add(label)
      self._run.define_metric(f'{label}/*', step_metric=f'{label}/step')
    self._run.log({f'{label}/step': step, **{f'{label}/{name}': value for name, value in values.items()}})

  def file(self, path: pathlib.Path) -> None:
    artifact = self._wandb.Artifact(path.stem, type='report')
    artifact.add_file(str(path))
    self._run.log_artifact(artifact)

  def close(self, outcome: str) -> None:
    if self._run is not None:
      self._run.finish(exit_code=int(outcome != COMPLETE))


_BY_NAME: dict[str, Callable[[], Tracker]] = {'wandb': _WandB, 'mlflow': _MLflow}
