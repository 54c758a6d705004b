"""Text embeddings of language models, kept in a cache: what was embedded once is not embedded again.

A model is a sentence-transformers name or folder, or a folder with a Hugging Face model of LLaMA's kind, whose last
layer is averaged over the tokens. PyTorch does the work; it is imported only when a model is named.

    CACHE/MODEL-HASH/model.json    which model, and how it is used
    CACHE/MODEL-HASH/ID.npz        a shard: `hashes` uint8 [texts, 32], SHA-256 of each; `rows` float32 [texts, dim]

The hash covers the content of the model's files and how its texts are cut and pooled. Shards are never changed.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import re
import time
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from letter_jax.configuration import TextEmbeddingsConfig
from letter_jax.data.dataset import CATEGORY_SEPARATOR, TEXT_FIELDS
from letter_jax.system import artifacts
from letter_jax.system.errors import InputError

# A kill loses what came after the last shard: this many texts or seconds at most, and the batch at work.
SHARD_TEXTS = 4096
SHARD_SECONDS = 30.0
# Of a Hugging Face model's text, as in LETTER's data_process/amazon_text_emb.py.
POOLED_FIELDS = ('title', 'description')
POOLED_TOKENS = 2048


@dataclasses.dataclass(frozen=True)
class LanguageModel:
  """A text encoder and how an item's text is given to it.

  Attributes:
    name: for messages and the name of its cache folder.
    identity: everything that its rows depend on beside the text; JSON.
    dim: width of a row.
    item_texts: an item's fields -> its texts, whose rows are averaged; ('',) for an item that has none.
    encode: texts -> rows [texts, dim], all at once.
  """

  name: str
  identity: Mapping[str, Any]
  dim: int
  item_texts: Callable[[Mapping[str, str]], tuple[str, ...]]
  encode: Callable[[list[str]], np.ndarray]


def embed_items(texts: Sequence[Mapping[str, str]], config: TextEmbeddingsConfig) -> np.ndarray:
  """Embeds the items' texts with the model that the config names.

  Args:
    texts: a mapping of dataset.TEXT_FIELDS to strings for every item.
    config: `model`, `max_tokens` and `batch_size`.

  Returns:
    float32 [items, dim], as long as the model makes them. An item without text has the row of the empty text.

  Raises:
    InputError: a package or model that is missing or does not load; no item has a text that the model takes; a cache
      that cannot be used.
  """
  return embed_with(load_model(config.model, config.max_tokens), texts, config.batch_size, cache_folder())


def cache_folder() -> pathlib.Path:
  base = os.environ.get('XDG_CACHE_HOME')  # the standard wants a relative one passed over
  home = pathlib.Path(base) if base and os.path.isabs(base) else pathlib.Path.home() / '.cache'
  return home / 'letter_jax' / 'text_embeddings'


def embed_with(
  model: LanguageModel, texts: Sequence[Mapping[str, str]], batch_size: int, cache: pathlib.Path
) -> np.ndarray:
  """As `embed_items`, with a loaded model and the folder of the cache."""
  texts_N = [model.item_texts(text) for text in texts]
  empty = sum(not any(of_item) for of_item in texts_N)
  if empty == len(texts_N):
    raise InputError(
      f'no item has a text that {model.name} takes; expected titles or descriptions in NAME.item.json, '
      'or rows from outside (config.text_embeddings.path)'
    )
  if empty:
    print(f'text_embeddings: items without text: {empty:,}', flush=True)
  rows = _embed_texts(model, {text for of_item in texts_N for text in of_item}, batch_size, cache)
  rows_NxD = np.empty((len(texts_N), model.dim), np.float32)
  for item, of_item in enumerate(texts_N):
    rows_NxD[item] = np.mean([rows[text] for text in of_item], axis=0)
  return rows_NxD


def _embed_texts(model: LanguageModel, texts: set[str], batch_size: int, cache: pathlib.Path) -> dict[str, np.ndarray]:
  """Text -> float32 [dim], from the cache or else from the model."""
  shards = _Shards(cache, model)
  rows = shards.read(texts)
  print(
    f'text_embeddings: {model.name}, {model.dim} dimensions: {len(texts):,} different texts, {len(rows):,} of them '
    f'in {shards.folder}',
    flush=True,
  )
  # Alike in length: little padding. Longest first: if memory does not do, that shows at once. A shard ends with a
  # batch, so a resumed run makes the same batches, and with them the same last bits, which depend on the padding.
  order = sorted(texts - rows.keys(), key=lambda text: (-len(text), text))
  new, since = {}, time.monotonic()
  with tqdm(
    total=len(texts), initial=len(rows), desc='text_embeddings', unit='text', disable=None, dynamic_ncols=True
  ) as bar:
    for start in range(0, len(order), batch_size):
      batch = order[start : start + batch_size]
      new.update(zip(batch, _encode(model, batch)))
      bar.update(len(batch))
      if len(new) >= SHARD_TEXTS or time.monotonic() - since >= SHARD_SECONDS:
        shards.write(new)
        rows.update(new)
        new, since = {}, time.monotonic()
  if new:
    shards.write(new)
  rows.update(new)
  return rows


def _encode(model: LanguageModel, texts: list[str]) -> np.ndarray:
  rows = np.asarray(model.encode(texts), np.float32)
  if rows.shape != (len(texts), model.dim):
    raise InputError(
      f'{model.name} gave rows of shape {list(rows.shape)} for {len(texts)} texts; expected {[len(texts), model.dim]}'
    )
  finite = np.isfinite(rows).all(axis=1)
  if not finite.all():
    text = texts[int(np.argmin(finite))]
    raise InputError(f'{model.name} gave a row that is not finite for the text "{text[:80]}"; expected finite numbers')
  return rows


class _Shards:
  """The cache of one model: immutable files of rows by the hash of their text."""

  def __init__(self, cache: pathlib.Path, model: LanguageModel):
    self._model = model
    identity = json.dumps(dict(model.identity), sort_keys=True)
    readable = re.sub(r'[^A-Za-z0-9._-]+', '_', '_'.join(pathlib.PurePath(model.name).parts[-2:]))
    self.folder = cache / f'{readable}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}'

  def read(self, texts: set[str]) -> dict[str, np.ndarray]:
    """Text -> float32 [dim] of those that are there.

    Raises:
      InputError: rows of another width than the model's.
    """
    wanted = {_hash(text): text for text in texts}
    rows = {}
    for path in sorted(self.folder.glob('*.npz')):
      try:
        hashes_TxH, rows_TxD = _read_shard(path)
      except (OSError, ValueError, KeyError, EOFError, SyntaxError, zipfile.BadZipFile, zlib.error) as error:
        print(f'text_embeddings: {path} is damaged ({error}) and passed over; its texts are embedded again', flush=True)
        continue
      if rows_TxD.shape[1] != self._model.dim:
        raise InputError(
          f'{self.folder} holds rows of {rows_TxD.shape[1]} dimensions, {self._model.name} gives '
          f'{self._model.dim}; expected the same, so remove that folder to embed the texts again'
        )
      for text_hash, row in zip(hashes_TxH, rows_TxD):
        text = wanted.get(text_hash.tobytes())
        if text is not None:
          rows[text] = row.copy()  # a view would keep the whole shard in memory
    return rows

  def write(self, rows: Mapping[str, np.ndarray]) -> None:
    hashes_TxH = np.frombuffer(b''.join(map(_hash, rows)), np.uint8).reshape(len(rows), -1)
    rows_TxD = np.stack(list(rows.values()))

    def save(temporary: pathlib.Path):
      with temporary.open('wb') as file:
        np.savez(file, hashes=hashes_TxH, rows=rows_TxD)

    try:
      if not (self.folder / 'model.json').exists():
        artifacts.write_json(self.folder / 'model.json', {'name': self._model.name, **self._model.identity})
      # A name of its own: two runs at once do not write into each other's files.
      artifacts.write(self.folder / f'{uuid.uuid4().hex}.npz', save)
    except InputError as error:
      raise InputError(f'{error}; this is the cache, under XDG_CACHE_HOME or else ~/.cache') from error


def _read_shard(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
  """(hashes, rows); raises ValueError, or what zip files raise, if it is not whole."""
  with np.load(path, allow_pickle=False) as arrays:
    hashes_TxH, rows_TxD = arrays['hashes'], arrays['rows']
  if (
    hashes_TxH.dtype != np.uint8
    or rows_TxD.dtype != np.float32
    or rows_TxD.ndim != 2
    or hashes_TxH.shape != (len(rows_TxD), hashlib.sha256().digest_size)
    or not np.isfinite(rows_TxD).all()
  ):
    raise ValueError('not a hash and a row of finite float32 for every text')
  return hashes_TxH, rows_TxD


def _hash(text: str) -> bytes:
  return hashlib.sha256(text.encode('utf-8')).digest()


def joined_text(text: Mapping[str, str]) -> tuple[str]:
  """For sentence-transformers: 'title. brand. category, category. description', without the fields that are empty."""
  fields = {**text, 'categories': text['categories'].replace(CATEGORY_SEPARATOR, ', ')}
  return ('. '.join(fields[name] for name in TEXT_FIELDS if fields[name]),)


def separate_texts(text: Mapping[str, str]) -> tuple[str, ...]:
  """For a Hugging Face model: title and description, or the one of them that the item has."""
  return tuple(text[name] for name in POOLED_FIELDS if text[name]) or ('',)


def model_files(name: str) -> Iterator[pathlib.Path]:
  """The files of a model's folder, at any depth, but hidden ones; none if it is no folder."""
  folder = pathlib.Path(name)
  if name and folder.is_dir():
    for path in sorted(folder.rglob('*')):
      inside = path.relative_to(folder).parts
      if path.is_file() and not any(part.startswith('.') or part == '__pycache__' for part in inside):
        yield path


def load_model(name: str, max_tokens: int) -> LanguageModel:
  """Loads a model onto the GPU, if there is one, or the CPU.

  On the CPU it computes in float32, on a GPU in the precision of its weights.

  Args:
    name: a folder with modules.json (sentence-transformers) or only config.json (Hugging Face); else a name that
      sentence-transformers knows or finds on its hub.
    max_tokens: tokens of a text that count, special ones included. 0: the smallest limit that the model's files state,
      the one of tokenizer.json among them, and 2,048 for a Hugging Face model.

  Raises:
    InputError: a missing package, no such model, files that do not load, no tokenizer among them, more tokens than the
      model has positions, or no more than it adds itself.
  """
  folder = pathlib.Path(name)
  if folder.is_dir():
    kinds = [
      load
      for file, load in (('modules.json', _sentence_transformer), ('config.json', _hugging_face))
      if (folder / file).is_file()
    ]
    if not kinds:
      raise InputError(
        f'{folder} has neither modules.json nor config.json; expected (config.text_embeddings.model) '
        'the folder of a sentence-transformers or Hugging Face model, or a name'
      )
    load = kinds[0]
  elif folder.exists() or folder.is_absolute() or name.startswith(('.', '~')):
    raise InputError(
      f'{folder} is not a folder; expected (config.text_embeddings.model) the folder of a model, or a name'
    )
  else:
    load = _sentence_transformer
  try:
    import sentence_transformers  # noqa: F401, it brings the others along
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
  except Exception as error:  # each kind of damage and of network fault raises something else
    reason = str(error).strip().partition('\n')[0][:200]
    raise InputError(
      f'config.text_embeddings.model={name} does not load ({type(error).__name__}: {reason}); '
      'expected the folder of a model, or a name of the Hugging Face hub and a connection '
      'to it'
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
  if tokenizer.pad_token is None:  # LLaMA has none; the mask hides whatever stands there
    tokenizer.pad_token = tokenizer.eos_token or tokenizer.bos_token or tokenizer.unk_token
  # Without a token that starts every text the empty one has none at all.
  nothing = '' if tokenizer('')['input_ids'] else tokenizer.pad_token

  @torch.no_grad()
  def encode(texts: list[str]) -> np.ndarray:
    encoded = tokenizer(
      [text or nothing for text in texts], padding='longest', truncation=True, max_length=limit, return_tensors='pt'
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


def _identity(name: str, model, config, limit: int | None, pooling: str) -> dict[str, Any]:
  folder = pathlib.Path(name)
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


def token_limit(name: str, max_tokens: int, config, tokenizer, own: int | None) -> int | None:
  """Tokens of a text that count, special ones included; None if nothing says.

  Args:
    name: the model's, for messages.
    max_tokens: what the user wants; 0: the smallest limit that is stated.
    config: the Hugging Face configuration, if there is one.
    tokenizer: of transformers, or another kind, which states nothing.
    own: the limit of whatever runs the model.

  Raises:
    InputError: a tokenizer without words; as many tokens as it adds itself, or more than the model has positions.
  """
  if hasattr(tokenizer, 'get_vocab') and set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
    # transformers makes an empty one without a word, to which every text is the same.
    raise InputError(f'{name} has no tokenizer; expected its files (tokenizer.json, vocab.txt, ...) beside the weights')
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
  # What tokenizer.json cuts at. sentence-transformers takes no notice of it, but for all-MiniLM-L6-v2 it is the length
  # that the model was trained with: 128, where its other file says 256.
  truncation = getattr(getattr(tokenizer, 'backend_tokenizer', None), 'truncation', None)
  stated = (own, positions, getattr(tokenizer, 'model_max_length', None), truncation and truncation['max_length'])
  known = [int(limit) for limit in stated if limit and limit < 2**31]
  return min(known, default=None)
