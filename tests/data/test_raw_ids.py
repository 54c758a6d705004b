"""The normal form of raw ids."""

import unicodedata

import pytest

from letter_jax.data.raw_ids import BLANKS, as_raw_id


@pytest.mark.parametrize(
  'given, raw_id',
  [
    ('B00X', 'B00X'),
    (' lead', 'lead'),
    ('trail \t\r\n', 'trail'),
    ('\u00a0no-break\u3000', 'no-break'),
    ('\ufeffmark\u200b ', 'mark'),
    ('tab\tinside', 'tab\tinside'),
    ('a  b', 'a  b'),
    ('u\u0308ni', '\u00fcni'),
    (' e\u0301\u00a0', '\u00e9'),
    ('\u2126', '\u03a9'),
    ('\ufb01', '\ufb01'),  # another letter than 'fi', not another way to write it
    ('0017', '0017'),
    ('\u200f\u05d0', '\u200f\u05d0'),
    ('', None),
    (' \u00a0\u200b', None),
    ('half \ud83d', None),
    (None, None),
    (17, None),
    (True, None),
    (['a'], None),
  ],
)
def test_the_normal_form(given, raw_id):
  assert as_raw_id(given) == raw_id


def test_the_normal_form_is_its_own():
  texts = [f'{blank}e\u0301 {blank}x{blank}' for blank in BLANKS] + ['\u1e9b\u0323', '\u0301a', '\u0f73']
  for text in texts:
    raw_id = as_raw_id(text)
    assert as_raw_id(raw_id) == raw_id == unicodedata.normalize('NFC', raw_id)


def test_every_blank_of_str_strip_is_one():
  assert not [chr(code) for code in range(0x110000) if chr(code).isspace() and chr(code) not in BLANKS]
