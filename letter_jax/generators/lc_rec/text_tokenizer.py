"""A language model's own tokenizer: text to tokens and back. The codes of items become tokens after its vocabulary.

Shapes: V text vocabulary, L levels, K codes of a level.
"""

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from letter_jax.data import ragged
from letter_jax.data.index_format import level_letter
from letter_jax.system import artifacts
from letter_jax.system.errors import InputError

BOS, EOS, PAD = '<bos>', '<eos>', '<pad>'
SMALLEST = 256 + 3  # a trained vocabulary has all bytes and the special tokens
# The files of a Hugging Face folder that may name the tokens that begin and end a text: the first that does is used. A
# null means that there is none; Qwen's config.json names a beginning that its tokenizer does not add.
SPECIAL_TOKEN_FILES = ('tokenizer_config.json', 'special_tokens_map.json', 'config.json', 'generation_config.json')


@dataclasses.dataclass(frozen=True)
class TextTokenizer:
  """A tokenizer of the library `tokenizers`, with the properties that the generators need.

  Attributes:
    size: V, all tokens of the text vocabulary, special and added ones included; code c of level l is V + l * K + c.
    bos: token that every text begins with; None if the model has none.
    eos: token that every text ends with.
    prefixes_space: whether a space is added before every text, as SentencePiece does.
    backend: the tokenizer object of the library.
  """

  size: int
  bos: int | None
  eos: int
  prefixes_space: bool
  backend: tokenizers.Tokenizer

  @classmethod
  def read(cls, folder: pathlib.Path) -> 'TextTokenizer':
    """The tokenizer of a Hugging Face folder: `tokenizer.json`, and those of SPECIAL_TOKEN_FILES that exist.

    Raises:
      InputError: a file is missing or cannot be read; no token ends a text, or a special token is not in the
        vocabulary; the numbers of the tokens have gaps.
    """
    folder = pathlib.Path(folder)
    path = folder / 'tokenizer.json'
    if not path.is_file():
      raise InputError(f"{path} does not exist; expected a Hugging Face folder with a fast tokenizer's tokenizer.json")
    try:
      backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises no specific type
      raise InputError(
        f'{path} cannot be read ({" ".join(str(error).split())[:120]}); expected the tokenizer.json of a fast tokenizer'
      ) from error
    # Chat models have several ends; the first is the end of a text.
    bos, eos = (_special_token(folder, backend, which) for which in ('bos', 'eos'))
    if eos is None:
      raise InputError(
        f'{folder}: a tokenizer without the needed special tokens: no file names the end of a text; '
        f'expected eos_token in {SPECIAL_TOKEN_FILES[0]}'
      )
    return cls._of(backend, bos, eos, str(path))

  @classmethod
  def train(cls, texts: Iterable[str], size: int) -> 'TextTokenizer':
    """Trains byte-level BPE with <bos>, <eos> and <pad>; deterministic.

    Args:
      texts: to train on.
      size: maximal V; smaller if the texts have no more pairs that occur twice.

    Raises:
      InputError: `size` is below SMALLEST.
    """
    if size < SMALLEST:
      raise InputError(f'a text vocabulary of {size} tokens cannot hold all bytes; expected at least {SMALLEST}')
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
      texts,
      trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=[BOS, EOS, PAD],
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
      ),
    )
    bos, eos = backend.token_to_id(BOS), backend.token_to_id(EOS)
    assert bos is not None and eos is not None  # special tokens are always part of the vocabulary
    # Only used by other programs that read the written folder: they begin a text as training does.
    backend.post_processor = processors.TemplateProcessing(single=f'{BOS} $A', special_tokens=[(BOS, bos)])
    return cls._of(backend, bos, eos, 'the trained tokenizer')

  @classmethod
  def _of(cls, backend: tokenizers.Tokenizer, bos: int | None, eos: int, where: str) -> 'TextTokenizer':
    backend.no_truncation()
    backend.no_padding()
    # A special token that is spelled out in an item's title is plain text.
    backend.encode_special_tokens = True
    size = max(backend.get_vocab(with_added_tokens=True).values()) + 1
    if size != backend.get_vocab_size(with_added_tokens=True):
      raise InputError(
        f'{where}: {backend.get_vocab_size(with_added_tokens=True)} tokens have numbers up to '
        f'{size - 1}; expected 0 .. N - 1 without gaps, so that the codes can follow them'
      )
    first = backend.encode('a', add_special_tokens=False).tokens
    return cls(size, bos, eos, bool(first) and first[0].startswith('▁'), backend)

  def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of each text, without special tokens.

    With `prefixes_space` no second space is added to a text that begins with one.

    Returns:
      int32 [tokens of all texts], and offsets, int64 [texts + 1]: text i has the tokens [offsets[i], offsets[i + 1]).
    """
    if self.prefixes_space:
      texts = [text.removeprefix(' ') for text in texts]
    tokens = [encoding.ids for encoding in self.backend.encode_batch_fast(list(texts), add_special_tokens=False)]
    offsets = ragged.offsets(np.fromiter(map(len, tokens), np.int64, len(tokens)))
    return np.fromiter(itertools.chain.from_iterable(tokens), np.int32, offsets[-1]), offsets

  def decode(self, tokens: Sequence[int]) -> str:
    """The text, without special tokens."""
    return self.backend.decode([int(token) for token in tokens], skip_special_tokens=True)

  def with_codes(self, levels: int, codebook_size: int) -> 'TextTokenizer':
    """A copy that also has the codes as tokens, written as in LETTER's index.json: <a_0>, <a_1>, ..., <b_0>, ...

    `size` remains V: the number of the first code.

    Raises:
      InputError: the tokenizer has one of these tokens already.
    """
    names = [f'<{level_letter(level)}_{code}>' for level in range(levels) for code in range(codebook_size)]
    existing = next((name for name in names if self.backend.token_to_id(name) is not None), None)
    if existing is not None:
      raise InputError(f'the tokenizer has the token {existing} already; expected one without codes of items')
    backend = tokenizers.Tokenizer.from_str(self.backend.to_str())
    backend.add_tokens([tokenizers.AddedToken(name, normalized=False, special=False) for name in names])
    backend.encode_special_tokens = True
    if backend.token_to_id(names[0]) != self.size:
      raise ValueError(f'{names[0]} has number {backend.token_to_id(names[0])}, not {self.size}')
    return dataclasses.replace(self, backend=backend)

  def beginning_as_trained(self) -> 'TextTokenizer':
    """A copy for use by other programs: it begins a text with bos exactly if training does."""
    backend = tokenizers.Tokenizer.from_str(self.backend.to_str())
    backend.encode_special_tokens = True
    if isinstance(backend.pre_tokenizer, pre_tokenizers.Metaspace) and backend.pre_tokenizer.prepend_scheme == 'first':
      backend.pre_tokenizer.prepend_scheme = 'always'  # training's fragments are each the first of a text
    if backend.encode('a').ids != [
      *([] if self.bos is None else [self.bos]),
      *backend.encode('a', add_special_tokens=False).ids,
    ]:
      bos = None if self.bos is None else backend.id_to_token(self.bos)
      backend.post_processor = processors.TemplateProcessing(
        single='$A' if bos is None else f'{bos}:0 $A:0', special_tokens=[] if bos is None else [(bos, self.bos)]
      )
    return dataclasses.replace(self, backend=backend)

  def write(self, folder: pathlib.Path) -> None:
    """Writes tokenizer.json and tokenizer_config.json, for `read` and transformers' AutoTokenizer."""
    folder = pathlib.Path(folder)
    artifacts.write(folder / 'tokenizer.json', lambda path: self.backend.save(str(path)))
    bos, eos = (None if token is None else self.backend.id_to_token(token) for token in (self.bos, self.eos))
    settings = {
      'tokenizer_class': 'PreTrainedTokenizerFast',
      'bos_token': bos,
      'eos_token': eos,
      'pad_token': eos if self.backend.token_to_id(PAD) is None else PAD,
      'clean_up_tokenization_spaces': False,
    }
    artifacts.write_json(folder / 'tokenizer_config.json', settings)


def _special_token(folder: pathlib.Path, backend: tokenizers.Tokenizer, which: str) -> int | None:
  """Number of the token that begins ('bos') or ends ('eos') a text."""
  for path in (folder / name for name in SPECIAL_TOKEN_FILES):
    settings = _read_settings(path) if path.is_file() else {}
    key = next((key for key in (f'{which}_token', f'{which}_token_id') if key in settings), None)
    named = settings.get(key)
    if named is None and key is not None and which == 'bos':
      return None
    if isinstance(named, list) and named:
      named = named[0]
    if isinstance(named, dict):
      named = named.get('content')
    if named is None or named == '':
      continue
    token = backend.token_to_id(named) if isinstance(named, str) else named
    if type(token) is not int or backend.id_to_token(token) is None:
      raise InputError(
        f'{path}: {key} is {json.dumps(named)}; expected a token of the vocabulary ({folder / "tokenizer.json"})'
      )
    return token
  return None


def _read_settings(path: pathlib.Path) -> dict:
  try:
    settings = json.loads(path.read_text(encoding='utf-8'))
  except (OSError, ValueError, RecursionError) as error:
    raise InputError(f'{path} cannot be read ({error}); expected JSON in UTF-8') from error
  if not isinstance(settings, dict):
    raise InputError(f'{path} holds a {type(settings).__name__}; expected a JSON object')
  return settings
