"""Low-rank adapters (Hu et al. 2021): which parameters are trained, their initial values, and merging into kernels.

Parameters are nested dicts with the names of `llama`; those of a linear layer have the layers as their first axis:
'kernel' [layers, I, O], 'lora_a' [layers, I, rank], 'lora_b' [layers, rank, O].
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from letter_jax.configuration import LoRAConfig

TRAINED = ('lora_a', 'lora_b', 'new_embedding', 'new_head')


def split(params: dict, full: bool) -> tuple[dict, dict]:
  """(trainable, frozen): adapters and the new tokens' rows, and the rest. With `full` everything is trainable."""
  if full:
    return params, {}
  flat = flatten_dict(params)
  trainable = {path: leaf for path, leaf in flat.items() if path[-1] in TRAINED}
  frozen = {path: leaf for path, leaf in flat.items() if path not in trainable}
  return unflatten_dict(trainable), unflatten_dict(frozen)


def join(trainable: dict, frozen: dict) -> dict:
  """The inverse of `split`."""
  return unflatten_dict({**flatten_dict(frozen), **flatten_dict(trainable)})


def merge(params: dict, lora: LoRAConfig) -> dict:
  """The equivalent model without adapters: kernel + alpha / rank * a @ b, added in float32.

  Kernels keep their dtype; int8 kernels (see `quantize_int8`) get the embedding's dtype and lose their scale.
  """
  dtype = params['embedding'].dtype

  def merged(linear: dict) -> dict:
    def one_layer(of_layer: dict) -> jax.Array:
      total = of_layer['kernel'].astype(jnp.float32) * of_layer.get('scale', 1)
      if 'lora_a' in of_layer:
        a, b = of_layer['lora_a'].astype(jnp.float32), of_layer['lora_b'].astype(jnp.float32)
        total += lora.factor * jnp.matmul(a, b, precision='highest')
      return total.astype(dtype if 'scale' in of_layer else of_layer['kernel'].dtype)

    kept = {name: linear[name] for name in ('bias',) if name in linear}
    # One layer at a time: the float32 copy is small.
    return {'kernel': jax.lax.map(one_layer, linear), **kept}

  return _over_linears(params, merged)


def quantize_int8(frozen: dict) -> dict:
  """The base with int8 kernels, symmetric per output channel, each with a float32 'scale' [layers, O].

  An entry is off by at most half a scale. Embeddings, head, norms and biases are unchanged. Only weights are quantised,
  once, and never trained: qwix does more (activations, calibration, training) but puts its own array type into the
  parameter tree, which names, partition rules, checkpoints and `merge` would all have to support.
  """

  def one_layer(kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
    kernel = kernel.astype(jnp.float32)
    largest = jnp.max(jnp.abs(kernel), axis=0)
    scale = jnp.where(largest > 0, largest, 1) / 127
    return jnp.round(kernel / scale).astype(jnp.int8), scale

  def quantized(linear: dict) -> dict:
    kernel, scale = jax.lax.map(one_layer, linear['kernel'])
    return {**linear, 'kernel': kernel, 'scale': scale}

  return _over_linears(frozen, quantized)


def _over_linears(params: dict, change: Callable[[dict], dict]) -> dict:
  """`params` with `change` applied to the parameters of every linear layer."""
  if 'kernel' in params:
    return change(params)
  return {name: _over_linears(value, change) if isinstance(value, dict) else value for name, value in params.items()}


def new_rows(rows_VxD: jax.Array, count: int, key: jax.Array) -> jax.Array:
  """float32 [count, D], drawn from a normal distribution with each column's mean and standard deviation.

  New tokens are then distributed like the existing ones. For a head [D, V] pass its transpose.
  """
  wide = rows_VxD.astype(jnp.float32)
  noise = jax.random.normal(key, (count, rows_VxD.shape[1]), jnp.float32)
  return wide.mean(axis=0) + wide.std(axis=0) * noise


def initial(shapes: dict, frozen: dict, key: jax.Array) -> dict:
  """Initial trainable parameters: adapters that add nothing yet, and new tokens like the existing ones. Pure; for jit.

  Args:
    shapes: the parameters of the model, from `jax.eval_shape` of its `init`; only the trainable ones are used.
    frozen: the base.
    key: of all random values.

  Returns:
    The trainable part, float32.
  """
  trainable, _ = split(shapes, False)
  leaves, structure = jax.tree_util.tree_flatten_with_path(trainable)
  uniform = jax.nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform', batch_axis=0)  # as in `llama.Linear`
  values = []
  for number, (path, leaf) in enumerate(leaves):
    name, own_key = path[-1].key, jax.random.fold_in(key, number)
    if name == 'lora_a':
      values.append(uniform(own_key, leaf.shape, jnp.float32))
    elif name == 'lora_b':
      values.append(jnp.zeros(leaf.shape, jnp.float32))
    else:
      rows = frozen['embedding'] if name == 'new_embedding' else frozen['head'].T
      values.append(new_rows(rows, leaf.shape[0], own_key))
  return jax.tree.unflatten(structure, values)
