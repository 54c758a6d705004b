"""Text embeddings by TF-IDF and a truncated SVD (latent semantic analysis): nothing to download.

`embed_texts` is also the entry point for language models (`language_models.py`), if the config names one.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from letter_jax.configuration import TextEmbeddingsConfig
from letter_jax.system import artifacts
from letter_jax.system.errors import InputError

# Weight of each field's words. On Scientific (Amazon 2018), 53% of an item's ten nearest neighbours are then also
# MiniLM's (51% with equal weights), and they cover 5.5% of the pairs bought by one user (equal weights 5.1%, MiniLM
# 5.5%). Bigrams made both worse.
FIELD_REPEATS = {'title': 4, 'brand': 2, 'categories': 2, 'description': 1}

PROJECTION = 'tf_idf.npz'  # name of the file, in the folder of the embeddings

Texts = Sequence[Mapping[str, str]]  # for each item, dataset.TEXT_FIELDS -> text


@dataclasses.dataclass(frozen=True)
class TextProjection:
  """TF-IDF and truncated SVD fitted to a catalogue, to embed items that are added later.

  Attributes:
    words: the vocabulary, V words.
    idf_V: float32, inverse document frequencies.
    directions_DxV: float32, right singular vectors.
  """

  words: tuple[str, ...]
  idf_V: np.ndarray
  directions_DxV: np.ndarray

  def rows(self, texts: Texts) -> np.ndarray:
    """Embeds items in the space of the fitted catalogue: float32 [items, D]; zeros for an item without a known word."""
    vectorizer = _vectorizer(vocabulary=self.words)
    vectorizer.idf_ = self.idf_V
    return _normalized(vectorizer.transform(_documents(texts)) @ self.directions_DxV.T)

  def write(self, path: pathlib.Path) -> None:
    """Writes an .npz file that `read` reads; InputError if the disk cannot be written."""
    artifacts.write_npz(
      path,
      {
        'words': np.frombuffer('\n'.join(self.words).encode('utf-8'), np.uint8),
        'idf': self.idf_V,
        'directions': self.directions_DxV,
      },
    )

  @classmethod
  def read(cls, path: pathlib.Path) -> 'TextProjection':
    """Reads the file that `write` wrote; InputError if it is missing or damaged."""
    expected = 'the file that the stage text_embeddings writes next to TF-IDF embeddings'
    arrays = artifacts.read_npz(path, expected)
    if arrays.keys() != {'words', 'idf', 'directions'}:
      raise InputError(f'{path} has the arrays {", ".join(arrays)}; expected {expected}')
    return cls(tuple(arrays['words'].tobytes().decode('utf-8').split('\n')), arrays['idf'], arrays['directions'])


def embed_texts(
  texts: Texts | None, config: TextEmbeddingsConfig, seed: int
) -> tuple[np.ndarray, TextProjection | None]:
  """Embeds the items' texts by TF-IDF or, if `config.model` names one, a language model.

  TF-IDF ignores English stop words, and words that occur in a single item unless fewer than `config.dim` would remain.

  Args:
    texts: the texts of every item; None if the data set has no texts.
    config: `dim` and `max_features`; with `model`, the settings of `language_models.embed_items`.
    seed: seed of the randomised SVD.

  Returns:
    The embeddings, and the projection that embeds items added later.
    TF-IDF: float32 [items, dim'], rows of unit length, where dim' = min(config.dim, items, words), so a small
    catalogue has fewer dimensions than requested; items without a known word have a row of zeros.
    Language model: its unchanged rows, and None, as the model itself embeds later items.

  Raises:
    InputError: no item has text; or, with `model`, as `language_models.embed_items`.
  """
  if texts is None or not any(any(text.values()) for text in texts):
    raise InputError(
      'no item has text to embed; expected a NAME.item.json with titles next to the interactions, '
      'or given embeddings (config.text_embeddings.path)'
    )
  if config.model:
    from letter_jax.text_embeddings.language_models import embed_items

    return embed_items(texts, config), None
  from sklearn.utils.extmath import randomized_svd  # slow to import

  vectorizer, weights_NxV = _tf_idf(_documents(texts), config)
  dim = min(config.dim, *weights_NxV.shape)
  left_NxD, singular_D, directions_DxV = randomized_svd(weights_NxV, dim, n_iter=5, random_state=seed)
  projection = TextProjection(
    tuple(vectorizer.get_feature_names_out()), vectorizer.idf_.astype(np.float32), directions_DxV.astype(np.float32)
  )
  return _normalized(left_NxD * singular_D), projection


def _normalized(rows_NxD: np.ndarray) -> np.ndarray:
  rows_NxD = np.asarray(rows_NxD, np.float32)
  # Rows shorter than the rounding error of the SVD become zeros.
  length_N = np.linalg.norm(rows_NxD, axis=1, keepdims=True)
  return np.where(length_N > 1e-5, rows_NxD / np.maximum(length_N, 1e-5), 0).astype(np.float32)


def _documents(texts: Texts) -> list[str]:
  return [' '.join(' '.join([text[field]] * times) for field, times in FIELD_REPEATS.items()) for text in texts]


def _vectorizer(**settings: Any) -> Any:
  from sklearn.feature_extraction.text import TfidfVectorizer

  return TfidfVectorizer(sublinear_tf=True, stop_words='english', strip_accents='unicode', dtype=np.float32, **settings)


def _tf_idf(documents: list[str], config: TextEmbeddingsConfig) -> tuple[Any, Any]:
  """Returns the fitted vectorizer and a sparse float32 [items, words] with rows of unit length."""
  for min_items in (2, 1):
    vectorizer = _vectorizer(min_df=min_items, max_features=config.max_features)
    try:
      weights_NxV = vectorizer.fit_transform(documents)
    except ValueError:  # no words remain
      continue
    if min_items == 1 or weights_NxV.shape[1] >= min(config.dim, config.max_features):
      return vectorizer, weights_NxV
  raise InputError(
    'no item has a word to embed, only stop words and single characters; '
    'expected given embeddings (config.text_embeddings.path)'
  )
