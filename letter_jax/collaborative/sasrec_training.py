"""Training of SASRec and its metrics."""

import functools
import pathlib

import jax
import jax.numpy as jnp

from letter_jax import sharding
from letter_jax.collaborative.full_ranking import full_ranking
from letter_jax.collaborative.sasrec import SASRec
from letter_jax.configuration import Config, SASRecConfig
from letter_jax.data import splits
from letter_jax.data.dataset import Interactions, Windows
from letter_jax.data.input_pipeline import Batching, PackedEpochs
from letter_jax.training import loop, optimizers
from letter_jax.training.state import TrainState, make_step


def train_sasrec(config: Config, data: Windows, directory: pathlib.Path):
  """Trains, or resumes, under `directory`.

  Returns:
    parameters; {'validation': metrics, 'test': metrics}; ranks of the test, int32 [3, users].
  """
  mesh, recent, length = sharding.make_mesh(config.mesh), data.recent(), config.data.history_length
  program = sasrec_program(config, data, recent, mesh)
  params, _ = loop.train(program, config.collaborative.training, directory, 'sasrec', config.checkpoints)
  rank = _ranking(config.collaborative.model, data.num_items, length, mesh)
  test, ranks_3xU = rank(params, splits.test_examples(recent, length), length)
  return params, {'validation': program.evaluate(params), 'test': test}, ranks_3xU


@functools.lru_cache(maxsize=1)
def _ranking(model: SASRecConfig, num_items: int, length: int, mesh: jax.sharding.Mesh):
  """The `full_ranking` of a SASRec: one compiled program for its validations and its test."""
  return full_ranking(
    lambda params, user_B, history_BxT, target_B: SASRec(model, num_items, length).apply(
      {'params': params}, history_BxT, method=SASRec.scores
    ),
    mesh,
  )


def sasrec_program(config: Config, data: Windows, recent: Interactions, mesh: jax.sharding.Mesh) -> loop.Program:
  """What `train_sasrec` runs; `recent` is what it is validated on."""
  settings = config.collaborative
  training, length = settings.training, config.data.history_length
  layout = sharding.Layout(mesh, settings.partition, config.mesh.fully_sharded)
  model = SASRec(settings.model, data.num_items, length)
  batches = PackedEpochs(
    data,
    functools.partial(splits.training_windows, length=length),
    max(length, 32),
    Batching.of(training, config.seed, mesh),
  )
  optimizer = optimizers.adamw(training, training.epochs * batches.per_epoch)
  key = jax.random.key(config.seed)
  loss_sum = {'cross_entropy': cross_entropy_sum, 'bce': bce_sum}[settings.model.loss](model)

  def init() -> TrainState:
    params = model.init(key, jnp.zeros((1, length), jnp.int32), jnp.ones((1, length), jnp.int32))['params']
    return TrainState.create(params, optimizer)

  step = jax.jit(
    make_step(loss_sum, optimizer, jax.random.fold_in(key, 1), layout, training.accumulation_steps), donate_argnums=0
  )

  def arguments(batch):
    wanted = {name: batch[name] for name in ('items_BxC', 'next_BxC', 'segments_BxC')}
    return (sharding.put_batch(wanted, mesh, training.accumulation_steps),)

  rank = _ranking(settings.model, data.num_items, length, mesh)
  validation = splits.validation_examples(recent, length)
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


def cross_entropy_sum(model: SASRec):
  """Loss over all items at every position (full softmax)."""

  def loss_sum(params, batch, key):
    x_BxTxD, weights_BxT = _hidden(model, params, batch, key)
    logits_BxTxN = x_BxTxD @ params['item_embeddings'].T
    target = jnp.take_along_axis(logits_BxTxN, jnp.maximum(batch['next_BxC'], 0)[..., None], axis=-1)[..., 0]
    loss_BxT = jax.nn.logsumexp(logits_BxTxN, axis=-1) - target
    return jnp.sum(loss_BxT * weights_BxT), weights_BxT.sum(), {}

  return loss_sum


def bce_sum(model: SASRec):
  """The paper's loss: the next item against one drawn uniformly (Kang and McAuley 2018, equation 7)."""

  def loss_sum(params, batch, key):
    x_BxTxD, weights_BxT = _hidden(model, params, batch, key)
    negatives = jax.random.randint(jax.random.fold_in(key, 1), weights_BxT.shape, 0, model.num_items)
    table = params['item_embeddings']
    score = lambda items: jnp.sum(x_BxTxD * table[jnp.maximum(items, 0)], axis=-1)
    loss_BxT = jax.nn.softplus(-score(batch['next_BxC'])) + jax.nn.softplus(score(negatives))
    return jnp.sum(loss_BxT * weights_BxT), weights_BxT.sum(), {}

  return loss_sum


def _hidden(model, params, batch, key):
  x_BxTxD = model.apply(
    {'params': params}, batch['items_BxC'], batch['segments_BxC'], deterministic=False, rngs={'dropout': key}
  )
  return x_BxTxD, (batch['segments_BxC'] > 0).astype(jnp.float32)
