"""Text embeddings by TF-IDF and a truncated SVD (latent semantic analysis): nothing to download.

The terms of a text are those of `terms.py`, in any script; stop words are left out of English texts.
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
from letter_jax.text_embeddings import stop_words, terms

# Weight of each field's words. On Scientific (Amazon 2018), 53% of an item's ten nearest neighbours are then also
# MiniLM's (51% with equal weights), and they cover 5.5% of the pairs bought by one user (equal weights 5.1%, MiniLM
# 5.5%). Bigrams made both worse.
FIELD_REPEATS = {'title': 4, 'brand': 2, 'categories': 2, 'description': 1}


# The end of a message that counts items.
WITHOUT_TERMS = 'their rows are zeros; a language model (config.text_embeddings.model) reads texts of any language'

Texts = Sequence[Mapping[str, str]]  # for each item, dataset.TEXT_FIELDS -> text


@dataclasses.dataclass(frozen=True)
class TextProjection:
  """TF-IDF and truncated SVD fitted to a catalogue, to embed items that are added later.

  Attributes:
    words: the vocabulary, V terms.
    idf_V: float32, inverse document frequencies.
    directions_DxV: float32, right singular vectors.
  """

  words: tuple[str, ...]
  idf_V: np.ndarray
  directions_DxV: np.ndarray

  def rows(self, texts: Texts) -> np.ndarray:
    """Embeds items in the space of the fitted catalogue: float32 [items, D]; zeros for an item without a known term."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(analyzer=_terms, vocabulary=self.words, sublinear_tf=True, dtype=np.float32)
    vectorizer.idf_ = self.idf_V
    return _normalized(vectorizer.transform(texts) @ self.directions_DxV.T)

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
  texts: Texts | None, config: TextEmbeddingsConfig, seed: int, projection: TextProjection | None = None
) -> tuple[np.ndarray, TextProjection | None]:
  """Embeds the items' texts by TF-IDF or, if `config.model` names one, a language model.

  TF-IDF ignores the stop words of English texts, and terms that occur in a single item unless fewer than `config.dim`
  would remain. Items that it has no term for are counted on stdout.

  Args:
    texts: the texts of every item; None if the data set has no texts.
    config: `dim` and `max_features`; with `model`, the settings of `language_models.embed_items`.
    seed: seed of the randomised SVD.
    projection: that of an earlier catalogue, in whose space the items are embedded; None to fit it to these texts.

  Returns:
    The embeddings, and the projection that embeds items added later.
    TF-IDF: float32 [items, dim'], rows of unit length, where dim' = min(config.dim, items, words), so a small
    catalogue has fewer dimensions than requested; items without a known term have a row of zeros.
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
  if projection is None:
    rows_NxD, projection = _fitted(texts, config, seed)
  else:
    rows_NxD = projection.rows(texts)
  zeros = int((~rows_NxD.any(axis=1)).sum())
  if zeros:
    empty = sum(not any(text.values()) for text in texts)
    print(
      f'text_embeddings: the texts of {zeros:,} of {len(rows_NxD):,} items give no term ({empty:,} have no text): '
      f'{WITHOUT_TERMS}',
      flush=True,
    )
  return rows_NxD, projection


def _fitted(texts: Texts, config: TextEmbeddingsConfig, seed: int) -> tuple[np.ndarray, TextProjection]:
  from sklearn.feature_extraction.text import TfidfTransformer
  from sklearn.utils.extmath import randomized_svd  # slow to import

  words_V, counts_NxV, weight_N = _counts(texts, config)
  transformer = TfidfTransformer(sublinear_tf=True)
  tf_idf_NxV = transformer.fit_transform(counts_NxV)
  dim = min(config.dim, *tf_idf_NxV.shape)
  weighted_NxV = tf_idf_NxV.multiply(weight_N[:, None]).tocsr()
  left_NxD, singular_D, directions_DxV = randomized_svd(weighted_NxV, dim, n_iter=5, random_state=seed)
  projection = TextProjection(tuple(words_V), transformer.idf_.astype(np.float32), directions_DxV.astype(np.float32))
  return _normalized(left_NxD * singular_D), projection


def _normalized(rows_NxD: np.ndarray) -> np.ndarray:
  rows_NxD = np.asarray(rows_NxD, np.float32)
  # Rows shorter than the rounding error of the SVD become zeros.
  length_N = np.linalg.norm(rows_NxD, axis=1, keepdims=True)
  return np.where(length_N > 1e-5, rows_NxD / np.maximum(length_N, 1e-5), 0).astype(np.float32)


def _terms(text: Mapping[str, str]) -> list[str]:
  """The terms of an item, each as often as its fields weigh."""
  pieces = {field: terms.pieces(text[field]) for field in FIELD_REPEATS}
  ignored = stop_words.of_text(set().union(*pieces.values()))
  found: list[str] = []
  for field, times in FIELD_REPEATS.items():
    found += [terms.folded(piece) for piece in pieces[field] if piece not in ignored] * times
  return found


def _counts(texts: Texts, config: TextEmbeddingsConfig) -> tuple[np.ndarray, Any, np.ndarray]:
  """The vocabulary, str [V], a sparse float32 [items, V] of counts, and `_item_weights`, float32 [items]."""
  from sklearn.feature_extraction.text import CountVectorizer

  for min_items in (2, 1):
    vectorizer = CountVectorizer(analyzer=_terms, min_df=min_items, dtype=np.float32)
    try:
      counts_NxV = vectorizer.fit_transform(texts)
    except ValueError:  # no terms remain
      continue
    if min_items == 1 or counts_NxV.shape[1] >= min(config.dim, config.max_features):
      words_V = vectorizer.get_feature_names_out()
      weight_N = _item_weights(words_V, counts_NxV)
      frequency_V = weight_N**2 @ counts_NxV
      kept = np.sort(np.argsort(-frequency_V, kind='stable')[: config.max_features])
      return words_V[kept], counts_NxV[:, kept], weight_N
  raise InputError(
    'no item has a word to embed, only stop words and single characters; '
    'expected a language model (config.text_embeddings.model) or given embeddings (config.text_embeddings.path)'
  )


def _item_weights(words_V: np.ndarray, counts_NxV: Any) -> np.ndarray:
  """float32 [items], at least 1: the weights of the items in the choice of words and directions.

  A script that few items use would have no share in the D directions, and its items would all look alike. So an item
  weighs (items of the most frequent script / items of its script)^1/4; 1 where there is one script only.
  """
  from scipy import sparse

  scripts, script_V = np.unique([terms.script_of(word) for word in words_V], return_inverse=True)
  of_script_VxS = sparse.csr_array((np.ones(len(words_V), np.float32), (np.arange(len(words_V)), script_V)))
  counts_NxS = (counts_NxV @ of_script_VxS).toarray()
  items_S = np.maximum((counts_NxS > 0).sum(axis=0), 1)
  squared_S = np.where(scripts == '', 1, np.sqrt(items_S[scripts != ''].max(initial=1) / items_S))
  total_N = np.maximum(counts_NxS.sum(axis=1), 1)
  return np.sqrt(counts_NxS @ squared_S / total_N).astype(np.float32)
