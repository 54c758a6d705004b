import jax.numpy as jnp
import numpy as np

from letter_jax.semantic_ids.vocabulary import END, PAD, Vocabulary


def test_tokens_are_laid_out_level_by_level_behind_pad_and_end():
  vocabulary = Vocabulary(levels=3, codebook_size=4)
  assert vocabulary.size == 2 + 3 * 4
  assert [vocabulary.tokens_of_level(level) for level in range(3)] == [slice(2, 6), slice(6, 10), slice(10, 14)]
  assert np.asarray(vocabulary.tokens(jnp.array([[0, 0, 0], [3, 1, 2]]))).tolist() == [[2, 6, 10], [5, 7, 12]]


def test_every_code_has_a_token_of_its_own():
  vocabulary = Vocabulary(levels=4, codebook_size=256)
  assert vocabulary.size == 1026
  tokens_KxL = np.asarray(vocabulary.tokens(jnp.tile(jnp.arange(256)[:, None], (1, 4))))
  assert sorted(tokens_KxL.ravel().tolist()) == sorted(set(range(1026)) - {PAD, END})
  for level in range(4):
    assert tokens_KxL[:, level].tolist() == list(range(1026))[vocabulary.tokens_of_level(level)]


def test_items_become_their_tokens_and_padding_becomes_pad():
  vocabulary = Vocabulary(levels=2, codebook_size=4)
  codes_NxL = jnp.array([[0, 1], [2, 3], [3, 0]], jnp.int32)
  tokens = vocabulary.item_tokens(jnp.array([[2, 0, -1], [-1, -1, 1]], jnp.int32), codes_NxL)
  assert tokens.dtype == jnp.int32
  assert np.asarray(tokens).tolist() == [[5, 6, 2, 7, PAD, PAD], [PAD, PAD, PAD, PAD, 4, 9]]
  assert vocabulary.item_tokens(jnp.zeros((4, 5, 1), jnp.int32), codes_NxL).shape == (4, 5, 2)
