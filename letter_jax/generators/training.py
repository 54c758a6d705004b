"""Training of LETTER-TIGER: packed rows, ranking-guided loss, selection by constrained beam search."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from letter_jax.configuration import Config
from letter_jax.data import splits
from letter_jax.data.dataset import Windows
from letter_jax.data.input_pipeline import PackedEpochs
from letter_jax.decoding import item_trie
from letter_jax.evaluation.evaluator import GeneratorEvaluator
from letter_jax.generators import t5_weights
from letter_jax.generators.losses import catalogue_loss, ranking_guided_loss
from letter_jax.generators.t5 import T5
from letter_jax.generators.t5_search import search_items
from letter_jax.generators.vocabulary import Vocabulary
from letter_jax.training import loop, optimizers, sharding
from letter_jax.training.state import TrainState, make_step


def train_generator(config: Config, data: Windows, semantic_ids: np.ndarray, codebook_size: int,
                    directory: pathlib.Path):
  """Trains, or resumes, under `directory`; returns the best parameters and the loop's progress.

  Args:
    semantic_ids: int32 [items, L].
    codebook_size: K.
  """
  program = generator_program(config, data, semantic_ids, codebook_size, sharding.make_mesh(config.mesh))
  return loop.train(program, config.generator.training, directory, 'generator', config.checkpoints)


def generator_program(config: Config, data: Windows, semantic_ids: np.ndarray, codebook_size: int,
                      mesh: jax.sharding.Mesh) -> loop.Program:
  """What `train_generator` runs."""
  settings = config.generator
  training = settings.training
  layout = sharding.Layout(mesh, settings.partition, config.mesh.fully_sharded)
  part, parts = sharding.data_part(mesh)
  vocabulary = Vocabulary(semantic_ids.shape[1], codebook_size)
  model = generator_model(config, vocabulary, mesh)
  make_examples = functools.partial(splits.training_examples, history_length=config.data.history_length)
  batches = PackedEpochs(data, make_examples, settings.row_items, training.batch_size, config.seed, training.epochs,
                         training.accumulation_steps, mesh.shape['data'], part, parts)
  optimizer = optimizers.adamw(training, training.epochs * batches.per_epoch)
  evaluator = generator_evaluator(config, semantic_ids, codebook_size,
                                  min(settings.validation_beam, len(semantic_ids)), mesh)
  trie = item_trie.build(semantic_ids)
  catalogue = sharding.put((semantic_ids, item_trie.nodes_of_items(trie), trie), sharding.replicated(mesh))
  key = jax.random.key(config.seed)

  def loss_sum(catalogue, params, batch, key):
    codes_NxL, nodes_NxL, trie = catalogue
    tokens_BxR = vocabulary.item_tokens(batch['items_BxC'], codes_NxL)
    segments_BxR = jnp.repeat(batch['segments_BxC'], vocabulary.levels, axis=1)
    targets_BxS = batch['targets_BxS']
    targets_BxSxT = vocabulary.item_tokens(targets_BxS[..., None], codes_NxL)
    apply = functools.partial(model.apply, {'params': params}, tokens_BxR, segments_BxR, targets_BxSxT,
                              deterministic=False, rngs={'dropout': key})
    if settings.softmax == 'catalogue':
      logits = apply(columns=[vocabulary.level(level) for level in range(vocabulary.levels)],
                     method=T5.logits_by_position)
      total, count = catalogue_loss(logits, targets_BxS, codes_NxL, nodes_NxL, trie, settings.temperature)
    else:
      weights = jnp.broadcast_to((targets_BxS >= 0)[..., None], targets_BxSxT.shape).astype(jnp.float32)
      total, count = ranking_guided_loss(apply(), targets_BxSxT, weights, settings.temperature)
    return total, count, {}

  initial = (t5_weights.read(pathlib.Path(settings.initial_weights), settings.model, vocabulary.size)
             if settings.initial_weights else None)

  def init(params) -> TrainState:
    if params is None:
      tokens = jnp.zeros((1, vocabulary.levels), jnp.int32)
      params = model.init(key, tokens, tokens, tokens[:, None])['params']
    return TrainState.create(params, optimizer)

  @functools.partial(jax.jit, donate_argnums=0)
  def step(state, batch, catalogue):
    return make_step(functools.partial(loss_sum, catalogue), optimizer, jax.random.fold_in(key, 1), layout,
                     training.accumulation_steps)(state, batch)

  def arguments(batch):
    wanted = {name: batch[name] for name in ('items_BxC', 'segments_BxC', 'targets_BxS')}
    return sharding.put_batch(wanted, mesh, training.accumulation_steps), catalogue

  held_out = splits.validation_examples(data.recent(), config.data.history_length)
  if settings.validation_users < len(held_out):
    sample = np.random.default_rng(config.seed).choice(len(held_out), settings.validation_users, replace=False)
    held_out = held_out.take(np.sort(sample))
  return loop.Program(
    init=init, init_arguments=(initial,), layout=layout, step=step, arguments=arguments, steps_per_call=1,
    steps_per_epoch=batches.per_epoch, examples_per_epoch=batches.examples, batches=batches.dataset(),
    data_parts=batches.parts,
    evaluate=lambda params: evaluator.validate(params, held_out))


def generator_model(config: Config, vocabulary: Vocabulary, mesh: jax.sharding.Mesh) -> T5:
  return T5(config.generator.model, vocabulary.size, compute_dtype(config.generator.compute_dtype, mesh))


def generator_evaluator(config: Config, semantic_ids: np.ndarray, codebook_size: int, beam: int,
                        mesh: jax.sharding.Mesh) -> GeneratorEvaluator:
  """The evaluator of a generator with these semantic IDs."""
  vocabulary = Vocabulary(semantic_ids.shape[1], codebook_size)
  search = functools.partial(search_items, generator_model(config, vocabulary, mesh), vocabulary,
                             softmax=config.generator.softmax)
  return GeneratorEvaluator(search, semantic_ids, beam, config.evaluation.batch_size, mesh)


def compute_dtype(name: str, mesh: jax.sharding.Mesh):
  """'auto' is bfloat16 where the hardware gains from it (GPU, TPU) and float32 on CPU."""
  if name == 'auto':
    name = 'float32' if mesh.devices.flat[0].platform == 'cpu' else 'bfloat16'
  return jnp.dtype(name)
