"""Reads and writes Hugging Face folders (config.json and safetensors) of models of the LLaMA family.

A model is read directly onto the mesh: each device's part of each array is cut out of the files, so that no host ever
holds the whole model; it is written in files of at most 5 GB.
"""

import contextlib
import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from letter_jax import sharding
from letter_jax.generators.lc_rec import lora
from letter_jax.generators.lc_rec.llama import Architecture, Llama, RopeScaling
from letter_jax.system import artifacts, processes
from letter_jax.system.errors import InputError

INDEX = 'model.safetensors.index.json'
FILE_BYTES = 5 * 10**9

# The defaults of transformers for keys that config.json lacks.
_LLAMA = dict(
  vocab_size=32000,
  hidden_size=4096,
  intermediate_size=11008,
  num_hidden_layers=32,
  num_attention_heads=32,
  max_position_embeddings=2048,
  rms_norm_eps=1e-6,
  rope_theta=10000.0,
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
  path = folder / 'config.json'
  given = _read_json(path, 'the folder of a Hugging Face model')
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
  for name in ('rms_norm_eps', 'rope_theta'):
    if not isinstance(config[name], int | float) or not config[name] > 0:
      raise InputError(f'{path}: {name} is {config[name]!r}; expected a number above 0')
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
      f'{path}: {heads} heads, {config["num_key_value_heads"]} of keys and values, of width {d_head}; '
      'expected a divisor of the heads, and an even width'
    )
  theta, scaling = _rope(path, config)
  return Architecture(
    text_vocabulary=text_vocabulary,
    new_tokens=new_tokens,
    d_model=config['hidden_size'],
    d_ff=config['intermediate_size'],
    layers=config['num_hidden_layers'],
    heads=heads,
    kv_heads=config['num_key_value_heads'],
    d_head=d_head,
    norm_epsilon=config['rms_norm_eps'],
    rope_theta=theta,
    rope_scaling=scaling,
    qkv_bias=kind == 'Qwen2ForCausalLM',
    qk_norm=kind == 'Qwen3ForCausalLM',
    tied=config.get('tie_word_embeddings', False),
    context=config['max_position_embeddings'],
  )


def _rope(path: pathlib.Path, config: dict) -> tuple[float, RopeScaling | None]:
  """(theta, scaling): from 'rope_parameters' (transformers 5), or 'rope_theta' and 'rope_scaling' (before)."""
  rope = config.get('rope_parameters') or config.get('rope_scaling') or {}
  try:
    theta = float(rope.get('rope_theta', config['rope_theta']))
    kind = rope.get('rope_type', rope.get('type', 'default'))
    if kind == 'default':
      return theta, None
    if kind == 'linear':
      return theta, RopeScaling('linear', float(rope['factor']))
    if kind == 'llama3':
      return theta, RopeScaling(
        'llama3',
        float(rope['factor']),
        float(rope['low_freq_factor']),
        float(rope['high_freq_factor']),
        int(rope['original_max_position_embeddings']),
      )
  except KeyError as error:
    raise InputError(f'{path}: positions are scaled as {kind!r} without {error}; expected a number') from error
  except (AttributeError, TypeError, ValueError) as error:
    raise InputError(f'{path}: positions are scaled by {rope!r} ({error}); expected numbers') from error
  raise InputError(f"{path}: positions are scaled as {kind!r}; expected 'default', 'linear' or 'llama3'")


def names(architecture: Architecture) -> dict[str, tuple[str, bool]]:
  """Name of a parameter of `Llama` -> (Hugging Face name, {} for the layer; whether that tensor is [out, in])."""
  table = {'embedding': ('model.embed_tokens.weight', False), 'norm/scale': ('model.norm.weight', False)}
  if not architecture.tied:
    table['head'] = ('lm_head.weight', True)
  ours, theirs = 'layers/', 'model.layers.{}.'
  for part, letter in (('query', 'q'), ('key', 'k'), ('value', 'v'), ('out', 'o')):
    table[f'{ours}attention/{part}/kernel'] = (f'{theirs}self_attn.{letter}_proj.weight', True)
    if architecture.qkv_bias and part != 'out':
      table[f'{ours}attention/{part}/bias'] = (f'{theirs}self_attn.{letter}_proj.bias', False)
    if architecture.qk_norm and part in ('query', 'key'):
      table[f'{ours}attention/{part}_norm/scale'] = (f'{theirs}self_attn.{letter}_norm.weight', False)
  for part in ('gate', 'up', 'down'):
    table[f'{ours}feed_forward/{part}/kernel'] = (f'{theirs}mlp.{part}_proj.weight', True)
  table[f'{ours}attention_norm/scale'] = (f'{theirs}input_layernorm.weight', False)
  table[f'{ours}feed_forward_norm/scale'] = (f'{theirs}post_attention_layernorm.weight', False)
  return table


def shapes(architecture: Architecture, dtype: jax.typing.DTypeLike) -> dict:
  """Shapes of the result of `read`, for `Layout.of`: the model without adapters and without the new tokens' rows."""
  tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
  params = jax.eval_shape(Llama(architecture).init, jax.random.key(0), tokens, tokens, tokens)['params']
  return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), lora.split(params, False)[1])


def read(folder: pathlib.Path, architecture: Architecture, shardings: dict, dtype: jax.typing.DTypeLike) -> dict:
  """The base's parameters, each array with its sharding.

  Args:
    folder: of a Hugging Face model, one file or several.
    architecture: of `read_architecture`.
    shardings: a tree like `shapes(architecture, dtype)`, for instance `Layout.of` of it.
    dtype: of all parameters; the files may have a different one.

  Raises:
    InputError: a file or tensor is missing, unreadable or has a different shape.
  """
  table = names(architecture)
  with contextlib.ExitStack() as stack:
    tensors = _open(folder, stack)
    _require(folder, architecture, tensors)

    def array(path, leaf, of_leaf):
      name, transposed = table[sharding.name_of(path)]

      def part(index) -> np.ndarray:
        layers = range(leaf.shape[0])[index[0]] if '{}' in name else (None,)
        within = index[1:] if '{}' in name else index
        # Rows of the vocabulary beyond V are never read.
        bounds = [slice(*one.indices(size)[:2]) for one, size in zip(within, leaf.shape[-len(within) :])]
        if transposed:
          bounds.reverse()
        pieces = np.empty((len(layers), *(one.stop - one.start for one in bounds)), dtype)
        for place, layer in enumerate(layers):
          pieces[place] = tensors[name.format(layer)][tuple(bounds)]
        if transposed:
          pieces = np.swapaxes(pieces, -1, -2)
        return pieces if '{}' in name else pieces[0]

      return jax.make_array_from_callback(leaf.shape, of_leaf, part)

    return jax.tree_util.tree_map_with_path(array, shapes(architecture, dtype), shardings)


def check(folder: pathlib.Path, architecture: Architecture) -> None:
  """Raises the InputError of `read` for a missing file or tensor; reads no weights."""
  with contextlib.ExitStack() as stack:
    _require(folder, architecture, _open(folder, stack))


def weight_files(folder: pathlib.Path) -> list[pathlib.Path]:
  """The safetensors files of a model; InputError if its index is invalid."""
  index = folder / INDEX
  if not index.exists() or (folder / 'model.safetensors').exists():
    return [folder / 'model.safetensors']
  weight_map = _read_json(index, 'an index of safetensors files').get('weight_map')
  if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
    raise InputError(f"{index} has no 'weight_map'; expected an index of safetensors files")
  return [folder / file for file in sorted(set(weight_map.values()))]


def _open(folder: pathlib.Path, stack: contextlib.ExitStack) -> dict[str, Any]:
  """Slices of all tensors, by name; nothing is read yet."""
  files = weight_files(folder)
  missing = [path.name for path in files if not path.is_file()]
  if missing:
    raise InputError(
      f'{folder}: {", ".join(missing)} missing; expected the weights of a Hugging Face model, as safetensors'
    )
  tensors = {}
  for file in files:
    try:
      opened = stack.enter_context(safetensors.safe_open(str(file), framework='np'))
    except (OSError, safetensors.SafetensorError) as error:
      raise InputError(f'{file} cannot be read ({error}); expected a .safetensors file') from error
    tensors.update({name: opened.get_slice(name) for name in opened.keys()})  # noqa: SIM118, it is not a dict
  return tensors


def _require(folder: pathlib.Path, architecture: Architecture, tensors: dict[str, Any]) -> None:
  """Raises InputError for a tensor that is missing, or has a different shape or an integer dtype."""
  table, expected = names(architecture), shapes(architecture, jnp.float32)
  for path, leaf in jax.tree_util.tree_leaves_with_path(expected):
    ours = sharding.name_of(path)
    name, transposed = table[ours]
    stacked = '{}' in name
    shape = list(leaf.shape[1:] if stacked else leaf.shape)
    if transposed:
      shape.reverse()
    for layer in range(architecture.layers if stacked else 1):
      full = name.format(layer)
      if full not in tensors:
        raise InputError(f'{folder}: tensor {full} is missing; expected one of shape {shape}')
      if tensors[full].get_dtype() not in ('F64', 'F32', 'F16', 'BF16'):
        raise InputError(f'{folder}: tensor {full} is of {tensors[full].get_dtype()}; expected floating-point weights')
      actual = list(tensors[full].get_shape())
      # The vocabulary may have more rows than the tokenizer has tokens.
      fits = actual[1:] == shape[1:] and actual[0] >= shape[0] if ours in ('embedding', 'head') else actual == shape
      if not fits:
        raise InputError(f'{folder}: tensor {full} is of shape {actual}; expected {shape}')
  beyond = f'model.layers.{architecture.layers}.'
  extra = next((name for name in tensors if name.startswith(beyond)), None)
  if extra is not None:
    raise InputError(f'{folder}: tensor {extra} is of a larger model; expected {architecture.layers} layers')


def to_hugging_face(params: dict, architecture: Architecture) -> dict[str, np.ndarray]:
  """All tensors by Hugging Face name; new tokens' rows follow the text's.

  Args:
    params: without adapters and int8, see `lora.merge`; or gradients.
  """
  return {name: tensor() for name, _, tensor in _tensors(params, architecture)}


def _tensors(params: dict, architecture: Architecture) -> list[tuple[str, int, Callable[[], np.ndarray]]]:
  """(Hugging Face name, bytes, function that fetches it) of each tensor."""
  table = names(architecture)
  entries: list[tuple[str, int, Callable[[], np.ndarray]]] = []

  def fetched(array: jax.Array, transposed: bool, *new_rows: jax.Array) -> np.ndarray:
    value = sharding.fetch(array)
    rows = [value.T if transposed else value, *(sharding.fetch(new).astype(value.dtype) for new in new_rows)]
    return np.ascontiguousarray(np.concatenate(rows))

  def fetched_layer(array: jax.Array, layer: int, transposed: bool) -> np.ndarray:
    return fetched(array[layer], transposed)

  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    ours = sharding.name_of(path)
    if ours in ('new_embedding', 'new_head'):
      continue
    name, transposed = table[ours]
    if '{}' in name:
      entries += [
        (name.format(layer), leaf.nbytes // len(leaf), functools.partial(fetched_layer, leaf, layer, transposed))
        for layer in range(architecture.layers)
      ]
    else:
      new_rows = [params[f'new_{ours}']] if ours in ('embedding', 'head') else []
      size = leaf.nbytes + sum(rows.size * leaf.dtype.itemsize for rows in new_rows)
      entries.append((name, size, functools.partial(fetched, leaf, transposed, *new_rows)))
  return entries


def write(folder: pathlib.Path, params: dict, architecture: Architecture, source_config: dict | None) -> None:
  """Writes a folder that transformers loads, with V + N tokens. All processes call it; the first one writes.

  Args:
    params: merged, see `lora.merge`; arrays of JAX.
    source_config: config.json of the model that this one was trained from, for keys that are not part of the
      architecture (special tokens), or None.

  Raises:
    InputError: the disk is full or cannot be written.
  """
  files: list[list[tuple[str, int, Callable[[], np.ndarray]]]] = []
  used = 0
  for tensor in _tensors(params, architecture):
    if not files or used + tensor[1] > FILE_BYTES:
      files.append([])
      used = 0
    files[-1].append(tensor)
    used += tensor[1]
  weight_map: dict[str, str] = {}
  total = 0
  for number, tensors in enumerate(files, 1):
    file = f'model-{number:05}-of-{len(files):05}.safetensors' if len(files) > 1 else 'model.safetensors'
    content = {name: tensor() for name, _, tensor in tensors}
    artifacts.write(folder / file, functools.partial(_save, content))
    weight_map.update(dict.fromkeys(content, file))
    total += sum(size for _, size, _ in tensors)
  if len(files) > 1:
    artifacts.write_json(folder / INDEX, {'metadata': {'total_size': total}, 'weight_map': weight_map})
  if processes.is_first():  # files of an earlier model must not be taken for parts of this one
    kept = {*weight_map.values(), *([INDEX] if len(files) > 1 else [])}
    for path in (path for path in folder.glob('model*.safetensors*') if path.name not in kept):
      path.unlink()
  artifacts.write_json(folder / 'config.json', _config(architecture, params['embedding'].dtype.name, source_config))


def _save(content: dict[str, np.ndarray], path: pathlib.Path) -> None:
  try:
    safetensors.numpy.save_file(content, str(path), metadata={'format': 'pt'})
  except safetensors.SafetensorError as error:  # such as a full disk
    raise OSError(str(error)) from error
  path.chmod(0o644)  # like the other files; safetensors makes it readable by the owner only


def _config(architecture: Architecture, dtype: str, source_config: dict | None) -> dict:
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


def _read_json(path: pathlib.Path, expected: str) -> dict:
  try:
    content = json.loads(path.read_text(encoding='utf-8'))
  except (OSError, ValueError) as error:
    raise InputError(f'{path} cannot be read ({error}); expected {expected}') from error
  if not isinstance(content, dict):
    raise InputError(f'{path} is not a JSON object; expected {expected}')
  return content
