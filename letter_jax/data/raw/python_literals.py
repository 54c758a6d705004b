r"""Parses Python literals, as in Amazon's metadata of 2014, without the warnings of Python's own parser.

They hold escapes that Python does not know, such as \/ and \d. Python keeps their backslash, and warns; a later version
is to refuse them. Here the backslash is written twice, which means the same and is what Python asks for. Its warnings
of numbers that touch a word, as in 1if, are of texts that are no literals and are refused: they are not shown.
"""

import ast
import re
import warnings
from typing import Any

# Source that is parsed from a text, and not from a file, has this name.
warnings.filterwarnings('ignore', category=SyntaxWarning, module='<unknown>')

_ESCAPE = re.compile(r'\\([0-7]{1,3}|.)', re.DOTALL)
_KNOWN = frozenset('\n\r\\\'"abfnrtvxNuU')


def parse_literal(text: str) -> Any:
  """The value of a Python literal; its strings have no prefix such as r or b.

  Raises:
    ValueError, SyntaxError, MemoryError, RecursionError: as `ast.literal_eval`.
  """
  return ast.literal_eval(_ESCAPE.sub(_valid, text) if '\\' in text else text)


def _valid(escape: re.Match) -> str:
  code = escape[1]
  if code[0] in '01234567':  # more than \377 is not valid either
    return escape[0] if int(code, 8) < 0o400 else f'\\u{int(code, 8):04x}'
  return escape[0] if code in _KNOWN else f'\\\\{code}'
