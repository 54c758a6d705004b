"""What an item says, as a vector: TF-IDF and a truncated SVD (latent semantic analysis), nothing to download.

Or a language model, if the config names one (`language_models.py`).
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from letter_jax.configuration import TextEmbeddingsConfig
from letter_jax.system import artifacts
from letter_jax.system.errors import InputError

# How often a field's words count. On Scientific (Amazon 2018) 53% of an item's ten nearest neighbours are then MiniLM's
# too (51% with all fields alike), and they hold 5.5% of the pairs bought by one user (5.1%; MiniLM's 5.5%). Bigrams
# made both worse.
FIELD_REPEATS = {'title': 4, 'brand': 2, 'categories': 2, 'description': 1}

PROJECTION = 'tf_idf.npz'  # beside the rows

Texts = Sequence[Mapping[str, str]]  # dataset.TEXT_FIELDS of every item


@dataclasses.dataclass(frozen=True)
class TextProjection:
  """TF-IDF and truncated SVD as they were fitted to a catalogue, for items that come later.

  Attributes:
    words: V, the vocabulary.
    idf_V: float32.
    directions_DxV: float32, right singular vectors.
  """

  words: tuple[str, ...]
  idf_V: np.ndarray
  directions_DxV: np.ndarray

  def rows(self, texts: Texts) -> np.ndarray:
    """float32 [items, D]: where the items would be among those that it was fitted to; zeros without a known word."""
    vectorizer = _vectorizer(vocabulary=self.words)
    vectorizer.idf_ = self.idf_V
    return _of_unit_length(vectorizer.transform(_documents(texts)) @ self.directions_DxV.T)

  def write(self, path: pathlib.Path) -> None:
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
    """Raises InputError where it is not there or damaged."""
    expected = 'what the stage text_embeddings writes beside its rows, where they are TF-IDF'
    found = artifacts.read_npz(path, expected)
    if found.keys() != {'words', 'idf', 'directions'}:
      raise InputError(f'{path} has the arrays {", ".join(found)}; expected {expected}')
    return cls(tuple(found['words'].tobytes().decode('utf-8').split('\n')), found['idf'], found['directions'])


def embed_texts(
  texts: Texts | None, config: TextEmbeddingsConfig, seed: int
) -> tuple[np.ndarray, TextProjection | None]:
  """Embeds the items' texts.

  Of TF-IDF: English stop words are dropped, and words that only one item has unless fewer than `config.dim` would be
  left.

  Args:
    texts: of every item; None if the data set has no texts.
    config: `dim` and `max_features`; with `model`, the settings of `language_models.embed_items`.
    seed: of the randomised SVD.

  Returns:
    float32 [items, dim'], rows of unit length, with dim' = min(config.dim, items, words): a small catalogue has fewer
    dimensions than asked for. Items without a known word have a row of zeros. With `model`, its rows as they come.
    And what embeds later items; None with `model`, which embeds them itself.

  Raises:
    InputError: no item has text; with `model`, what `language_models.embed_items` raises.
  """
  if texts is None or not any(any(text.values()) for text in texts):
    raise InputError(
      'no item has text to embed; expected a NAME.item.json with titles beside the interactions, '
      'or rows from outside (config.text_embeddings.path)'
    )
  if config.model:
    from letter_jax.text_embeddings.language_models import embed_items

    return embed_items(texts, config), None
  from sklearn.utils.extmath import randomized_svd  # takes a second to import

  vectorizer, weights_NxV = _tf_idf(_documents(texts), config)
  dim = min(config.dim, *weights_NxV.shape)
  left_NxD, singular_D, directions_DxV = randomized_svd(weights_NxV, dim, n_iter=5, random_state=seed)
  projection = TextProjection(
    tuple(vectorizer.get_feature_names_out()), vectorizer.idf_.astype(np.float32), directions_DxV.astype(np.float32)
  )
  return _of_unit_length(left_NxD * singular_D), projection


def _of_unit_length(rows_NxD: np.ndarray) -> np.ndarray:
  rows_NxD = np.asarray(rows_NxD, np.float32)
  # Under the rounding error of the SVD a row is one of zeros.
  length_N = np.linalg.norm(rows_NxD, axis=1, keepdims=True)
  return np.where(length_N > 1e-5, rows_NxD / np.maximum(length_N, 1e-5), 0).astype(np.float32)


def _documents(texts: Texts) -> list[str]:
  return [' '.join(' '.join([text[field]] * times) for field, times in FIELD_REPEATS.items()) for text in texts]


def _vectorizer(**settings):
  from sklearn.feature_extraction.text import TfidfVectorizer

  return TfidfVectorizer(sublinear_tf=True, stop_words='english', strip_accents='unicode', dtype=np.float32, **settings)


def _tf_idf(documents: list[str], config: TextEmbeddingsConfig):
  """The fitted vectorizer, and sparse float32 [items, words], rows of unit length."""
  for min_items in (2, 1):
    vectorizer = _vectorizer(min_df=min_items, max_features=config.max_features)
    try:
      weights_NxV = vectorizer.fit_transform(documents)
    except ValueError:  # no word is left
      continue
    if min_items == 1 or weights_NxV.shape[1] >= min(config.dim, config.max_features):
      return vectorizer, weights_NxV
  raise InputError(
    'no item has a word to embed, only stop words and single characters; '
    'expected rows from outside (config.text_embeddings.path)'
  )
