"""LETTER-TIGER: a T5 encoder-decoder over the tokens of semantic IDs (TIGER, Rajput et al. 2023; LETTER, section 3)."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import numpy as np
from safetensors.numpy import save_file

from letter_jax import sharding
from letter_jax.configuration import GeneratorConfig
from letter_jax.data.dataset import Texts, Windows
from letter_jax.decoding.user_search import Search
from letter_jax.generators.features import ItemFeatures
from letter_jax.generators.tiger import weights
from letter_jax.generators.tiger.search import t5_search
from letter_jax.generators.tiger.t5 import T5
from letter_jax.generators.tiger.training import t5_program
from letter_jax.semantic_ids.ids import PlacedIds
from letter_jax.semantic_ids.vocabulary import FIRST_CODE, Vocabulary
from letter_jax.system import artifacts
from letter_jax.training import loop


@dataclasses.dataclass(frozen=True)
class Tiger:
  """The T5 generator (`generators.generator.Generator`).

  A subclass whose `model` is a subclass of `T5` is trained, evaluated and searched like this one.

  Attributes:
    config: sizes, loss and training.
    ids: the semantic IDs on the devices.
    fully_sharded: whether parameters and optimizer state are sharded over 'data' too, in training.
    features: of the items, where `config.features` names any.
  """

  config: GeneratorConfig
  ids: PlacedIds
  fully_sharded: bool = False
  features: ItemFeatures | None = None

  reads_texts: ClassVar[bool] = False
  prepares: ClassVar[tuple[str, ...]] = ()

  @classmethod
  def for_training(
    cls, config: GeneratorConfig, ids: PlacedIds, fully_sharded: bool, directory: pathlib.Path, texts: Texts | None
  ) -> 'Tiger':
    """A T5 to be trained; it needs nothing but its semantic IDs and the features that are in `directory`."""
    return cls.for_search(config, ids, fully_sharded, directory)

  @classmethod
  def for_search(cls, config: GeneratorConfig, ids: PlacedIds, fully_sharded: bool, directory: pathlib.Path) -> 'Tiger':
    """A trained T5."""
    return cls(config, ids, fully_sharded, ItemFeatures.read(directory) if config.features else None)

  def with_later_items(self, text_NxT: np.ndarray, text_MxT: np.ndarray) -> 'Tiger':
    """The later items get features where the others have any."""
    features = self.features and self.features.extended(text_NxT, text_MxT)
    return dataclasses.replace(self, features=features)

  @classmethod
  def check(cls, config: GeneratorConfig, has_texts: bool, levels: int, codebook_size: int) -> None:
    """A T5 has nothing to check before training."""

  @classmethod
  def input_files(cls, config: GeneratorConfig) -> dict[str, pathlib.Path]:
    """The weights that training starts from."""
    return {'generator.initial_weights': pathlib.Path(config.initial_weights)} if config.initial_weights else {}

  @functools.cached_property
  def vocabulary(self) -> Vocabulary:
    """Padding, end, and the codes."""
    return self.ids.host.vocabulary()

  @property
  def dtype(self) -> np.dtype:
    """The dtype of the activations on the devices of `ids`."""
    return sharding.compute_dtype(self.config.compute_dtype, self.ids.mesh)

  @property
  def model(self) -> T5:
    """The Linen module, which training and search share."""
    shape = self.features and (self.ids.rows, self.features.table_NxF.shape[1])
    return T5(self.config.model, self.vocabulary.size, self.dtype, shape)

  @functools.cached_property
  def _frozen(self) -> dict[str, jax.Array]:
    """The parameters that are not trained, on every device."""
    if not self.features:
      return {}
    table_NxF = self.ids.with_room(self.features.table_NxF)
    return {'item_features': sharding.put(table_NxF, sharding.replicated(self.ids.mesh))}

  def program(
    self, data: Windows, validate: Callable[[Any], dict[str, float]], *, history_length: int, seed: int
  ) -> loop.Program:
    """Packed rows of histories, ranking-guided loss; `validate`: parameters -> metrics."""
    layout = sharding.Layout(self.ids.mesh, self.config.partition, self.fully_sharded)
    return t5_program(
      self.config,
      self.model,
      self.vocabulary,
      self.ids,
      layout,
      data,
      validate,
      history_length=history_length,
      seed=seed,
      frozen=self._frozen,
    )

  def search(self) -> Search:
    """The constrained search; it takes the parameters of the T5."""
    return t5_search(self.model, self.vocabulary, self.config.softmax)

  def layout(self) -> sharding.Layout:
    """Every device has the whole T5."""
    return sharding.Layout(self.ids.mesh)

  def whole_params(self, trained: dict) -> dict:
    """The trained parameters and the features of the items."""
    return {**trained, **self._frozen}

  @property
  def longest_history(self) -> None:
    """A T5 has relative positions: no limit."""
    return None

  @property
  def sharded_search(self) -> bool:
    """Every device searches for its own users."""
    return False

  def write_hugging_face(self, directory: pathlib.Path, trained: dict) -> dict[str, Any]:
    """Writes `config.json` and `model.safetensors` for `T5ForConditionalGeneration`.

    Features of the items are no part of that model: `features.safetensors` has `item_features` [N, F] and
    `feature_kernel` [F, D], whose product is added to the inputs of the encoder.
    """
    artifacts.write_json(
      directory / 'config.json', weights.hugging_face_config(self.config.model, self.vocabulary.size)
    )
    artifacts.write(directory / 'model.safetensors', lambda path: weights.write(path, trained, self.config.model))
    if self.features:
      tensors = {'item_features': self.features.table_NxF, 'feature_kernel': np.asarray(trained['feature_kernel'])}
      artifacts.write(directory / 'features.safetensors', lambda path: save_file(tensors, path))
    return {'first_code': FIRST_CODE}
