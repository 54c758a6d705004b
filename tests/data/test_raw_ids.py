"""The normal form of raw ids."""

import csv
import unicodedata

import pytest
from hypothesis import given as for_any
from hypothesis import strategies as st

from letter_jax.data.raw import tables
from letter_jax.data.raw.reading import Problems
from letter_jax.data.raw_ids import BLANKS, as_raw_id
from letter_jax.serving.exported_recommend import _normal_form

# Ids as people have them, with what is left around them and other forms of their letters.
IDS = st.text(st.characters(exclude_categories=['Cs']), min_size=1, max_size=8)
AROUND = st.text(st.sampled_from(BLANKS), max_size=3)
FORMS = st.sampled_from(['NFC', 'NFD'])


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


@for_any(IDS, AROUND, AROUND, FORMS)
def test_an_id_is_one_thing_however_it_is_written(text, before, after, form):
  raw_id = as_raw_id(text)
  written = before + unicodedata.normalize(form, text) + after
  assert as_raw_id(written) == raw_id
  assert _normal_form(written) == (raw_id or '')  # of the exported script


@for_any(st.lists(st.tuples(IDS, AROUND, FORMS), min_size=1, max_size=5))
def test_ids_in_a_csv_file_are_those_in_a_list(tmp_path_factory, written):
  folder = tmp_path_factory.mktemp('shop')
  with (folder / 'interactions.csv').open('w', encoding='utf-8', newline='') as file:
    rows = csv.writer(file, quoting=csv.QUOTE_ALL)
    rows.writerow(['user_id', 'item_id', 'timestamp'])
    rows.writerows(
      ['u', around + unicodedata.normalize(form, text) + around, 1_700_000_000] for text, around, form in written
    )
  (folder / 'items.csv').write_text('item_id,title\n')
  found = [item for table in tables.csv_source(folder).event_tables(Problems()) for item in table['item']]
  assert found == [raw_id for raw_id in (as_raw_id(text) for text, _, _ in written) if raw_id is not None]
