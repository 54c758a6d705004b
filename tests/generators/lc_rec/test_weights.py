import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from letter_jax import sharding
from letter_jax.configuration import MeshConfig
from letter_jax.generators.lc_rec import lora
from letter_jax.generators.lc_rec import weights as llama_weights
from letter_jax.generators.lc_rec.config_json import read_architecture
from letter_jax.generators.lc_rec.llama import Architecture, Llama, RopeScaling
from letter_jax.sharding import Layout, name_of
from letter_jax.system.errors import InputError
from tests.paths import ROOT

pytestmark = pytest.mark.slow

# Every size another number, so that no two can be mistaken for each other; several divide by 4.
LLAMA = Architecture(
  text_vocabulary=16,
  new_tokens=5,
  d_model=8,
  d_ff=20,
  layers=3,
  heads=6,
  kv_heads=2,
  d_head=4,
  rope_theta=500.0,
  rope_scaling=RopeScaling('llama3', 8.0, 1.0, 4.0, 32),
  norm_epsilon=1e-5,
  context=64,
)
QWEN2 = dataclasses.replace(LLAMA, qkv_bias=True, rope_scaling=RopeScaling('linear', 2.0))
QWEN3 = dataclasses.replace(LLAMA, qk_norm=True, tied=True, rope_scaling=None)
ALL = {'llama': LLAMA, 'qwen2': QWEN2, 'qwen3': QWEN3}


def random_params(architecture: Architecture, dtype=jnp.float32) -> dict:
  tokens = jnp.zeros((1, 1), jnp.int32)
  shapes = jax.eval_shape(Llama(architecture).init, jax.random.key(0), tokens, tokens, tokens)['params']
  random = np.random.default_rng(0)
  return jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape), dtype), shapes)


def read(folder, architecture, dtype=jnp.float32, layout=None):
  layout = layout or sharding.on_one_device()
  shardings = layout.of(llama_weights.shapes(architecture, dtype))
  return llama_weights.read(folder, architecture, shardings, dtype)


def assert_same(found, expected):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize('name', ALL)
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_what_is_written_is_read_again(tmp_path, name, dtype):
  params = random_params(ALL[name], dtype)
  llama_weights.write(tmp_path, params, ALL[name], None)
  assert {path.name for path in tmp_path.iterdir()} == {'config.json', 'model.safetensors'}
  assert json.loads((tmp_path / 'config.json').read_text())['vocab_size'] == 21
  architecture = read_architecture(tmp_path, 5, text_vocabulary=16)
  assert architecture == ALL[name]
  found = read(tmp_path, architecture, dtype)
  assert_same(found, lora.split(params, False)[1])
  assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(found))
  # New tokens' rows stand behind the text's.
  whole = read(tmp_path, dataclasses.replace(architecture, text_vocabulary=21), dtype)
  np.testing.assert_array_equal(whole['embedding'][16:], params['new_embedding'])
  if not architecture.tied:
    np.testing.assert_array_equal(whole['head'][:, 16:].T, params['new_head'])


def test_files_are_read_as_another_dtype(tmp_path):
  params = random_params(LLAMA)
  llama_weights.write(tmp_path, params, LLAMA, None)
  rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), lora.split(params, False)[1])
  assert_same(read(tmp_path, LLAMA, jnp.bfloat16), rounded)


def test_a_model_of_several_files(tmp_path, monkeypatch):
  params = random_params(LLAMA)
  monkeypatch.setattr(llama_weights, 'FILE_BYTES', 2000)
  llama_weights.write(tmp_path, params, LLAMA, None)
  index = json.loads((tmp_path / llama_weights.INDEX).read_text())
  files = sorted(set(index['weight_map'].values()))
  assert len(files) > 3 and files[0] == f'model-00001-of-{len(files):05}.safetensors'
  total = 0
  for file in files:
    tensors = safetensors.numpy.load_file(tmp_path / file)
    assert set(tensors) == {name for name, where in index['weight_map'].items() if where == file}
    size = sum(tensor.nbytes for tensor in tensors.values())
    assert size <= 2000 and all(tensor.flags.c_contiguous for tensor in tensors.values())
    total += size
  assert total == index['metadata']['total_size'] == sum(leaf.nbytes for leaf in jax.tree.leaves(params))
  assert_same(read(tmp_path, LLAMA), lora.split(params, False)[1])
  (tmp_path / files[1]).unlink()
  assert files[1] in refusal(lambda: read(tmp_path, LLAMA), tmp_path)


@pytest.mark.parametrize('first, second', [(2000, 5000), (5000, 2000), (10**6, 2000), (2000, 10**6)])
def test_what_was_in_the_folder_before_does_not_count(tmp_path, monkeypatch, first, second):
  other = jax.tree.map(lambda leaf: leaf + 1, random_params(LLAMA))
  for size, params in ((first, other), (second, random_params(LLAMA))):
    monkeypatch.setattr(llama_weights, 'FILE_BYTES', size)
    llama_weights.write(tmp_path, params, LLAMA, None)
  assert (tmp_path / 'model.safetensors').exists() != (tmp_path / llama_weights.INDEX).exists()
  assert_same(read(tmp_path, LLAMA), lora.split(random_params(LLAMA), False)[1])


def test_what_the_architecture_does_not_say_is_taken_from_the_source(tmp_path):
  source = {
    'eos_token_id': 7,
    'vocab_size': 3,
    'dtype': 'float16',
    'quantization_config': {},
    'tie_word_embeddings': 1,
    'rope_parameters': {'rope_theta': 3.0, 'rope_type': 'default'},
  }
  llama_weights.write(tmp_path, random_params(LLAMA, jnp.bfloat16), LLAMA, source)
  config = json.loads((tmp_path / 'config.json').read_text())
  assert config['eos_token_id'] == 7 and config['torch_dtype'] == 'bfloat16'
  assert not {'dtype', 'quantization_config', 'rope_parameters'} & set(config)
  assert read_architecture(tmp_path, 5, 16) == LLAMA


def qwen2_tensors(rows: int) -> dict[str, np.ndarray]:
  """As Qwen2 names and shapes them: outputs in front, biases on queries, keys and values."""
  random = np.random.default_rng(1)
  of_layer = {
    'self_attn.q_proj.weight': (24, 8),
    'self_attn.q_proj.bias': (24,),
    'self_attn.k_proj.weight': (8, 8),
    'self_attn.k_proj.bias': (8,),
    'self_attn.v_proj.weight': (8, 8),
    'self_attn.v_proj.bias': (8,),
    'self_attn.o_proj.weight': (8, 24),
    'mlp.gate_proj.weight': (20, 8),
    'mlp.up_proj.weight': (20, 8),
    'mlp.down_proj.weight': (8, 20),
    'input_layernorm.weight': (8,),
    'post_attention_layernorm.weight': (8,),
  }
  shapes = {
    'model.embed_tokens.weight': (rows, 8),
    'lm_head.weight': (rows, 8),
    'model.norm.weight': (8,),
    **{f'model.layers.{layer}.{name}': shape for layer in range(3) for name, shape in of_layer.items()},
  }
  return {name: random.normal(size=shape).astype(ml_dtypes.bfloat16) for name, shape in shapes.items()}


QWEN2_CONFIG = {
  'architectures': ['Qwen2ForCausalLM'],
  'hidden_size': 8,
  'intermediate_size': 20,
  'vocab_size': 19,
  'num_hidden_layers': 3,
  'num_attention_heads': 6,
  'num_key_value_heads': 2,
  'head_dim': 4,
  'rms_norm_eps': 1e-5,
  'max_position_embeddings': 64,
  'sliding_window': 4,
  'use_sliding_window': False,
}


def folder_of(folder, config, tensors=None):
  folder.mkdir(exist_ok=True)
  (folder / 'config.json').write_text(json.dumps(config))
  if tensors is not None:
    safetensors.numpy.save_file(tensors, folder / 'model.safetensors')
  return folder


@pytest.fixture
def qwen2(tmp_path):
  return folder_of(tmp_path / 'qwen2', QWEN2_CONFIG, qwen2_tensors(19))


def test_a_folder_of_qwen2_whose_tables_are_longer_than_its_tokenizer(qwen2):
  tensors = qwen2_tensors(19)
  architecture = read_architecture(qwen2, 5, text_vocabulary=16)
  params = read(qwen2, architecture, jnp.bfloat16)
  np.testing.assert_array_equal(params['embedding'], tensors['model.embed_tokens.weight'][:16])
  np.testing.assert_array_equal(params['head'], tensors['lm_head.weight'][:16].T)
  attention, feed_forward = params['layers']['attention'], params['layers']['feed_forward']
  for layer in range(3):
    of_layer = lambda name, layer=layer: tensors[f'model.layers.{layer}.{name}']
    for part in ('query', 'key', 'value'):
      np.testing.assert_array_equal(attention[part]['kernel'][layer], of_layer(f'self_attn.{part[0]}_proj.weight').T)
      np.testing.assert_array_equal(attention[part]['bias'][layer], of_layer(f'self_attn.{part[0]}_proj.bias'))
    np.testing.assert_array_equal(attention['out']['kernel'][layer], of_layer('self_attn.o_proj.weight').T)
    for part in ('gate', 'up', 'down'):
      np.testing.assert_array_equal(feed_forward[part]['kernel'][layer], of_layer(f'mlp.{part}_proj.weight').T)
    for ours, theirs in (('attention', 'input'), ('feed_forward', 'post_attention')):
      scale = params['layers'][f'{ours}_norm']['scale'][layer]
      np.testing.assert_array_equal(scale, of_layer(f'{theirs}_layernorm.weight'))
  np.testing.assert_array_equal(params['norm']['scale'], tensors['model.norm.weight'])
  expected = dataclasses.replace(QWEN2, rope_theta=10000.0, rope_scaling=None)
  assert architecture == expected
  assert read_architecture(qwen2, 5) == dataclasses.replace(expected, text_vocabulary=19)


def refusal(call, path) -> str:
  with pytest.raises(InputError) as caught:
    call()
  message = str(caught.value)
  assert str(path) in message and 'expected' in message and '\n' not in message
  return message


@pytest.mark.parametrize(
  'name', ['model.embed_tokens.weight', 'model.layers.2.self_attn.v_proj.bias', 'lm_head.weight']
)
def test_a_missing_tensor_is_named(tmp_path, name):
  tensors = qwen2_tensors(19)
  shape = list(tensors.pop(name).shape)
  folder_of(tmp_path, QWEN2_CONFIG, tensors)
  message = refusal(lambda: read(tmp_path, read_architecture(tmp_path, 5)), tmp_path)
  assert name in message and str(shape) in message


@pytest.mark.parametrize(
  'name', ['model.embed_tokens.weight', 'lm_head.weight', 'model.norm.weight', 'model.layers.1.mlp.down_proj.weight']
)
@pytest.mark.parametrize('axis', [0, -1])
def test_a_tensor_of_another_shape_is_named_with_both(tmp_path, name, axis):
  tensors = qwen2_tensors(19)
  right = list(tensors[name].shape)
  tensors[name] = np.ascontiguousarray(np.delete(tensors[name], 0, axis))
  folder_of(tmp_path, QWEN2_CONFIG, tensors)
  message = refusal(lambda: read(tmp_path, read_architecture(tmp_path, 5)), tmp_path)
  assert name in message and str(right) in message and str(list(tensors[name].shape)) in message


def test_tensors_that_are_not_used_are_named(tmp_path, capsys):
  tensors = qwen2_tensors(19)
  check = lambda: llama_weights.check(tmp_path, read_architecture(tmp_path, 5))
  folder_of(tmp_path, QWEN2_CONFIG, tensors)
  check()
  assert capsys.readouterr().out == ''
  for layer in range(3):
    tensors[f'model.layers.{layer}.self_attn.rotary_emb.inv_freq'] = np.ones(2, np.float32)
  tensors['model.layers.1.self_attn.o_proj.bias'] = np.ones(8, np.float32)
  folder_of(tmp_path, {**QWEN2_CONFIG, 'tie_word_embeddings': True}, tensors)
  check()
  (line,) = capsys.readouterr().out.splitlines()
  names = 'lm_head.weight, model.layers.*.self_attn.rotary_emb.inv_freq, model.layers.1.self_attn.o_proj.bias'
  assert set(line.partition('not used: ')[2].split(', ')) == set(names.split(', ')) and str(tmp_path) in line


def test_a_larger_model_and_files_that_are_none_are_refused(qwen2, tmp_path):
  fewer = dataclasses.replace(read_architecture(qwen2, 5), layers=2)
  assert 'model.layers.2.' in refusal(lambda: read(qwen2, fewer), qwen2)
  (qwen2 / 'model.safetensors').write_bytes(b'nothing of the kind')
  refusal(lambda: read(qwen2, fewer), qwen2 / 'model.safetensors')
  (qwen2 / 'model.safetensors').unlink()
  assert 'model.safetensors' in refusal(lambda: read(qwen2, fewer), qwen2)
  (qwen2 / llama_weights.INDEX).write_text('{}')
  refusal(lambda: read(qwen2, fewer), qwen2 / llama_weights.INDEX)


RULES = (
  ('embedding', ('model', 'data')),
  ('head', ('data', 'model')),
  ('(query|key|value|gate|up)/kernel', ('', 'data', 'model')),
  ('(out|down)/kernel', ('', 'model', 'data')),
  ('(query|key|value)/bias', ('data', 'model')),
  ('feed_forward_norm/scale', ('data', '')),
)
ON_EIGHT = dataclasses.replace(QWEN2, layers=4)  # which can be split, too


def read_on_eight_devices(folder: pathlib.Path) -> None:
  """Run by the test below: the same arrays, laid out as the rules say, and no read of more than its device holds."""
  read_sizes, opened = [], safetensors.safe_open

  class Spied:
    def __init__(self, tensor):
      self.tensor, self.get_shape, self.get_dtype = tensor, tensor.get_shape, tensor.get_dtype

    def __getitem__(self, index):
      part = self.tensor[index]
      read_sizes.append(part.size)
      return part

  class Opened:
    def __init__(self, *arguments, **options):
      self.file = opened(*arguments, **options)
      self.keys = self.file.keys

    def __enter__(self):
      return self

    def __exit__(self, *error):
      pass

    def get_slice(self, name):
      return Spied(self.file.get_slice(name))

  safetensors.safe_open = Opened
  expected = lora.split(random_params(ON_EIGHT), False)[1]
  for axes in ((2, 4), (8, 1), (1, 8), (4, 2)):
    layout = Layout(sharding.make_mesh(MeshConfig(*axes)), RULES, fully_sharded=True)
    read_sizes.clear()
    found = read(folder, ON_EIGHT, jnp.float32, layout)
    assert jax.tree.all(jax.tree.map(lambda leaf, wanted: leaf.sharding == wanted, found, layout.of(found)))
    assert_same(jax.device_get(found), jax.device_get(expected))
    largest = max(
      shard.data[:1].size if 'layers' in name_of(path) else shard.data.size
      for path, leaf in jax.tree_util.tree_leaves_with_path(found)
      for shard in leaf.addressable_shards
    )
    assert max(read_sizes) == largest
    if axes == (2, 4):
      assert largest == 6 * 4  # of query and out, which have 24 * 8
  print(jax.device_count(), 'devices read the same')


def test_eight_devices_read_what_one_reads_each_its_part(tmp_path):
  llama_weights.write(tmp_path, random_params(ON_EIGHT), ON_EIGHT, None)
  flags = f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count=8'
  program = (
    'import pathlib, sys; from tests.generators.lc_rec import test_weights as here; '
    'here.read_on_eight_devices(pathlib.Path(sys.argv[1]))'
  )
  done = subprocess.run(
    [sys.executable, '-c', program, str(tmp_path)],
    capture_output=True,
    text=True,
    cwd=ROOT,
    env={**os.environ, 'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'},
  )
  assert done.returncode == 0, done.stderr[-2000:]
  assert done.stdout.strip() == '8 devices read the same'
