"""Meshes of eight devices give what one gives: `eight_devices.py`, in processes of their own."""

import json

import pytest

from tests import forked

pytestmark = pytest.mark.slow

EIGHT_DEVICES = """
import jax
jax.config.update('jax_num_cpu_devices', 8)
import runpy
runpy.run_module('tests.eight_devices', run_name='__main__')
"""


def _found(*arguments: str) -> list[dict]:
  ended = forked.run(*arguments, program=EIGHT_DEVICES)
  assert ended.returncode == 0, ended.stderr
  return list(map(json.loads, ended.stdout.splitlines()))


@pytest.mark.parametrize('name, meshes', [('tokenizer', 1), ('sasrec', 1), ('generator', 2), ('language', 1)])
def test_losses_gradients_and_parameters_do_not_depend_on_the_mesh(name, meshes):
  found = _found(name)
  assert len(found) == meshes
  for of_mesh in found:
    assert max(of_mesh[kind] for kind in ('metrics', 'gradients', 'parameters')) < 1e-5, of_mesh
    # What is not split is small: norms, biases, and in the tokenizer the codebooks.
    assert of_mesh['share'] == 1 or of_mesh['share'] < 0.5 and (of_mesh['fully_sharded'] or of_mesh['mesh'][1] > 1)


@pytest.mark.parametrize('name', ['generator', 'language'])
def test_the_same_items_are_decoded_on_every_mesh(name):
  found = _found('decoding', name)
  assert len(found) == {'generator': 2, 'language': 1}[name]
  for of_mesh in found:
    assert of_mesh['other_items'] == 0 and of_mesh['scores'] < 1e-5 and of_mesh['metrics'] < 1e-6, of_mesh


def test_a_checkpoint_of_one_mesh_is_read_on_another(tmp_path):
  found = _found('restored', str(tmp_path))
  assert [of_mesh['mesh'] for of_mesh in found] == [[8, 1], [2, 4], [1, 2], [1, 1]]
  for of_mesh in found:
    assert of_mesh['same'] and of_mesh['laid_out'] and of_mesh['starts'] and of_mesh['step'] == 3
