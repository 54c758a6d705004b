"""Training of LETTER-TIGER: packed rows of histories or of users, ranking-guided loss.

Where the encoder's positions are items, a row holds users instead of examples, and every position predicts the next
item: one pass trains all prefixes.

Shapes: B rows, C items of a row, R encoder positions, S items to predict, L levels, K codes, V tokens.
"""

import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from letter_jax import sharding
from letter_jax.configuration import GeneratorConfig
from letter_jax.data import splits
from letter_jax.data.dataset import Windows
from letter_jax.data.input_pipeline import Batching, PackedEpochs
from letter_jax.generators.losses import catalogue_loss, vocabulary_loss
from letter_jax.generators.tiger import weights as t5_weights
from letter_jax.generators.tiger.t5 import T5, encoder_positions
from letter_jax.semantic_ids.ids import PlacedIds
from letter_jax.semantic_ids.vocabulary import Vocabulary
from letter_jax.training import loop, optimizers
from letter_jax.training.state import Metrics, TrainState, make_step


def cropped(segments_BxC: jax.Array, rate: float, key: jax.Array) -> jax.Array:
  """Segments of packed rows, cut before some of the items: what follows a cut does not see what precedes it.

  No target is lost, so that a step costs the same as without.

  Args:
    segments_BxC: int32, 0 on padding.
    rate: probability of a cut before each item.
    key: of the cuts.

  Returns:
    int32 [B, C], 0 on padding.
  """
  cuts_BxC = jax.random.bernoulli(key, rate, segments_BxC.shape)
  stride = segments_BxC.shape[1] + 1
  cut_BxC = segments_BxC.astype(jnp.int32) * stride + jnp.cumsum(cuts_BxC, axis=1)
  return jnp.where(segments_BxC > 0, cut_BxC, 0)


def t5_program(
  settings: GeneratorConfig,
  model: T5,
  vocabulary: Vocabulary,
  ids: PlacedIds,
  layout: sharding.Layout,
  data: Windows,
  validate: Callable[[Any], dict[str, float]],
  *,
  history_length: int,
  seed: int,
  frozen: Mapping[str, jax.Array],
) -> loop.Program:
  """The training program of a T5.

  Args:
    settings: rows, loss, initial weights and training.
    model: the Linen module.
    vocabulary: its tokens.
    ids: the semantic IDs, on the devices of the mesh.
    layout: how parameters and optimizer state lie on the mesh.
    data: all interactions.
    validate: whole parameters -> validation metrics.
    history_length: latest items that the model sees.
    seed: of parameters, batches and dropout.
    frozen: parameters that are not trained, on the devices of the mesh.

  Raises:
    InputError: `settings.initial_weights` cannot be read, or no user has a training example.
  """
  training, mesh = settings.training, layout.mesh
  by_users = settings.model.encoder == 'items'
  make_examples = (
    functools.partial(splits.training_windows, length=history_length)
    if by_users
    else functools.partial(splits.training_examples, history_length=history_length)
  )
  batches = PackedEpochs(data, make_examples, settings.row_items, Batching.of(training, seed, mesh))
  optimizer = optimizers.adamw(training, training.total_steps(batches.per_epoch))
  catalogue = ids.loss_arrays(settings.softmax)
  key = jax.random.key(seed)
  targets = 'next_BxC' if by_users else 'targets_BxS'

  def loss_sum(
    catalogue: tuple, frozen: Mapping[str, jax.Array], params: Any, batch: dict[str, jax.Array], key: jax.Array
  ) -> tuple[jax.Array, jax.Array, Metrics]:
    codes_NxL, targets_BxS = catalogue[0], batch[targets]
    segments_BxC = batch['segments_BxC']
    if settings.crops:
      segments_BxC = cropped(segments_BxC, settings.crops, jax.random.fold_in(key, 1))
    tokens_BxR, segments_BxR = encoder_positions(
      settings.model, vocabulary, batch['items_BxC'], codes_NxL, segments_BxC
    )
    apply: Callable[..., Any] = functools.partial(
      model.apply,
      {'params': {**params, **frozen}},
      tokens_BxR,
      segments_BxR,
      vocabulary.item_tokens(targets_BxS[..., None], codes_NxL),
      deterministic=False,
      items_BxC=batch['items_BxC'],
      rngs={'dropout': key},
    )
    if settings.softmax == 'catalogue':
      columns = [vocabulary.tokens_of_level(level) for level in range(vocabulary.levels)]
      logits_by_level = apply(columns=columns, method='logits_by_position')
      _, nodes_NxL, trie = catalogue
      total, count = catalogue_loss(logits_by_level, targets_BxS, codes_NxL, nodes_NxL, trie, settings.temperature)
    else:
      total, count = vocabulary_loss(apply(), targets_BxS, codes_NxL, vocabulary, settings.temperature)
    return total, count, {}

  initial = (
    t5_weights.read(pathlib.Path(settings.initial_weights), settings.model, vocabulary.size)
    if settings.initial_weights
    else None
  )

  def init(params: dict | None) -> TrainState:
    if params is None:
      item = jnp.zeros((1, 1), jnp.int32)
      codes = jnp.zeros((1, vocabulary.levels), jnp.int32)
      tokens, segments = encoder_positions(settings.model, vocabulary, item, codes, item)
      params = model.init(key, tokens, segments, tokens.reshape(1, 1, -1), items_BxC=item)['params']
      params = {name: leaf for name, leaf in params.items() if name not in frozen}
    return TrainState.create(params, optimizer)

  @functools.partial(jax.jit, donate_argnums=0)
  def step(
    state: TrainState, batch: dict[str, jax.Array], catalogue: tuple, frozen: Mapping[str, jax.Array]
  ) -> tuple[TrainState, Metrics]:
    loss = functools.partial(loss_sum, catalogue, frozen)
    return make_step(loss, optimizer, jax.random.fold_in(key, 1), layout, training.accumulation_steps)(state, batch)

  def arguments(batch: dict[str, np.ndarray]) -> tuple:
    inputs = {name: batch[name] for name in ('items_BxC', 'segments_BxC', targets)}
    return sharding.put_batch(inputs, mesh, training.accumulation_steps), catalogue, frozen

  return loop.Program(
    init=init,
    init_arguments=(initial,),
    layout=layout,
    step=step,
    arguments=arguments,
    steps_per_call=1,
    steps_per_epoch=batches.per_epoch,
    examples_per_epoch=batches.items if by_users else batches.examples,
    batches=batches.dataset(),
    data_parts=batches.parts,
    evaluate=lambda params: validate({**params, **frozen}),
  )
