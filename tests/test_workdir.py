"""What a workdir gives back."""

import ast
import collections
import dataclasses
import json
import re
import shutil

import numpy as np
import pytest

import letter_jax
from letter_jax import workdir as workdir_module
from letter_jax.configuration import Config
from letter_jax.system.errors import InputError
from tests.paths import ROOT
from tests.small_data import tiny_generator_config
from tests.training.test_checkpoints import assert_equal, empty, halve, one_line, progress, save, state


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  directory = tmp_path_factory.mktemp('saved')
  save(directory, [2, 4, 7])
  return directory


@pytest.fixture
def workdir(tmp_path, saved):
  """As the generator's stage leaves it."""
  shutil.copytree(saved, tmp_path / 'generator' / 'checkpoints')
  (tmp_path / 'generator' / 'generator.json').write_text(
    json.dumps({'config': dataclasses.asdict(tiny_generator_config())})
  )
  (tmp_path / 'semantic_ids').mkdir()
  np.save(tmp_path / 'semantic_ids' / 'semantic_ids.npy', np.arange(12, dtype=np.int32).reshape(4, 3))
  (tmp_path / 'semantic_ids' / 'report.json').write_text('{"codebook_size": 16}')
  return tmp_path


def test_a_generator_is_restored_with_all_that_belongs_to_it(workdir):
  restored = letter_jax.restore_generator(str(workdir))
  assert_equal(restored.params, state(7)['params'])
  assert isinstance(restored.config, Config) and restored.config == tiny_generator_config()
  np.testing.assert_array_equal(restored.semantic_ids.codes_NxL, np.arange(12).reshape(4, 3))
  assert (restored.semantic_ids.codebook_size, restored.step, restored.validation) == (16, 7, progress(7).best_metrics)


@pytest.mark.parametrize(
  'missing',
  ['generator/generator.json', 'semantic_ids/semantic_ids.npy', 'generator/checkpoints/best', 'generator/checkpoints'],
)
def test_a_workdir_without_a_generator_is_an_input_error(workdir, missing):
  path = workdir / missing
  shutil.rmtree(path) if path.is_dir() else path.unlink()
  with pytest.raises(InputError) as caught:
    letter_jax.restore_generator(workdir)
  assert str(workdir) in one_line(caught)


@pytest.mark.parametrize('damage', [empty, halve])
def test_a_generator_whose_checkpoint_is_damaged_is_an_input_error(workdir, damage):
  damage(workdir / 'generator' / 'checkpoints' / 'best')
  with pytest.raises(InputError) as caught:
    letter_jax.restore_generator(workdir)
  assert str(workdir) in one_line(caught)


def test_a_description_with_an_invalid_config_names_the_key(workdir):
  (workdir / 'generator' / 'generator.json').write_text(json.dumps({'config': {'generator': {'temperature': 0}}}))
  with pytest.raises(InputError, match='^config.generator.temperature is 0.0; expected more than 0$'):
    letter_jax.restore_generator(workdir)


def _literals(path):
  """Words of the string literals of a module, paths split at slashes; docstrings left out."""
  tree = ast.parse(path.read_text(encoding='utf-8'))
  docstrings = {
    id(node.body[0].value)
    for node in ast.walk(tree)
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
    and node.body
    and isinstance(node.body[0], ast.Expr)
  }
  for node in ast.walk(tree):
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
      yield from re.split(r'[\s/(),;]+', node.value)


def test_the_name_of_each_file_of_a_workdir_is_written_once():
  names = {
    value for value in vars(workdir_module).values() if isinstance(value, str) and re.fullmatch(r'\w+\.\w+', value)
  }
  assert {'metrics.json', 'semantic_ids.csv', 'lengths.npy', 'compare.html'} <= names
  package = ROOT / 'letter_jax'
  places = collections.defaultdict(set)
  for path in sorted(package.rglob('*.py')):
    for name in names.intersection(_literals(path)):
      places[name].add(path.relative_to(package).as_posix())
  places['report.json'].discard('data/beam/pipelines.py')  # a different file, Beam's own
  places['index.json'].discard('configuration/schema.py')  # LETTER's format, which a setting names
  assert {name: found for name, found in places.items() if len(found) != 1} == {}
