"""The architecture in config.json, against what transformers writes and leaves out."""

import pytest

from letter_jax.generators.lc_rec.config_json import read_architecture
from letter_jax.generators.lc_rec.llama import Architecture
from tests.generators.lc_rec.test_weights import LLAMA, QWEN2, QWEN2_CONFIG, folder_of, refusal


@pytest.mark.parametrize(
  'kind, expected',
  [
    ('Llama', Architecture(32000, 1, 4096, 11008, 32, 32, 32, 128)),
    ('Qwen2', Architecture(151936, 1, 4096, 22016, 32, 32, 32, 128, qkv_bias=True, context=32768)),
    ('Qwen3', Architecture(151936, 1, 4096, 22016, 32, 32, 32, 128, qk_norm=True, context=32768)),
  ],
)
def test_what_the_configuration_leaves_out_is_as_transformers_has_it(tmp_path, kind, expected):
  folder_of(tmp_path, {'architectures': [f'{kind}ForCausalLM'], 'head_dim': None})
  assert read_architecture(tmp_path, 1) == expected


LLAMA3 = {'factor': 8.0, 'low_freq_factor': 1.0, 'high_freq_factor': 4.0, 'original_max_position_embeddings': 32}


@pytest.mark.parametrize(
  'rope, expected',
  [
    ({}, (10000.0, None)),
    ({'rope_theta': 500.0, 'rope_scaling': None}, (500.0, None)),
    ({'rope_theta': 500.0, 'rope_scaling': {'type': 'linear', 'factor': 2}}, (500.0, QWEN2.rope_scaling)),
    ({'rope_theta': 500.0, 'rope_scaling': {'rope_type': 'llama3', **LLAMA3}}, (500.0, LLAMA.rope_scaling)),
    ({'rope_parameters': {'rope_theta': 500.0, 'rope_type': 'default'}}, (500.0, None)),
    ({'rope_parameters': {'rope_theta': 500.0, 'rope_type': 'llama3', **LLAMA3}}, (500.0, LLAMA.rope_scaling)),
  ],
)
def test_scaled_positions_of_old_and_new_configurations(tmp_path, rope, expected):
  folder_of(tmp_path, {'architectures': ['LlamaForCausalLM'], **rope})
  found = read_architecture(tmp_path, 1)
  assert (found.rope_theta, found.rope_scaling) == expected


@pytest.mark.parametrize(
  'change, said',
  [
    ({'architectures': ['MistralForCausalLM']}, ['MistralForCausalLM', 'LlamaForCausalLM', 'Qwen3ForCausalLM']),
    ({'architectures': None}, ['None', 'Qwen2ForCausalLM']),
    ({'rope_scaling': {'rope_type': 'yarn', 'factor': 2.0}}, ["'yarn'", "'llama3'"]),
    ({'rope_scaling': {'rope_type': 'linear'}}, ["'linear'", "'factor'"]),
    ({'attention_bias': True}, ['attention_bias is True', 'False']),
    ({'use_sliding_window': True}, ['use_sliding_window is True']),
    ({'hidden_act': 'gelu'}, ["hidden_act is 'gelu'", "'silu'"]),
  ],
)
def test_a_model_that_cannot_be_computed_is_refused(tmp_path, change, said):
  folder_of(tmp_path, {**QWEN2_CONFIG, **change})
  message = refusal(lambda: read_architecture(tmp_path, 5), tmp_path / 'config.json')
  assert all(part in message for part in said), message


def test_what_is_no_model_is_refused(tmp_path):
  path = tmp_path / 'config.json'
  refused = lambda: refusal(lambda: read_architecture(tmp_path, 5), path)
  refused()
  for content in ('{"architectures"', '[]'):
    path.write_text(content)
    refused()


def test_a_tokenizer_larger_than_the_model_is_refused(tmp_path):
  folder_of(tmp_path, QWEN2_CONFIG)
  message = refusal(lambda: read_architecture(tmp_path, 5, 20), tmp_path / 'config.json')
  assert '19' in message and '20' in message
