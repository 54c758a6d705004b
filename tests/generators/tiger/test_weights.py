import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from letter_jax.configuration import T5Config
from letter_jax.generators.tiger import weights as t5_weights
from letter_jax.generators.tiger.t5 import T5
from letter_jax.system.errors import InputError
from tests.paths import GOLDEN

# 2 layers; every size another number, so that no two can be mistaken for each other.
CONFIG = T5Config(d_model=6, d_kv=5, d_ff=11, layers=2, heads=3, relative_buckets=8)
VOCABULARY_SIZE = 14
T5_GOLDEN = GOLDEN / 't5_reference.npz'


def random_params(config, vocabulary_size):
  tokens = jnp.zeros((1, 1), jnp.int32)
  init = T5(config, vocabulary_size).init
  shapes = jax.eval_shape(init, jax.random.key(0), tokens, tokens, tokens[:, None])['params']
  random = np.random.default_rng(0)
  return jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(np.float32), shapes)


@pytest.fixture(scope='module')
def params():
  return random_params(CONFIG, VOCABULARY_SIZE)


def test_what_is_written_is_read_again(params, tmp_path):
  t5_weights.write(tmp_path / 'model.safetensors', params, CONFIG)
  again = t5_weights.read(tmp_path / 'model.safetensors', CONFIG, VOCABULARY_SIZE)
  assert jax.tree.structure(again) == jax.tree.structure(params)
  jax.tree.map(np.testing.assert_array_equal, again, params)
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(again))


def test_tensors_have_the_names_and_the_shapes_of_hugging_face():
  with np.load(T5_GOLDEN) as golden:
    expected = {name.removeprefix('param/'): golden[name].shape for name in golden if name.startswith('param/')}
    vocabulary_size, d_model, d_kv, d_ff, layers, heads = golden['config'].tolist()
  config = T5Config(d_model=d_model, d_kv=d_kv, d_ff=d_ff, layers=layers, heads=heads)
  tensors = t5_weights.to_hugging_face(random_params(config, vocabulary_size), config)
  assert {name: tensor.shape for name, tensor in tensors.items()} == expected


def changed(params, tmp_path, change):
  """A file whose tensors were changed, its path."""
  tensors = t5_weights.to_hugging_face(params, CONFIG)
  change(tensors)
  path = tmp_path / 'changed.safetensors'
  safetensors.numpy.save_file(tensors, str(path))
  return path


def refusal(path, config=CONFIG, vocabulary_size=VOCABULARY_SIZE):
  with pytest.raises(InputError) as caught:
    t5_weights.read(path, config, vocabulary_size)
  message = str(caught.value)
  assert str(path) in message and 'expected' in message and '\n' not in message
  return message


@pytest.mark.parametrize(
  'name', ['shared.weight', 'decoder.final_layer_norm.weight', 'decoder.block.1.layer.1.EncDecAttention.k.weight']
)
def test_a_missing_tensor_is_named(params, tmp_path, name):
  assert name in refusal(changed(params, tmp_path, lambda tensors: tensors.pop(name)))


@pytest.mark.parametrize(
  'name',
  [
    'shared.weight',
    'decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight',
    'encoder.block.1.layer.1.DenseReluDense.wo.weight',
    'decoder.block.1.layer.2.layer_norm.weight',
  ],
)
def test_a_tensor_of_another_size_is_named_with_both(params, tmp_path, name):
  shapes = {}

  def cut(tensors):
    shapes['right'], tensors[name] = tensors[name].shape, np.ascontiguousarray(tensors[name][:-1])
    shapes['wrong'] = tensors[name].shape

  message = refusal(changed(params, tmp_path, cut))
  assert name in message and str(shapes['right']) in message and str(shapes['wrong']) in message


def test_weights_of_another_model_are_refused(params, tmp_path):
  path = changed(params, tmp_path, lambda tensors: None)
  assert 'shared.weight' in refusal(path, vocabulary_size=VOCABULARY_SIZE + 1)
  assert 'encoder.block.2.' in refusal(path, dataclasses.replace(CONFIG, layers=3))
  assert '.block.1.' in refusal(path, dataclasses.replace(CONFIG, layers=1))
  # as many columns in all, but other heads
  assert 'relative_attention_bias' in refusal(path, dataclasses.replace(CONFIG, heads=5, d_kv=3))


@pytest.mark.parametrize('content', [b'', b'not safetensors at all', b'\x10' + bytes(7) + b'{"a": 1}'])
def test_what_is_no_safetensors_file_is_refused(tmp_path, content):
  (tmp_path / 'model.safetensors').write_bytes(content)
  refusal(tmp_path / 'model.safetensors')


def test_a_file_that_is_not_there_is_refused(tmp_path):
  refusal(tmp_path / 'nowhere.safetensors')
  refusal(tmp_path)
