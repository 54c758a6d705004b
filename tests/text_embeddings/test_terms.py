"""Terms of texts in many scripts."""

import unicodedata

import pytest

from letter_jax.text_embeddings import terms


def terms_of(text):
  return [terms.folded(piece) for piece in terms.pieces(text)]


@pytest.mark.parametrize(
  'text, expected',
  [
    ('The 3 red-hot Kettles, x2 _a', ['the', 'red', 'hot', 'kettles', 'x2', '_a']),
    ('Café à la CRÈME', ['cafe', 'la', 'creme']),
    ('Straße ½ Ω 3M™', ['straße', '3mTM']),
    ('Ёлка, йод ΚΑΦΕΣ καφές', ['елка', 'йод', 'καφες', 'καφες']),
    ('हिन्दी किताब', ['हिन्दी', 'किताब']),
    ('مُدَرِّس كتـــاب', ['مدرس', 'كتاب']),
    ('שָׁלוֹם', ['שלום']),
    ('책 무선마우스 USB케이블', ['책', '무선마우스', 'usb', '케이블']),
    ('ཇ་ལྗང་ཁུ', ['ཇ', 'ལྗང', 'ཁུ']),
    ('红茶', ['红', '茶', '红茶']),
    ('茶 Tea 2包', ['茶', 'tea', '包']),
    ('がま口', ['口', 'がま', 'ま口']),
    ('コーヒー・カップ', ['コー', 'ーヒ', 'ヒー', 'コーヒ', 'ーヒー', 'カッ', 'ップ', 'カップ']),
    ('ｶﾞﾑ', ['ガム']),
    ('กาแฟ', ['กา', 'าแ', 'แฟ', 'กาแ', 'าแฟ']),
    ('มุ้ง', ['มุ้ง']),
    ('កាហ្វេ។', ['កាហ្', 'ហ្វេ', 'កាហ្វេ']),
    ('🍕🍕 ☕️', ['🍕', '🍕', '☕']),
    ('👩🏽‍💻 🇯🇵🇫🇷', ['👩', '💻', '🇯🇵', '🇫🇷']),
    ('★ ✔ ●■ ®', []),
    ('soft\u00adware no\u200bspace', ['software', 'no', 'space']),
    ('', []),
    (' 。、!? ', []),
  ],
)
def test_the_terms_of_a_text(text, expected):
  assert terms_of(text) == [unicodedata.normalize('NFC', term) for term in expected]
  assert terms_of(unicodedata.normalize('NFD', text)) == terms_of(text)


@pytest.mark.parametrize(
  'one, other',
  [
    *(('か', 'が'), ('は', 'ぱ'), ('ハ', 'バ'), ('कल', 'काल'), ('मकान', 'मुकाम'), ('มา', 'ม้า'), ('ကား', 'ကာ')),
    *(('bàn', 'bán'), ('bàn', 'ban'), ('thé', 'the'), ('йод', 'иод')),
  ],
)
def test_marks_that_tell_words_apart(one, other):
  assert terms_of(one) and not set(terms_of(one)) & set(terms_of(other))


@pytest.mark.parametrize(
  'term, script',
  [
    *(('kettle', 'LATIN'), ('3m', 'LATIN'), ('100', ''), ('μm', ''), ('がま', 'CJK'), ('口', 'CJK'), ('กา', 'THAI')),
    *(('☕', 'EMOJI'), ('🇯🇵', 'EMOJI'), ('책', 'HANGUL'), ('किताब', 'DEVANAGARI')),
  ],
)
def test_the_script_of_a_term(term, script):
  assert terms.script_of(term) == script
