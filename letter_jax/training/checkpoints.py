"""Checkpoints: the only module that knows Orbax.

A training keeps its latest states (to resume) and the parameters of its best validation (to use), both written
asynchronously and renamed into place when complete. `restore_generator` is the door for a user's own code.
"""

import dataclasses
import json
import pathlib
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from tqdm import tqdm

from letter_jax import configuration
from letter_jax.errors import InputError


@dataclasses.dataclass
class Progress:
  """Where a training stands; saved with the state, so that a resumed run decides as the uninterrupted one."""

  step: int = 0
  best_value: float | None = None
  best_step: int = 0
  validations_since_best: int = 0
  best_metrics: dict[str, float] = dataclasses.field(default_factory=dict)


class Checkpoints:
  """Checkpoints of one training under `directory`: `latest/STEP` (state) and `best/STEP` (parameters)."""

  def __init__(self, directory: pathlib.Path, keep: int = 1):
    self._latest = _manager(directory / 'latest', 'state', keep)
    self._best = _manager(directory / 'best', 'params', 1)
    self._directory = directory

  def save_latest(self, state, progress: Progress) -> None:
    """Starts writing the state; returns before it is on disk."""
    if progress.step in self._latest.all_steps():
      return
    self._latest.save(progress.step, args=ocp.args.Composite(
      state=ocp.args.StandardSave(state), progress=ocp.args.JsonSave(dataclasses.asdict(progress))))

  def save_best(self, params, progress: Progress) -> None:
    """Starts writing the parameters of the best validation so far."""
    if progress.step in self._best.all_steps():
      return
    self._best.save(progress.step, args=ocp.args.Composite(
      params=ocp.args.StandardSave(params), progress=ocp.args.JsonSave(dataclasses.asdict(progress))))

  def restore_latest(self, abstract_state) -> tuple[Any, Progress] | None:
    """The newest readable state and its progress, or None; says which checkpoints it had to pass over.

    Args:
      abstract_state: pytree of `jax.ShapeDtypeStruct` with the shardings to restore to.
    """
    for step in sorted(self._latest.all_steps(), reverse=True):
      try:
        restored = self._latest.restore(step, args=ocp.args.Composite(
          state=ocp.args.StandardRestore(abstract_state), progress=ocp.args.JsonRestore()))
        return restored['state'], Progress(**restored['progress'])
      except Exception as error:  # Orbax raises many kinds; whatever is unreadable is passed over
        reason = ' '.join(str(error).split())[:160]
        tqdm.write(f'checkpoint {self._directory / "latest" / str(step)} is unreadable and passed over ({reason})')
        self._latest.delete(step)
    return None

  def abstract_best(self, sharding: jax.sharding.Sharding):
    """Shapes and dtypes of the best parameters as they lie on disk, to be restored with `sharding`."""
    step = self._best_step()
    try:
      leaves = self._best.item_metadata(step)['params'].tree
    except Exception as error:
      raise self._unreadable_best(step, error) from error
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), leaves)

  def _best_step(self) -> int:
    step = self._best.latest_step()
    if step is None:
      raise InputError(f'{self._directory / "best"} holds no finished checkpoint; expected one, written by the stage')
    return step

  def restore_best(self, abstract_params) -> tuple[Any, Progress]:
    """Parameters and progress of the best validation; InputError where there is none that can be read."""
    step = self._best_step()
    try:
      restored = self._best.restore(step, args=ocp.args.Composite(
        params=ocp.args.StandardRestore(abstract_params), progress=ocp.args.JsonRestore()))
    except Exception as error:
      raise self._unreadable_best(step, error) from error
    return restored['params'], Progress(**restored['progress'])

  def _unreadable_best(self, step: int, error: Exception) -> InputError:
    reason = ' '.join(str(error).split())[:160]
    return InputError(f'{self._directory / "best" / str(step)}: the checkpoint cannot be read ({reason})')

  def wait(self) -> None:
    """Blocks until everything that was begun is on disk."""
    self._latest.wait_until_finished()
    self._best.wait_until_finished()

  def close(self) -> None:
    self.wait()
    self._latest.close()
    self._best.close()


def _manager(directory: pathlib.Path, arrays: str, keep: int) -> ocp.CheckpointManager:
  handlers = {arrays: ocp.StandardCheckpointHandler(), 'progress': ocp.JsonCheckpointHandler()}
  return ocp.CheckpointManager(directory.absolute(), item_handlers=handlers, options=ocp.CheckpointManagerOptions(
    max_to_keep=keep, enable_async_checkpointing=True, create=True))


@dataclasses.dataclass(frozen=True)
class RestoredGenerator:
  """A trained generator.

  Attributes:
    params: parameters of `letter_jax.generators.t5.T5`, float32.
    config: the whole configuration of its run; `config.generator.model` has the sizes.
    semantic_ids: int32 [items, L], row i is item i.
    codebook_size: K, codes per level; the vocabulary has 2 + L * K tokens.
    step: optimizer step of the parameters.
    validation: metrics that selected them, e.g. {'ndcg@10': ...}.
  """

  params: Any
  config: configuration.Config
  semantic_ids: np.ndarray
  codebook_size: int
  step: int
  validation: dict[str, float]


def restore_generator(workdir, sharding: jax.sharding.Sharding | None = None) -> RestoredGenerator:
  """The best generator of a finished (or running) `--workdir`, with `sharding` or on the default device.

  Raises:
    InputError: the folder has no generator checkpoint, or one that cannot be read.
  """
  workdir = pathlib.Path(workdir)
  record = workdir / 'generator' / 'generator.json'
  try:
    description = json.loads(record.read_text(encoding='utf-8'))
    semantic_ids = np.load(workdir / 'semantic_ids' / 'semantic_ids.npy', allow_pickle=False)
  except (OSError, ValueError) as error:
    raise InputError(f'{workdir} has no generator to restore ({error}); '
                     'expected a workdir whose generator stage has run') from error
  checkpoints = Checkpoints(workdir / 'generator' / 'checkpoints')
  sharding = sharding or jax.sharding.SingleDeviceSharding(jax.devices()[0])
  params, progress = checkpoints.restore_best(checkpoints.abstract_best(sharding))
  checkpoints.close()
  return RestoredGenerator(params, configuration.from_config_dict(description['config']), semantic_ids,
                           description['codebook_size'], progress.step, progress.best_metrics)
