"""Checkpoints: the only module that knows Orbax.

A training keeps its latest states (to resume) and the parameters of its best validation (to use), both written
asynchronously and renamed into place when complete. `restore_generator` is the door for a user's own code.
"""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from tqdm import tqdm

from letter_jax import configuration
from letter_jax.sharding import Layout, on_one_device
from letter_jax.system import processes
from letter_jax.system.errors import InputError

BEST_KEPT = 2  # the best, and one to fall back to


@dataclasses.dataclass
class Progress:
  """Where a training stands; saved with the state, so that a resumed run decides as the uninterrupted one.

  Attributes:
    validation_is_due: the run was ended before the validation of this step.
    data: state of the Grain iterator that the batches come from; the same on every process.
    steps_per_epoch, data_parts: of this training; what `step` and `data` mean depends on them.
  """

  step: int = 0
  data: dict[str, Any] = dataclasses.field(default_factory=dict)
  steps_per_epoch: int = 0
  data_parts: int = 1
  best_value: float | None = None
  best_step: int = 0
  validations_since_best: int = 0
  validation_is_due: bool = False
  best_metrics: dict[str, float] = dataclasses.field(default_factory=dict)


def folder(root: str, directory: pathlib.Path, label: str) -> epath.Path:
  """Where the checkpoints of the training `label` lie.

  Args:
    root: as `config.checkpoints`.
    directory: of the training's other results.
  """
  return epath.Path(root) / label if root else epath.Path(directory.absolute()) / 'checkpoints'


class Checkpoints:
  """Checkpoints of one training under `directory`: `latest/STEP` (state) and `best/STEP` (parameters)."""

  def __init__(self, directory: epath.PathLike, keep: int = 1, read_only: bool = False):
    directory = epath.Path(directory)
    self._latest = _manager(directory / 'latest', 'state', keep, read_only)
    self._best = _manager(directory / 'best', 'params', BEST_KEPT, read_only)
    self._directory = directory

  def save_latest(self, state, progress: Progress) -> None:
    """Starts writing the state; returns before it is on disk."""
    with self._writing():
      # A state must not be on disk before the best parameters that its progress speaks of.
      self._best.wait_until_finished()
      if progress.step not in self._latest.all_steps():
        self._latest.save(
          progress.step,
          args=ocp.args.Composite(
            state=ocp.args.StandardSave(state), progress=ocp.args.JsonSave(dataclasses.asdict(progress))
          ),
        )

  def save_best(self, params, progress: Progress) -> None:
    """Starts writing the parameters of the best validation so far."""
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

  def restore_latest(self, abstract_state) -> tuple[Any, Progress] | None:
    """The newest readable state and its progress, or None where nothing was saved yet.

    Checkpoints that cannot be read are passed over, with a message, and moved aside.

    Args:
      abstract_state: pytree of `jax.ShapeDtypeStruct` with the shardings to restore to.

    Raises:
      InputError: there were checkpoints and none can be read.
    """
    steps = processes.on_first_process(lambda: sorted(self._latest.all_steps(), reverse=True))
    for step in steps:
      reason = ''
      try:
        restored = self._latest.restore(
          step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract_state), progress=ocp.args.JsonRestore())
        )
        progress = Progress(**restored['progress'])
      except Exception as error:  # Orbax raises many kinds; whatever is unreadable is passed over
        reason = _short(error)
      reasons = list(filter(None, processes.exchange(reason)))
      if reasons:  # on any process: all go back to the same step
        processes.on_first_process(functools.partial(self._pass_over, 'latest', step, reasons[0]))
        self._latest.reload()
        continue
      # What a lost trajectory found best would stand in the way of what this one finds: Orbax saves upwards only.
      for later in [later for later in self._best.all_steps() if later > progress.step]:
        self._best.delete(later)
      return restored['state'], progress
    if steps:
      raise InputError(
        f'{self._directory / "latest"}: none of {len(steps)} checkpoints can be read; expected one to '
        'resume from. They were moved aside: the same command starts this training anew'
      )
    return None

  def restore_best(self, layout: Layout) -> tuple[Any, Progress]:
    """Parameters, laid out so, and progress of the newest readable best validation.

    Raises:
      InputError: there is none that can be read.
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
      of_step = list(filter(None, processes.exchange(reason)))
      if not of_step:
        return restored['params'], progress
      reasons.append(of_step[0])
      tqdm.write(f'checkpoint {self._directory / "best" / str(step)} is unreadable and passed over ({reasons[-1]})')
    if reasons:
      raise InputError(
        f'{self._directory / "best"}: no checkpoint can be read ({reasons[0]}); '
        f'expected one to use: remove {self._directory.parent} to train anew'
      )
    raise InputError(f'{self._directory / "best"} holds no finished checkpoint; expected one, written by the stage')

  def wait(self) -> None:
    """Blocks until everything that was begun is on disk."""
    with self._writing():
      self._latest.wait_until_finished()
      self._best.wait_until_finished()

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    """Whatever comes of what is written, now or since the last time; writing is asynchronous."""
    try:
      yield
    except Exception as error:  # Orbax and its store raise many kinds, for a full disk among them
      raise InputError(
        f'{self._directory}: a checkpoint could not be written ({_short(error)}); expected a disk with '
        'room that can be written; what is complete is kept, and the same command resumes'
      ) from error

  def close(self) -> None:
    self.wait()
    self._latest.close()
    self._best.close()

  def _pass_over(self, kind: str, step: int, reason: str) -> None:
    place, aside = self._directory / kind / str(step), self._directory / f'unreadable_{kind}_{step}'
    tqdm.write(f'checkpoint {place} is unreadable and passed over ({reason}); it is now {aside}')
    if aside.exists():
      aside.rmtree()
    place.rename(aside)


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
        f'{directory} cannot be made ({error}); expected a folder for checkpoints that can be written'
      ) from error
  directory = directory if '://' in str(directory) else epath.Path(os.path.abspath(directory))
  return ocp.CheckpointManager(directory, item_handlers=handlers, options=options)


@dataclasses.dataclass(frozen=True)
class RestoredGenerator:
  """A trained generator.

  Attributes:
    params: what was trained, float32: all parameters of `generators.t5.T5`, or of a language model those beside its
      base (`generators.training.whole_params` has both).
    config: the whole configuration of its run; `config.generator` has the sizes.
    semantic_ids: int32 [items, L], row i is item i.
    codebook_size: K, codes per level.
    step: optimizer step of the parameters.
    validation: metrics that selected them, e.g. {'ndcg@10': ...}.
  """

  params: Any
  config: configuration.Config
  semantic_ids: np.ndarray
  codebook_size: int
  step: int
  validation: dict[str, float]


@dataclasses.dataclass(frozen=True)
class GeneratorDescription:
  """What is known of a generator without its parameters; see `RestoredGenerator`."""

  config: configuration.Config
  semantic_ids: np.ndarray
  codebook_size: int


def describe_generator(workdir) -> GeneratorDescription:
  """Of a workdir whose generator stage has begun; InputError where it has not."""
  workdir = pathlib.Path(workdir)
  record = workdir / 'generator' / 'generator.json'
  try:
    description = json.loads(record.read_text(encoding='utf-8'))
    semantic_ids = np.load(workdir / 'semantic_ids' / 'semantic_ids.npy', allow_pickle=False)
    return GeneratorDescription(
      configuration.from_config_dict(description['config']), semantic_ids, description['codebook_size']
    )
  except InputError:
    raise
  except (OSError, ValueError, KeyError) as error:
    raise InputError(
      f'{workdir} has no generator to restore ({error}); expected a workdir whose generator stage has run'
    ) from error


def restore_generator(workdir, layout: Layout | None = None) -> RestoredGenerator:
  """The best generator of a finished (or running) `--workdir`, laid out so or on the default device.

  Raises:
    InputError: the folder has no generator checkpoint, or one that cannot be read.
  """
  workdir, described = pathlib.Path(workdir), describe_generator(workdir)
  params, progress = read_best(
    folder(described.config.checkpoints, workdir / 'generator', 'generator'), layout or on_one_device()
  )
  return RestoredGenerator(
    params, described.config, described.semantic_ids, described.codebook_size, progress.step, progress.best_metrics
  )


def read_best(directory: epath.PathLike, layout: Layout) -> tuple[Any, Progress]:
  """`Checkpoints.restore_best` of a training that is not going on here; writes nothing."""
  if not (epath.Path(directory) / 'best').is_dir():
    raise InputError(f'{directory} holds no checkpoint; expected those of a stage that has run')
  before = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)  # Orbax warns that what is only to be read is read only
  try:
    checkpoints = Checkpoints(directory, read_only=True)
    try:
      return checkpoints.restore_best(layout)
    finally:
      checkpoints.close()
  finally:
    logging.set_verbosity(before)
