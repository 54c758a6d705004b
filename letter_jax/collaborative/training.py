"""Training of SASRec, its test metrics, and the collaborative rows that the tokenizer aligns with."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from letter_jax.collaborative.sasrec import SASRec
from letter_jax.configuration import Config
from letter_jax.data import packing, splits
from letter_jax.data.dataset import Interactions
from letter_jax.data.splits import Examples
from letter_jax.errors import InputError
from letter_jax.evaluation import metrics
from letter_jax.training import loop, optimizers, sharding
from letter_jax.training.state import TrainState, make_step

EVALUATION_BATCH = 512


def train_sasrec(config: Config, data: Interactions, directory: pathlib.Path):
  """Trains, or resumes, under `directory`; returns (parameters, {'validation': metrics, 'test': metrics})."""
  settings = config.collaborative
  training, length = settings.training, config.data.history_length
  mesh = sharding.data_mesh()
  model = SASRec(settings.model, data.num_items, length)
  windows = splits.training_windows(data, length)
  if not len(windows):
    raise InputError('no user has more than 3 interactions, so there is nothing to train on; expected longer histories')
  plan = packing.plan_packing(windows.lengths, max(length, 32))
  rows = packing.rows_per_batch(plan, training.batch_size, training.accumulation_steps * mesh.size)
  batches = packing.PackedBatches(windows, plan, rows, config.seed)
  optimizer = optimizers.adamw(training, training.epochs * batches.per_epoch)
  key = jax.random.key(config.seed)
  loss_sum = {'cross_entropy': cross_entropy_sum, 'bce': bce_sum}[settings.model.loss](model)

  def init() -> TrainState:
    params = model.init(key, jnp.zeros((1, length), jnp.int32), jnp.ones((1, length), jnp.int32))['params']
    return TrainState.create(params, optimizer)

  step = jax.jit(make_step(loss_sum, optimizer, jax.random.fold_in(key, 1), training.accumulation_steps),
                 donate_argnums=0)

  def advance(state, index):
    batch = batches.batch(index)
    del batch['targets_BxS']
    return step(state, sharding.put_batch(batch, mesh, training.accumulation_steps))

  evaluate = jax.jit(lambda params, items_BxT, target_B, weight_B: metrics.full_ranking_metrics(
    model.apply({'params': params}, items_BxT, method=SASRec.scores), target_B, weight_B))

  def evaluate_all(params, examples: Examples) -> dict[str, float]:
    size = sharding.round_up(min(EVALUATION_BATCH, len(examples)), mesh.size)
    sums = []
    for first in range(0, len(examples), size):
      indices, weights = sharding.padded_rows(np.arange(first, min(first + size, len(examples))), size)
      chosen = examples.take(indices)
      sums.append(evaluate(params, *sharding.put_split((chosen.histories(length), chosen.targets, weights), mesh)))
    return metrics.summarize(metrics.merge(sums))

  validation = splits.validation_examples(data, length)
  program = loop.Program(
    init=init, sharding=sharding.replicated(mesh), advance=advance, steps_per_call=1,
    steps_per_epoch=batches.per_epoch, examples_per_epoch=int(windows.lengths.sum()),
    evaluate=lambda params: evaluate_all(params, validation))
  params, _ = loop.train(program, training, directory, 'sasrec')
  return params, {'validation': evaluate_all(params, validation),
                  'test': evaluate_all(params, splits.test_examples(data, length))}


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
  x_BxTxD = model.apply({'params': params}, batch['items_BxC'], batch['segments_BxC'], deterministic=False,
                        rngs={'dropout': key})
  return x_BxTxD, (batch['segments_BxC'] > 0).astype(jnp.float32)


def collaborative_rows(item_embeddings_NxE: np.ndarray, dim: int) -> np.ndarray:
  """Float32 [N, dim]: the item embeddings turned to `dim` dimensions and the scale that the contrastive term expects.

  Fewer dimensions than trained: the leading singular directions, which keep the dot products best (Eckart-Young); more:
  zeros. Rows are divided by one scalar, so that they are of length 0.3 in the root mean square, as the rows that
  LETTER's authors trained for Beauty (BCE): alpha means the same whatever loss and width made the rows.
  """
  rows = np.asarray(item_embeddings_NxE, np.float64)
  if rows.shape[1] > dim:
    _, _, directions = np.linalg.svd(rows, full_matrices=False)
    rows = rows @ directions[:dim].T
  rows = np.pad(rows, ((0, 0), (0, dim - rows.shape[1])))
  scale = 0.3 / max(np.sqrt((rows ** 2).sum(axis=1).mean()), 1e-12)
  return (rows * scale).astype(np.float32)
