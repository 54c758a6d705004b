"""LETTER-TIGER's training on a catalogue of 16 items that follow each other."""

import itertools
import json
import os
import subprocess
import sys
from unittest import mock

import jax
import numpy as np
import optax
import pytest

from letter_jax import sharding
from letter_jax.data import packing, splits, store
from letter_jax.data.dataset import Dataset
from letter_jax.system.errors import InputError
from letter_jax.training import optimizers
from tests.generators import building
from tests.paths import ROOT
from tests.small_data import cyclic_interactions, distinct_codes, interactions, relative_error, tiny_generator_config

pytestmark = pytest.mark.slow

ROWS = 8  # of a batch, whatever the number of micro-batches or devices
SEMANTIC_IDS = distinct_codes(16, 2, 8)


def data():
  return cyclic_interactions(users=160, num_items=16, longest=8)


def coarse_adamw(training, total_steps):
  """AdamW with an epsilon far above rounding errors: with 1e-8 it makes steps of full size out of them."""
  return optax.adamw(optimizers.learning_rate(training, total_steps), eps=1e-3)


def train(directory, settings=None):
  with mock.patch.object(optimizers, 'adamw', coarse_adamw):
    return train_with(tiny_generator_config(settings), data(), directory)


def train_with(config, data, directory):
  ids = building.placed(SEMANTIC_IDS, 8, sharding.make_mesh(config.mesh))
  return building.train(config, building.to_train(config, ids, directory), data, directory)


def flat(params):
  return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(params)}


def assert_same_params(ours, expected, tolerance):
  assert ours.keys() == expected.keys()
  errors = {name: relative_error(ours[name], expected[name]) for name in expected}
  assert max(errors.values()) < tolerance, errors


def logged(directory, kind):
  lines = [json.loads(line) for line in (directory / 'metrics.jsonl').read_text().splitlines()]
  return [line for line in lines if line['kind'] == kind]


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  directory = tmp_path_factory.mktemp('generator')
  params, progress = train(directory)
  return directory, flat(params), progress


@pytest.fixture(scope='module')
def catalogue_run(tmp_path_factory):
  directory = tmp_path_factory.mktemp('catalogue')
  params, progress = train(directory, {'generator.softmax': 'catalogue'})
  return directory, params, progress


def test_batches_are_what_these_tests_think_they_are():
  examples = splits.training_examples(data(), 2)
  plan = packing.plan_packing(examples.lengths, 5)
  for multiple in (1, 2, 8):
    assert packing.rows_per_batch(plan, tiny_generator_config().generator.training.batch_size, multiple) == ROWS


def test_two_epochs_reduce_the_loss(run):
  directory, _, progress = run
  losses = [line['loss'] for line in logged(directory, 'train')]
  assert len(losses) == progress.step >= 4
  assert np.log(8) < losses[0] < 5  # knows nothing yet
  assert losses[-1] < losses[0] - 0.5


def test_every_epoch_is_validated_and_the_best_is_selected(run):
  directory, _, progress = run
  validations = logged(directory, 'validation')
  assert [line['epoch'] for line in validations] == [1, 2]
  # 1 of 16 items by chance
  assert validations[-1]['recall@1'] > 0.5
  assert progress.best_value == max(line['ndcg@10'] for line in validations)


def test_micro_batches_give_the_parameters_of_the_whole_batch(run, tmp_path):
  params, progress = train(tmp_path, {'generator.training.accumulation_steps': 2})
  assert progress.step == run[2].step
  assert_same_params(flat(params), run[1], 5e-6)  # 44 steps of rounding; 4e-7 where this was written


def test_the_softmax_over_the_catalogue_is_trained_and_searched_with(run, catalogue_run):
  directory, params, _ = catalogue_run
  ours, vocabulary = (logged(where, 'train') for where in (directory, run[0]))
  assert 0 < ours[0]['loss'] < vocabulary[0]['loss'] - 1  # the same logits among fewer codes
  assert logged(directory, 'validation')[-1]['recall@1'] > 0.5
  config = tiny_generator_config({'generator.softmax': 'catalogue'})
  generator = building.to_search(config, building.placed(SEMANTIC_IDS, 8), directory)
  evaluator = building.evaluator(config, generator, len(SEMANTIC_IDS))
  found = evaluator.evaluate(params, splits.test_examples(data(), 2), 'test')
  np.testing.assert_allclose(np.exp(found.scores_UxK).sum(axis=1), 1, atol=1e-4)


def test_updates_relative_to_the_parameters_train_too(tmp_path):
  config = tiny_generator_config(
    {
      'generator.training.relative_updates': True,
      'generator.training.gradient_clip': 1.0,
      'generator.training.learning_rate': 0.05,
    }
  )
  train_with(config, data(), tmp_path)
  losses = [line['loss'] for line in logged(tmp_path, 'train')]
  assert losses[-1] < losses[0] - 0.5


def test_streamed_data_trains_and_resumes_bit_for_bit(tmp_path):
  """Windows of 50 users; the second run is stopped in the middle of the second epoch."""
  store.save(Dataset('cyclic', data(), None), tmp_path / 'dataset')
  stream = lambda: store.StreamedInteractions(tmp_path / 'dataset', 50, 4)
  train_streamed = lambda name, data, **changes: train_with(
    tiny_generator_config({'generator.training.checkpoint_every_steps': 5, **changes}), data, tmp_path / name
  )
  params, progress = train_streamed('whole', stream())
  losses = [line['loss'] for line in logged(tmp_path / 'whole', 'train')]
  assert losses[-1] < losses[0] - 0.5

  broken = stream()
  read, broken.window = broken.window, lambda window: read(window) if next(reads) < 6 else 1 / 0
  reads = itertools.count()  # four windows an epoch: the seventh read is in the second epoch
  with pytest.raises(ZeroDivisionError):
    train_streamed('resumed', broken)
  assert logged(tmp_path / 'resumed', 'validation') and not logged(tmp_path / 'resumed', 'validation')[1:]
  again, progress_again = train_streamed('resumed', stream())
  assert progress_again == progress and progress.data
  for name, leaf in flat(params).items():
    np.testing.assert_array_equal(flat(again)[name], leaf)


EIGHT_DEVICES = """
import pathlib, sys
import jax, numpy as np
from tests.generators import test_generator as here
assert jax.device_count() == 8
params, _ = here.train(pathlib.Path(sys.argv[1]), {'generator.softmax': 'catalogue'})
np.savez(sys.argv[1] + '/params.npz', **here.flat(params))
"""


def test_eight_devices_give_the_parameters_of_one(catalogue_run, tmp_path):
  flags = f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count=8'
  done = subprocess.run(
    [sys.executable, '-c', EIGHT_DEVICES, str(tmp_path)],
    capture_output=True,
    text=True,
    cwd=ROOT,
    env={**os.environ, 'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'},
  )
  assert done.returncode == 0, done.stderr[-2000:]
  assert_same_params(dict(np.load(tmp_path / 'params.npz')), flat(catalogue_run[1]), 1e-5)
  ours, expected = logged(tmp_path, 'validation'), logged(catalogue_run[0], 'validation')
  assert [line['recall@5'] for line in ours] == pytest.approx([line['recall@5'] for line in expected])


def test_data_without_a_training_example_is_refused(tmp_path):
  with pytest.raises(InputError, match='more than 3 interactions'):
    train_with(tiny_generator_config(), interactions([[0, 1, 2], [3, 4, 5]], 16), tmp_path)


def test_rows_shorter_than_a_history_are_refused(tmp_path):
  with pytest.raises(InputError, match='config.generator.row_items is 1') as caught:
    train(tmp_path, {'generator.row_items': 1})
  assert 'config.data.history_length, 2' in str(caught.value)


def test_crops_are_drawn_anew_in_every_step(tmp_path):
  losses = {}
  for crops in (0.0, 0.5):
    settings = {'generator.model.encoder': 'items', 'data.history_length': 5, 'generator.crops': crops}
    config = tiny_generator_config(settings)
    ids = building.placed(SEMANTIC_IDS, 8, sharding.make_mesh(config.mesh))
    program = building.program(config, building.to_train(config, ids, tmp_path), data())
    init, batch = jax.jit(program.init), program.batches[0]
    losses[crops] = []
    for step in (0, 1, 1):
      state = init(*program.init_arguments).replace(step=np.int32(step))
      total, count = program.step(state, *program.arguments(batch))[1]['loss']
      losses[crops].append(float(total / count))
  assert losses[0.0][0] == losses[0.0][1] == losses[0.0][2]  # without dropout, nothing else depends on the step
  assert losses[0.5][1] == losses[0.5][2] and len({*losses[0.5], losses[0.0][0]}) == 3
