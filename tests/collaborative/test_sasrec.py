"""SASRec's masks by gradients, its packed rows against single ones, its training on items that follow each other."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from letter_jax.collaborative import losses
from letter_jax.collaborative.sasrec import SASRec
from letter_jax.collaborative.sasrec_training import loss_sum_of, train_sasrec
from letter_jax.configuration import SASRecConfig
from letter_jax.evaluation import ranks
from letter_jax.system.errors import InputError
from tests.small_data import config_with, cyclic_interactions, interactions, relative_error

NUM_ITEMS = 14
CONFIG = SASRecConfig(dim=8, layers=1, heads=2, dropout=0.0)
MODEL = SASRec(CONFIG, NUM_ITEMS, positions=5)

# Two sequences and padding; every cell another item.
ITEMS_BxT = np.array([[0, 1, 2, 3, 4, 5, 6, -1], [7, 8, 9, 10, 11, -1, -1, -1]])
SEGMENTS_BxT = np.array([[2, 2, 2, 1, 1, 1, 1, 0], [1, 2, 2, 2, 2, 0, 0, 0]])


@pytest.fixture(scope='module')
def params():
  init = jax.jit(MODEL.init)(jax.random.key(0), jnp.zeros((1, 5), jnp.int32), jnp.ones((1, 5), jnp.int32))['params']
  # Larger than at the start, so that every attention matters.
  return jax.tree.map(lambda leaf: leaf + 0.3 * np.random.default_rng(leaf.size).normal(size=leaf.shape), init)


@pytest.fixture(scope='module')
def hidden(params):
  """[B, T, D] of the rows above, and bool [B, T, N]: which items' embeddings a position's output depends on."""
  noise = np.random.default_rng(1).normal(size=CONFIG.dim)

  def outputs(table):
    x = MODEL.apply({'params': {**params, 'item_embeddings': table}}, jnp.asarray(ITEMS_BxT), jnp.asarray(SEGMENTS_BxT))
    return x @ noise, x

  jacobian_BxTxNxD, x = jax.jit(jax.jacrev(outputs, has_aux=True))(params['item_embeddings'])
  return np.asarray(x), np.asarray(jacobian_BxTxNxD != 0).any(axis=-1)


def test_a_position_sees_its_own_segment_up_to_itself(hidden):
  for row, position in zip(*np.nonzero(SEGMENTS_BxT)):
    own = (SEGMENTS_BxT[row] == SEGMENTS_BxT[row, position]) & (np.arange(8) <= position)
    assert np.flatnonzero(hidden[1][row, position]).tolist() == sorted(ITEMS_BxT[row, own].tolist())


@pytest.fixture(scope='module')
def single(params):
  """A sequence alone in its row, flush left in 5 cells: outputs [T, D] and scores [N]."""
  run = jax.jit(
    lambda items: (
      MODEL.apply({'params': params}, items, (items >= 0).astype(jnp.int32)),
      MODEL.apply({'params': params}, items, method=SASRec.scores),
    )
  )

  def of(sequence):
    items = np.full((1, 5), -1)
    items[0, : len(sequence)] = sequence
    x, scores = run(items)
    return np.asarray(x)[0, : len(sequence)], np.asarray(scores)[0]

  return of


def test_packed_sequences_give_what_they_give_alone(hidden, single):
  x_BxTxD, _ = hidden
  assert np.isfinite(x_BxTxD).all()
  for row, segment in ((0, 1), (0, 2), (1, 1), (1, 2)):
    cells = SEGMENTS_BxT[row] == segment
    assert relative_error(single(ITEMS_BxT[row, cells])[0], x_BxTxD[row, cells]) < 1e-5


def test_order_and_position_matter(single):
  assert relative_error(single([3, 1, 2])[0][-1], single([1, 3, 2])[0][-1]) > 1e-3
  assert relative_error(single([2, 2])[0][0], single([2, 2])[0][1]) > 1e-3


def test_scores_are_the_last_positions(params, single):
  for sequence in ([3], [3, 1, 2], [5, 4, 3, 2, 1]):
    x_TxD, scores_N = single(sequence)
    np.testing.assert_allclose(scores_N, x_TxD[-1] @ np.asarray(params['item_embeddings']).T, rtol=1e-4, atol=1e-5)


def batch_of(items_BxC):
  items_BxC = np.array(items_BxC)
  return {
    'items_BxC': items_BxC,
    'next_BxC': np.where(items_BxC >= 0, (items_BxC + 1) % NUM_ITEMS, -1),
    'segments_BxC': (items_BxC >= 0).astype(np.int32),
  }


@pytest.mark.parametrize('name', ['cross_entropy', 'sampled_softmax', 'bce'])
def test_a_step_has_the_loss_of_its_config_at_each_cell_with_an_item(params, name):
  model = SASRec(dataclasses.replace(CONFIG, loss=name, negatives=6), NUM_ITEMS, positions=5)
  batch, key = batch_of([[1, 2, 3, -1], [7, -1, -1, -1]]), jax.random.key(3)
  proposal = losses.Proposal.of_counts(np.arange(NUM_ITEMS))
  total, count, _ = jax.jit(loss_sum_of(model))(proposal, params, batch, key)
  x_BxTxD = jax.jit(MODEL.apply)({'params': params}, batch['items_BxC'], batch['segments_BxC'])
  inputs = x_BxTxD, params['item_embeddings'], jnp.maximum(batch['next_BxC'], 0)
  drawn = jax.random.fold_in(key, 1)
  loss_BxT = {
    'cross_entropy': lambda: losses.cross_entropy(*inputs),
    'sampled_softmax': lambda: losses.sampled_softmax(*inputs, drawn, 6, proposal),
    'bce': lambda: losses.binary_cross_entropy(*inputs, drawn),
  }[name]()
  assert float(count) == 4
  assert float(total) == pytest.approx(float(loss_BxT[batch['segments_BxC'] > 0].sum()), rel=1e-5)


HISTORY_LENGTH, SEED = 4, 42


def sasrec_config(settings=None):
  return config_with(
    {
      'collaborative.model.dim': 8,
      'collaborative.model.layers': 1,
      'collaborative.training.epochs': 6,
      'collaborative.training.batch_size': 8,
      'collaborative.training.learning_rate': 0.03,
      'collaborative.training.log_every_steps': 1000,
      **(settings or {}),
    }
  ).collaborative


def train(config, data, directory):
  return train_sasrec(config, data, directory, history_length=HISTORY_LENGTH, seed=SEED)


@pytest.mark.parametrize('loss', ['cross_entropy', 'sampled_softmax', 'bce'])
def test_training_learns_what_follows_what(tmp_path, loss):
  data = cyclic_interactions(users=60, num_items=40, longest=9)
  params, result, test_ranks = train(
    sasrec_config({'collaborative.model.loss': loss, 'collaborative.model.negatives': 20}), data, tmp_path
  )
  assert params['item_embeddings'].shape == (40, 8)
  lines = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
  losses = [line['loss'] for line in lines if line['kind'] == 'train']
  start = {'cross_entropy': np.log(40), 'sampled_softmax': np.log(40), 'bce': 2 * np.log(2)}[loss]
  assert len(losses) == 6 and losses[0] == pytest.approx(start, rel=0.15)  # averages of the epochs
  assert losses[-1] < 0.9 * losses[0]
  validations = [line['ndcg@10'] for line in lines if line['kind'] == 'validation']
  assert result.keys() == {'validation', 'test', 'history_out'}
  assert result['validation']['ndcg@10'] == pytest.approx(max(validations))
  assert ranks.gains(test_ranks['sasrec'], 'ndcg@10').mean() == pytest.approx(result['test']['ndcg@10'], rel=1e-5)
  without = ranks.metrics_of(test_ranks['sasrec_history_out'])
  assert without == pytest.approx(result['history_out']['test'], rel=1e-5)
  if loss == 'cross_entropy':
    # 10 of 40 items by chance
    assert result['test']['recall@10'] > 0.5 and result['validation']['recall@10'] > 0.5


def test_heads_that_do_not_divide_the_width_are_refused():
  with pytest.raises(InputError, match='config.collaborative.model.heads is 3; expected a divisor of .*dim, 8'):
    sasrec_config({'collaborative.model.heads': 3})


def test_data_with_nothing_to_train_on_is_refused(tmp_path):
  with pytest.raises(InputError, match='more than 3 interactions'):
    train(sasrec_config(), interactions([[0, 1, 2]]), tmp_path)
