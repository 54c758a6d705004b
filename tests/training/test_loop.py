"""The loop with tiny programs: its decisions, its checkpoints, and that a resumed run equals the uninterrupted one."""

import dataclasses
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from letter_jax.configuration import TrainingConfig
from letter_jax.sharding import on_one_device, replicated
from letter_jax.system.errors import InputError, Preempted
from letter_jax.training import loop
from letter_jax.training.checkpoints import Checkpoints
from letter_jax.training.loop import Program, TrainingDiverged, train
from letter_jax.training.state import TrainState, make_step

LAYOUT = on_one_device()
CONFIG = TrainingConfig(epochs=4, patience=100, log_every_steps=1, checkpoint_every_steps=1000)


class Interrupted(Exception):
  pass


def interrupted(program, step):
  """The program, interrupted before the step after `step`."""

  def arguments(index):
    if index >= step:
      raise Interrupted
    return program.arguments(index)

  return dataclasses.replace(program, arguments=arguments)


def quadratic(steps_per_epoch=2):
  """Adam on |x - 3|^2 with noise of the step."""
  optimizer = optax.adam(0.3)

  def loss_sum(params, batch, key):
    error = params['x'] - 3 + 0.1 * jax.random.normal(key, (5,)) + batch
    return jnp.sum(error**2), jnp.float32(5), {'largest': (jnp.abs(error).max(), jnp.ones(()))}

  step = jax.jit(make_step(loss_sum, optimizer, jax.random.key(1), LAYOUT), donate_argnums=0)
  return Program(
    init=lambda start: TrainState.create({'x': start}, optimizer),
    init_arguments=(jnp.linspace(0.0, 1.0, 5),),
    layout=LAYOUT,
    step=step,
    arguments=lambda index: (jnp.float32(0.01 * index),),
    steps_per_call=1,
    steps_per_epoch=steps_per_epoch,
    examples_per_epoch=5 * steps_per_epoch,
    evaluate=lambda params: {'error': float(jnp.sum((params['x'] - 3) ** 2)), 'first': float(params['x'][0])},
    selection='error',
    larger_is_better=False,
  )


def scripted(values, steps_per_call=1, metrics=None):
  """Epochs of one call; the validations give `values`; the parameters are the steps done.

  `metrics`: step -> {name: value}, instead of a loss of 1.
  """

  def advance(state, index):
    done = index + steps_per_call
    assert int(state.step) == index
    state = TrainState(state.step + steps_per_call, {'steps': jnp.float32(done)}, state.opt_state)
    named = metrics(done) if metrics else {'loss': 1.0}
    shape = (steps_per_call,) if steps_per_call > 1 else ()
    return state, {name: (jnp.full(shape, value), jnp.ones(shape)) for name, value in named.items()}

  return Program(
    init=lambda: TrainState(jnp.zeros((), jnp.int32), {'steps': jnp.zeros(())}, ()),
    layout=LAYOUT,
    step=advance,
    arguments=lambda index: (index,),
    steps_per_call=steps_per_call,
    steps_per_epoch=steps_per_call,
    examples_per_epoch=10,
    evaluate=lambda params: {'ndcg@10': values[int(params['steps']) // steps_per_call - 1]},
  )


def lines_of(directory, kind=None):
  lines = [json.loads(line) for line in (directory / 'metrics.jsonl').read_text().splitlines()]
  for line in lines:
    line.pop('examples_per_second', None)
  return [line for line in lines if kind in (None, line['kind'])]


def latest(program, directory):
  checkpoints = Checkpoints(directory / 'checkpoints', 2)
  try:
    return checkpoints.restore_latest(loop.abstract_state(program))
  finally:
    checkpoints.close()


def assert_equal(tree, other):
  assert jax.tree.structure(tree) == jax.tree.structure(other)
  jax.tree.map(np.testing.assert_array_equal, tree, other)


@pytest.fixture(scope='module')
def program():
  return quadratic()


@pytest.fixture(scope='module')
def uninterrupted(program, tmp_path_factory):
  directory = tmp_path_factory.mktemp('uninterrupted')
  params, progress = train(program, CONFIG, directory, 'test')
  return params, progress, latest(program, directory), lines_of(directory)


def test_training_converges_and_logs_every_step(uninterrupted):
  params, progress, (state, saved), lines = uninterrupted
  assert progress.step == 8 and int(state.step) == 8 and saved == progress
  assert [(line['step'], line['kind']) for line in lines] == [
    (1, 'train'),
    (2, 'train'),
    (2, 'validation'),
    (3, 'train'),
    (4, 'train'),
    (4, 'validation'),
    (5, 'train'),
    (6, 'train'),
    (6, 'validation'),
    (7, 'train'),
    (8, 'train'),
    (8, 'validation'),
  ]
  assert [line['epoch'] for line in lines if line['kind'] == 'train'] == [0.5 * step for step in range(1, 9)]
  losses = [line['loss'] for line in lines if line['kind'] == 'train']
  assert losses[-1] < 0.5 * losses[0] and losses[0] == pytest.approx(np.mean((np.linspace(0, 1, 5) - 3) ** 2), rel=0.1)
  assert {'loss', 'largest', 'gradient_norm'} < lines[0].keys()
  assert progress.best_step == 8 and progress.best_metrics['first'] == float(params['x'][0])


# What is saved when: at the end of epochs only; in the middle of epochs; at every step.
@pytest.mark.parametrize(
  'interruption, every, resumed_at',
  [(4, 1000, 4), (3, 1000, 2), (1, 1000, 0), (5, 3, 4), (4, 3, 4), (3, 3, 3), (7, 1, 7)],
)
def test_interrupted_and_resumed_is_uninterrupted_bit_for_bit(
  program, uninterrupted, tmp_path, capsys, interruption, every, resumed_at
):
  config = dataclasses.replace(CONFIG, checkpoint_every_steps=every)
  with pytest.raises(Interrupted):
    train(interrupted(program, interruption), config, tmp_path, 'test')
  params, progress = train(program, config, tmp_path, 'test')
  output = capsys.readouterr().out
  assert (f'test: resumed at step {resumed_at} of 8' in output) == (resumed_at > 0)
  expected_params, expected_progress, expected_latest, expected_lines = uninterrupted
  assert_equal(params, expected_params)
  assert progress == expected_progress
  state, saved = latest(program, tmp_path)
  assert_equal(state, expected_latest[0])
  assert saved == expected_latest[1]
  assert lines_of(tmp_path) == expected_lines


def started(params, layout):
  """A start far from the initial parameters, from which training is at first worse."""
  return {'x': params['x'] + 2}


def test_a_training_that_starts_with_given_parameters_is_resumed_bit_for_bit(program, tmp_path):
  params, progress = train(program, CONFIG, tmp_path / 'whole', 'x', start=started)
  with pytest.raises(Interrupted):
    train(interrupted(program, 0), CONFIG, tmp_path / 'parts', 'x', start=started)  # after the validation of step 0
  with pytest.raises(Interrupted):
    train(interrupted(program, 5), CONFIG, tmp_path / 'parts', 'x', start=started)
  never = lambda params, layout: pytest.fail('a resumed training has parameters of its own')
  found, found_progress = train(program, CONFIG, tmp_path / 'parts', 'x', start=never)
  assert_equal(found, params)
  assert dataclasses.replace(found_progress, data={}) == dataclasses.replace(progress, data={})
  assert lines_of(tmp_path / 'parts') == lines_of(tmp_path / 'whole')
  first, *_ = lines_of(tmp_path / 'whole')
  assert (first['kind'], first['step']) == ('validation', 0) and progress.start_value == first['error']
  assert first['first'] == 2.0  # x starts at 0


def test_parameters_that_training_makes_worse_are_kept(tmp_path, capsys):
  best = lambda params, layout: {'steps': jnp.float32(4)}
  params, progress = train(scripted([0.1, 0.2, 0.3, 0.9]), CONFIG, tmp_path, 'x', start=best)
  assert params['steps'] == 4 and (progress.best_step, progress.best_value, progress.start_value) == (0, 0.9, 0.9)
  assert 'it started with 0.9000 and found nothing better' in capsys.readouterr().out


def test_parameters_of_another_shape_are_refused(program, tmp_path):
  with pytest.raises(
    InputError, match=r"x: the parameter \['x'\] has the shape \(5,\), and in the parameters .* \(4,\)"
  ):
    train(program, CONFIG, tmp_path, 'x', start=lambda params, layout: {'x': params['x'][:4]})


def test_a_finished_training_does_nothing_more(program, uninterrupted, tmp_path):
  train(program, CONFIG, tmp_path, 'test')
  lines = (tmp_path / 'metrics.jsonl').read_text()
  params, progress = train(interrupted(program, 0), CONFIG, tmp_path, 'test')
  assert_equal(params, uninterrupted[0])
  assert progress == uninterrupted[1]
  assert (tmp_path / 'metrics.jsonl').read_text() == lines


def test_a_damaged_checkpoint_costs_time_and_nothing_else(program, uninterrupted, tmp_path, capsys):
  with pytest.raises(Interrupted):
    train(interrupted(program, 6), CONFIG, tmp_path, 'test')
  for path in (tmp_path / 'checkpoints' / 'latest' / '6').rglob('*'):
    if path.is_file():
      path.write_bytes(b'')
  params, progress = train(program, CONFIG, tmp_path, 'test')
  output = capsys.readouterr().out
  assert 'latest/6 is unreadable' in output and 'resumed at step 4' in output
  assert_equal(params, uninterrupted[0])
  assert progress == uninterrupted[1] and lines_of(tmp_path) == uninterrupted[3]


# In the middle of an epoch, at its end (a validation is due), and at the end of all.
@pytest.mark.parametrize('step', [3, 4, 8])
def test_a_training_that_is_terminated_saves_and_is_resumed_bit_for_bit(program, uninterrupted, tmp_path, step):
  def arguments(index):
    if index == step - 1:
      os.kill(os.getpid(), signal.SIGTERM)
    return program.arguments(index)

  before = signal.getsignal(signal.SIGTERM)
  with pytest.raises(Preempted, match=f'saved at step {step} of 8'):
    train(dataclasses.replace(program, arguments=arguments), CONFIG, tmp_path, 'test')
  assert signal.getsignal(signal.SIGTERM) == before
  params, progress = train(program, CONFIG, tmp_path, 'test')
  assert_equal(params, uninterrupted[0])
  assert progress == uninterrupted[1] and lines_of(tmp_path) == uninterrupted[3]


def test_without_a_folder_nothing_is_written_and_the_best_parameters_are_the_same(
  program, tmp_path, monkeypatch, capsys
):
  worst = dataclasses.replace(program, larger_is_better=True)  # the first validation, whose state is overwritten later
  (tmp_path / 'here').mkdir()
  monkeypatch.chdir(tmp_path / 'here')
  params, progress = train(worst, CONFIG, None, 'test', verbose=False)
  assert capsys.readouterr() == ('', '') and not list((tmp_path / 'here').iterdir())
  kept, kept_progress = train(worst, CONFIG, tmp_path / 'kept', 'test')
  assert_equal(params, kept)
  assert progress == kept_progress and progress.best_step < progress.step


def test_a_training_without_a_folder_that_is_terminated_says_that_nothing_is_saved(program):
  def arguments(index):
    os.kill(os.getpid(), signal.SIGTERM)
    return program.arguments(index)

  with pytest.raises(Preempted, match='terminated at step 1 of 8; nothing is saved'):
    train(dataclasses.replace(program, arguments=arguments), CONFIG, None, 'test')


def test_a_checkpoint_that_cannot_be_written_is_an_input_error(program, tmp_path, monkeypatch):
  def full(*arguments, **named):
    raise ValueError('OUT_OF_RANGE: Failed writing: No space left on device')

  with monkeypatch.context() as patch:
    patch.setattr('orbax.checkpoint.CheckpointManager.save', full)
    with pytest.raises(InputError, match='could not be written .*No space left.*the same command resumes'):
      train(program, CONFIG, tmp_path, 'test')
  assert train(program, CONFIG, tmp_path, 'test')[1].step == 8


def test_checkpoints_may_be_in_a_different_folder(program, uninterrupted, tmp_path):
  with pytest.raises(Interrupted):
    train(interrupted(program, 5), CONFIG, tmp_path / 'results', 'test', str(tmp_path / 'elsewhere'))
  params, _ = train(program, CONFIG, tmp_path / 'results', 'test', str(tmp_path / 'elsewhere'))
  assert_equal(params, uninterrupted[0])
  assert (tmp_path / 'elsewhere/test/latest/8').is_dir() and not (tmp_path / 'results/checkpoints').exists()


@pytest.mark.parametrize('changes', [{'steps_per_epoch': 3}, {'data_parts': 2}])
def test_checkpoints_of_other_data_are_not_resumed(program, tmp_path, changes):
  with pytest.raises(Interrupted):
    train(interrupted(program, 5), CONFIG, tmp_path, 'test')
  with pytest.raises(InputError, match='of 2 steps an epoch and 1 part .*as many processes'):
    train(dataclasses.replace(program, **changes), CONFIG, tmp_path, 'test')
  assert train(program, CONFIG, tmp_path, 'test')[1].step == 8


def test_where_no_checkpoint_can_be_read_the_next_run_starts_from_the_beginning(program, uninterrupted, tmp_path):
  train(program, CONFIG, tmp_path, 'test')
  for path in (tmp_path / 'checkpoints' / 'latest').rglob('*'):
    if path.is_file():
      path.write_bytes(b'')
  with pytest.raises(InputError, match='starts this training from the beginning'):
    train(program, CONFIG, tmp_path, 'test')
  params, progress = train(program, CONFIG, tmp_path, 'test')
  assert_equal(params, uninterrupted[0])
  assert progress == uninterrupted[1] and lines_of(tmp_path) == uninterrupted[3]


def test_the_best_validation_is_selected_and_not_the_last(tmp_path):
  params, progress = train(scripted([0.1, 0.4, 0.4, 0.3]), CONFIG, tmp_path, 'test')
  assert float(params['steps']) == 2  # of equals the first
  assert (progress.best_value, progress.best_step, progress.best_metrics) == (0.4, 2, {'ndcg@10': 0.4})
  assert (progress.step, progress.validations_since_best) == (4, 2)


def test_smaller_may_be_better(tmp_path):
  program = dataclasses.replace(scripted([0.4, 0.1, 0.2, 0.1]), larger_is_better=False)
  params, progress = train(program, CONFIG, tmp_path, 'test')
  assert float(params['steps']) == 2 and progress.best_value == 0.1


def test_patience_ends_the_training(tmp_path, capsys):
  config = dataclasses.replace(CONFIG, epochs=10, patience=3)
  values = [0.2, 0.1, 0.3, 0.1, 0.2, 0.3, 0.9, 0.9, 0.9, 0.9]
  params, progress = train(scripted(values), config, tmp_path, 'test')
  assert progress.step == 6 and progress.best_step == 3 and float(params['steps']) == 3
  assert 'test: best ndcg@10 0.3000 at step 3, stopped at step 6' in capsys.readouterr().out
  again, progress_again = train(scripted(values), config, tmp_path, 'test')
  assert_equal(again, params)
  assert progress_again == progress


def test_patience_survives_an_interruption(tmp_path):
  config = dataclasses.replace(CONFIG, epochs=10, patience=3)
  program = scripted([0.2, 0.1, 0.1, 0.1, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9])
  with pytest.raises(Interrupted):
    train(interrupted(program, 3), config, tmp_path, 'test')
  _, progress = train(program, config, tmp_path, 'test')
  assert (progress.step, progress.best_step) == (4, 1)


def test_validations_are_as_far_apart_as_asked_and_the_last_step_has_one(tmp_path):
  config = dataclasses.replace(CONFIG, epochs=5, evaluate_every_epochs=2)
  train(scripted([0.1] * 5), config, tmp_path, 'test')
  assert [line['step'] for line in lines_of(tmp_path, 'validation')] == [2, 4, 5]


def test_a_call_may_be_a_whole_epoch(tmp_path):
  program = scripted([0.1, 0.3, 0.2, 0.1], steps_per_call=5)
  params, progress = train(program, CONFIG, tmp_path, 'test')
  assert (progress.step, progress.best_step, float(params['steps'])) == (20, 10, 10)
  assert [(line['step'], line['epoch']) for line in lines_of(tmp_path, 'train')] == [(5, 1), (10, 2), (15, 3), (20, 4)]


@pytest.mark.parametrize('limit, ends', [(3, 3), (4, 4), (100, 10)])
def test_a_limit_of_steps_may_end_the_training_within_an_epoch(tmp_path, capsys, limit, ends):
  program = dataclasses.replace(scripted([0.1] * 10), steps_per_epoch=2)
  config = dataclasses.replace(CONFIG, epochs=5, max_steps=limit)
  _, progress = train(program, config, tmp_path, 'test')
  assert progress.step == ends
  assert [line['step'] for line in lines_of(tmp_path, 'validation')] == [*range(2, ends, 2), ends]
  assert f', {ends} steps at most' in capsys.readouterr().out


def test_a_limit_of_steps_is_reached_by_whole_calls(tmp_path):
  config = dataclasses.replace(CONFIG, max_steps=7)
  assert train(scripted([0.1] * 4, steps_per_call=5), config, tmp_path, 'test')[1].step == 10
  assert (config.total_steps(5, 5), config.total_steps(5)) == (10, 7)


def test_a_line_averages_its_interval(tmp_path):
  config = dataclasses.replace(CONFIG, epochs=5, log_every_steps=3, evaluate_every_epochs=100)
  train(scripted([0.1] * 5, metrics=lambda step: {'loss': float(step)}), config, tmp_path, 'test')
  assert [(line['step'], line['loss']) for line in lines_of(tmp_path, 'train')] == [(3, 2.0), (5, 4.5)]


@pytest.mark.parametrize('value', [np.nan, np.inf])
@pytest.mark.parametrize('log_every', [1, 1000])
def test_a_term_that_is_not_finite_stops_the_training_and_is_not_saved(tmp_path, value, log_every):
  # Checkpoints at 2 and 4; at step 4 a term goes bad, between two validations.
  config = dataclasses.replace(
    CONFIG, epochs=8, log_every_steps=log_every, checkpoint_every_steps=2, evaluate_every_epochs=3
  )
  program = scripted([0.1] * 8, metrics=lambda step: {'loss': 1.0, 'commitment': value if step == 4 else 1.0})
  with pytest.raises(TrainingDiverged, match=f'commitment is {value} at step 4') as caught:
    train(program, config, tmp_path, 'test')
  assert '\n' not in str(caught.value) and 'loss' not in str(caught.value)
  state, progress = latest(program, tmp_path)
  assert int(state.step) == progress.step == 3
  checkpoints = Checkpoints(tmp_path / 'checkpoints', 2)
  params, _ = checkpoints.restore_best(LAYOUT)
  checkpoints.close()
  assert float(params['steps']) == 3


def test_a_bad_step_within_a_call_is_named_with_the_term_and_not_the_sum(tmp_path):
  def advance(state, index):
    bad = jnp.array([1.0, jnp.nan, 1.0]) if index == 3 else jnp.ones(3)
    values = {'loss': bad, 'contrastive': bad, 'commitment': jnp.ones(3), 'gradient_norm': bad}
    return state, {name: (total, jnp.ones(3)) for name, total in values.items()}

  program = dataclasses.replace(
    scripted([], steps_per_call=3),
    step=advance,
    arguments=lambda index: (index,),
    evaluate=lambda params: {'ndcg@10': 0.5},
  )
  with pytest.raises(TrainingDiverged, match='^contrastive is nan at step 5;'):
    train(program, CONFIG, tmp_path, 'test')


def test_a_validation_that_is_not_finite_stops_the_training(tmp_path):
  program = scripted([0.1, np.nan, 0.2, 0.3])
  with pytest.raises(TrainingDiverged, match='validation ndcg@10 is nan at step 2'):
    train(program, CONFIG, tmp_path, 'test')
  assert latest(program, tmp_path)[1].step == 1


def test_the_state_has_the_shardings_of_the_program(program):
  abstract = loop.abstract_state(program)
  assert all(leaf.sharding == replicated(LAYOUT.mesh) for leaf in jax.tree.leaves(abstract))
  assert abstract.params['x'].shape == (5,) and abstract.step.dtype == jnp.int32
