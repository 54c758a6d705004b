"""Plain text from the texts of raw files: without markup, in one line, and empty if it says that it is missing."""

import html
import re
from typing import Any

from letter_jax.data.dataset import CATEGORY_SEPARATOR

# What programs write for a missing text; other spellings, such as Nan or Null, may be names.
MISSING = frozenset(['nan', 'NaN', 'NAN', 'None', 'none', 'NONE', 'null', 'NULL', 'NA', 'N/A', 'n/a', '#N/A', '<NA>'])

_ENTITY = re.compile(r'&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});')
_ATTRIBUTES = r'(?:\s+[\w:.-]+(?:\s*=\s*(?:"[^"<]*"|\'[^\'<]*\'|[^\s"\'<>=`]+))?)*'
_TAG = re.compile(rf'<!(?:--|DOCTYPE\b)[^<>]*>|<(/?)([A-Za-z][A-Za-z0-9]*)({_ATTRIBUTES})\s*/?>', re.IGNORECASE)
# Elements that are markup wherever they stand. All others have names that are also words or sizes: <S>, <Small> or
# <Table> is an element only with its end tag somewhere in the text, or with an attribute that has a value.
_ALWAYS = re.compile(
  'blockquote|br|dd|div|dl|dt|h[1-6r]|iframe|img|li|nobr|ol|span|tbody|td|tfoot|th|thead|tr|ul|wbr', re.IGNORECASE
)
_OTHERS = re.compile(
  'a|abbr|acronym|address|applet|area|article|aside|audio|b|base|bdi|bdo|big|body|button|canvas|caption|center|cite|'
  'code|col|colgroup|data|datalist|del|details|dfn|dialog|dir|em|embed|fieldset|figcaption|figure|font|footer|form|'
  'frame|frameset|head|header|html|i|input|ins|kbd|label|legend|link|main|map|mark|menu|meta|meter|nav|noframes|'
  'noscript|object|optgroup|option|output|p|param|picture|pre|progress|q|rp|rt|ruby|s|samp|script|section|select|'
  'slot|small|source|strike|strong|style|sub|summary|sup|svg|table|template|textarea|time|title|track|tt|u|var|video',
  re.IGNORECASE,
)


def clean(value: Any) -> str:
  """One line of plain text from a string or a list: without HTML, with single spaces.

  It is '' for any other type, and for a text that as a whole says that it is missing (MISSING). So is a part of a list.
  """
  if isinstance(value, list):
    value = ' '.join(part for part in value if isinstance(part, str) and part.strip() not in MISSING)
  if not isinstance(value, str):
    return ''
  if '&' in value:
    value = _unescape(_unescape(value))  # '&amp;amp;' is common
  if '<' in value:
    value = _without_markup(value)
  text = ' '.join(value.split()).encode('utf-8', 'replace').decode('utf-8')
  return '' if text in MISSING else text


def category_path(parts: Any) -> str:
  """'A > B > C' from a list of categories, or from the first of a list of such lists."""
  if isinstance(parts, list) and parts and isinstance(parts[0], list):
    parts = parts[0]
  if not isinstance(parts, list):
    return clean(parts)
  return CATEGORY_SEPARATOR.join(filter(None, map(clean, parts)))


def _unescape(text: str) -> str:
  """Replaces entities that end in a semicolon; others may be text, such as that in R&Degree."""
  return _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)


def _without_markup(text: str) -> str:
  """The text with a space for every comment and every tag of HTML; <M> in Size <M> is none."""
  tags = [(tag[1], tag[2].lower()) for tag in _TAG.finditer(text) if tag[2]]
  paired = {name for end, name in tags if not end} & {name for end, name in tags if end}

  def replaced(tag: re.Match) -> str:
    name = tag[2]
    is_markup = (
      not name
      or _ALWAYS.fullmatch(name)
      or name == 'p'
      or _OTHERS.fullmatch(name)
      and (name.lower() in paired or '=' in tag[3])
    )
    return ' ' if is_markup else tag[0]

  return _TAG.sub(replaced, text)
