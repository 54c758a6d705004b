"""The language model that LETTER-LC-Rec starts from: a Hugging Face folder, or sizes and a tokenizer made here."""

import dataclasses
import functools
import pathlib

from letter_jax.configuration import GeneratorConfig
from letter_jax.data.dataset import Texts
from letter_jax.generators.lc_rec import prompts
from letter_jax.generators.lc_rec import search as llama_search
from letter_jax.generators.lc_rec import weights as llama_weights
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
    folder: of the weights; None where the model starts from nothing.
    architecture: with as many new tokens as there are codes.
    tokenizer: of the text, without codes.
    texts: of the items; None where a trained model is only used.
    user_texts: what users look for and like, for the tasks that need it.
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
    """What training needs; a tokenizer made from the texts is written under `directory`, once.

    Args:
      codes: L * K.

    Raises:
      InputError: a folder that does not hold a supported model, or malformed files.
    """
    if not config.base:
      processes.on_first_process(functools.partial(_make_tokenizer, config, texts, directory / TOKENIZER))
    user_texts = read_user_texts(pathlib.Path(config.user_texts)) if config.user_texts else None
    return dataclasses.replace(cls.for_search(config, codes, directory), texts=texts, user_texts=user_texts)

  @classmethod
  def for_search(cls, config: GeneratorConfig, codes: int, directory: pathlib.Path) -> 'BaseModel':
    """What a search needs with a model that was trained under `directory`."""
    folder = pathlib.Path(config.base) if config.base else directory / TOKENIZER
    return _of(config, TextTokenizer.read(folder), codes)


def _make_tokenizer(config: GeneratorConfig, texts: Texts | None, folder: pathlib.Path) -> None:
  # The tokenizer of an interrupted training belongs to its checkpoints.
  if (folder / 'tokenizer_config.json').exists():
    return
  words = [text[field] for text in texts or () for field in ('title', 'description') if text[field]]
  wording = [
    fragment for task in prompts.TEMPLATES for template in prompts.templates_of(task) for fragment in template.fragments
  ]
  TextTokenizer.train([*wording, *words], config.llama.text_vocabulary).write(folder)


def longest_history(base: BaseModel, levels: int) -> int:
  """Items that a prompt of the search has room for; InputError where it has none."""
  prompt, context = prompts.decoding_prompt(base.tokenizer), base.architecture.context
  longest = llama_search.longest_history(prompt, levels, context)
  if longest < 1:
    raise InputError(
      f'the context of the model is {context} tokens; expected room for a prompt, of '
      f'{len(prompt.prefix) + len(prompt.suffix) + 2 * levels} tokens at least'
    )
  return longest


def _of(config: GeneratorConfig, tokenizer: TextTokenizer, codes: int) -> BaseModel:
  folder = pathlib.Path(config.base) if config.base else None
  if folder:
    architecture = llama_weights.read_architecture(folder, codes, tokenizer.size)
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


def check(config: GeneratorConfig, texts: bool, levels: int, codebook_size: int) -> None:
  """Raises InputError for what can be known to be wrong before anything is trained.

  Args:
    texts: whether the data set has texts of its items.
  """
  user_texts = read_user_texts(pathlib.Path(config.user_texts)) if config.user_texts else None
  weights = {task: weight for task, weight in dataclasses.asdict(config.mixture).items() if weight}
  check_texts(weights, texts or None, user_texts)
  if not config.base:
    _require_context(config, Architecture.context)
  else:
    folder = pathlib.Path(config.base)
    tokenizer = TextTokenizer.read(folder)
    tokenizer.with_codes(levels, codebook_size)
    base = _of(config, tokenizer, levels * codebook_size)
    longest_history(base, levels)
    llama_weights.check(folder, base.architecture)


def input_files(config: GeneratorConfig) -> dict[str, pathlib.Path]:
  """What the generator depends on, by config key."""
  found = {'generator.user_texts': pathlib.Path(config.user_texts)} if config.user_texts else {}
  if config.base:
    folder = pathlib.Path(config.base)
    found['generator.base'] = folder
    paths = [
      folder / 'tokenizer.json',
      *(folder / name for name in SPECIAL_TOKEN_FILES),
      *llama_weights.weight_files(folder),
    ]
    found.update({f'generator.base/{path.name}': path for path in paths if path.exists()})
  return found
