"""LETTER's index.json, {item: ["<a_12>", "<b_3>", ...]}: the semantic IDs of all items."""

import json
import pathlib
import re
import string
from collections.abc import Sequence
from typing import Any

import numpy as np

from letter_jax.data.json_files import read_by_item, shown
from letter_jax.system.errors import InputError
from letter_jax.system.wording import counted

MAX_CODE = 2**20 - 1


def read_index(path: pathlib.Path, num_items: int) -> np.ndarray:
  """Reads semantic IDs from an index.json.

  Every item 0 .. num_items - 1 must have the same number of tokens as item 0; token l is '<LETTER_CODE>' with
  `level_letter(l)` and a code of at most MAX_CODE.

  Returns:
    int32 [num_items, levels].

  Raises:
    InputError: the file does not exist or is malformed, an item is missing or unknown, or its tokens are invalid.
  """
  path = pathlib.Path(path)
  tokens_N = read_by_item(path, num_items)
  for item, tokens in enumerate(tokens_N):
    if not isinstance(tokens, list) or not tokens:
      raise InputError(f'{path}: item {item} has {shown(tokens)}; expected a list of tokens such as "<a_12>"')
    if len(tokens) != len(tokens_N[0]):
      raise InputError(
        f'{path}: item {item} has {counted(len(tokens), "token")}, item 0 has {len(tokens_N[0])}; '
        'expected the same number for every item'
      )
  levels = len(tokens_N[0]) if tokens_N else 0
  codes_NxL = np.empty((num_items, levels), np.int32)
  for level in range(levels):
    codes_NxL[:, level] = _level_codes(path, level, [tokens[level] for tokens in tokens_N])
  return codes_NxL


def write_index(path: pathlib.Path, codes_NxL: np.ndarray) -> None:
  """Writes semantic IDs, int [items, levels], as an index.json that `read_index` and LETTER's own code read."""
  lines = (f'"{item}": ' + json.dumps(tokens_of(codes)) for item, codes in enumerate(codes_NxL.tolist()))
  pathlib.Path(path).write_text('{\n' + ',\n'.join(lines) + '\n}\n', encoding='utf-8')


def tokens_of(codes: Sequence[int]) -> list[str]:
  """The tokens of one item's codes, such as ['<a_12>', '<b_3>']."""
  return [f'<{level_letter(level)}_{code}>' for level, code in enumerate(codes)]


def level_letter(level: int) -> str:
  """a .. z for levels 0 .. 25, then aa, ab, ..., az, ba, ..., like the columns of a spreadsheet."""
  letters = ''
  level += 1
  while level:
    level, digit = divmod(level - 1, 26)
    letters = string.ascii_lowercase[digit] + letters
  return letters


def _level_codes(path: pathlib.Path, level: int, tokens_N: list[Any]) -> list[int]:
  letter = level_letter(level)
  pattern = re.compile(f'<{letter}_([0-9]{{1,7}})>')
  matches = [pattern.fullmatch(token) if isinstance(token, str) else None for token in tokens_N]
  codes = [int(match[1]) if match else -1 for match in matches]
  for item, code in enumerate(codes):
    if not 0 <= code <= MAX_CODE:
      raise InputError(
        f'{path}: item {item} has token {shown(tokens_N[item])} at level {level}; '
        f'expected "<{letter}_CODE>" with CODE from 0 to {MAX_CODE}'
      )
  return codes
