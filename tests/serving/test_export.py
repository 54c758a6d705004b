"""The exported folder, used where nothing of this program is, gives what the recommender gives."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy
from jax import export as jax_export

import letter_jax
from letter_jax import commands
from letter_jax.errors import InputError


@pytest.fixture(scope='module')
def exported(finished):
  commands.run('export', finished, commands.Options(platforms=('cpu', 'cuda', 'tpu')))
  return finished / 'export'


def test_the_folder_recommends_without_this_program(exported, finished, predictions, tmp_path):
  users = [{'user': user['user'], 'history': user['history']} for user in predictions[:20]]
  users += [{'user': 'none', 'history': []}, {'user': 'long', 'history': [*range(45), 'who', *range(45)]}]
  done = subprocess.run(
    [sys.executable, exported / 'recommend.py'], input='\n'.join(map(json.dumps, users)), text=True,
    capture_output=True, cwd=tmp_path, env={**os.environ, 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': ''}, timeout=300)
  assert done.returncode == 0, done.stderr
  found = [json.loads(line) for line in done.stdout.splitlines()]
  recommender = letter_jax.Recommender.from_workdir(finished, beam=20)
  expected = recommender.recommend([user['history'] for user in users])
  assert [user['user'] for user in found] == [user['user'] for user in users]
  for user, items, scores in zip(found, expected.items_UxK.tolist(), expected.scores_UxK):
    assert [entry['item'] for entry in user['recommendations']] == items
    np.testing.assert_allclose([entry['score'] for entry in user['recommendations']], scores, atol=1e-5)
    assert user['recommendations'][0]['title'] == recommender.catalogue.titles[items[0]]


def test_the_loader_has_no_import_of_this_program(exported):
  source = (exported / 'recommend.py').read_text()
  assert 'letter_jax' not in source and len(source.splitlines()) < 50


@pytest.mark.parametrize('platform', ['cpu', 'cuda', 'tpu'])
def test_each_platform_has_its_search_for_any_number_of_users(exported, platform):
  search = jax_export.deserialize((exported / f'search_{platform}.stablehlo').read_bytes())
  assert search.platforms == (platform,)
  dims = [str(dim) for aval in search.out_avals for dim in aval.shape]
  assert dims == ['users', '20', 'users', '20']


def test_the_other_formats_are_there(exported, finished):
  assert (exported / 'index.json').read_text() == (finished / 'semantic_ids/index.json').read_text()
  tensors = safetensors.numpy.load_file(exported / 'hugging_face/model.safetensors')
  assert tensors['shared.weight'].shape == (2 + 3 * 8, 16)
  table = json.loads((exported / 'items.json').read_text())
  assert len(table['items']) == 60 and table['beam'] == 20


@pytest.mark.parametrize('platforms', [(), ('gpu',), ('cpu', 'rocm')])
def test_platforms_that_are_not_supported(finished, platforms):
  with pytest.raises(InputError, match='expected some of cpu,cuda,tpu'):
    commands.run('export', finished, commands.Options(platforms=platforms))


def test_a_workdir_without_a_generator(tmp_path):
  with pytest.raises(InputError, match='has no generator to restore'):
    commands.run('export', tmp_path, commands.Options(platforms=('cpu',)))
  assert not list(tmp_path.iterdir())


def test_items_that_share_an_id_are_all_exported(finished, tmp_path):
  """The reference's collisions: the folder lists each item of a leaf, but those of the history."""
  from letter_jax.configuration import MeshConfig
  from letter_jax.serving import export
  from letter_jax.serving.trained import TrainedGenerator
  generator = TrainedGenerator.of_workdir(finished, MeshConfig())
  codes_NxL = generator.catalogue.codes_NxL
  codes_NxL[30:40] = codes_NxL[30]
  export.export_search(tmp_path, generator, 40, ['cpu'])
  search = jax_export.deserialize((tmp_path / 'search_cpu.stablehlo').read_bytes())
  arrays = {name: jax.numpy.asarray(array)
            for name, array in safetensors.numpy.load_file(tmp_path / 'arrays.safetensors').items()}
  histories = np.full((1, 20), -1, np.int32)
  histories[0, :2] = [31, 35]
  items, scores = search.call(arrays, histories, np.array([[31, 35]], np.int32), np.arange(60) < 45)
  found = np.asarray(items)[0].tolist()
  shared = [item for item in found if 30 <= item < 40]
  assert shared == [30, 32, 33, 34, 36, 37, 38, 39]
  assert len({np.asarray(scores)[0, found.index(item)] for item in shared}) == 1
  # 36 IDs, 43 items, lists of 40.
  assert len(set(found)) == 40 and set(found) <= set(range(45)) - {31, 35}
