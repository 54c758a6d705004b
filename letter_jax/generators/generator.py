"""Training of a generator, selected by constrained beam search on validation users, and its evaluation.

What differs between LETTER-TIGER and LETTER-LC-Rec is in `t5_training` and `llama_training`; a language model comes
with its `BaseModel`, a T5 with None.
"""

import pathlib

import jax
import numpy as np

from letter_jax import sharding
from letter_jax.configuration import Config
from letter_jax.data import splits
from letter_jax.data.dataset import Windows
from letter_jax.decoding.user_search import Search, UserSearch
from letter_jax.evaluation.evaluator import GeneratorEvaluator
from letter_jax.generators.lc_rec import base_model
from letter_jax.generators.lc_rec.base_model import BaseModel
from letter_jax.training import loop


def train_generator(
  config: Config,
  data: Windows,
  semantic_ids: np.ndarray,
  codebook_size: int,
  directory: pathlib.Path,
  base: BaseModel | None = None,
):
  """Trains, or resumes, under `directory`; returns the best of what was trained and the loop's progress.

  Args:
    semantic_ids: int32 [items, L].
    codebook_size: K.
  """
  program = generator_program(config, data, semantic_ids, codebook_size, sharding.make_mesh(config.mesh), base)
  return loop.train(program, config.generator.training, directory, 'generator', config.checkpoints)


def generator_program(
  config: Config,
  data: Windows,
  semantic_ids: np.ndarray,
  codebook_size: int,
  mesh: jax.sharding.Mesh,
  base: BaseModel | None = None,
) -> loop.Program:
  """What `train_generator` runs."""
  settings = config.generator
  evaluator = generator_evaluator(
    config, semantic_ids, codebook_size, min(settings.validation_beam, len(semantic_ids)), mesh, base
  )
  held_out = splits.validation_examples(data.recent(), config.data.history_length)
  if settings.validation_users < len(held_out):
    sample = np.random.default_rng(config.seed).choice(len(held_out), settings.validation_users, replace=False)
    held_out = held_out.take(np.sort(sample))

  def validate(params) -> dict[str, float]:
    return evaluator.validate(params, held_out)

  if base is None:
    from letter_jax.generators.tiger.training import t5_program

    return t5_program(config, data, semantic_ids, codebook_size, mesh, validate)
  from letter_jax.generators.lc_rec.training import llama_program

  return llama_program(config, data, base, semantic_ids, codebook_size, mesh, validate)


def generator_evaluator(
  config: Config,
  semantic_ids: np.ndarray,
  codebook_size: int,
  beam: int,
  mesh: jax.sharding.Mesh,
  base: BaseModel | None = None,
) -> GeneratorEvaluator:
  """The evaluator of a generator with these semantic IDs; it wants `whole_params`."""
  return GeneratorEvaluator(user_search(config, semantic_ids, codebook_size, beam, mesh, base))


def user_search(
  config: Config,
  semantic_ids: np.ndarray,
  codebook_size: int,
  beam: int,
  mesh: jax.sharding.Mesh,
  base: BaseModel | None = None,
) -> UserSearch:
  """The search of a generator for batches of users; it wants `whole_params`.

  Raises:
    InputError: the context of a language model has no room for a single item.
  """
  levels = semantic_ids.shape[1]
  search = generator_search(config, levels, codebook_size, mesh, base)
  longest = base_model.longest_history(base, levels) if base else None
  sharded_params = base is not None and (mesh.shape['model'] > 1 or config.mesh.fully_sharded)
  return UserSearch(search, semantic_ids, beam, config.evaluation.batch_size, mesh, longest, sharded_params)


def generator_search(
  config: Config, levels: int, codebook_size: int, mesh: jax.sharding.Mesh, base: BaseModel | None = None
) -> Search:
  """The constrained search of a generator; it wants `whole_params`."""
  if base is None:
    from letter_jax.generators.tiger.training import t5_search

    return t5_search(config, levels, codebook_size, mesh)
  from letter_jax.generators.lc_rec.training import llama_search

  return llama_search(config, base, levels, codebook_size, mesh)


def generator_layout(config: Config, mesh: jax.sharding.Mesh) -> sharding.Layout:
  """How parameters lie that are only used: a T5 is whole on every device, a language model lies as it is trained."""
  if config.generator.architecture == 't5':
    return sharding.Layout(mesh)
  from letter_jax.generators.lc_rec.training import llama_layout

  return llama_layout(config, mesh)


def whole_params(config: Config, trained: dict, mesh: jax.sharding.Mesh, base: BaseModel | None = None) -> dict:
  """All parameters of a generator of which `trained` were trained."""
  if base is None:
    return trained
  from letter_jax.generators.lc_rec import lora
  from letter_jax.generators.lc_rec.training import frozen_params

  return lora.join(trained, frozen_params(config, base, mesh))
