"""LETTER-LC-Rec: a language model with semantic IDs among its tokens (LC-Rec, Zheng et al. 2024; LETTER, section 3)."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import numpy as np

from letter_jax import sharding
from letter_jax.configuration import GeneratorConfig
from letter_jax.data.dataset import Texts, Windows
from letter_jax.decoding.user_search import Search
from letter_jax.generators.lc_rec import base_model, config_json, lora, prompts, weights
from letter_jax.generators.lc_rec.base_model import BaseModel
from letter_jax.generators.lc_rec.llama import Llama
from letter_jax.generators.lc_rec.search import llama_search
from letter_jax.generators.lc_rec.training import frozen_params, llama_program
from letter_jax.semantic_ids.ids import PlacedIds
from letter_jax.semantic_ids.vocabulary import Vocabulary
from letter_jax.training import loop


@dataclasses.dataclass(frozen=True)
class LCRec:
  """The language model (`generators.generator.Generator`).

  Attributes:
    base: architecture, text tokenizer and, for training, the texts of the items.
  """

  config: GeneratorConfig
  ids: PlacedIds
  fully_sharded: bool
  base: BaseModel

  reads_texts: ClassVar[bool] = True
  prepares: ClassVar[tuple[str, ...]] = (base_model.TOKENIZER,)

  @classmethod
  def for_training(
    cls, config: GeneratorConfig, ids: PlacedIds, fully_sharded: bool, directory: pathlib.Path, texts: Texts | None
  ) -> 'LCRec':
    """A language model to be trained; without a base, its text tokenizer is made from the texts, once."""
    codes = ids.host.levels * ids.host.codebook_size
    return cls(config, ids, fully_sharded, BaseModel.for_training(config, texts, codes, directory))

  @classmethod
  def for_search(cls, config: GeneratorConfig, ids: PlacedIds, fully_sharded: bool, directory: pathlib.Path) -> 'LCRec':
    """A language model that was trained under `directory`."""
    codes = ids.host.levels * ids.host.codebook_size
    return cls(config, ids, fully_sharded, BaseModel.for_search(config, codes, directory))

  def with_later_items(self, text_NxT: np.ndarray, text_MxT: np.ndarray) -> 'LCRec':
    """A language model knows an item by its codes alone."""
    return self

  @classmethod
  def check(cls, config: GeneratorConfig, has_texts: bool, levels: int, codebook_size: int) -> None:
    """Raises InputError for a base, tasks or texts that cannot be trained with."""
    base_model.check(config, has_texts, levels, codebook_size)

  @classmethod
  def input_files(cls, config: GeneratorConfig) -> dict[str, pathlib.Path]:
    """The files of the base, and what users say."""
    return base_model.input_files(config)

  @functools.cached_property
  def vocabulary(self) -> Vocabulary:
    """The tokens of the text, and the codes."""
    return self.ids.host.vocabulary(self.base.architecture.text_vocabulary)

  @property
  def model(self) -> Llama:
    """The Linen module."""
    config = self.config
    dtype = sharding.compute_dtype(config.compute_dtype, self.ids.mesh)
    return Llama(self.base.architecture, config.lora if config.lora.rank else None, dtype, config.remat)

  def program(
    self, data: Windows, validate: Callable[[Any], dict[str, float]], *, history_length: int, seed: int
  ) -> loop.Program:
    """Instructions in packed rows, loss on the responses; `validate`: whole parameters -> metrics."""
    return llama_program(
      self.config,
      self.model,
      self.base,
      self.ids,
      self.layout(),
      data,
      validate,
      history_length=history_length,
      seed=seed,
    )

  def search(self) -> Search:
    """The constrained search; it takes whole parameters."""
    prompt = prompts.decoding_prompt(self.base.tokenizer)
    return llama_search(self.model, self.vocabulary, prompt, self.config.softmax)

  def layout(self) -> sharding.Layout:
    """Parameters lie as they are trained."""
    return sharding.Layout(self.ids.mesh, self.config.partition, self.fully_sharded)

  def whole_params(self, trained: dict) -> dict:
    """The trained parameters and the frozen base, read from its files."""
    return lora.join(trained, frozen_params(self.config, self.base, self.layout()))

  @property
  def longest_history(self) -> int:
    """Items that a prompt has room for; InputError where it has room for none."""
    return base_model.longest_history(self.base, self.ids.host.levels)

  @property
  def sharded_search(self) -> bool:
    """Whether the mesh splits the parameters."""
    return self.ids.mesh.shape['model'] > 1 or self.fully_sharded

  def write_hugging_face(self, directory: pathlib.Path, trained: dict) -> dict[str, Any]:
    """Writes a folder that transformers loads: adapters merged, codes among the tokenizer's tokens."""
    base, ids, params = self.base, self.ids.host, self.whole_params(trained)
    if self.config.lora.rank:
      merge = functools.partial(lora.merge, lora=self.config.lora)
      out = self.layout().of(jax.eval_shape(merge, params))
      params = jax.jit(merge, out_shardings=out)(params)
    source = (
      json.loads((base.folder / config_json.NAME).read_text(encoding='utf-8'))
      if base.folder
      else {'bos_token_id': base.tokenizer.bos, 'eos_token_id': base.tokenizer.eos}
    )
    weights.write(directory, params, base.architecture, source)
    base.tokenizer.with_codes(ids.levels, ids.codebook_size).beginning_as_trained().write(directory)
    prompt = prompts.TEMPLATES['sequential'][0].removesuffix('{id}')
    return {'prompt': prompt, 'separator': prompts.ID_SEPARATOR}
