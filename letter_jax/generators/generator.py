"""The interface of a generator that training, search, evaluation, serving and planning use.

Each generator is a package with one class that implements `Generator`: `tiger.generator.Tiger` (T5) and
`lc_rec.generator.LCRec` (language model). `kind` is the one place that knows which configuration means which class.
"""

import pathlib
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from letter_jax import sharding
from letter_jax.configuration import GeneratorConfig
from letter_jax.data import splits
from letter_jax.data.dataset import Texts, Windows
from letter_jax.decoding.user_batches import UserBatches
from letter_jax.decoding.user_search import Search, UserSearch
from letter_jax.evaluation.evaluator import GeneratorEvaluator
from letter_jax.semantic_ids.ids import PlacedIds
from letter_jax.training import loop
from letter_jax.training.checkpoints import Progress

NAMES = {'t5': 'LETTER-TIGER', 'llama': 'LETTER-LC-Rec'}  # by config.generator.architecture


class Generator(Protocol):
  """A model that generates semantic IDs: a frozen dataclass of everything but its trained parameters."""

  reads_texts: ClassVar[bool]  # whether training needs the texts of the items
  prepares: ClassVar[tuple[str, ...]]  # names of what `for_training` writes in the folder

  @property
  def config(self) -> GeneratorConfig:
    """Sizes, loss and training of the generator."""
    ...

  @property
  def ids(self) -> PlacedIds:
    """The semantic IDs on the devices; training and search share them."""
    ...

  @classmethod
  def for_training(
    cls, config: GeneratorConfig, ids: PlacedIds, fully_sharded: bool, directory: pathlib.Path, texts: Texts | None
  ) -> Self:
    """A generator to be trained under `directory`; files that training prepares are written there.

    Args:
      fully_sharded: whether parameters and optimizer state are sharded over 'data' too.
      texts: of the items, where `reads_texts`.
    """
    ...

  @classmethod
  def for_search(cls, config: GeneratorConfig, ids: PlacedIds, fully_sharded: bool, directory: pathlib.Path) -> Self:
    """A generator that was trained under `directory`."""
    ...

  def with_later_items(self, text_NxT: np.ndarray, text_MxT: np.ndarray) -> Self:
    """The generator that knows, besides the N items of its training, M items that came later.

    Its `ids` have them already.

    Args:
      text_NxT, text_MxT: float, text embeddings of the items of the training, and of those that came later.
    """
    ...

  @classmethod
  def check(cls, config: GeneratorConfig, has_texts: bool, levels: int, codebook_size: int) -> None:
    """Raises InputError for everything that can be known to be wrong before training."""
    ...

  @classmethod
  def input_files(cls, config: GeneratorConfig) -> dict[str, pathlib.Path]:
    """Files from outside that the generator depends on, by config key."""
    ...

  def program(
    self, data: Windows, validate: Callable[[Any], dict[str, float]], *, history_length: int, seed: int
  ) -> loop.Program:
    """The training; `validate` takes whole parameters."""
    ...

  def search(self) -> Search:
    """The constrained search; it takes whole parameters."""
    ...

  def layout(self) -> sharding.Layout:
    """How parameters lie on the mesh when they are only used."""
    ...

  def whole_params(self, trained: dict) -> dict:
    """All parameters, of which `trained` were trained."""
    ...

  @property
  def longest_history(self) -> int | None:
    """Number of items that the model has room for; None without a limit."""
    ...

  @property
  def sharded_search(self) -> bool:
    """Whether parameters stay sharded in the search, as no device has room for all of them."""
    ...

  def write_hugging_face(self, directory: pathlib.Path, trained: dict) -> dict[str, Any]:
    """Writes the model for transformers; returns its own entries of `letter.json`."""
    ...


def kind(config: GeneratorConfig) -> type[Generator]:
  """The class of the generator that the configuration describes."""
  if config.architecture == 't5':
    from letter_jax.generators.tiger.generator import Tiger

    return Tiger
  from letter_jax.generators.lc_rec.generator import LCRec

  return LCRec


def user_search(generator: Generator, beam: int, batch_size: int) -> UserSearch:
  """The search of a generator for batches of users; it takes whole parameters.

  Raises:
    InputError: the context of a language model has no room for a single item.
  """
  ids = generator.ids
  batches = UserBatches(ids.mesh, batch_size, generator.longest_history, generator.sharded_search)
  return UserSearch(generator.search(), ids, batches, beam)


def generator_program(
  generator: Generator,
  data: Windows,
  *,
  history_length: int,
  seed: int,
  batch_size: int,
  trained_on: Windows | None = None,
) -> loop.Program:
  """The training of a generator, selected by constrained beam search for a fixed sample of validation users.

  Args:
    history_length: latest items that the model sees.
    seed: of parameters, batches, dropout and the sample.
    batch_size: users searched at once in validation.
    trained_on: the interactions to train on, where they are not those of all users.
  """
  config = generator.config
  beam = min(config.validation_beam, len(generator.ids.host))
  evaluator = GeneratorEvaluator(user_search(generator, beam, batch_size))
  held_out = splits.validation_examples(data.recent(), history_length)
  if config.validation_users < len(held_out):
    sample = np.random.default_rng(seed).choice(len(held_out), config.validation_users, replace=False)
    held_out = held_out.take(np.sort(sample))

  def validate(params: Any) -> dict[str, float]:
    return evaluator.validate(params, held_out)

  return generator.program(trained_on or data, validate, history_length=history_length, seed=seed)


def train_generator(
  generator: Generator,
  data: Windows,
  directory: pathlib.Path,
  *,
  history_length: int,
  seed: int,
  batch_size: int = 64,
  checkpoints: str = '',
  trained_on: Windows | None = None,
  start: loop.Start | None = None,
) -> tuple[Any, Progress]:
  """Trains, or resumes, under `directory`.

  Args:
    checkpoints: as `config.checkpoints`.
    trained_on: the interactions to train on, where they are not those of all users.
    start: as for `loop.train`.

  Returns:
    the best trained parameters, and the loop's progress.
  """
  program = generator_program(
    generator, data, history_length=history_length, seed=seed, batch_size=batch_size, trained_on=trained_on
  )
  return loop.train(program, generator.config.training, directory, 'generator', checkpoints, start=start)
