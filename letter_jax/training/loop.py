"""The training loop that SASRec, LightGCN, the tokenizer and the generators share."""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Callable
from typing import Any

import grain
import jax
import numpy as np
from tqdm import tqdm

from letter_jax.configuration import TrainingConfig
from letter_jax.sharding import Layout
from letter_jax.system.errors import InputError, Preempted
from letter_jax.system.wording import counted
from letter_jax.training.checkpoints import BestInMemory, Checkpoints, Progress, folder
from letter_jax.training.metric_writer import MetricWriter
from letter_jax.training.pace import Pace
from letter_jax.training.preemption import PreemptionWatch
from letter_jax.training.state import Metrics, TrainState

# One thread assembles batches much faster than any model trains on them; a few in advance hide an epoch's shuffle.
PREFETCH = grain.ReadOptions(num_threads=1, prefetch_buffer_size=8)


# (the initial parameters, their layout) -> those to start from, of the same shapes, laid out in the same way.
Start = Callable[[Any, Layout], Any]


class TrainingDiverged(Exception):
  """A metric became NaN or infinite; the message names it and the steps."""


@dataclasses.dataclass(frozen=True)
class Program:
  """A training as the loop runs it.

  Attributes:
    init: returns the initial state, given `init_arguments`; pure, so that jit creates the state sharded.
    layout: how the state is laid out on the devices.
    step: (state, *arguments) -> (state, metrics): a jitted function that donates the state. Its result depends only on
      the state and the batch, so that a resumed training equals the uninterrupted one. Metrics are (sum, count) pairs
      of scalars, or of arrays [steps_per_call] where a call takes several steps.
    arguments: batch -> the other arguments of `step`, on the devices.
    steps_per_call: optimizer steps of one call: 1, or those of a whole epoch if data and loop are on the device.
    steps_per_epoch: optimizer steps of one epoch.
    examples_per_epoch: training examples of one epoch, for the throughput.
    evaluate: params -> validation metrics by name.
    batches: the batch of each call, a pure function of its index, prefetched while the device works. None if the data
      is on the device: the batch is then the number of the call's first step.
    data_parts: the number of different parts of the data that the processes read; `batches` depend on it.
    init_arguments: arrays for `init`; arrays that it captured would become constants of the compiled program.
    selection: name of the validation metric that selects the best parameters.
    larger_is_better: direction of that metric.
  """

  init: Callable[..., TrainState]
  layout: Layout
  step: jax.stages.Wrapped
  arguments: Callable[[Any], tuple]
  steps_per_call: int
  steps_per_epoch: int
  examples_per_epoch: int
  evaluate: Callable[[Any], dict[str, float]]
  batches: grain.MapDataset | None = None
  data_parts: int = 1
  init_arguments: tuple = ()
  selection: str = 'ndcg@10'
  larger_is_better: bool = True


def train(
  program: Program,
  config: TrainingConfig,
  directory: pathlib.Path | None,
  label: str,
  checkpoint_root: str = '',
  verbose: bool = True,
  start: Start | None = None,
) -> tuple[Any, Progress]:
  """Trains, or resumes, and returns the best parameters and the progress at the end of the training.

  Args:
    program: what to train.
    config: for how long, and how often to validate, log and save.
    directory: folder for metrics and, unless `checkpoint_root` is given, checkpoints; None: nothing is written, and an
      interrupted training is lost.
    label: name of the training in messages and in `checkpoint_root`.
    checkpoint_root: as `config.checkpoints`.
    verbose: whether progress is shown on the terminal.
    start: gives the parameters to start from. They are validated before the first step, so that the best parameters
      are theirs where training makes nothing better.

  Raises:
    TrainingDiverged: a metric is no longer finite; checkpoints hold earlier states.
    Preempted: the process received SIGTERM; a checkpoint, where there are any, holds the last state.
    InputError: checkpoints cannot be read or written, or belong to a training with other data.
  """
  checkpoints = (
    BestInMemory()
    if directory is None
    else Checkpoints(folder(checkpoint_root, directory, label), config.keep_checkpoints)
  )
  try:
    progress = _run(program, config, checkpoints, directory, label, verbose, start)
    checkpoints.wait()
    params, best = checkpoints.restore_best(program.layout)
  finally:
    checkpoints.close()
  if verbose:
    tqdm.write(
      f'{label}: best {program.selection} {best.best_value:.4f} at step {best.best_step}, stopped at step '
      f'{progress.step}{_beside_start(best)}'
    )
  return params, progress


def _run(
  program: Program,
  config: TrainingConfig,
  checkpoints: Checkpoints | BestInMemory,
  directory: pathlib.Path | None,
  label: str,
  verbose: bool,
  start: Start | None,
) -> Progress:
  total_steps = config.total_steps(program.steps_per_epoch, program.steps_per_call)
  abstract = abstract_state(program)
  restored = checkpoints.restore_latest(abstract)
  if restored is None:
    init = jax.jit(program.init, out_shardings=jax.tree.map(lambda leaf: leaf.sharding, abstract))
    state, progress = init(*program.init_arguments), Progress()
    if start is not None:
      params = start(state.params, program.layout)
      _require_same_shapes(params, state.params, label)
      state, progress.validation_is_due = state.replace(params=params), True
  else:
    state, progress = restored
    if verbose:
      tqdm.write(f'{label}: resumed at step {progress.step} of {total_steps}')
  batches = iter(
    (program.batches or grain.MapDataset.range(0, total_steps, program.steps_per_call)).to_iter_dataset(PREFETCH)
  )
  if progress.step:
    saved, current = (progress.steps_per_epoch, progress.data_parts), (program.steps_per_epoch, program.data_parts)
    if not progress.data or saved != current:
      raise InputError(
        f'{directory}: its checkpoints are of {counted(saved[0], "step")} an epoch and {counted(saved[1], "part")} of '
        f'streamed data, this run has {current[0]} and {current[1]}; expected the same data and as many processes as '
        'it was begun with, or --overwrite'
      )
    batches.set_state(progress.data)
  progress.steps_per_epoch, progress.data_parts = program.steps_per_epoch, program.data_parts
  parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
  if verbose:
    longest = counted(total_steps, 'step') if config.max_steps else counted(config.epochs, 'epoch')
    tqdm.write(
      f'{label}: {counted(parameters, "parameter")} to train, {counted(program.examples_per_epoch, "example")} an '
      f'epoch in {counted(program.steps_per_epoch, "step")}, {longest} at most'
    )
  off = None if verbose else True  # None: on a terminal only
  bar = tqdm(total=total_steps, initial=progress.step, desc=label, unit='step', disable=off, dynamic_ncols=True)
  writer = MetricWriter(directory, label, -1 if restored is None else progress.step, bar, verbose)
  pace = Pace(label, config, program.steps_per_epoch, program.steps_per_call)
  log = _IntervalLog(writer, program, progress, pace)
  with contextlib.ExitStack() as exits:
    for resource in (batches, bar, writer):
      exits.callback(resource.close)
    watch = exits.enter_context(PreemptionWatch())
    if progress.validation_is_due:
      _validate(program, state, progress, checkpoints, writer, pace)
      progress.validation_is_due = False
    while progress.step < total_steps and progress.validations_since_best < config.patience:
      before = progress.step
      state, metrics = program.step(state, *program.arguments(next(batches)))
      progress.step += program.steps_per_call
      progress.data = batches.get_state()
      log.add(progress.step, metrics)
      bar.update(program.steps_per_call)

      ends_epoch = progress.step % program.steps_per_epoch == 0
      epoch = progress.step // program.steps_per_epoch
      last = progress.step == total_steps
      validates = last or (ends_epoch and epoch % config.evaluate_every_epochs == 0)
      preempted = watch.requested()
      saves = validates or preempted or _crossed(before, progress.step, config.checkpoint_every_steps)
      if saves or _crossed(before, progress.step, config.log_every_steps):
        # Metrics have to be finite before anything is saved or selected; a mere log line waits for the next step.
        log.emit(block=saves)
      progress.validation_is_due = validates and preempted  # there may be no time for it now
      if validates and not preempted:
        _validate(program, state, progress, checkpoints, writer, pace)
        log.restart_clock()
      if saves:
        checkpoints.save_latest(state, dataclasses.replace(progress))
      if preempted:
        checkpoints.wait()
        at = f'step {progress.step} of {total_steps}'
        if directory is None:
          raise Preempted(f'{label}: terminated at {at}; nothing is saved')
        raise Preempted(f'{label}: terminated; saved at {at} in {directory}; the same command resumes')
    log.emit(block=True)
  return progress


def _validate(
  program: Program,
  state: TrainState,
  progress: Progress,
  checkpoints: Checkpoints | BestInMemory,
  writer: MetricWriter,
  pace: Pace,
) -> None:
  """Validates the parameters, updates `progress`, and saves them if they are the best so far."""
  started = time.perf_counter()
  metrics = program.evaluate(state.params)
  pace.validation_took(time.perf_counter() - started)
  left = pace.left(progress.step, progress.validations_since_best)
  writer.write(progress.step, progress.step / program.steps_per_epoch, 'validation', metrics, left)
  value = metrics[program.selection]
  if not np.isfinite(value):
    raise TrainingDiverged(f'validation {program.selection} is {value} at step {progress.step}')
  better = progress.best_value is None or (
    value > progress.best_value if program.larger_is_better else value < progress.best_value
  )
  if not progress.step:
    progress.start_value = value
  if better:
    progress.best_value, progress.best_step, progress.best_metrics = value, progress.step, metrics
    progress.validations_since_best = 0
    checkpoints.save_best(state.params, dataclasses.replace(progress))
  else:
    progress.validations_since_best += 1


def _require_same_shapes(given: Any, expected: Any, label: str) -> None:
  shapes, wanted = (
    {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree.leaves_with_path(params)}
    for params in (given, expected)
  )
  for name in sorted(shapes.keys() | wanted.keys()):
    if shapes.get(name) != wanted.get(name):
      raise InputError(
        f'{label}: the parameter {name} has the shape {wanted.get(name)}, and in the parameters to start from '
        f'{shapes.get(name)}; expected the same model'
      )


def _beside_start(best: Progress) -> str:
  """What became of the parameters that the training was given to start from."""
  if best.start_value is None:
    return ''
  return f'; it started with {best.start_value:.4f}' + ('' if best.best_step else ' and found nothing better')


def _crossed(before: int, after: int, every: int) -> bool:
  return before // every != after // every


def abstract_state(program: Program) -> TrainState:
  """Shapes, dtypes and shardings of the state, as `jax.ShapeDtypeStruct`s; the state is not created.

  Raises:
    InputError: a partition rule matches no parameter.
  """
  state = jax.eval_shape(program.init, *program.init_arguments)
  program.layout.require_matches(state.params)
  return jax.tree.map(
    lambda leaf, placed: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placed), state, program.layout.of(state)
  )


def _require_finite(totals: dict[str, np.ndarray], first_step: int) -> None:
  bad = {name: ~np.isfinite(total) for name, total in totals.items()}
  bad_steps = np.flatnonzero(np.any(list(bad.values()), axis=0))
  if not len(bad_steps):
    return
  step = bad_steps[0]
  names = [name for name in sorted(bad) if bad[name][step]]
  # The loss and its gradient follow from the terms, so they are named only if all terms are finite.
  terms = [name for name in names if name not in ('loss', 'gradient_norm')] or names
  values = ', '.join(f'{name} is {totals[name][step]}' for name in terms)
  raise TrainingDiverged(
    f'{values} at step {first_step + step + 1}; the last finite state is kept. '
    'Try a smaller learning rate or gradient clipping'
  )


class _IntervalLog:
  """Collects metrics on the device and fetches those of an interval together, after the next step was dispatched."""

  def __init__(self, writer: MetricWriter, program: Program, progress: Progress, pace: Pace) -> None:
    self._writer, self._program, self._progress, self._pace = writer, program, progress, pace
    self._collected: list[Metrics] = []
    self._due: tuple[int, int, list[Metrics]] | None = None
    self._first = self._last = progress.step
    self.restart_clock()

  def restart_clock(self) -> None:
    self._clock = time.perf_counter()

  def add(self, step: int, metrics: Metrics) -> None:
    self._collected.append(metrics)
    self._last = step
    self._flush()

  def emit(self, block: bool) -> None:
    if self._collected:
      self._due = (self._first, self._last, self._collected)
      self._first, self._collected = self._last, []
    if block:
      self._flush()

  def _flush(self) -> None:
    if self._due is None:
      return
    first, last, collected = self._due
    self._due = None
    fetched = jax.device_get(collected)
    # One value per step, even if a call scans over many, to trace a NaN to the term and step where it began.
    by_step = {
      name: [
        np.concatenate([np.atleast_1d(metrics[name][part]) for metrics in fetched]).astype(np.float64)
        for part in (0, 1)
      ]
      for name in fetched[0]
    }
    _require_finite({name: total for name, (total, _) in by_step.items()}, first)
    names = ['loss', *(name for name in sorted(by_step) if name != 'loss')]
    values = {name: by_step[name][0].sum() / max(by_step[name][1].sum(), 1e-30) for name in names}
    now = time.perf_counter()
    examples = (last - first) / self._program.steps_per_epoch * self._program.examples_per_epoch
    values['examples_per_second'] = examples / max(now - self._clock, 1e-9)
    self._pace.took(last - first, now - self._clock)
    self._clock = now
    left = self._pace.left(last, self._progress.validations_since_best)
    self._writer.write(last, last / self._program.steps_per_epoch, 'train', values, left)
