"""A text encoder of a few lines in place of a language model, and items to embed: no PyTorch (that is tests/parity)."""

import numpy as np

from letter_jax.text_embeddings.language_models import LanguageModel, joined_text


def item(title='', brand='', categories='', description=''):
  return {'title': title, 'brand': brand, 'categories': categories, 'description': description}


def row_of(text, dim):
  return np.array([len(text), *np.random.default_rng(list(text.encode())).normal(size=dim - 1)], np.float32)


class Encoder:
  """Rows computed from the text; records its batches, and can be killed after some of them."""

  def __init__(self, dim=5, killed_after=None):
    self.dim, self.batches, self._killed_after = dim, [], killed_after

  def __call__(self, texts):
    if len(self.batches) == self._killed_after:
      raise KeyboardInterrupt
    self.batches.append(texts)
    return np.stack([row_of(text, self.dim) for text in texts])

  @property
  def texts(self):
    return [text for batch in self.batches for text in batch]


def model_of(encode, identity='a', item_texts=joined_text):
  return LanguageModel('some/model', {'files': identity}, encode.dim, item_texts, encode)


ITEMS = [item(f'item {"x" * n}', brand='Acme') for n in range(10)]


def shards_of(cache):
  return sorted(cache.glob('*/*.npz'))
