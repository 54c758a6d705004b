"""Text embeddings by language models, cached by `cache.py`.

A model is a sentence-transformers name or folder, or the folder of a Hugging Face model such as LLaMA, whose last
layer is averaged over the tokens. PyTorch runs the model; it is imported only when a model is loaded.
"""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from letter_jax.configuration import TextEmbeddingsConfig
from letter_jax.data.dataset import CATEGORY_SEPARATOR, TEXT_FIELDS
from letter_jax.system import artifacts, home
from letter_jax.system.errors import InputError
from letter_jax.system.progress import Progress
from letter_jax.system.wording import counted
from letter_jax.text_embeddings.cache import EmbeddingCache

# A shard is written after this many texts or seconds: a kill loses at most the rows since the last shard.
SHARD_TEXTS = 4096
SHARD_SECONDS = 30.0
# Text and token limit for a Hugging Face model, as in LETTER's data_process/amazon_text_emb.py.
POOLED_FIELDS = ('title', 'description')
POOLED_TOKENS = 2048


@dataclasses.dataclass(frozen=True)
class LanguageModel:
  """A text encoder and the form in which it takes an item's text.

  Attributes:
    name: for messages and the name of its cache folder.
    identity: everything besides the text that determines a row; JSON.
    dim: width of a row.
    item_texts: maps an item's fields to its texts, whose rows are averaged; ('',) for an item without text.
    encode: maps texts to rows [texts, dim], in one batch.
  """

  name: str
  identity: Mapping[str, Any]
  dim: int
  item_texts: Callable[[Mapping[str, str]], tuple[str, ...]]
  encode: Callable[[list[str]], np.ndarray]


def embed_items(texts: Sequence[Mapping[str, str]], config: TextEmbeddingsConfig) -> np.ndarray:
  """Embeds the items' texts with the model that the config names.

  Args:
    texts: for each item, a mapping of dataset.TEXT_FIELDS to strings.
    config: `model`, `max_tokens` and `batch_size` are used.

  Returns:
    float32 [items, dim], with the model's own row lengths. An item without text gets the row of the empty text.

  Raises:
    InputError: a package or model is missing or does not load; no item has a text that the model takes; the cache
      has rows of a different width.
  """
  cache = home.cache_folder('text_embeddings')
  return embed_with(load_model(config.model, config.max_tokens), texts, config.batch_size, cache)


def embed_with(
  model: LanguageModel, texts: Sequence[Mapping[str, str]], batch_size: int, cache: pathlib.Path | None
) -> np.ndarray:
  """Embeds the items' texts with a loaded model; as `embed_items`, with an explicit cache folder, or none."""
  texts_N = [model.item_texts(fields) for fields in texts]
  empty = sum(not any(item_texts) for item_texts in texts_N)
  if empty == len(texts_N):
    raise InputError(
      f'no item has a text that {model.name} takes; expected titles or descriptions in NAME.item.json, '
      'or given embeddings (config.text_embeddings.path)'
    )
  if empty:
    print(f'text_embeddings: items without text: {empty:,}', flush=True)
  rows = _embed_texts(model, {text for item_texts in texts_N for text in item_texts}, batch_size, cache)
  rows_NxD = np.empty((len(texts_N), model.dim), np.float32)
  for item, item_texts in enumerate(texts_N):
    rows_NxD[item] = np.mean([rows[text] for text in item_texts], axis=0)
  return rows_NxD


def _embed_texts(
  model: LanguageModel, texts: set[str], batch_size: int, folder: pathlib.Path | None
) -> dict[str, np.ndarray]:
  """Returns text -> float32 [dim], from the cache where it has the text and otherwise from the model."""
  cache = EmbeddingCache(folder, model.name, model.identity, model.dim)
  rows = cache.read(texts)
  print(
    f'text_embeddings: {model.name}, {counted(model.dim, "dimension")}: {counted(len(texts), "distinct text")}, '
    + (f'{len(rows):,} of them in {cache.folder}' if cache.folder else 'not cached: no home folder can be written'),
    flush=True,
  )
  # Sorted by length, for little padding; longest first, so that too little memory shows at once. A shard ends with a
  # batch, so that a resumed run forms the same batches and, as padding affects the last bits, the same rows.
  order = sorted(texts - rows.keys(), key=lambda text: (-len(text), text))
  new: dict[str, np.ndarray] = {}
  last_write = time.monotonic()
  with Progress('text_embeddings', len(texts), 'text', done=len(rows)) as progress:
    for start in range(0, len(order), batch_size):
      batch = order[start : start + batch_size]
      new.update(zip(batch, _encode(model, batch)))
      progress.update(len(batch))
      if len(new) >= SHARD_TEXTS or time.monotonic() - last_write >= SHARD_SECONDS:
        cache.write(new)
        rows.update(new)
        new, last_write = {}, time.monotonic()
  if new:
    cache.write(new)
  rows.update(new)
  return rows


def _encode(model: LanguageModel, texts: list[str]) -> np.ndarray:
  rows_TxD = np.asarray(model.encode(texts), np.float32)
  if rows_TxD.shape != (len(texts), model.dim):
    raise InputError(
      f'{model.name} gave rows of shape {list(rows_TxD.shape)} for {counted(len(texts), "text")}; '
      f'expected {[len(texts), model.dim]}'
    )
  finite_T = np.isfinite(rows_TxD).all(axis=1)
  if not finite_T.all():
    text = texts[int(np.argmin(finite_T))]
    raise InputError(f'{model.name} gave a row that is not finite for the text "{text[:80]}"; expected finite numbers')
  return rows_TxD


def joined_text(fields: Mapping[str, str]) -> tuple[str, ...]:
  """The one text for sentence-transformers: the non-empty of 'title. brand. category, category. description'."""
  fields = {**fields, 'categories': fields['categories'].replace(CATEGORY_SEPARATOR, ', ')}
  return ('. '.join(fields[name] for name in TEXT_FIELDS if fields[name]),)


def separate_texts(fields: Mapping[str, str]) -> tuple[str, ...]:
  """The texts for a Hugging Face model: title and description, or whichever of the two the item has."""
  return tuple(fields[name] for name in POOLED_FIELDS if fields[name]) or ('',)


def model_files(name: str) -> Iterator[pathlib.Path]:
  """Yields the files of a model's folder at any depth, without hidden ones; nothing if `name` is not a folder."""
  folder = pathlib.Path(name)
  if name and folder.is_dir():
    for path in sorted(folder.rglob('*')):
      parts = path.relative_to(folder).parts
      if path.is_file() and not any(part.startswith('.') or part == '__pycache__' for part in parts):
        yield path


def load_model(name: str, max_tokens: int) -> LanguageModel:
  """Loads a model onto the GPU if there is one, otherwise the CPU.

  On the CPU it computes in float32, on a GPU in the precision of its weights.

  Args:
    name: a folder with modules.json (sentence-transformers) or only config.json (Hugging Face); otherwise a name that
      sentence-transformers knows or finds on the Hugging Face hub.
    max_tokens: limit on the tokens of a text, special tokens included. 0: the smallest limit that the model's files
      state, that of tokenizer.json among them, and 2,048 for a Hugging Face model.

  Raises:
    InputError: a package is missing; the model does not exist or does not load; it has no tokenizer; `max_tokens`
      exceeds the model's positions or leaves no token besides the special ones.
  """
  folder = pathlib.Path(name)
  if folder.is_dir():
    if (folder / 'modules.json').is_file():
      load = _sentence_transformer
    elif (folder / 'config.json').is_file():
      load = _hugging_face
    else:
      raise InputError(
        f'{folder} has neither modules.json nor config.json; expected (config.text_embeddings.model) '
        'the folder of a sentence-transformers or Hugging Face model, or a name'
      )
  elif folder.exists() or folder.is_absolute() or name.startswith(('.', '~')):
    raise InputError(
      f'{folder} is not a folder; expected (config.text_embeddings.model) the folder of a model, or a name'
    )
  else:
    load = _sentence_transformer
  try:
    import sentence_transformers  # noqa: F401, a dependency of _sentence_transformer, checked here
    import torch
    import transformers
  except ImportError as error:
    raise InputError(
      f'config.text_embeddings.model={name} needs a package that cannot be imported ({error}); '
      'pip install sentence-transformers'
    ) from error
  transformers.logging.set_verbosity_error()
  transformers.utils.logging.disable_progress_bar()
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  try:
    return load(name, max_tokens, device)
  except InputError:
    raise
  except Exception as error:  # damaged files and network faults raise many types
    reason = str(error).strip().partition('\n')[0][:200]
    raise InputError(
      f'config.text_embeddings.model={name} does not load ({type(error).__name__}: {reason}); '
      'expected the folder of a model, or a name on the Hugging Face hub and a connection to it'
    ) from error


def _sentence_transformer(name: str, max_tokens: int, device: str) -> LanguageModel:
  from sentence_transformers import SentenceTransformer

  model = SentenceTransformer(name, device=device)
  model.eval()
  if device == 'cpu':
    model.float()
  config = getattr(getattr(model[0], 'auto_model', None), 'config', None)
  tokenizer = getattr(model, 'tokenizer', None)
  limit = token_limit(name, max_tokens, config, tokenizer, getattr(model, 'max_seq_length', None))
  if limit is not None:
    model.max_seq_length = limit

  def encode(texts: list[str]) -> np.ndarray:
    return model.encode(texts, batch_size=len(texts), show_progress_bar=False)

  return LanguageModel(
    name, _identity(name, model, config, limit, 'sentence-transformers'), encode(['']).shape[1], joined_text, encode
  )


def _hugging_face(name: str, max_tokens: int, device: str) -> LanguageModel:
  import torch
  from transformers import AutoModel, AutoTokenizer

  tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=True)
  model = AutoModel.from_pretrained(name, local_files_only=True, torch_dtype='auto').eval().to(device)
  if device == 'cpu':
    model.float()
  limit = token_limit(name, max_tokens, model.config, tokenizer, POOLED_TOKENS)
  encoder = model.get_encoder() if model.config.is_encoder_decoder else model
  tokenizer.padding_side = 'right'
  if tokenizer.pad_token is None:  # as for LLaMA; any token does, as the mask hides it
    tokenizer.pad_token = tokenizer.eos_token or tokenizer.bos_token or tokenizer.unk_token
  # Without a token that starts every text, the empty text would have no token at all.
  empty_text = '' if tokenizer('')['input_ids'] else tokenizer.pad_token

  @torch.no_grad()
  def encode(texts: list[str]) -> np.ndarray:
    encoded = tokenizer(
      [text or empty_text for text in texts], padding='longest', truncation=True, max_length=limit, return_tensors='pt'
    ).to(device)
    mask_TxS = encoded['attention_mask']
    hidden_TxSxD = encoder(input_ids=encoded['input_ids'], attention_mask=mask_TxS).last_hidden_state
    mask_TxSx1 = mask_TxS[:, :, None]
    summed_TxD = (hidden_TxSxD.float() * mask_TxSx1).sum(dim=1)
    return (summed_TxD / mask_TxSx1.sum(dim=1)).cpu().numpy()

  return LanguageModel(
    name,
    _identity(name, model, model.config, limit, 'mean of the last layer'),
    encode(['']).shape[1],
    separate_texts,
    encode,
  )


def _identity(name: str, model: Any, config: Any, limit: int | None, pooling: str) -> dict[str, Any]:
  folder = pathlib.Path(name)
  source: dict[str, Any]
  if folder.is_dir():
    source = {'files': {path.relative_to(folder).as_posix(): artifacts.fingerprint(path) for path in model_files(name)}}
  else:
    source = {'hub': name, 'commit': getattr(config, '_commit_hash', None)}
  return {
    **source,
    'pooling': pooling,
    'max_tokens': limit,
    'precision': str(next((array.dtype for array in model.parameters()), None)),
  }


def token_limit(name: str, max_tokens: int, config: Any, tokenizer: Any, runner_limit: int | None) -> int | None:
  """The number of tokens, special ones included, that a text is truncated to; None if nothing states a limit.

  Args:
    name: the model's name, for messages.
    max_tokens: the requested limit; 0: the smallest stated one.
    config: the Hugging Face configuration, or None.
    tokenizer: a transformers tokenizer; any other kind states no limit.
    runner_limit: the limit of the library or function that runs the model, or None.

  Raises:
    InputError: the tokenizer has no words; `max_tokens` is at most the number of special tokens, or more than the
      model's positions.
  """
  if hasattr(tokenizer, 'get_vocab') and set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
    # transformers silently makes an empty tokenizer, for which all texts are the same.
    raise InputError(
      f'{name} has no tokenizer; expected its files (tokenizer.json, vocab.txt, ...) next to the weights'
    )
  positions = getattr(config, 'max_position_embeddings', None)
  special = tokenizer.num_special_tokens_to_add() if hasattr(tokenizer, 'num_special_tokens_to_add') else 0
  if max_tokens and max_tokens <= special:
    raise InputError(
      f'config.text_embeddings.max_tokens is {max_tokens}; expected more than the {special} that {name} '
      'adds to every text'
    )
  if max_tokens:
    if positions and max_tokens > positions:
      raise InputError(
        f'config.text_embeddings.max_tokens is {max_tokens}; expected at most the {positions} positions of {name}'
      )
    return max_tokens
  # The truncation of tokenizer.json. sentence-transformers ignores it, but for all-MiniLM-L6-v2 it is the length that
  # the model was trained with: 128, where its other file states 256.
  truncation = getattr(getattr(tokenizer, 'backend_tokenizer', None), 'truncation', None)
  stated = (
    runner_limit,
    positions,
    getattr(tokenizer, 'model_max_length', None),
    truncation and truncation['max_length'],
  )
  known = [int(limit) for limit in stated if limit and limit < 2**31]
  return min(known, default=None)
