"""Rotary positions of a config.json are those of transformers 5, or are refused."""

import json
import pathlib

import numpy as np
import pytest

from letter_jax.generators.lc_rec import config_json
from letter_jax.generators.lc_rec.llama import RopeScaling, rotary_frequencies
from letter_jax.system.errors import InputError

KINDS = ('Llama', 'Qwen2', 'Qwen3')
SIZES = {
  'vocab_size': 300,
  'hidden_size': 32,
  'intermediate_size': 64,
  'num_hidden_layers': 2,
  'num_attention_heads': 4,
  'num_key_value_heads': 2,
  'head_dim': 8,
  'max_position_embeddings': 512,
}
LINEAR = {'rope_type': 'linear', 'factor': 4.0}
LLAMA3 = {'rope_type': 'llama3', 'factor': 8.0, 'low_freq_factor': 1.0, 'high_freq_factor': 4.0}
PLAIN = {'rope_type': 'default', 'rope_theta': 500.0}

READ = [
  ({}, 10000.0, None),
  ({'rope_theta': 500, 'rope_scaling': None, 'rope_parameters': None}, 500.0, None),
  ({'rope_parameters': PLAIN, 'rope_theta': 20.0}, 500.0, None),
  ({'rope_parameters': PLAIN, 'rope_theta': None}, 500.0, None),
  ({'rope_parameters': {'rope_theta': 500.0}}, 500.0, None),
  ({'rope_parameters': {**PLAIN, 'type': 'linear', 'factor': 2}}, 500.0, None),
  ({'rope_parameters': {'type': 'linear', 'factor': 4}}, 10000.0, RopeScaling('linear', 4.0)),
  ({'rope_parameters': {**PLAIN, 'partial_rotary_factor': 1.0}}, 500.0, None),
  ({'rope_parameters': LINEAR, 'rope_scaling': {}}, 10000.0, RopeScaling('linear', 4.0)),
  # Both: the older key counts alone.
  ({'rope_parameters': PLAIN, 'rope_scaling': LINEAR}, 10000.0, RopeScaling('linear', 4.0)),
  ({'rope_parameters': PLAIN, 'rope_scaling': LINEAR, 'rope_theta': 20.0}, 20.0, RopeScaling('linear', 4.0)),
  ({'rope_parameters': LINEAR, 'rope_scaling': {'rope_type': 'default', 'rope_theta': 77.0}}, 77.0, None),
  # Without the original context it is the model's.
  ({'rope_scaling': LLAMA3}, 10000.0, RopeScaling('llama3', 8.0, 1.0, 4.0, 512)),
  (
    {'rope_scaling': {**LLAMA3, 'original_max_position_embeddings': 128}},
    10000.0,
    RopeScaling('llama3', 8.0, 1.0, 4.0, 128),
  ),
  (
    {'rope_scaling': {**LLAMA3, 'original_max_position_embeddings': 128}, 'original_max_position_embeddings': 64},
    10000.0,
    RopeScaling('llama3', 8.0, 1.0, 4.0, 64),
  ),
]
REFUSED = [
  ({'rope_parameters': PLAIN, 'rope_scaling': {'rope_type': 'yarn', 'factor': 4.0}}, "'yarn'"),
  ({'rope_scaling': {'rope_type': 'dynamic', 'factor': 4.0}}, "'dynamic'"),
  ({'rope_scaling': {'rope_type': None, 'factor': 4.0}}, 'None'),
  ({'rope_parameters': {**PLAIN, 'partial_rotary_factor': 0.5}}, 'partial_rotary_factor is 0.5'),
  ({'rope_parameters': {**LINEAR, 'partial_rotary_factor': 0.5}}, 'partial_rotary_factor is 0.5'),
  ({'partial_rotary_factor': 0.25}, 'partial_rotary_factor is 0.25'),
  ({'rope_parameters': {'full_attention': LINEAR, 'sliding_attention': PLAIN}}, "'full_attention'"),
  ({'rope_scaling': {**LINEAR, 'sliding_attention': PLAIN}}, "rope_scaling has 'sliding_attention'"),
  ({'rope_scaling': {'rope_type': 'linear'}}, "'factor' is None"),
  ({'rope_scaling': {**LINEAR, 'factor': '4'}}, "'factor' is '4'"),
  ({'rope_scaling': {**LINEAR, 'factor': True}}, "'factor' is True"),
  ({'rope_scaling': {**LINEAR, 'factor': 0}}, "'factor' is 0"),
  ({'rope_scaling': {**LINEAR, 'factor': float('nan')}}, "'factor' is nan"),
  ({'rope_scaling': {**LLAMA3, 'low_freq_factor': 4.0}}, 'low_freq_factor is 4.0'),
  (
    {'rope_scaling': {**LLAMA3, 'original_max_position_embeddings': 128.5}},
    'original_max_position_embeddings is 128.5',
  ),
  ({'rope_scaling': {**LLAMA3, 'original_max_position_embeddings': None}}, 'original_max_position_embeddings is None'),
  ({'rope_scaling': 'linear'}, "rope_scaling is 'linear'"),
  ({'rope_parameters': [LINEAR]}, 'rope_parameters is'),
  ({'rope_theta': None}, 'rope_theta is None'),
  ({'rope_theta': '500'}, "rope_theta is '500'"),
  ({'rope_theta': 500.0, 'rope_parameters': {'rope_theta': None}}, 'rope_theta is None'),
  ({'rope_parameters': {'rope_theta': -1}}, 'rope_theta is -1'),
]


def write_config(folder: pathlib.Path, kind: str, rope: dict) -> None:
  config = {**SIZES, 'architectures': [f'{kind}ForCausalLM'], 'model_type': kind.lower(), **rope}
  (folder / 'config.json').write_text(json.dumps(config))


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('rope, theta, scaling', READ)
def test_positions_that_are_read(tmp_path, kind, rope, theta, scaling):
  write_config(tmp_path, kind, rope)
  found = config_json.read_architecture(tmp_path, 1)
  assert (found.rope_theta, found.rope_scaling) == (theta, scaling)


@pytest.mark.parametrize('rope, said', REFUSED)
def test_positions_that_are_refused(tmp_path, rope, said):
  write_config(tmp_path, 'Llama', rope)
  with pytest.raises(InputError) as caught:
    config_json.read_architecture(tmp_path, 1)
  message = str(caught.value)
  assert f'{tmp_path / "config.json"}: ' in message and said in message and 'expected' in message


@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
def test_transformers_reads_the_same(tmp_path, kind):
  transformers = pytest.importorskip('transformers', '5')
  model = pytest.importorskip(f'transformers.models.{kind.lower()}.modeling_{kind.lower()}')
  for rope, _, _ in READ:
    write_config(tmp_path, kind, rope)
    theirs = getattr(model, f'{kind}RotaryEmbedding')(transformers.AutoConfig.from_pretrained(tmp_path))
    ours = rotary_frequencies(config_json.read_architecture(tmp_path, 1))
    np.testing.assert_allclose(ours, theirs.inv_freq, rtol=1e-6, err_msg=str(rope))
    assert theirs.attention_scaling == 1
