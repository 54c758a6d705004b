import dataclasses
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from letter_jax.sharding import on_one_device, replicated
from letter_jax.system.errors import InputError
from letter_jax.training.checkpoints import Checkpoints, Progress, read_best

LAYOUT = on_one_device()
SHARDING = replicated(LAYOUT.mesh)


def state(step):
  random = np.random.default_rng(step)
  return {
    'step': jnp.int32(step),
    'params': {
      'kernel': jnp.asarray(random.normal(size=(3, 2)), jnp.float32),
      'scale': jnp.asarray(random.normal(size=2), jnp.bfloat16),
    },
  }


def progress(step):
  return Progress(
    step=step,
    best_value=0.1 * step,
    best_step=step - 1,
    validations_since_best=3,
    best_metrics={'ndcg@10': 0.1 * step, 'recall@10': 1 / 3},
  )


def abstract(tree):
  return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=SHARDING), tree)


def save(directory, steps, keep=2):
  checkpoints = Checkpoints(directory, keep)
  for step in steps:
    checkpoints.save_latest(state(step), progress(step))
    checkpoints.save_best(state(step)['params'], progress(step))
  checkpoints.close()


def restore_latest(directory):
  checkpoints = Checkpoints(directory, 2)
  try:
    return checkpoints.restore_latest(abstract(state(0)))
  finally:
    checkpoints.close()


def assert_equal(tree, expected):
  assert jax.tree.structure(tree) == jax.tree.structure(expected)
  for one, other in zip(jax.tree.leaves(tree), jax.tree.leaves(expected)):
    assert one.dtype == other.dtype
    np.testing.assert_array_equal(one, other)


def one_line(caught):
  message = str(caught.value)
  assert '\n' not in message and ('expected' in message or 'can be read' in message)
  return message


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  """Checkpoints of steps 4 and 7, latest and best; to be copied before it is damaged."""
  directory = tmp_path_factory.mktemp('saved')
  save(directory, [2, 4, 7])
  return directory


@pytest.fixture
def copy(saved, tmp_path):
  return pathlib.Path(shutil.copytree(saved, tmp_path / 'checkpoints'))


def test_the_newest_state_comes_back_with_its_progress(saved, capsys):
  restored, where = restore_latest(saved)
  assert_equal(restored, state(7))
  assert where == progress(7)
  assert capsys.readouterr().out == ''
  assert sorted(path.name for path in (saved / 'latest').iterdir()) == ['4', '7']


def test_nothing_saved_is_nothing_restored(tmp_path):
  assert restore_latest(tmp_path) is None


def files_of(folder):
  return [path for path in folder.rglob('*') if path.is_file()]


def empty(folder):
  for path in files_of(folder):
    path.write_bytes(b'')


def halve(folder):
  for path in files_of(folder):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def lose_the_state(folder):
  shutil.rmtree(folder / 'state')


def lose_the_progress(folder):
  shutil.rmtree(folder / 'progress')


def lose_the_arrays(folder):
  shutil.rmtree(folder / 'state' / 'd')


DAMAGES = (empty, halve, lose_the_state, lose_the_progress, lose_the_arrays)


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(copy, capsys, damage):
  damage(copy / 'latest' / '7')
  restored, where = restore_latest(copy)
  assert_equal(restored, state(4))
  assert where == progress(4)
  (message,) = capsys.readouterr().out.splitlines()
  assert str(copy / 'latest' / '7') in message and 'unreadable and skipped' in message


def test_after_damage_the_training_saves_the_lost_step_again(copy):
  halve(copy / 'latest' / '7')
  checkpoints = Checkpoints(copy, 2)
  checkpoints.restore_latest(abstract(state(0)))
  checkpoints.save_latest(state(7), progress(7))
  checkpoints.close()
  restored, _ = restore_latest(copy)
  assert_equal(restored, state(7))


def test_if_all_are_damaged_they_are_moved_aside(copy, capsys):
  for step in (4, 7):
    halve(copy / 'latest' / str(step))
  with pytest.raises(InputError) as caught:
    restore_latest(copy)
  assert str(copy / 'latest') in one_line(caught)
  messages = capsys.readouterr().out.splitlines()
  assert [str(copy / 'latest' / step) in line for step, line in zip('74', messages, strict=True)] == [True, True]
  assert (copy / 'unreadable_latest_4').is_dir() and (copy / 'unreadable_latest_7').is_dir()
  assert restore_latest(copy) is None


def test_a_lost_trajectory_does_not_keep_its_best(copy):
  halve(copy / 'latest' / '7')
  checkpoints = Checkpoints(copy, 2)
  checkpoints.restore_latest(abstract(state(0)))
  other = dataclasses.replace(progress(5), best_value=0.9)
  checkpoints.save_best(state(5)['params'], other)
  checkpoints.wait()
  params, where = checkpoints.restore_best(LAYOUT)
  checkpoints.close()
  assert where == other
  assert_equal(params, state(5)['params'])


def test_a_training_that_begins_again_does_not_keep_the_best_of_the_lost_one(copy):
  shutil.rmtree(copy / 'latest')
  checkpoints = Checkpoints(copy, 2)
  assert checkpoints.restore_latest(abstract(state(0))) is None
  checkpoints.save_best(state(2)['params'], progress(2))
  checkpoints.wait()
  params, where = checkpoints.restore_best(LAYOUT)
  checkpoints.close()
  assert where == progress(2)
  assert_equal(params, state(2)['params'])


def test_a_half_written_folder_of_a_kill_is_ignored(copy):
  shutil.copytree(copy / 'latest' / '7', copy / 'latest' / '9.orbax-checkpoint-tmp')
  restored, where = restore_latest(copy)
  assert where.step == 7
  assert_equal(restored, state(7))


def test_the_best_parameters_come_back_without_knowing_their_shapes(saved):
  checkpoints = Checkpoints(saved)
  params, where = checkpoints.restore_best(LAYOUT)
  checkpoints.close()
  assert_equal(params, state(7)['params'])
  assert where == progress(7)
  assert sorted(path.name for path in (saved / 'best').iterdir()) == ['4', '7']


def test_no_best_checkpoint_is_an_input_error(tmp_path):
  checkpoints = Checkpoints(tmp_path)
  with pytest.raises(InputError) as caught:
    checkpoints.restore_best(LAYOUT)
  checkpoints.close()
  assert str(tmp_path / 'best') in one_line(caught)


@pytest.mark.parametrize('damage', [empty, halve])
def test_a_damaged_best_checkpoint_is_skipped_for_the_one_before(copy, capsys, damage):
  damage(copy / 'best' / '7')
  params, where = read_best(copy, LAYOUT)
  assert where == progress(4)
  assert_equal(params, state(4)['params'])
  assert str(copy / 'best' / '7') in capsys.readouterr().out


def test_no_readable_best_checkpoint_says_what_to_do(copy):
  for step in (4, 7):
    halve(copy / 'best' / str(step))
  with pytest.raises(InputError) as caught:
    read_best(copy, LAYOUT)
  assert str(copy / 'best') in one_line(caught) and 'remove' in str(caught.value)


def test_reading_writes_nothing(saved, tmp_path):
  before = sorted(path for path in saved.rglob('*'))
  read_best(saved, LAYOUT)
  assert sorted(path for path in saved.rglob('*')) == before
  with pytest.raises(InputError):
    read_best(tmp_path, LAYOUT)
  assert list(tmp_path.iterdir()) == []
