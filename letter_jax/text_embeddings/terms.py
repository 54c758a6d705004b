"""The terms of a text, which TF-IDF counts: words where a script separates them, character n-grams where it does not.

- A word is two or more letters, digits and marks, in lower case; a syllable of Hangul or Tibetan is enough.
- A script without spaces between words gives n-grams of characters: pairs, single ideographs, and triples of other
  characters, such as kana and Thai. A character includes its marks.
- An emoji is a term, and so is a flag; skin tones are ignored.

Marks are part of a letter: か and が are different, and so are कल and काल. Only those that writers leave out at will
are dropped: the accents of Latin, Greek and Cyrillic letters (not of й and ў) and the vowel points of Arabic and
Hebrew. A word that can be a Vietnamese syllable keeps its accents, which are tones and letters: bàn, bán and bạn.
"""

import functools
import itertools
import re
import unicodedata
from collections.abc import Iterator

# Scripts that do not separate words, by the first word of the Unicode names of their letters. An ideograph, or a
# syllable of Yi, is a word or a part of one; a letter of the others means nothing alone.
_IDEOGRAPHS = frozenset({'CJK', 'IDEOGRAPHIC', 'VERTICAL', 'TANGUT', 'NUSHU', 'KHITAN', 'YI'})
_KANA = frozenset({'HIRAGANA', 'KATAKANA', 'KATAKANA-HIRAGANA', 'HENTAIGANA', 'BOPOMOFO'})
_SYLLABLES = frozenset({'HANGUL', 'TIBETAN'})  # of which one can be a word
_UNSPACED = frozenset({'THAI', 'LAO', 'KHMER', 'MYANMAR', 'TAI', 'NEW', 'AHOM', 'BALINESE', 'JAVANESE'})

# Zero-width joiner, soft hyphen, word joiner, byte order mark, variation selectors and skin tones, which only change
# how other characters look.
_INVISIBLE = dict.fromkeys((0x200D, 0xAD, 0x2060, 0xFEFF, *range(0xFE00, 0xFE10), *range(0x1F3FB, 0x1F400)))

_ASCII_WORD = re.compile(r'\w\w+')
# In a string of the kinds of characters (`_Kinds`): a word, a run of a script without spaces, a flag, an emoji.
_PIECE = re.compile('w[wm]+|h[hm]*|[iu][ium]*|rr|e')
_CHARACTER = re.compile('[iu]m*')

# Also those that are newer than this Python's Unicode; not bullets, check marks and stars, which only decorate.
_EMOJI = re.compile(
  '[\u231a-\u23ff\u2600-\u2604\u260e-\u26ff\u2702-\u2712\u2728\u2744\u274c\u274e\u2753-\u2757\u2763\u2764\u2795-\u2797'
  '\u2b1b\u2b1c\u2b50\u2b55\U0001f000-\U0001f1e5\U0001f200-\U0001faff]'
)
_OPTIONAL_MARK = re.compile(
  '(?<![иу])\u0306|[\u0300-\u0305\u0307-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]'  # й and ў are letters
  '|[\u0591-\u05c7]'  # Hebrew
  '|[\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06ed]'  # Arabic, and the stroke that lengthens a word
)
_VIETNAMESE_SYLLABLE = re.compile(
  '(?:b|ch?|d|đ|gh?|gi|h|kh?|l|m|n|ng|ngh|nh|ph?|qu|r|s|th?|tr|v|x)?'
  '(?:[aeiouy][\u0300-\u0303\u0306\u0309\u031b\u0323]*){1,3}'
  '(?:ch?|m|n|ng|nh|p|t)?'
)


class _Kinds(dict[int, str]):
  """Code point -> what it is to `_PIECE`, for `str.translate`; found out once for each.

  'w': part of a word; 'h': part of a word that can be a single letter; 'i': an ideograph; 'u': another letter of a
  script without spaces; 'm': a mark; 'r': half of a flag; 'e': an emoji; ' ': none of these.
  """

  def __missing__(self, code: int) -> str:
    char = chr(code)
    category = unicodedata.category(char)
    script = _script(char)
    if category[0] == 'M':
      kind = 'm'
    elif script in _IDEOGRAPHS and category in ('Lo', 'Lm', 'Nl'):
      kind = 'i'
    elif script in _KANA | _UNSPACED and category[0] == 'L':
      kind = 'u'
    elif script in _SYLLABLES and category[0] == 'L':
      kind = 'h'
    elif char.isalnum() or char == '_':
      kind = 'w'
    elif 0x1F1E6 <= code <= 0x1F1FF:
      kind = 'r'
    elif _EMOJI.match(char):
      kind = 'e'
    else:
      kind = ' '
    self[code] = kind
    return kind


_KINDS = _Kinds()


def pieces(text: str) -> list[str]:
  """The terms of a text, in order, as written but in lower case; `folded` gives the spellings of a word one form."""
  if text.isascii():
    return _ASCII_WORD.findall(text.lower())
  text = unicodedata.normalize('NFKC', text.lower().translate(_INVISIBLE))
  kinds = text.translate(_KINDS)
  found: list[str] = []
  for match in _PIECE.finditer(kinds):
    piece = text[match.start() : match.end()]
    if kinds[match.start()] in 'iu':
      found.extend(_n_grams(piece, match.group()))
    else:
      found.append(piece)
  return found


def _n_grams(run: str, kinds: str) -> Iterator[str]:
  """The n-grams of a run of a script without spaces; the run itself where it is a single character."""
  spans = [match.span() for match in _CHARACTER.finditer(kinds)]
  if len(spans) == 1:
    yield run
    return
  for first, last in spans:
    if kinds[first] == 'i':
      yield run[first:last]
  for (first, _), (_, last) in itertools.pairwise(spans):
    yield run[first:last]
  for (first, _), (second, _), (third, last) in zip(spans, spans[1:], spans[2:]):
    if kinds[first] == kinds[second] == kinds[third] == 'u':
      yield run[first:last]


@functools.lru_cache(1 << 16)
def folded(piece: str) -> str:
  """A term without the marks that writers leave out at will."""
  if piece.isascii():
    return piece
  decomposed = unicodedata.normalize('NFKD', piece)
  if not _VIETNAMESE_SYLLABLE.fullmatch(decomposed):
    decomposed = _OPTIONAL_MARK.sub('', decomposed)
  return unicodedata.normalize('NFC', decomposed)


def script_of(term: str) -> str:
  """The script of a term: 'LATIN', 'CJK' with kana, 'EMOJI' with flags, ...; '' for a number or several scripts."""
  scripts = {script for char in term if (script := _group(char))}
  return scripts.pop() if len(scripts) == 1 else ''


def _group(char: str) -> str:
  kind = _KINDS[ord(char)]
  if kind in 're':
    return 'EMOJI'
  if kind == 'i' or _script(char) in _KANA:
    return 'CJK'
  return _script(char) if char.isalpha() else ''


def _script(char: str) -> str:
  """The script of a letter, as its name in Unicode begins."""
  return unicodedata.name(char, '').partition(' ')[0]
