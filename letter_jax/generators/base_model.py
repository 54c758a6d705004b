"""The language model that LETTER-LC-Rec starts from: a Hugging Face folder, or sizes and a tokenizer made here."""

import dataclasses
import pathlib
from collections.abc import Sequence

from letter_jax.configuration import GeneratorConfig
from letter_jax.errors import InputError
from letter_jax.generators import llama_weights, prompts
from letter_jax.generators.llama import Architecture
from letter_jax.generators.text_tokenizer import TextTokenizer

TOKENIZER = 'tokenizer'  # folder under that of the generator


@dataclasses.dataclass(frozen=True)
class BaseModel:
  """Attributes:
    folder: of the weights; None where the model starts from nothing.
    architecture: with as many new tokens as there are codes.
    tokenizer: of the text, without codes.
    texts: of the items, see `dataset.TEXT_FIELDS`; None where only a trained model is used.
    user_texts: or None.
  """

  folder: pathlib.Path | None
  architecture: Architecture
  tokenizer: TextTokenizer
  texts: Sequence[dict[str, str]] | None = None
  user_texts: prompts.UserTexts | None = None


def begin(config: GeneratorConfig, texts: Sequence[dict[str, str]] | None, codes: int,
          directory: pathlib.Path) -> BaseModel:
  """What a training needs; a tokenizer that is made of the texts is written under `directory`.

  Args:
    texts: of the items.
    codes: L * K.

  Raises:
    InputError: a folder that is no model, one that cannot be computed here, or files that are not what they should be.
  """
  if config.base:
    tokenizer = TextTokenizer.read(pathlib.Path(config.base))
  else:
    words = [text[field] for text in texts or () for field in ('title', 'description') if text[field]]
    wording = [fragment for task in prompts.TEMPLATES for template in prompts.templates_of(task)
               for fragment in template.fragments]
    tokenizer = TextTokenizer.train([*wording, *words], config.llama.text_vocabulary)
    tokenizer.write(directory / TOKENIZER)
  user_texts = prompts.read_user_texts(pathlib.Path(config.user_texts)) if config.user_texts else None
  return dataclasses.replace(_of(config, tokenizer, codes), texts=texts, user_texts=user_texts)


def again(config: GeneratorConfig, codes: int, directory: pathlib.Path) -> BaseModel:
  """What a search with the model needs that was trained under `directory`."""
  folder = pathlib.Path(config.base) if config.base else directory / TOKENIZER
  return _of(config, TextTokenizer.read(folder), codes)


def _of(config: GeneratorConfig, tokenizer: TextTokenizer, codes: int) -> BaseModel:
  if config.base:
    folder = pathlib.Path(config.base)
    architecture = llama_weights.read_architecture(folder, codes, tokenizer.size)
    if config.row_tokens > architecture.context:
      raise InputError(f'config.generator.row_tokens is {config.row_tokens}; expected at most {architecture.context}, '
                       f'the context of {folder}')
    return BaseModel(folder, architecture, tokenizer)
  sizes = dataclasses.asdict(config.llama)
  return BaseModel(None, Architecture(**{**sizes, 'text_vocabulary': tokenizer.size}, new_tokens=codes, tied=True),
                   tokenizer)


def check(config: GeneratorConfig) -> None:
  """Raises InputError for what can be known to be wrong with the base before anything is trained."""
  if config.base:
    _of(config, TextTokenizer.read(pathlib.Path(config.base)), codes=1)
  if config.user_texts:
    prompts.read_user_texts(pathlib.Path(config.user_texts))


def files(config: GeneratorConfig) -> dict[str, pathlib.Path]:
  """What the generator depends on, by config key."""
  found = {'generator.user_texts': pathlib.Path(config.user_texts)} if config.user_texts else {}
  if config.base:
    folder = pathlib.Path(config.base)
    paths = [folder / 'config.json', folder / 'tokenizer.json', *sorted(folder.glob('*.safetensors'))]
    found.update({f'generator.base/{path.name}': path for path in paths if folder.is_dir()})
    found['generator.base'] = folder
  return found
