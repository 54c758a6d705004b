"""The language model that LETTER-LC-Rec starts from: a Hugging Face folder, or sizes and a tokenizer made here."""

import dataclasses
import functools
import pathlib

from letter_jax.configuration import GeneratorConfig
from letter_jax.data.dataset import Texts
from letter_jax.generators.lc_rec import prompts
from letter_jax.generators.lc_rec import search as llama_search
from letter_jax.generators.lc_rec import weights as llama_weights
from letter_jax.generators.lc_rec.config_json import read_architecture
from letter_jax.generators.lc_rec.instructions import check_texts
from letter_jax.generators.lc_rec.llama import Architecture
from letter_jax.generators.lc_rec.text_tokenizer import SPECIAL_TOKEN_FILES, TextTokenizer
from letter_jax.generators.lc_rec.user_texts import UserTexts, read_user_texts
from letter_jax.system import processes
from letter_jax.system.errors import InputError

TOKENIZER = 'tokenizer'  # folder under that of the generator


@dataclasses.dataclass(frozen=True)
class BaseModel:
  """The language model that training starts from.

  Attributes:
    folder: a Hugging Face folder with the weights; None for a model with random initial weights.
    architecture: its sizes, with a new token for each code.
    tokenizer: the text tokenizer, without the codes.
    texts: texts of the items; None if the model is only searched.
    user_texts: queries and preferences of users, for the tasks that need them.
  """

  folder: pathlib.Path | None
  architecture: Architecture
  tokenizer: TextTokenizer
  texts: Texts | None = None
  user_texts: UserTexts | None = None

  @classmethod
  def for_training(
    cls, config: GeneratorConfig, texts: Texts | None, codes: int, directory: pathlib.Path
  ) -> 'BaseModel':
    """The base with the texts for training. Without `config.base` a text tokenizer is made under `directory`, once.

    Args:
      config: `base`, `user_texts` and the sizes of a model without a base.
      texts: texts of the items.
      codes: L * K, the number of codes.
      directory: the folder of the training.

    Raises:
      InputError: `config.base` is not a folder with a supported model, or a file is malformed.
    """
    if not config.base:
      processes.on_first_process(functools.partial(_make_tokenizer, config, texts, directory / TOKENIZER))
    user_texts = read_user_texts(pathlib.Path(config.user_texts)) if config.user_texts else None
    return dataclasses.replace(cls.for_search(config, codes, directory), texts=texts, user_texts=user_texts)

  @classmethod
  def for_search(cls, config: GeneratorConfig, codes: int, directory: pathlib.Path) -> 'BaseModel':
    """The base without texts, for a model that was trained under `directory`.

    Raises:
      InputError: as for `for_training`.
    """
    folder = pathlib.Path(config.base) if config.base else directory / TOKENIZER
    return _with_tokenizer(config, TextTokenizer.read(folder), codes)


def _make_tokenizer(config: GeneratorConfig, texts: Texts | None, folder: pathlib.Path) -> None:
  """Trains a tokenizer on the texts and the wording of the prompts, and writes it, unless there is one."""
  # The tokenizer of an interrupted training belongs to its checkpoints.
  if (folder / 'tokenizer_config.json').exists():
    return
  words = [text[field] for text in texts or () for field in ('title', 'description') if text[field]]
  wording = [
    fragment for task in prompts.TEMPLATES for template in prompts.templates_of(task) for fragment in template.fragments
  ]
  TextTokenizer.train([*wording, *words], config.llama.text_vocabulary).write(folder)


def longest_history(base: BaseModel, levels: int) -> int:
  """The number of items that a prompt of the search has room for.

  Raises:
    InputError: there is room for none.
  """
  prompt, context = prompts.decoding_prompt(base.tokenizer), base.architecture.context
  longest = llama_search.longest_history(prompt, levels, context)
  if longest < 1:
    raise InputError(
      f'the context of the model is {context} tokens; expected room for a prompt of at least '
      f'{len(prompt.prefix) + len(prompt.suffix) + 2 * levels} tokens'
    )
  return longest


def _with_tokenizer(config: GeneratorConfig, tokenizer: TextTokenizer, codes: int) -> BaseModel:
  """The base with the architecture of `config.base`, or of `config.llama` without one."""
  folder = pathlib.Path(config.base) if config.base else None
  if folder:
    architecture = read_architecture(folder, codes, tokenizer.size)
  else:
    sizes = {**dataclasses.asdict(config.llama), 'text_vocabulary': tokenizer.size}
    architecture = Architecture(**sizes, new_tokens=codes, tied=True)
  _require_context(config, architecture.context)
  return BaseModel(folder, architecture, tokenizer)


def _require_context(config: GeneratorConfig, context: int) -> None:
  if config.row_tokens > context:
    raise InputError(
      f'config.generator.row_tokens is {config.row_tokens}; expected at most {context}, the context of the model'
    )


def check(config: GeneratorConfig, has_texts: bool, levels: int, codebook_size: int) -> None:
  """Checks everything that is known before training.

  Args:
    config: the generator.
    has_texts: whether the data set has texts of its items.
    levels: L, codes of a semantic ID.
    codebook_size: K, codes of a level.

  Raises:
    InputError: a task lacks its texts, the base is not supported or lacks files, or its context is too short.
  """
  user_texts = read_user_texts(pathlib.Path(config.user_texts)) if config.user_texts else None
  weights = {task: weight for task, weight in dataclasses.asdict(config.mixture).items() if weight}
  check_texts(weights, has_texts or None, user_texts)
  if not config.base:
    _require_context(config, Architecture.context)
  else:
    folder = pathlib.Path(config.base)
    tokenizer = TextTokenizer.read(folder)
    tokenizer.with_codes(levels, codebook_size)
    base = _with_tokenizer(config, tokenizer, levels * codebook_size)
    longest_history(base, levels)
    llama_weights.check(folder, base.architecture)


def input_files(config: GeneratorConfig) -> dict[str, pathlib.Path]:
  """The files that the generator depends on, by config key."""
  files = {'generator.user_texts': pathlib.Path(config.user_texts)} if config.user_texts else {}
  if config.base:
    folder = pathlib.Path(config.base)
    files['generator.base'] = folder
    paths = [
      folder / 'tokenizer.json',
      *(folder / name for name in SPECIAL_TOKEN_FILES),
      *llama_weights.weight_files(folder),
    ]
    files.update({f'generator.base/{path.name}': path for path in paths if path.exists()})
  return files
