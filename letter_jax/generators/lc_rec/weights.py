"""Reads and writes the weights in Hugging Face folders (safetensors) of models of the LLaMA family.

A model is read directly onto the mesh: each device's part of each array is cut out of the files, so that no host ever
holds the whole model; it is written in files of at most 5 GB.
"""

import contextlib
import functools
import pathlib
import re
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from letter_jax import sharding
from letter_jax.generators.lc_rec import config_json, lora
from letter_jax.generators.lc_rec.llama import Architecture, Llama
from letter_jax.system import artifacts, processes
from letter_jax.system.errors import InputError
from letter_jax.system.wording import counted

INDEX = 'model.safetensors.index.json'
FILE_BYTES = 5 * 10**9


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
    architecture: of `config_json.read_architecture`.
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
  """Raises the InputError of `read` for a missing file or tensor; names the tensors that are not used.

  Reads no weights.
  """
  with contextlib.ExitStack() as stack:
    tensors = _open(folder, stack)
    _require(folder, architecture, tensors)
    unused = _unused(architecture, tensors)
    if unused:
      print(f'generator: {folder}: tensors that are not used: {", ".join(unused)}', flush=True)


def weight_files(folder: pathlib.Path) -> list[pathlib.Path]:
  """The safetensors files of a model; InputError if its index is invalid."""
  index = folder / INDEX
  if not index.exists() or (folder / 'model.safetensors').exists():
    return [folder / 'model.safetensors']
  weight_map = config_json.read_json(index, 'an index of safetensors files').get('weight_map')
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
    raise InputError(f'{folder}: tensor {extra} is of a larger model; expected {counted(architecture.layers, "layer")}')


def _unused(architecture: Architecture, tensors: Iterable[str]) -> list[str]:
  """The names of the tensors that `read` ignores; * stands for the layers of several."""
  used = {name.format(layer) for name, _ in names(architecture).values() for layer in range(architecture.layers)}
  layers: dict[str, list[str]] = {}
  for name in sorted(set(tensors) - used):
    layers.setdefault(re.sub(r'(?<=\.)\d+(?=\.)', '*', name), []).append(name)
  return [group if len(of_group) > 1 else of_group[0] for group, of_group in layers.items()]


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
  config = config_json.of_architecture(architecture, params['embedding'].dtype.name, source_config)
  artifacts.write_json(folder / config_json.NAME, config)


def _save(content: dict[str, np.ndarray], path: pathlib.Path) -> None:
  try:
    safetensors.numpy.save_file(content, str(path), metadata={'format': 'pt'})
  except safetensors.SafetensorError as error:  # such as a full disk
    raise OSError(str(error)) from error
