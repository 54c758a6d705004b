"""A cache of text embeddings on disk, so that a text is embedded once per model.

    CACHE/MODEL-HASH/model.json    the model's name and identity
    CACHE/MODEL-HASH/ID.npz        a shard: `hashes` uint8 [texts, 32], SHA-256 of each; `rows` float32 [texts, dim]

HASH is a hash of the model's identity: the content of its files and how texts are truncated and pooled. Shards are
never modified.
"""

import hashlib
import json
import pathlib
import re
import uuid
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from letter_jax.system import artifacts
from letter_jax.system.errors import InputError
from letter_jax.system.wording import counted


class EmbeddingCache:
  """The cached rows of one model, in immutable shards.

  Attributes:
    folder: holds the model's shards, created by the first `write`; None where nothing is cached.
  """

  def __init__(self, cache: pathlib.Path | None, name: str, identity: Mapping[str, Any], dim: int):
    """Locates the model's folder; nothing is read or written.

    Args:
      cache: the folder that holds the folders of all models; None: nothing is cached.
      name: the model's name, for messages and the name of its folder.
      identity: everything besides the text that determines a row; JSON.
      dim: width of a row.
    """
    self._name, self._identity, self._dim = name, dict(identity), dim
    identity_hash = hashlib.sha256(json.dumps(self._identity, sort_keys=True).encode()).hexdigest()
    readable = re.sub(r'[^A-Za-z0-9._-]+', '_', '_'.join(pathlib.PurePath(name).parts[-2:]))
    self.folder = cache and cache / f'{readable}-{identity_hash[:16]}'

  def read(self, texts: set[str]) -> dict[str, np.ndarray]:
    """Returns text -> float32 [dim] for those of `texts` that are cached; damaged shards are reported and skipped.

    Raises:
      InputError: the cached rows have a different width than the model's.
    """
    text_by_hash = {_hash(text): text for text in texts}
    rows = {}
    for path in sorted(self.folder.glob('*.npz')) if self.folder else ():
      try:
        hashes_TxH, rows_TxD = _read_shard(path)
      except (OSError, ValueError, KeyError, EOFError, SyntaxError, zipfile.BadZipFile, zlib.error) as error:
        print(f'text_embeddings: {path} is damaged ({error}) and is skipped; its texts are embedded again', flush=True)
        continue
      if rows_TxD.shape[1] != self._dim:
        raise InputError(
          f'{self.folder} holds rows of {counted(rows_TxD.shape[1], "dimension")}, but {self._name} gives {self._dim}; '
          'expected the same width; remove that folder to embed the texts again'
        )
      for text_hash, row in zip(hashes_TxH, rows_TxD):
        text = text_by_hash.get(text_hash.tobytes())
        if text is not None:
          rows[text] = row.copy()  # a view would keep the whole shard in memory
    return rows

  def write(self, rows: Mapping[str, np.ndarray]) -> None:
    """Writes text -> float32 [dim] as a new shard; where that fails, it is said, and nothing more is cached."""
    if self.folder is None:
      return
    hashes_TxH = np.frombuffer(b''.join(map(_hash, rows)), np.uint8).reshape(len(rows), -1)
    rows_TxD = np.stack(list(rows.values()))
    try:
      if not (self.folder / 'model.json').exists():
        artifacts.write_json(self.folder / 'model.json', {'name': self._name, **self._identity})
      # A unique name, so that concurrent runs do not write to the same file.
      artifacts.write_npz(self.folder / f'{uuid.uuid4().hex}.npz', {'hashes': hashes_TxH, 'rows': rows_TxD})
    except InputError as error:
      print(f'text_embeddings: nothing is cached from here on: {error}', flush=True)
      self.folder = None


def _read_shard(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
  """Returns (hashes, rows); raises ValueError, or an error of zipfile or zlib, if the shard is damaged."""
  with np.load(path, allow_pickle=False) as arrays:
    hashes_TxH, rows_TxD = arrays['hashes'], arrays['rows']
  if (
    hashes_TxH.dtype != np.uint8
    or rows_TxD.dtype != np.float32
    or rows_TxD.ndim != 2
    or hashes_TxH.shape != (len(rows_TxD), hashlib.sha256().digest_size)
    or not np.isfinite(rows_TxD).all()
  ):
    raise ValueError('expected a hash and a row of finite float32 numbers for every text')
  return hashes_TxH, rows_TxD


def _hash(text: str) -> bytes:
  return hashlib.sha256(text.encode('utf-8')).digest()
