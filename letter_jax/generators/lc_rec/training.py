"""Training of LETTER-LC-Rec: instructions in packed rows, loss on the responses only, adapters or the whole model.

Shapes: B rows, T tokens of a row, S item responses, Q text response tokens, L levels, K codes, D d_model, V tokens.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from letter_jax import sharding
from letter_jax.configuration import GeneratorConfig, LoRAConfig
from letter_jax.data.dataset import Windows
from letter_jax.data.input_pipeline import Batching
from letter_jax.generators.lc_rec import lora, weights
from letter_jax.generators.lc_rec.base_model import BaseModel
from letter_jax.generators.lc_rec.batches import InstructionEpochs
from letter_jax.generators.lc_rec.llama import Llama
from letter_jax.generators.lc_rec.token_pool import InstructionData
from letter_jax.generators.losses import catalogue_loss, ranking_guided_loss, vocabulary_loss
from letter_jax.ops.top_k import take
from letter_jax.semantic_ids.ids import PlacedIds
from letter_jax.system.wording import counted
from letter_jax.training import loop, optimizers
from letter_jax.training.state import Metrics, TrainState, make_step

Batch = dict[str, jax.Array]


def llama_program(
  settings: GeneratorConfig,
  model: Llama,
  base: BaseModel,
  ids: PlacedIds,
  layout: sharding.Layout,
  data: Windows,
  validate: Callable[[Any], dict[str, float]],
  *,
  history_length: int,
  seed: int,
) -> loop.Program:
  """The training program of a language model.

  Args:
    settings: tasks, rows, loss, adapters and training.
    model: the Linen module.
    base: the model that training starts from, with the texts.
    ids: the semantic IDs, on the devices of the mesh.
    layout: how the parameters of the whole model lie on the mesh.
    data: all interactions, in memory.
    validate: all parameters -> validation metrics.
    history_length: latest items that a prompt has.
    seed: of parameters, batches and dropout.

  Raises:
    InputError: the base cannot be read, a rule of the layout matches no parameter, or there is no training example.
  """
  training, mesh = settings.training, layout.mesh
  vocabulary = ids.host.vocabulary(base.architecture.text_vocabulary)
  examples = InstructionData(
    data.window(0), base.texts, base.user_texts, ids.host.codes_NxL, ids.host.codebook_size, base.tokenizer
  )
  batches = InstructionEpochs(
    examples, settings.mixture, history_length, settings.row_tokens, Batching.of(training, seed, mesh)
  )
  if batches.shortened:
    print(
      f'generator: {batches.shortened:,} of {counted(batches.examples, "example")} without the oldest items: prompts '
      f'of more tokens than config.generator.row_tokens, {settings.row_tokens}',
      flush=True,
    )
  optimizer = optimizers.adamw(training, training.total_steps(batches.per_epoch))
  catalogue = ids.loss_arrays(settings.softmax)
  key = jax.random.key(seed)
  frozen = frozen_params(settings, base, layout)
  initial = {} if settings.lora.rank else _base_params(base, layout, jnp.float32)

  def init(frozen: dict, initial: dict) -> TrainState:
    tokens = jnp.zeros((1, 1), jnp.int32)
    params = jax.eval_shape(model.init, key, tokens, tokens, tokens)['params']
    if base.folder is None:
      params = model.init(key, tokens, tokens, tokens)['params']
    else:
      params = lora.join(lora.initial(params, initial or frozen, key), initial)
    return TrainState.create(params, optimizer)

  def loss_sum(
    catalogue: tuple, frozen: dict, params: dict, batch: Batch, key: jax.Array
  ) -> tuple[jax.Array, jax.Array, Metrics]:
    params = lora.join(params, frozen)
    apply: Callable[..., Any] = functools.partial(model.apply, {'params': params})
    hidden_BxTxD = apply(
      batch['tokens_BxT'], batch['segments_BxT'], batch['positions_BxT'], deterministic=False, rngs={'dropout': key}
    )
    logits = functools.partial(apply, method=Llama.logits)
    items, words = _item_loss(catalogue, hidden_BxTxD, logits, batch), _text_loss(hidden_BxTxD, logits, batch)
    return items[0] + words[0], items[1] + words[1], {'items': items, 'words': words}

  def _item_loss(
    catalogue: tuple, hidden_BxTxD: jax.Array, logits: Callable[..., jax.Array], batch: Batch
  ) -> tuple[jax.Array, jax.Array]:
    targets_BxS = batch['items_BxS']
    places_BxSxL = batch['item_places_BxS'][..., None] + jnp.arange(vocabulary.levels)
    hidden_BxSxLxD = take(hidden_BxTxD, places_BxSxL)
    if settings.softmax == 'catalogue':
      logits_by_level = [
        logits(hidden_BxSxLxD[:, :, level], vocabulary.tokens_of_level(level)) for level in range(vocabulary.levels)
      ]
      codes_NxL, nodes_NxL, trie = catalogue
      return catalogue_loss(logits_by_level, targets_BxS, codes_NxL, nodes_NxL, trie, settings.temperature)
    return vocabulary_loss(logits(hidden_BxSxLxD), targets_BxS, catalogue[0], vocabulary, settings.temperature)

  def _text_loss(
    hidden_BxTxD: jax.Array, logits: Callable[..., jax.Array], batch: Batch
  ) -> tuple[jax.Array, jax.Array]:
    targets_BxQ = batch['text_targets_BxQ']
    if not targets_BxQ.shape[1]:
      return jnp.zeros(()), jnp.zeros(())
    hidden_BxQxD = take(hidden_BxTxD, batch['text_places_BxQ'])
    return ranking_guided_loss(logits(hidden_BxQxD), targets_BxQ, (targets_BxQ >= 0).astype(jnp.float32), 1.0)

  layout.require_matches(_all_parameters(base))
  # Adapters are small and are gathered at once; a whole model's layers are gathered one by one, by the scan over them.
  layout = dataclasses.replace(
    layout.limited_to(jax.eval_shape(init, frozen, initial).params), gathers=bool(settings.lora.rank)
  )

  @functools.partial(jax.jit, donate_argnums=0)
  def step(state: TrainState, batch: Batch, catalogue: tuple, frozen: dict) -> tuple[TrainState, Metrics]:
    return make_step(
      functools.partial(loss_sum, catalogue, frozen),
      optimizer,
      jax.random.fold_in(key, 1),
      layout,
      training.accumulation_steps,
    )(state, batch)

  def arguments(batch: dict[str, np.ndarray]) -> tuple:
    return sharding.put_batch(batch, mesh, training.accumulation_steps), catalogue, frozen

  return loop.Program(
    init=init,
    init_arguments=(frozen, initial),
    layout=layout,
    step=step,
    arguments=arguments,
    steps_per_call=1,
    steps_per_epoch=batches.per_epoch,
    examples_per_epoch=batches.examples,
    batches=batches.dataset(),
    data_parts=batches.parts,
    evaluate=lambda params: validate(lora.join(params, frozen)),
  )


def _all_parameters(base: BaseModel) -> dict:
  """Shapes of a model with every optional parameter, so that a rule that matches none of them is a mistake."""
  whole = dataclasses.replace(base.architecture, tied=False, qkv_bias=True, qk_norm=True)
  tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
  return jax.eval_shape(Llama(whole, LoRAConfig()).init, jax.random.key(0), tokens, tokens, tokens)['params']


def frozen_params(settings: GeneratorConfig, base: BaseModel, layout: sharding.Layout) -> dict:
  """The weights of the base if adapters are trained, {} otherwise.

  Returns:
    arrays in `settings.base_dtype`, or only shapes with shardings on a mesh that is planned for.
  """
  if base.folder is None or not settings.lora.rank:
    return {}
  dtype = settings.base_dtype if settings.base_dtype != 'auto' else settings.compute_dtype
  if dtype != 'int8':
    return _base_params(base, layout, sharding.compute_dtype(dtype, layout.mesh))
  whole = _base_params(base, layout, sharding.compute_dtype(settings.compute_dtype, layout.mesh))
  shapes = jax.eval_shape(lora.quantize_int8, whole)
  if sharding.is_planned(layout.mesh):
    return _laid_out(shapes, layout)
  return jax.jit(lora.quantize_int8, out_shardings=layout.of(shapes))(whole)


def _base_params(base: BaseModel, layout: sharding.Layout, dtype: jax.typing.DTypeLike) -> dict:
  """The weights of the base's folder, {} without one; only shapes on a mesh that is planned for."""
  if base.folder is None:
    return {}
  shapes = weights.shapes(base.architecture, dtype)
  if sharding.is_planned(layout.mesh):
    return _laid_out(shapes, layout)
  return weights.read(base.folder, base.architecture, layout.of(shapes), dtype)


def _laid_out(shapes: dict, layout: sharding.Layout) -> dict:
  """The shapes with their shardings."""
  return jax.tree.map(
    lambda leaf, leaf_sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf_sharding),
    shapes,
    layout.of(shapes),
  )
