"""Checkpoints: the only module that uses Orbax.

A training keeps its latest states (to resume) and the parameters of its best validation (to use). Both are written
asynchronously and renamed into place when complete.
"""

import contextlib
import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from tqdm import tqdm

from letter_jax.sharding import Layout
from letter_jax.system import processes
from letter_jax.system.errors import InputError
from letter_jax.system.wording import counted
from letter_jax.training.files import BEST, CHECKPOINTS, LATEST

BEST_KEPT = 2  # the best, and one to fall back to


@dataclasses.dataclass
class Progress:
  """The progress of a training, saved with its state so that a resumed run decides as the uninterrupted one.

  Attributes:
    step: optimizer steps done.
    data: state of the Grain iterator that the batches come from; the same on every process.
    steps_per_epoch, data_parts: as in `loop.Program`; the meaning of `step` and `data` depends on them.
    best_value: the selecting metric of the best validation; None before the first.
    best_step: step of the best validation.
    validations_since_best: the number of validations after the best one.
    validation_is_due: whether the validation of this step is still to be made.
    start_value: the selecting metric of the parameters that the training was given to start from; None without any.
    best_metrics: all metrics of the best validation.
  """

  step: int = 0
  data: dict[str, Any] = dataclasses.field(default_factory=dict)
  steps_per_epoch: int = 0
  data_parts: int = 1
  best_value: float | None = None
  best_step: int = 0
  validations_since_best: int = 0
  validation_is_due: bool = False
  start_value: float | None = None
  best_metrics: dict[str, float] = dataclasses.field(default_factory=dict)


def folder(root: str, directory: pathlib.Path, label: str) -> epath.Path:
  """The folder with the checkpoints of one training.

  Args:
    root: `config.checkpoints`: a folder for all checkpoints of the run, or ''.
    directory: folder of the training's other results, which holds the checkpoints if `root` is ''.
    label: name of the training.
  """
  return epath.Path(root) / label if root else epath.Path(directory.absolute()) / CHECKPOINTS


class Checkpoints:
  """The checkpoints of one training: states in `latest/STEP` and the best parameters in `best/STEP`."""

  def __init__(self, directory: epath.PathLike, keep: int = 1, read_only: bool = False) -> None:
    """Opens the checkpoints under `directory`.

    Args:
      directory: local or remote folder, created if it does not exist.
      keep: the number of latest states that are kept.
      read_only: create and write nothing.

    Raises:
      InputError: the folder cannot be created.
    """
    directory = epath.Path(directory)
    self._latest = _manager(directory / LATEST, 'state', keep, read_only)
    self._best = _manager(directory / BEST, 'params', BEST_KEPT, read_only)
    self._directory = directory

  def save_latest(self, state: Any, progress: Progress) -> None:
    """Starts writing a state (pytree of arrays); returns before it is on disk.

    Raises:
      InputError: this state, or one begun before, could not be written.
    """
    with self._writing():
      # A state must not be on disk before the best parameters that its progress refers to.
      self._best.wait_until_finished()
      if progress.step not in self._latest.all_steps():
        self._latest.save(
          progress.step,
          args=ocp.args.Composite(
            state=ocp.args.StandardSave(state), progress=ocp.args.JsonSave(dataclasses.asdict(progress))
          ),
        )

  def save_best(self, params: Any, progress: Progress) -> None:
    """Starts writing the parameters of the best validation so far; returns and raises as `save_latest`."""
    with self._writing():
      # With several processes, two managers that write at once mix up their barriers.
      self._latest.wait_until_finished()
      if progress.step not in self._best.all_steps():
        self._best.save(
          progress.step,
          args=ocp.args.Composite(
            params=ocp.args.StandardSave(params), progress=ocp.args.JsonSave(dataclasses.asdict(progress))
          ),
        )

  def restore_latest(self, abstract_state: Any) -> tuple[Any, Progress] | None:
    """The newest readable state and its progress, or None if nothing was saved yet.

    Unreadable checkpoints are skipped with a message and moved aside.

    Args:
      abstract_state: pytree of `jax.ShapeDtypeStruct` with the shardings to restore to.

    Raises:
      InputError: there are checkpoints and none can be read.
    """
    steps = processes.on_first_process(lambda: sorted(self._latest.all_steps(), reverse=True))
    for step in steps:
      reason = ''
      try:
        restored = self._latest.restore(
          step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract_state), progress=ocp.args.JsonRestore())
        )
        progress = Progress(**restored['progress'])
      except Exception as error:  # Orbax raises many kinds of exceptions for damaged files
        reason = _short(error)
      reasons = list(filter(None, processes.exchange(reason)))
      if reasons:  # unreadable on some process: all go back to the same step
        processes.on_first_process(functools.partial(self._set_aside, LATEST, step, reasons[0]))
        self._latest.reload()
        continue
      self._delete_best_after(progress.step)
      return restored['state'], progress
    if steps:
      raise InputError(
        f'{self._directory / LATEST}: of {counted(len(steps), "checkpoint")} none can be read; expected one to '
        'resume from. They were moved aside: the same command starts this training from the beginning'
      )
    self._delete_best_after(-1)
    return None

  def _delete_best_after(self, step: int) -> None:
    """Later best parameters belong to a trajectory that is lost, and Orbax would refuse to save an earlier step."""
    for best_step in list(self._best.all_steps()):
      if best_step > step:
        self._best.delete(best_step)

  def restore_best(self, layout: Layout) -> tuple[Any, Progress]:
    """The parameters, laid out as `layout`, and the progress of the newest readable best validation.

    Raises:
      InputError: none can be read.
    """
    reasons = []
    for step in processes.on_first_process(lambda: sorted(self._best.all_steps(), reverse=True)):
      reason = ''
      try:
        saved = self._best.item_metadata(step)['params'].tree
        abstract = jax.tree.map(
          lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
          saved,
          layout.of(saved),
        )
        restored = self._best.restore(
          step, args=ocp.args.Composite(params=ocp.args.StandardRestore(abstract), progress=ocp.args.JsonRestore())
        )
        progress = Progress(**restored['progress'])
      except Exception as error:
        reason = _short(error)
      reasons_of_step = list(filter(None, processes.exchange(reason)))
      if not reasons_of_step:
        return restored['params'], progress
      reasons.append(reasons_of_step[0])
      tqdm.write(f'checkpoint {self._directory / BEST / str(step)} is unreadable and skipped ({reasons[-1]})')
    if reasons:
      raise InputError(
        f'{self._directory / BEST}: no checkpoint can be read ({reasons[0]}); '
        f'expected one to use: remove {self._directory.parent} to train again'
      )
    raise InputError(f'{self._directory / BEST} holds no finished checkpoint; expected one, written by the stage')

  def wait(self) -> None:
    """Blocks until every checkpoint that was begun is on disk; raises InputError if one could not be written."""
    with self._writing():
      self._latest.wait_until_finished()
      self._best.wait_until_finished()

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    """Turns a failure to write, now or asynchronously since the last call, into an InputError."""
    try:
      yield
    except Exception as error:  # Orbax and its store raise many kinds of exceptions, for example for a full disk
      raise InputError(
        f'{self._directory}: a checkpoint could not be written ({_short(error)}); expected a writable disk with '
        'free space; what is complete is kept, and the same command resumes'
      ) from error

  def close(self) -> None:
    """Waits as `wait` and releases Orbax's resources."""
    self.wait()
    self._latest.close()
    self._best.close()

  def _set_aside(self, kind: str, step: int, reason: str) -> None:
    checkpoint, aside = self._directory / kind / str(step), self._directory / f'unreadable_{kind}_{step}'
    tqdm.write(f'checkpoint {checkpoint} is unreadable and skipped ({reason}); it is now {aside}')
    if aside.exists():
      aside.rmtree()
    checkpoint.rename(aside)


class BestInMemory:
  """The best parameters of a training that writes nothing: what `Checkpoints` offers the loop, without a folder."""

  def __init__(self) -> None:
    self._best: tuple[Any, Progress] | None = None

  def restore_latest(self, abstract_state: Any) -> None:
    """There is nothing to resume from."""

  def save_latest(self, state: Any, progress: Progress) -> None:
    """Keeps nothing."""

  def save_best(self, params: Any, progress: Progress) -> None:
    """Keeps a copy on the devices: the next step overwrites `params`."""
    self._best = jax.tree.map(jnp.copy, params), progress

  def restore_best(self, layout: Layout) -> tuple[Any, Progress]:
    """The parameters, laid out as they were trained, and the progress of the best validation."""
    assert self._best is not None, 'every training ends with a validation'
    return self._best

  def wait(self) -> None:
    """Nothing is being written."""

  def close(self) -> None:
    """Holds no resources."""


def _short(error: Exception) -> str:
  return ' '.join(str(error).split())[:160] or type(error).__name__


def _manager(directory: epath.Path, arrays: str, keep: int, read_only: bool) -> ocp.CheckpointManager:
  handlers = {arrays: ocp.StandardCheckpointHandler(), 'progress': ocp.JsonCheckpointHandler()}
  options = (
    ocp.CheckpointManagerOptions(read_only=True, create=False, save_interval_steps=0)
    if read_only
    else ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True, create=True)
  )
  if not read_only:
    try:
      directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise InputError(
        f'{directory} cannot be created ({error}); expected a writable folder for checkpoints'
      ) from error
  directory = directory if '://' in str(directory) else epath.Path(os.path.abspath(directory))
  return ocp.CheckpointManager(directory, item_handlers=handlers, options=options)


def read_best(directory: epath.PathLike, layout: Layout) -> tuple[Any, Progress]:
  """`Checkpoints.restore_best` of a training that this process does not run; writes nothing.

  Raises:
    InputError: `directory` has no checkpoint, or none that can be read.
  """
  if not (epath.Path(directory) / BEST).is_dir():
    raise InputError(f'{directory} holds no checkpoint; expected those of a stage that has run')
  before = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)  # Orbax warns that a read-only manager is read-only
  try:
    checkpoints = Checkpoints(directory, read_only=True)
    try:
      return checkpoints.restore_best(layout)
    finally:
      checkpoints.close()
  finally:
    logging.set_verbosity(before)
