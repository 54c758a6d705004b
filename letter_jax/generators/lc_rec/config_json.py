"""config.json of a Hugging Face folder: the architecture of a model of the LLaMA family, read and written."""

import json
import pathlib
from typing import Any

from letter_jax.generators.lc_rec.llama import Architecture
from letter_jax.generators.lc_rec.rope import read_rope
from letter_jax.system.errors import InputError
from letter_jax.system.wording import counted

NAME = 'config.json'

# The defaults of transformers for keys that config.json lacks.
_LLAMA = dict(
  vocab_size=32000,
  hidden_size=4096,
  intermediate_size=11008,
  num_hidden_layers=32,
  num_attention_heads=32,
  max_position_embeddings=2048,
  rms_norm_eps=1e-6,
  hidden_act='silu',
)
_QWEN = {
  **_LLAMA,
  'vocab_size': 151936,
  'intermediate_size': 22016,
  'max_position_embeddings': 32768,
  'num_key_value_heads': 32,
}
DEFAULTS = {'LlamaForCausalLM': _LLAMA, 'Qwen2ForCausalLM': _QWEN, 'Qwen3ForCausalLM': {**_QWEN, 'head_dim': 128}}


def read_architecture(folder: pathlib.Path, new_tokens: int, text_vocabulary: int | None = None) -> Architecture:
  """The architecture that a folder's config.json describes.

  Args:
    folder: of a Hugging Face model.
    new_tokens: N.
    text_vocabulary: V, the tokenizer's size; rows beyond it, which some models have, are ignored. None: as in
      config.json.

  Raises:
    InputError: not a model, or one that is not supported.
  """
  path = folder / NAME
  given = read_json(path, 'the folder of a Hugging Face model')
  kinds = given.get('architectures')
  kind = kinds[0] if isinstance(kinds, list) and kinds else kinds
  if not isinstance(kind, str) or kind not in DEFAULTS:
    raise InputError(f'{path}: architecture {kind}; expected one of {", ".join(DEFAULTS)}')
  config = {**DEFAULTS[kind], **{name: value for name, value in given.items() if value is not None}}
  # Features of the architecture that no widely used model has.
  for name, expected in (
    ('hidden_act', 'silu'),
    ('attention_bias', False),
    ('mlp_bias', False),
    ('use_sliding_window', False),
    ('quantization_config', None),
  ):
    if config.get(name, expected) != expected:
      raise InputError(f'{path}: {name} is {config[name]!r}; expected {expected!r}')
  config.setdefault('num_key_value_heads', config['num_attention_heads'])
  for name in (
    'vocab_size',
    'hidden_size',
    'intermediate_size',
    'num_hidden_layers',
    'num_attention_heads',
    'num_key_value_heads',
    'max_position_embeddings',
    'head_dim',
  ):
    if type(config.get(name, 1)) is not int or config.get(name, 1) < 1:
      raise InputError(f'{path}: {name} is {config[name]!r}; expected an integer of at least 1')
  epsilon = config['rms_norm_eps']
  if not isinstance(epsilon, int | float) or not epsilon > 0:
    raise InputError(f'{path}: rms_norm_eps is {epsilon!r}; expected a number above 0')
  heads, rows = config['num_attention_heads'], config['vocab_size']
  text_vocabulary = rows if text_vocabulary is None else text_vocabulary
  if text_vocabulary > rows:
    raise InputError(
      f'{path}: vocab_size is {rows}, and the tokenizer has {text_vocabulary} tokens; expected the '
      'tokenizer of this model'
    )
  d_head = config.get('head_dim', config['hidden_size'] // heads)
  if heads % config['num_key_value_heads'] or d_head % 2 or not d_head:
    raise InputError(
      f'{path}: {counted(heads, "head")}, {config["num_key_value_heads"]} of keys and values, of width {d_head}; '
      'expected a divisor of the heads, and an even width'
    )
  theta, scaling = read_rope(path, given, config['max_position_embeddings'])
  return Architecture(
    text_vocabulary=text_vocabulary,
    new_tokens=new_tokens,
    d_model=config['hidden_size'],
    d_ff=config['intermediate_size'],
    layers=config['num_hidden_layers'],
    heads=heads,
    kv_heads=config['num_key_value_heads'],
    d_head=d_head,
    norm_epsilon=epsilon,
    rope_theta=theta,
    rope_scaling=scaling,
    qkv_bias=kind == 'Qwen2ForCausalLM',
    qk_norm=kind == 'Qwen3ForCausalLM',
    tied=config.get('tie_word_embeddings', False),
    context=config['max_position_embeddings'],
  )


def of_architecture(architecture: Architecture, dtype: str, source_config: dict | None) -> dict:
  """The content of config.json.

  Args:
    architecture: of the model.
    dtype: of its weights, such as 'bfloat16'.
    source_config: as for `weights.write`.
  """
  kind = 'Qwen3' if architecture.qk_norm else 'Qwen2' if architecture.qkv_bias else 'Llama'
  scaling = architecture.rope_scaling
  rope: dict[str, Any] | None = None if scaling is None else {'rope_type': scaling.kind, 'factor': scaling.factor}
  if rope is not None and scaling is not None and scaling.kind == 'llama3':
    rope |= {
      'low_freq_factor': scaling.low_frequency_factor,
      'high_freq_factor': scaling.high_frequency_factor,
      'original_max_position_embeddings': scaling.original_context,
    }
  replaced = ('rope_parameters', 'dtype', 'quantization_config')
  return {
    **{name: value for name, value in (source_config or {}).items() if name not in replaced},
    'architectures': [f'{kind}ForCausalLM'],
    'model_type': kind.lower(),
    'vocab_size': architecture.vocabulary,
    'hidden_size': architecture.d_model,
    'intermediate_size': architecture.d_ff,
    'num_hidden_layers': architecture.layers,
    'num_attention_heads': architecture.heads,
    'num_key_value_heads': architecture.kv_heads,
    'head_dim': architecture.d_head,
    'hidden_act': 'silu',
    'rms_norm_eps': architecture.norm_epsilon,
    'rope_theta': architecture.rope_theta,
    'rope_scaling': rope,
    'tie_word_embeddings': architecture.tied,
    'max_position_embeddings': architecture.context,
    'torch_dtype': dtype,
  }


def read_json(path: pathlib.Path, expected: str) -> dict:
  """The object in a JSON file; InputError that says what was `expected` where there is none."""
  try:
    content = json.loads(path.read_text(encoding='utf-8'))
  except (OSError, ValueError) as error:
    raise InputError(f'{path} cannot be read ({error}); expected {expected}') from error
  if not isinstance(content, dict):
    raise InputError(f'{path} is not a JSON object; expected {expected}')
  return content
