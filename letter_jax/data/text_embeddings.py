"""What an item says, as a vector: TF-IDF and a truncated SVD (latent semantic analysis), nothing to download.

Or a language model, if the config names one (`language_models.py`).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from letter_jax.configuration import TextEmbeddingsConfig
from letter_jax.errors import InputError

# How often a field's words count. On Scientific (Amazon 2018) 53% of an item's ten nearest neighbours are then MiniLM's
# too (51% with all fields alike), and they hold 5.5% of the pairs bought by one user (5.1%; MiniLM's 5.5%). Bigrams
# made both worse.
FIELD_REPEATS = {'title': 4, 'brand': 2, 'categories': 2, 'description': 1}


def embed_texts(texts: Sequence[Mapping[str, str]] | None, config: TextEmbeddingsConfig, seed: int) -> np.ndarray:
  """Embeds the items' texts.

  Of TF-IDF: English stop words are dropped, and words that only one item has unless fewer than `config.dim` would be
  left.

  Args:
    texts: a mapping of dataset.TEXT_FIELDS to strings for every item; None if the data set has no texts.
    config: `dim` and `max_features`; with `model`, the settings of `language_models.embed_items`.
    seed: of the randomised SVD.

  Returns:
    float32 [items, dim'], rows of unit length, with dim' = min(config.dim, items, words): a small catalogue has fewer
    dimensions than asked for. Items without a known word have a row of zeros. With `model`, its rows as they come.

  Raises:
    InputError: no item has text; with `model`, what `language_models.embed_items` raises.
  """
  if texts is None or not any(any(text.values()) for text in texts):
    raise InputError('no item has text to embed; expected a NAME.item.json with titles beside the interactions, '
                     'or rows from outside (config.text_embeddings.path)')
  if config.model:
    from letter_jax.data.language_models import embed_items
    return embed_items(texts, config)
  from sklearn.utils.extmath import randomized_svd  # takes a second to import

  weights_NxV = _tf_idf([' '.join(' '.join([text[field]] * times) for field, times in FIELD_REPEATS.items())
                         for text in texts], config)
  dim = min(config.dim, *weights_NxV.shape)
  left_NxD, singular_D, _ = randomized_svd(weights_NxV, dim, n_iter=5, random_state=seed)
  rows_NxD = (left_NxD * singular_D).astype(np.float32)
  # Under the rounding error of the SVD a row is one of zeros.
  length_N = np.linalg.norm(rows_NxD, axis=1, keepdims=True)
  return np.where(length_N > 1e-5, rows_NxD / np.maximum(length_N, 1e-5), 0).astype(np.float32)


def _tf_idf(documents: list[str], config: TextEmbeddingsConfig):
  """Sparse float32 [items, words], rows of unit length."""
  from sklearn.feature_extraction.text import TfidfVectorizer

  for min_items in (2, 1):
    vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=min_items, stop_words='english', strip_accents='unicode',
                                 max_features=config.max_features, dtype=np.float32)
    try:
      weights_NxV = vectorizer.fit_transform(documents)
    except ValueError:  # no word is left
      continue
    if min_items == 1 or weights_NxV.shape[1] >= min(config.dim, config.max_features):
      return weights_NxV
  raise InputError('no item has a word to embed, only stop words and single characters; '
                   'expected rows from outside (config.text_embeddings.path)')
