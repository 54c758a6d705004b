"""Low-rank adapters (Hu et al. 2021): which parameters are trained, how they start, and how they become kernels.

Parameters are nested dicts, as `llama` names them; a linear layer's have the number of layers in front: 'kernel'
[layers, I, O], 'lora_a' [layers, I, rank], 'lora_b' [layers, rank, O].
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from letter_jax.configuration import LoRAConfig

TRAINED = ('lora_a', 'lora_b', 'new_embedding', 'new_head')


def split(params: dict, full: bool) -> tuple[dict, dict]:
  """(trainable, frozen): adapters and the new tokens' rows, and the rest. With `full` everything is trainable."""
  if full:
    return params, {}
  trainable, frozen = {}, {}
  for name, value in params.items():
    if isinstance(value, dict):
      for part, inner in zip((trainable, frozen), split(value, False)):
        if inner:
          part[name] = inner
    else:
      (trainable if name in TRAINED else frozen)[name] = value
  return trainable, frozen


def join(trainable: dict, frozen: dict) -> dict:
  """The inverse of `split`."""
  joined = dict(frozen)
  for name, value in trainable.items():
    joined[name] = join(value, frozen.get(name, {})) if isinstance(value, dict) else value
  return joined


def merge(params: dict, lora: LoRAConfig) -> dict:
  """The model without adapters that computes the same: kernel + alpha / rank * a @ b, added up in float32.

  Kernels keep their dtype; those of int8 (see `quantize_int8`) get the embedding's, and lose their scale.
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
    # One layer after the other: the float32 copy is small.
    return {'kernel': jax.lax.map(one_layer, linear), **kept}

  return _over_linears(params, merged)


def quantize_int8(frozen: dict) -> dict:
  """The base with int8 kernels, symmetric per output channel, and a float32 'scale' [layers, O] beside each.

  An entry is off by at most half a scale. Embeddings, head, norms and biases stay. These are weights alone, rounded
  once and never trained: qwix does more (activations, calibration, training) but keeps arrays of its own kind in the
  tree of parameters, which names, partition rules, checkpoints and `merge` would all have to know.
  """

  def one_layer(kernel):
    kernel = kernel.astype(jnp.float32)
    largest = jnp.max(jnp.abs(kernel), axis=0)
    scale = jnp.where(largest > 0, largest, 1) / 127
    return jnp.round(kernel / scale).astype(jnp.int8), scale

  def quantized(linear: dict) -> dict:
    kernel, scale = jax.lax.map(one_layer, linear['kernel'])
    return {**linear, 'kernel': kernel, 'scale': scale}

  return _over_linears(frozen, quantized)


def _over_linears(params: dict, change: Callable[[dict], dict]) -> dict:
  if 'kernel' in params:
    return change(params)
  return {name: _over_linears(value, change) if isinstance(value, dict) else value for name, value in params.items()}


def new_rows(rows_VxD: jax.Array, count: int, key: jax.Array) -> jax.Array:
  """float32 [count, D], drawn from a normal distribution with each column's mean and standard deviation.

  New tokens then look like old ones. For a head [D, V] give its transposition.
  """
  wide = rows_VxD.astype(jnp.float32)
  noise = jax.random.normal(key, (count, rows_VxD.shape[1]), jnp.float32)
  return wide.mean(axis=0) + wide.std(axis=0) * noise


def initial(shapes: dict, frozen: dict, key: jax.Array) -> dict:
  """Where training starts: adapters that are nothing yet, and new tokens like the old ones. Pure; for jit.

  Args:
    shapes: the parameters of the model as `jax.eval_shape` of its `init` gives them; of these the trainable ones count.
    frozen: the base.

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
