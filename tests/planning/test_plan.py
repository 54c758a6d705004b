"""The plan of a small config, and invalid topologies."""

import json

import pytest

from letter_jax.cli import commands
from letter_jax.planning import plan
from letter_jax.system.errors import InputError
from tests.small_data import config_with, run_settings

pytestmark = pytest.mark.slow


def plan_for(config, workdir, topology):
  commands.run('plan', workdir, commands.Options(topology=topology), config)


@pytest.mark.parametrize('topology', ['v4:2x2x1', 'v5p:2x2x1', 'v6e:2x2'])
def test_a_device_is_a_chip(topology):
  assert len(plan.topology_devices(topology)) == 4


def test_the_plan_of_a_config(tmp_path, capsys):
  features = {'generator.model.encoder': 'items', 'generator.features': ('text', 'collaborative')}
  plan_for(
    config_with({**run_settings(), **features, 'mesh.model': 2, 'mesh.fully_sharded': True}), tmp_path, 'v5e:2x2'
  )
  planned = json.loads((tmp_path / 'plan.json').read_text())
  assert planned['chips'] == 4
  assert [row['step'] for row in planned['steps']] == ['sasrec step', 'tokenizer epoch', 'generator step', 'decoding']
  for row in planned['steps']:
    assert row['fits'] and row['flops'] > 0 and row['seconds'] > 0 and row['memory'] >= row['arguments']
    # Every training step adds up gradients; decoding only gathers the parameters that are in pieces.
    assert ('all-reduce' in row['collectives']) == (row['step'] != 'decoding')
    assert row['step'] != 'decoding' or set(row['collectives']) == {'all-gather'}
  output = capsys.readouterr().out
  assert 'plan for v5e:2x2: 4 chips of 16 GB' in output and 'generator step' in output
  # The data set is all that a plan needs and leaves.
  assert {path.name for path in tmp_path.iterdir()} == {'dataset', 'plan.json'}


def some_steps(monkeypatch, *names):
  """Leaves only these steps to `plan`: libtpu takes half a minute to compile each."""
  steps = plan.steps
  monkeypatch.setattr(plan, 'steps', lambda *arguments: [step for step in steps(*arguments) if step[0] in names])


def test_with_whole_parameters_a_training_adds_up_gradients_and_decoding_does_not_communicate(tmp_path, monkeypatch):
  some_steps(monkeypatch, 'sasrec step', 'decoding')
  plan_for(config_with(run_settings()), tmp_path, 'v5e:2x2')
  sasrec, decoding = json.loads((tmp_path / 'plan.json').read_text())['steps']
  assert 'all-reduce' in sasrec['collectives'] and not decoding['collectives']


@pytest.mark.parametrize(
  'topology, said',
  [
    ('', 'expected v4, v5e, v5p, v6e, a colon and a shape'),
    ('v9:2x2', 'expected v4, v5e'),
    ('v5e:many', 'such as'),
    ('v5e:3x5', 'cannot be compiled for'),
    ('v5e:4x4x4', 'v4 and v5p have three axes'),
    ('v4:2x2', 'three axes'),
    ('v5e:0x4', 'such as'),
  ],
)
def test_no_such_topology(tmp_path, topology, said):
  with pytest.raises(InputError, match=said):
    plan_for(config_with(run_settings()), tmp_path, topology)
  assert not (tmp_path / 'dataset').exists()


def test_a_mesh_that_does_not_fit(tmp_path):
  with pytest.raises(InputError, match='expected a product of 4'):
    plan_for(config_with({**run_settings(), 'mesh.model': 3}), tmp_path, 'v5e:2x2')


def test_a_step_that_does_not_fit_is_reported_and_the_others_are_planned(tmp_path, capsys, monkeypatch):
  some_steps(monkeypatch, 'sasrec step', 'generator step')
  huge = {'generator.model.d_model': 16384, 'generator.model.d_ff': 131072}
  plan_for(config_with({**run_settings(), **huge}), tmp_path, 'v5e:1x1')
  rows = {row['step']: row for row in json.loads((tmp_path / 'plan.json').read_text())['steps']}
  assert rows['sasrec step']['fits'] and not rows['generator step']['fits']
  assert 'generator step' in capsys.readouterr().out
