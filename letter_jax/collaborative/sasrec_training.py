"""Training of SASRec, the collaborative model and the baseline."""

import functools
import pathlib
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from letter_jax import sharding
from letter_jax.collaborative import losses
from letter_jax.collaborative.full_ranking import Ranking, evaluate_both_ways, full_ranking
from letter_jax.collaborative.sasrec import SASRec
from letter_jax.configuration import CollaborativeConfig, MeshConfig, SASRecConfig
from letter_jax.data import splits
from letter_jax.data.dataset import Interactions, Windows
from letter_jax.data.input_pipeline import Batching, PackedEpochs
from letter_jax.decoding.compiled import Bound
from letter_jax.decoding.fusion import DenseScores
from letter_jax.evaluation.popularity import training_counts
from letter_jax.training import loop, optimizers
from letter_jax.training.checkpoints import folder, read_best
from letter_jax.training.state import Metrics, TrainState, make_step


def train_sasrec(
  config: CollaborativeConfig,
  data: Windows,
  directory: pathlib.Path,
  *,
  history_length: int,
  seed: int,
  mesh: MeshConfig = MeshConfig(),
  checkpoints: str = '',
  trained_on: Windows | None = None,
  start: loop.Start | None = None,
  evaluated_users: int = 0,
) -> tuple[dict[str, Any], dict[str, Any], dict[str, np.ndarray]]:
  """Trains, or resumes, under `directory`.

  Args:
    config: `model`, `partition` and `training` are those of SASRec.
    data: the interactions of all users; the last two of each user are held out.
    directory: folder of the metrics and, unless `checkpoints` is given, the checkpoints.
    history_length: number of latest items that the model sees.
    seed: of the parameters, the order of the examples, dropout and the negatives.
    mesh: how the devices are arranged.
    checkpoints: folder for the checkpoints instead of `directory`, as `config.checkpoints` of a run.
    trained_on: the interactions to train on, where they are not those of all users.
    start: as for `loop.train`.
    evaluated_users: how many users it is validated and tested on, as for `splits.test_examples`; 0 for all.

  Returns:
    parameters of `SASRec`, the best of the validations; metrics and ranks of the test, as `evaluate_both_ways`.

  Raises:
    InputError: no user has interactions to train on.
  """
  device_mesh, recent = sharding.make_mesh(mesh), data.recent()
  rank = sasrec_ranking(config.model, data.num_items, history_length, device_mesh)
  program = sasrec_program(
    config,
    trained_on or data,
    recent,
    device_mesh,
    rank,
    history_length=history_length,
    seed=seed,
    fully_sharded=mesh.fully_sharded,
    evaluated_users=evaluated_users,
  )
  params, _ = loop.train(program, config.training, directory, 'sasrec', checkpoints, start=start)
  return params, *evaluate_both_ways(rank, params, data.whole(), history_length, 'sasrec', evaluated_users)


def read_sasrec(
  config: SASRecConfig,
  num_items: int,
  history_length: int,
  directory: pathlib.Path,
  layout: sharding.Layout,
  checkpoints: str = '',
  rows: int = 0,
) -> tuple[DenseScores, Any]:
  """The SASRec that `train_sasrec` trained under `directory`, as the dense model of a fusion, and its parameters.

  Args:
    config, num_items, history_length: of its training.
    directory, checkpoints: as for `train_sasrec`.
    layout: where its parameters are placed.
    rows: of the item embeddings, 0 for as many as there are items; those of no item are zeros.

  Raises:
    InputError: there is no checkpoint that can be read.
  """
  params, _ = read_best(folder(checkpoints, directory, 'sasrec'), layout)
  rows = max(rows, num_items)
  if rows > num_items:
    rows_NxD = jnp.pad(params['item_embeddings'], ((0, rows - num_items), (0, 0)))
    params = {**params, 'item_embeddings': sharding.put(rows_NxD, sharding.replicated(layout.mesh))}
  return _scores(config, rows, history_length), params


def _scores(config: SASRecConfig, num_items: int, history_length: int) -> DenseScores:
  return Bound(_scores_of, (SASRec(config, num_items, history_length),))


def _scores_of(model: SASRec, params: Any, items_BxC: jax.Array) -> jax.Array:
  return cast(jax.Array, model.apply({'params': params}, items_BxC, method=SASRec.scores))


def sasrec_ranking(config: SASRecConfig, num_items: int, history_length: int, mesh: jax.sharding.Mesh) -> Ranking:
  """The `full_ranking` of a SASRec; it compiles once, so the same one serves all validations and the test."""
  scores = _scores(config, num_items, history_length)
  return full_ranking(lambda params, user_B, history_BxT: scores(params, history_BxT), num_items, mesh)


def sasrec_program(
  config: CollaborativeConfig,
  data: Windows,
  recent: Interactions,
  mesh: jax.sharding.Mesh,
  rank: Ranking,
  *,
  history_length: int,
  seed: int,
  fully_sharded: bool = False,
  evaluated_users: int = 0,
) -> loop.Program:
  """The training of `train_sasrec` as the loop takes it.

  Args:
    config, data, history_length, seed, evaluated_users: as for `train_sasrec`.
    recent: the latest interactions of every user, to validate on.
    rank: from `sasrec_ranking` with the same model and mesh.
    fully_sharded: parameters and optimizer state are split over 'data', too.
  """
  training, length = config.training, history_length
  layout = sharding.Layout(mesh, config.partition, fully_sharded)
  model = SASRec(config.model, data.num_items, length)
  batches = PackedEpochs(
    data, functools.partial(splits.training_windows, length=length), max(length, 32), Batching.of(training, seed, mesh)
  )
  optimizer = optimizers.adamw(training, training.total_steps(batches.per_epoch))
  key = jax.random.key(seed)
  loss_sum, proposal = loss_sum_of(model), _proposal(config.model, recent, mesh)

  def init() -> TrainState:
    params = model.init(key, jnp.zeros((1, length), jnp.int32), jnp.ones((1, length), jnp.int32))['params']
    return TrainState.create(params, optimizer)

  @functools.partial(jax.jit, donate_argnums=0)
  def step(
    state: TrainState, batch: dict[str, jax.Array], proposal: losses.Proposal | None
  ) -> tuple[TrainState, Metrics]:
    loss = functools.partial(loss_sum, proposal)
    return make_step(loss, optimizer, jax.random.fold_in(key, 1), layout, training.accumulation_steps)(state, batch)

  def arguments(batch: Any) -> tuple:
    cells = {name: batch[name] for name in ('items_BxC', 'next_BxC', 'segments_BxC')}
    return sharding.put_batch(cells, mesh, training.accumulation_steps), proposal

  validation = splits.validation_examples(recent, length, evaluated_users)
  return loop.Program(
    init=init,
    layout=layout,
    step=step,
    arguments=arguments,
    steps_per_call=1,
    steps_per_epoch=batches.per_epoch,
    examples_per_epoch=batches.items,
    batches=batches.dataset(),
    data_parts=batches.parts,
    evaluate=lambda params: rank(params, validation, length)[0],
  )


def _proposal(config: SASRecConfig, recent: Interactions, mesh: jax.sharding.Mesh) -> losses.Proposal | None:
  """What `config.loss` samples items from, by the latest interactions of all users, the last two left out."""
  if config.loss != 'sampled_softmax':
    return None
  proposal = losses.Proposal.of_counts(training_counts(recent))
  return sharding.put(proposal, sharding.replicated(mesh))


def loss_sum_of(
  model: SASRec,
) -> Callable[[losses.Proposal | None, Any, Any, jax.Array], tuple[jax.Array, jax.Array, Metrics]]:
  """The loss that the model's config names, at every position of a batch, as a `LossSum` of the proposal."""
  config = model.config

  def loss_sum(
    proposal: losses.Proposal | None, params: Any, batch: Any, key: jax.Array
  ) -> tuple[jax.Array, jax.Array, Metrics]:
    x_BxTxD = model.apply(
      {'params': params}, batch['items_BxC'], batch['segments_BxC'], deterministic=False, rngs={'dropout': key}
    )
    states = cast(jax.Array, x_BxTxD), params['item_embeddings'], jnp.maximum(batch['next_BxC'], 0)
    negatives_key = jax.random.fold_in(key, 1)
    if config.loss == 'cross_entropy':
      loss_BxT = losses.cross_entropy(*states)
    elif config.loss == 'sampled_softmax':
      assert proposal is not None
      loss_BxT = losses.sampled_softmax(*states, negatives_key, config.negatives, proposal)
    else:
      loss_BxT = losses.binary_cross_entropy(*states, negatives_key)
    weights_BxT = (batch['segments_BxC'] > 0).astype(jnp.float32)
    return jnp.sum(loss_BxT * weights_BxT), weights_BxT.sum(), {}

  return loss_sum
