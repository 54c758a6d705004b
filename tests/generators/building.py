"""Generators as the stages build them, for tests."""

import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from letter_jax import sharding
from letter_jax.configuration import Config
from letter_jax.data.dataset import Texts, Windows
from letter_jax.evaluation.evaluator import GeneratorEvaluator
from letter_jax.generators.generator import Generator, generator_program, kind, train_generator, user_search
from letter_jax.generators.lc_rec import weights as llama_weights
from letter_jax.generators.lc_rec.llama import Architecture, Llama
from letter_jax.generators.lc_rec.text_tokenizer import TextTokenizer
from letter_jax.semantic_ids.ids import PlacedIds, SemanticIds
from letter_jax.training import loop


def placed(codes_NxL: np.ndarray, codebook_size: int, mesh: jax.sharding.Mesh | None = None) -> PlacedIds:
  return SemanticIds(codes_NxL, codebook_size).place(mesh or sharding.on_one_device().mesh)


def to_train(config: Config, ids: PlacedIds, directory: pathlib.Path, texts: Texts | None = None) -> Generator:
  return kind(config.generator).for_training(config.generator, ids, config.mesh.fully_sharded, directory, texts)


def to_search(config: Config, ids: PlacedIds, directory: pathlib.Path) -> Generator:
  return kind(config.generator).for_search(config.generator, ids, config.mesh.fully_sharded, directory)


def _arguments(config: Config) -> dict:
  return {'history_length': config.data.history_length, 'seed': config.seed, 'batch_size': config.evaluation.batch_size}


def train(config: Config, generator: Generator, data: Windows, directory: pathlib.Path):
  return train_generator(generator, data, directory, **_arguments(config))


def program(config: Config, generator: Generator, data: Windows) -> loop.Program:
  return generator_program(generator, data, **_arguments(config))


def evaluator(config: Config, generator: Generator, beam: int) -> GeneratorEvaluator:
  return GeneratorEvaluator(user_search(generator, beam, config.evaluation.batch_size))


def write_base(
  folder: pathlib.Path,
  texts: Sequence[str],
  vocabulary: int,
  *,
  d_model: int,
  d_ff: int,
  heads: int,
  kv_heads: int,
  context: int = 512,
  new_tokens: int = 1,
) -> None:
  """Writes a LLaMA of two layers with random weights, and a tokenizer trained on `texts`, as Hugging Face has them."""
  tokenizer = TextTokenizer.train(texts, vocabulary)
  tokenizer.write(folder)
  sizes = Architecture(
    text_vocabulary=tokenizer.size,
    new_tokens=new_tokens,
    d_model=d_model,
    d_ff=d_ff,
    layers=2,
    heads=heads,
    kv_heads=kv_heads,
    d_head=4,
    context=context,
  )
  tokens = jnp.zeros((1, 1), jnp.int32)
  params = jax.jit(Llama(sizes).init)(jax.random.key(1), tokens, tokens, tokens)['params']
  llama_weights.write(folder, params, sizes, None)
