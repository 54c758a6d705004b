"""Reads and writes the weights of Hugging Face T5 models (safetensors)."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict

from letter_jax.configuration import T5Config
from letter_jax.generators.tiger.t5 import T5
from letter_jax.semantic_ids.vocabulary import END, PAD
from letter_jax.system.errors import InputError


def names(config: T5Config) -> dict[tuple[str, ...], tuple[str, bool]]:
  """Path of a parameter of `T5` -> (its Hugging Face name, whether the Hugging Face tensor is [out, in])."""
  table: dict[tuple[str, ...], tuple[str, bool]] = {('embedding',): ('shared.weight', False)}
  parts = {'query': 'q', 'key': 'k', 'value': 'v', 'out': 'o'}
  for stack in ('encoder', 'decoder'):
    attentions = (
      [('attention', 'SelfAttention')]
      if stack == 'encoder'
      else [('self', 'SelfAttention'), ('cross', 'EncDecAttention')]
    )
    for layer in range(config.layers):
      ours, theirs = f'{stack}_{layer}', f'{stack}.block.{layer}.layer'
      for index, (attention, name) in enumerate(attentions):
        module = 'attention' if stack == 'encoder' else f'{attention}_attention'
        for part, letter in parts.items():
          table[ours, module, part] = (f'{theirs}.{index}.{name}.{letter}.weight', True)
        table[ours, f'{attention}_norm', 'scale'] = (f'{theirs}.{index}.layer_norm.weight', False)
      last = len(attentions)
      table[ours, 'feed_forward', 'wi'] = (f'{theirs}.{last}.DenseReluDense.wi.weight', True)
      table[ours, 'feed_forward', 'wo'] = (f'{theirs}.{last}.DenseReluDense.wo.weight', True)
      table[ours, 'feed_forward_norm', 'scale'] = (f'{theirs}.{last}.layer_norm.weight', False)
    table[(f'{stack}_bias',)] = (f'{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight', False)
    table[f'{stack}_norm', 'scale'] = (f'{stack}.final_layer_norm.weight', False)
  return table


def from_hugging_face(tensors: dict[str, np.ndarray], config: T5Config, source: str) -> dict:
  """Parameters of `T5`, float32, from tensors by Hugging Face name.

  Raises:
    InputError: a tensor is missing; the message names `source`.
  """
  params = {}
  for path, (name, transposed) in names(config).items():
    if name not in tensors:
      raise InputError(
        f'{source}: tensor {name} is missing; expected the weights of a Hugging Face T5 with '
        f'{config.layers} + {config.layers} layers'
      )
    value = np.asarray(tensors[name], np.float32)
    params[path] = jnp.asarray(value.T if transposed else value)
  return unflatten_dict(params)


def to_hugging_face(params: dict, config: T5Config) -> dict[str, np.ndarray]:
  """Tensors by Hugging Face name, float32."""
  flat, tensors = flatten_dict(params), {}
  for path, (name, transposed) in names(config).items():
    value = np.asarray(flat[path], np.float32)
    tensors[name] = np.ascontiguousarray(value.T if transposed else value)
  return tensors


def read(path: pathlib.Path, config: T5Config, vocabulary_size: int) -> dict:
  """Parameters of `T5`, float32, from a .safetensors file.

  Raises:
    InputError: the file cannot be read; tensors are missing, have a different shape, or belong to a larger model.
  """
  try:
    tensors = safetensors.numpy.load_file(str(path))
  except (OSError, safetensors.SafetensorError) as error:
    raise InputError(f'{path} cannot be read ({error}); expected a .safetensors file') from error
  beyond = f'.block.{config.layers}.'
  for name in tensors:
    if beyond in name:
      raise InputError(f'{path}: tensor {name} is of a larger model; expected {config.layers} + {config.layers} layers')
  params = from_hugging_face(tensors, config, str(path))
  for name, shape in _shapes(config, vocabulary_size).items():
    if tensors[name].shape != shape:
      raise InputError(f'{path}: tensor {name} is {tensors[name].shape}; expected {shape}')
  return params


def _shapes(config: T5Config, vocabulary_size: int) -> dict[str, tuple[int, ...]]:
  """Shapes by Hugging Face name."""
  tokens, targets = jax.ShapeDtypeStruct((1, 1), jnp.int32), jax.ShapeDtypeStruct((1, 1, 1), jnp.int32)
  init = T5(config, vocabulary_size).init
  params = jax.eval_shape(init, jax.random.key(0), tokens, tokens, targets)['params']
  flat, shapes = flatten_dict(params), {}
  for path, (name, transposed) in names(config).items():
    shape = flat[path].shape
    shapes[name] = shape[::-1] if transposed else shape
  return shapes


def write(path: pathlib.Path, params: dict, config: T5Config) -> None:
  """Writes a .safetensors file that T5ForConditionalGeneration loads."""
  safetensors.numpy.save_file(to_hugging_face(params, config), str(path), metadata={'format': 'pt'})


def hugging_face_config(config: T5Config, vocabulary_size: int) -> dict:
  """`config.json` of the same model, for `T5ForConditionalGeneration.from_pretrained`."""
  return {
    'architectures': ['T5ForConditionalGeneration'],
    'model_type': 't5',
    'is_encoder_decoder': True,
    'vocab_size': vocabulary_size,
    'd_model': config.d_model,
    'd_kv': config.d_kv,
    'd_ff': config.d_ff,
    'num_layers': config.layers,
    'num_decoder_layers': config.layers,
    'num_heads': config.heads,
    'relative_attention_num_buckets': config.relative_buckets,
    'relative_attention_max_distance': config.relative_distance,
    'dropout_rate': config.dropout,
    'layer_norm_epsilon': 1e-6,
    'feed_forward_proj': 'relu',
    'tie_word_embeddings': True,
    'pad_token_id': PAD,
    'decoder_start_token_id': PAD,
    'eos_token_id': END,
  }
