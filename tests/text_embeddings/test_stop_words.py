"""English stop words are those of English texts."""

import pytest

from letter_jax.text_embeddings import stop_words, terms


def kept(text):
  pieces = terms.pieces(text)
  return [piece for piece in pieces if piece not in stop_words.of_text(set(pieces))]


@pytest.mark.parametrize(
  'text, expected',
  [
    ('The name of the kettle', ['kettle']),
    ('Kettle in a box', ['kettle', 'box']),
    ('A die for the Café de la Paix, with this and that', ['die', 'café', 'la', 'paix']),
    ('Red kettle for tea 红', ['red', 'kettle', 'tea', '红']),
  ],
)
def test_an_english_text_has_none(text, expected):
  assert kept(text) == expected


@pytest.mark.parametrize(
  'text',
  [
    'Was ist was und wie',
    'Bill und die Mine',
    'Lampe de bureau en fer',
    'Cable con un enchufe para el hogar',
    'Het been van een hert',
    'Altın fire için on altı',
    'Máy in cân bút',
    'Fire og fem mine',
  ],
)
def test_a_text_in_another_language_keeps_its_words(text):
  assert kept(text) == terms.pieces(text)


def test_a_word_with_accents_is_not_the_english_word_without():
  assert kept('The thé of the bút and máy') == ['thé', 'bút', 'máy']
