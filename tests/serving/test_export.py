"""The exported folder, used without this program, gives the recommender's results."""

import ast
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import types

import jax
import numpy as np
import pytest
import safetensors.numpy
from jax import export as jax_export

import letter_jax
from letter_jax.cli import commands
from letter_jax.serving import jsonl
from letter_jax.system.errors import InputError
from tests.forked import HANG_SECONDS
from tests.paths import ROOT
from tests.small_data import TINY_RUN

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def exported(finished):
  commands.run('export', finished, commands.Options(platforms=('cpu', 'cuda', 'tpu')))
  return finished / 'export'


@pytest.fixture(scope='module')
def recommender(finished):
  return letter_jax.Recommender.from_workdir(finished, beam=20)


def test_the_folder_recommends_without_this_program(exported, recommender, predictions, tmp_path):
  users = [{'user': user['user'], 'history': user['history']} for user in predictions[:20]]
  users += [{'user': 'none', 'history': []}, {'user': 'long', 'history': [*range(45), 'who', *range(45)]}]
  users += [{'user': 'unknown', 'history': ['who']}, {'user': 'blanks', 'history': [' 5\u00a0', '7\n']}]
  bad = ['\ufeffno', '[1]', '', '{"user": 1}', '{"history": [null]}', '{"history": 3}', '{"history": "5"}']
  bad += ['{"history": [2.5]}']
  done = subprocess.run(
    [sys.executable, exported / 'recommend.py'],
    input='\n'.join([*bad, *map(json.dumps, users)]),
    text=True,
    capture_output=True,
    cwd=tmp_path,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': ''},
    timeout=HANG_SECONDS,
  )
  assert done.returncode == 0, done.stderr
  answers = [json.loads(line) for line in done.stdout.splitlines()]
  failed, found = answers[:7], answers[7:]
  assert all('expected' in answer['error'] for answer in failed)
  assert [answer['line'] for answer in failed] == [1, 2, 4, 5, 6, 7, 8] and failed[2]['user'] == 1
  assert [user['skipped'] for user in found[-4:]] == [0, 1, 1, 0]
  assert [user.get('from') for user in found[-4:]] == ['popularity', None, 'popularity', None]
  assert found[-2]['reason'] == 'no item of the history is known'
  expected = recommender.recommend([user['history'] for user in users])
  assert [user['user'] for user in found] == [user['user'] for user in users]
  for user, items, scores in zip(found, expected.items_UxK.tolist(), expected.scores_UxK):
    assert [entry['item'] for entry in user['recommendations']] == items
    np.testing.assert_allclose([entry['score'] for entry in user['recommendations']], scores, atol=1e-5)
    assert user['recommendations'][0]['title'] == recommender.catalogue.titles[items[0]]


@pytest.mark.parametrize(
  'streams, said',
  [
    ('<&-', 'recommend.py: stdin is closed; expected it open'),
    ('>&-', 'recommend.py: stdout is closed; expected it open'),
    ('>/dev/full', 'No space left on device; expected users that can be read, and a disk with room'),
  ],
)
def test_streams_that_the_script_cannot_use(exported, streams, said):
  ended = subprocess.run(
    ['bash', '-c', f'echo \'{{"history": [1]}}\' | "$@" {streams}', 'bash', sys.executable, exported / 'recommend.py'],
    text=True,
    capture_output=True,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
    timeout=HANG_SECONDS,
  )
  assert ended.returncode == 2 and said in ended.stderr and len(ended.stderr.splitlines()) == 1, ended.stderr


def test_the_script_imports_three_packages_besides_the_standard_library(exported):
  source = (exported / 'recommend.py').read_text()
  imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]
  modules = {
    node.module if isinstance(node, ast.ImportFrom) else alias.name for node in imports for alias in node.names
  }
  packages = {module.partition('.')[0] for module in modules}
  assert packages - set(sys.stdlib_module_names) == {'jax', 'numpy', 'safetensors'}
  assert 'letter_jax' not in source and len(source.splitlines()) < 260


@pytest.mark.parametrize('platform', ['cpu', 'cuda', 'tpu'])
def test_each_platform_has_its_search_for_any_number_of_users(exported, platform):
  search = jax_export.deserialize((exported / f'search_{platform}.stablehlo').read_bytes())
  assert search.platforms == (platform,)
  dims = [str(dim) for aval in search.out_avals for dim in aval.shape]
  assert dims == ['users', '20', 'users', '20']


def test_the_other_formats_are_there(exported, finished):
  assert (exported / 'index.json').read_text() == (finished / 'semantic_ids/index.json').read_text()
  tensors = safetensors.numpy.load_file(exported / 'hugging_face/model.safetensors')
  config = json.loads((exported / 'hugging_face/config.json').read_text())
  assert tensors['shared.weight'].shape == (config['vocab_size'], config['d_model']) == (2 + 3 * 8, 16)
  assert tensors['encoder.block.0.layer.0.SelfAttention.q.weight'].shape == (
    config['num_heads'] * config['d_kv'],
    config['d_model'],
  )
  assert f'encoder.block.{config["num_layers"]}.layer.0.SelfAttention.q.weight' not in tensors
  letter = json.loads((exported / 'hugging_face/letter.json').read_text())
  assert letter['softmax'] == 'catalogue' and letter['first_code'] == 2 and len(letter['items']) == 60
  table = json.loads((exported / 'items.json').read_text())
  assert len(table['items']) == 60 and table['beam'] == 20


def test_all_files_have_the_same_mode(exported):
  modes = {path.relative_to(exported): oct(path.stat().st_mode) for path in exported.rglob('*') if path.is_file()}
  assert len(modes) > 8 and len(set(modes.values())) == 1, modes


def test_a_later_export_leaves_nothing_of_an_earlier_one(exported, finished, tmp_path):
  shutil.copytree(finished, tmp_path / 'workdir')
  commands.run('export', tmp_path / 'workdir', commands.Options(platforms=('cpu',), beam=5))
  folder = tmp_path / 'workdir/export'
  assert [path.name for path in folder.glob('search_*')] == ['search_cpu.stablehlo']
  assert json.loads((folder / 'items.json').read_text())['beam'] == 5


@pytest.fixture(scope='module')
def script(exported):
  """The exported script as a module."""
  spec = importlib.util.spec_from_file_location('exported_folder', exported / 'recommend.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def had_again(recommender, **settings):
  """Which items of a history can come out: those that do where nothing else is allowed."""
  only = np.isin(np.arange(60), [1, 2, 7]) & settings.pop('allowed', np.ones(60, bool))
  items, _ = recommender([[1, 2, 7, 1]], k=4, allowed=only, **settings)
  return set(items[0].tolist()) - {-1}


def test_the_folder_as_a_module(script, monkeypatch):
  recommender = script.Recommender()
  monkeypatch.setattr(script, 'USERS', (3, 1))
  histories = [[1, 2], [3], [], ['4', '5'], [6], [7, 7, 7], [8]]
  items, scores = recommender(histories, k=4, allowed=np.arange(60) % 2 == 0)
  assert items.shape == scores.shape == (7, 4) and (items % 2 == 0).all()
  np.testing.assert_array_equal(recommender(histories[3:4], k=4, allowed=np.arange(60) % 2 == 0)[0][0], items[3])
  assert recommender([], k=4)[0].shape == (0, 4)
  with pytest.raises(ValueError, match='k is 21; expected 1 to 20'):
    recommender([[1]], k=21)
  for allowed in (np.arange(60), np.ones(59, bool), np.zeros(60, bool)):
    with pytest.raises(ValueError, match=r'expected bool \[60\], some True'):
      recommender([[1]], allowed=allowed)
  repeat = np.isin(np.arange(60), [2, 7, 40])
  for exclude_history in (False, True):
    recommender.exclude_history = exclude_history
    kept = {said: had_again(recommender, exclude_history=said) for said in (None, False, True)}
    assert kept == {False: {1, 2, 7}, True: set(), None: set() if exclude_history else {1, 2, 7}}
    assert had_again(recommender, repeat=repeat) == {2, 7}
    assert had_again(recommender, repeat=repeat, allowed=np.arange(60) != 7) == {2}
  for wrong in ({'repeat': np.arange(60)}, {'repeat': np.ones(59, bool)}):
    with pytest.raises(ValueError, match=r'repeat is .*; expected bool \[60\]'):
      recommender([[1]], **wrong)
  with pytest.raises(ValueError, match='repeat is given with exclude_history=False'):
    recommender([[1]], repeat=repeat, exclude_history=False)
  for history in ('12', [1.0], [True], [None]):
    with pytest.raises(TypeError):
      recommender([history])


def test_as_many_rows_are_computed_as_there_are_users(script, monkeypatch):
  recommender, rows = script.Recommender(), []
  search = recommender._search
  monkeypatch.setattr(recommender, '_search', lambda *arrays: rows.append(arrays[1].shape[0]) or search(*arrays))
  recommender([[1]])
  recommender([[item % 60] for item in range(70)])
  list(recommender.answers(enumerate([b'{', b'{"history": [1]}', b'[]']), 3))
  assert rows == [1, 64, 4, 1, 1, 1]


def test_nothing_is_compiled_after_the_warm_up(script):
  recommender = script.Recommender()
  recommender.warm_up()
  compiled = recommender._search._cache_size()
  assert compiled == 8
  for users in (1, 5, 70):
    recommender([[item % 60 for item in range(length)] for length in range(1, users + 1)])
  recommender([list(range(60)) * 30], exclude_history=True)
  assert recommender._search._cache_size() == compiled


@pytest.mark.parametrize(
  'line',
  [
    *(b'no', b'[1]', b'3', b'null', b'\xff', b'[' * 100_000, '{"history": []}'.encode('utf-16')),
    *(b'{"user": 1}', b'{"history": null}', b'{"history": 3}', b'{"history": "12"}', b'{"history": {"1": 2}}'),
    *(b'{"history": [null]}', b'{"history": [1, 2.0]}', b'{"history": [true]}', b'{"history": [[1]]}'),
    *(b'{"user": 1.5, "history": []}', b'{"user": [], "history": []}', b'{"user": "a", "history": [{}]}'),
    *(b'{"history": []}', b'{"user": null, "history": [10000, "who"]}', b'{"user": 7, "history": ["1", 2, -1]}'),
  ],
)
def test_a_line_is_refused_where_recommend_refuses_it(script, recommender, line):
  expected, found = jsonl.parse(recommender, 3, line), script._parse(3, line)
  assert bool(expected.error) == ('error' in found)
  assert found.get('user') == expected.user and ('expected {"user": ' in found.get('error', '')) == bool(expected.error)
  assert found.get('line') == (3 if expected.error else None)


@pytest.mark.parametrize('arguments', [['0'], ['21'], ['-1'], ['x'], ['5', '5'], ['2.0'], ['']])
def test_wrong_arguments_of_the_script(script, monkeypatch, capsys, arguments):
  monkeypatch.setattr(sys, 'argv', ['recommend.py', *arguments])
  with pytest.raises(SystemExit) as ended:
    script.main()
  (line,) = capsys.readouterr().err.splitlines()
  assert ended.value.code == 2 and 'expected the number of items, 1 to 20' in line


def test_an_export_for_other_platforms_is_named(script, monkeypatch, capsys):
  monkeypatch.setattr(jax, 'default_backend', lambda: 'rocm')
  with pytest.raises(SystemExit) as ended:
    script.main()
  (line,) = capsys.readouterr().err.splitlines()
  assert ended.value.code == 2 and 'search_rocm.stablehlo' in line and 'expected an export for this platform' in line


@pytest.mark.parametrize('platforms', [(), ('gpu',), ('cpu', 'rocm')])
def test_platforms_that_are_not_supported(finished, platforms):
  with pytest.raises(InputError, match='expected some of cpu,cuda,tpu'):
    commands.run('export', finished, commands.Options(platforms=platforms))


def test_a_workdir_without_a_generator(tmp_path):
  with pytest.raises(InputError, match='has no finished semantic_ids'):
    commands.run('export', tmp_path, commands.Options(platforms=('cpu',)))
  assert not list(tmp_path.iterdir())


def test_items_that_share_an_id_are_all_exported(finished, tmp_path):
  """The reference's collisions: the folder lists each item of a leaf, but those of the history."""
  from letter_jax.configuration import MeshConfig
  from letter_jax.serving import export
  from letter_jax.serving.catalogue import Catalogue
  from letter_jax.serving.loaded_generator import LoadedGenerator, serving_config
  from letter_jax.workdir import Workdir

  workdir = Workdir(finished)
  ids = workdir.read_semantic_ids()
  ids.codes_NxL[30:40] = ids.codes_NxL[30]
  loaded = LoadedGenerator.for_serving(workdir, serving_config(workdir, MeshConfig()), ids)
  export.export_search(tmp_path, loaded, Catalogue.of_workdir(workdir, ids), 40, ['cpu'])
  search = jax_export.deserialize((tmp_path / 'search_cpu.stablehlo').read_bytes())
  arrays = {
    name: jax.numpy.asarray(array)
    for name, array in safetensors.numpy.load_file(tmp_path / 'arrays.safetensors').items()
  }
  histories = np.full((1, TINY_RUN['data.history_length']), -1, np.int32)
  histories[0, :2] = [31, 35]
  items, scores = search.call(arrays, histories, np.array([[31, 35]], np.int32), np.arange(60) < 45)
  found = np.asarray(items)[0].tolist()
  shared = [item for item in found if 30 <= item < 40]
  assert shared == [30, 32, 33, 34, 36, 37, 38, 39]
  assert len({np.asarray(scores)[0, found.index(item)] for item in shared}) == 1
  # 36 IDs, 43 items, lists of 40.
  assert len(set(found)) == 40 and set(found) <= set(range(45)) - {31, 35}


def test_the_folder_behind_triton(exported, tmp_path, monkeypatch):
  """By a stand-in for Triton's module: two requests of three lines, one of which is wrong."""
  folder = shutil.copytree(exported, tmp_path / 'letter/1')
  shutil.copy(ROOT / 'launch/triton/letter/1/model.py', folder)
  triton = types.ModuleType('triton_python_backend_utils')
  triton.get_input_tensor_by_name = lambda request, name: types.SimpleNamespace(as_numpy=lambda: request[name])
  triton.Tensor = lambda name, values: (name, values)
  triton.InferenceResponse = lambda output_tensors: dict(output_tensors)
  monkeypatch.setitem(sys.modules, triton.__name__, triton)
  spec = importlib.util.spec_from_file_location('model', folder / 'model.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  model = module.TritonPythonModel()
  model.initialize({})
  requests = [[b'{"user": 1, "history": [1]}', b'no'], [b'{"user": 2, "history": [2]}']]
  first, second = model.execute([{'LINE': np.array(lines, object).reshape(-1, 1)} for lines in requests])
  good, wrong = (json.loads(line) for line in first['ANSWER'].ravel())
  assert good['user'] == 1 and len(good['recommendations']) == 10 and wrong['line'] == 2
  assert json.loads(second['ANSWER'][0, 0])['user'] == 2
