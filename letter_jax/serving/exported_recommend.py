"""Recommends items with the files next to this script.

    pip install jax flatbuffers safetensors
    python recommend.py [K] < users.jsonl > recommendations.jsonl

Each input line is {"user": ..., "history": [items]}, items by raw id, the oldest first. An integer is the raw id with
these digits; where the data has no ids of its own, it is the row of the item in items.json. "from": "popularity" marks
the answer to a history without a known item: the popularity of first purchases. An invalid line is answered with an
"error" and its number. K is the number of items for each user, 10 by default. From Python: `Recommender()(histories)`.
"exclude_history" in items.json says whether the items of a history are excluded, as validation chose.

`Recommender().warm_up()` compiles everything that a server needs, so that no request has to wait for it. With
JAX_COMPILATION_CACHE_DIR=FOLDER in the environment, the next process finds it compiled.
"""

import codecs
import itertools
import json
import operator
import os
import pathlib
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NoReturn

import jax
import numpy as np
from jax import export
from safetensors.flax import load_file

FOLDER = pathlib.Path(__file__).parent
# The search is compiled for each number of users and for each width of what is excluded, so there are few of both.
USERS = (64, 16, 4, 1)
EXCLUDED = (32, 1024)
USERS_PER_CHUNK = 1024  # lines that are read before the first answers are written
BLANKS = ''.join(filter(str.isspace, map(chr, range(0x3001)))) + '\u200b\ufeff'  # ignored around a raw id
_REASONS = {False: 'the history is empty', True: 'no item of the history is known'}


class Recommender:
  """The exported search, for the platform of the default JAX device.

  Attributes:
    items: for each item a dict with 'id', 'title' and 'semantic_id'; the position is the item's index.
    history_length: the latest items of a history that the model sees.
    beam: the largest number of items for each user.
    exclude_history: whether the items of a history are excluded, where a call does not say.
  """

  def __init__(self) -> None:
    backend = jax.default_backend()
    platform = 'cuda' if backend == 'gpu' else backend
    exported = export.deserialize(bytearray((FOLDER / f'search_{platform}.stablehlo').read_bytes()))
    self._search = jax.jit(exported.call)
    self._arrays = load_file(FOLDER / 'arrays.safetensors')
    description = json.loads((FOLDER / 'items.json').read_text(encoding='utf-8'))
    self.items = description['items']
    self.history_length = description['history_length']
    self.beam = description['beam']
    self.exclude_history = description['exclude_history']
    self._own_ids = description['own_ids']
    self._index_by_raw_id = {_normal_form(item['id']): index for index, item in enumerate(self.items)}
    popular = description['first_purchases']
    self._popular = np.array(popular['items'], np.int32), np.array(popular['scores'], np.float32)

  def __call__(
    self,
    histories: Iterable[Sequence[int | str]],
    k: int = 10,
    exclude_history: bool | None = None,
    allowed: np.ndarray | None = None,
    repeat: np.ndarray | None = None,
  ) -> tuple[np.ndarray, np.ndarray]:
    """The k best next items for each of U histories.

    Args:
      histories: sequences of items, the oldest first. Unknown items are ignored; a history without a known item gets
        the popularity of first purchases.
      k: at most `beam`.
      exclude_history: whether the items of a history are excluded from its recommendations; None for
        `self.exclude_history`, and True with `repeat`.
      allowed: bool [items], the items that may be recommended; None for all.
      repeat: bool [items], those that may be recommended although they are in the history; None for none.

    Returns:
      items int32 [U, k], indices, the best first, and scores float32 [U, k], log-likelihoods; -1 and -inf where there
      are fewer items.
    """
    if not 1 <= k <= self.beam:
      raise ValueError(f'k is {k}; expected 1 to {self.beam}')
    allowed = np.ones(len(self.items), bool) if allowed is None else np.asarray(allowed)
    if allowed.dtype != bool or allowed.shape != (len(self.items),) or not allowed.any():
      raise ValueError(
        f'allowed is {allowed.dtype} {list(allowed.shape)}; expected bool [{len(self.items)}], some True'
      )
    if repeat is not None and exclude_history is False:
      raise ValueError('repeat is given with exclude_history=False; expected one of the two')
    repeats = np.zeros(len(self.items), bool) if repeat is None else np.asarray(repeat)
    if repeats.dtype != bool or repeats.shape != (len(self.items),):
      raise ValueError(f'repeat is {repeats.dtype} {list(repeats.shape)}; expected bool [{len(self.items)}]')
    if exclude_history is None:
      exclude_history = repeat is not None or self.exclude_history
    known_histories = [self.known(history) for history in histories]
    items = np.full((len(known_histories), k), -1, np.int32)
    scores = np.full((len(known_histories), k), -np.inf, np.float32)
    popular = [part[allowed[self._popular[0]]][:k] for part in self._popular]
    without = [user for user, history in enumerate(known_histories) if not history]
    items[without, : len(popular[0])], scores[without, : len(popular[0])] = popular
    searched = [user for user, history in enumerate(known_histories) if history]
    # All are begun before the first is waited for.
    found = [
      (batch, self._search_batch([known_histories[user] for user in batch], exclude_history, allowed, repeats))
      for batch in _batches(searched)
    ]
    for batch, parts in found:
      items[batch], scores[batch] = (np.asarray(part)[:, :k] for part in parts)
    return items, scores

  def warm_up(self) -> None:
    """Compiles the search for every number of users of a batch, and for users who had up to 1,024 different items."""
    for users in USERS:
      for width in EXCLUDED:
        history, had = np.full((users, self.history_length), -1, np.int32), np.full((users, width), -1, np.int32)
        history[:, 0] = 0
        jax.block_until_ready(self._search(self._arrays, history, had, np.ones(len(self.items), bool)))

  def _search_batch(
    self, histories: list[list[int]], exclude_history: bool, allowed: np.ndarray, repeats: np.ndarray
  ) -> tuple[jax.Array, jax.Array]:
    """Items and scores [histories, beam] for histories of indices."""
    latest = [history[-self.history_length :] for history in histories]
    excluded = [sorted(set(history)) if exclude_history else [] for history in histories]
    most = max(map(len, excluded))
    had = _padded(excluded, next((width for width in EXCLUDED if width >= most), 1 << (most - 1).bit_length()))
    had = np.where(repeats[had], -1, had)
    return self._search(self._arrays, _padded(latest, self.history_length), had, allowed)

  def known(self, history: Sequence[int | str]) -> list[int]:
    """The indices of the known items of a history; TypeError for a text, or an item that is none."""
    if isinstance(history, str | bytes):
      raise TypeError(f'the history {history!r} is a text; expected a sequence of items')
    return [index for item in history if (index := self.index_of(item)) >= 0]

  def index_of(self, item: int | str) -> int:
    """The index of an item, -1 for an unknown item; TypeError for what is neither a string nor an integer."""
    if not isinstance(item, str):
      if isinstance(item, bool):
        raise TypeError('a bool is not an item')
      number = operator.index(item)
      if not self._own_ids:
        return number if 0 <= number < len(self.items) else -1
      item = str(number)
    return self._index_by_raw_id.get(_normal_form(item), -1)

  def answers(self, lines: Iterable[tuple[int, bytes]], k: int) -> Iterator[dict[str, Any]]:
    """Yields an answer for each numbered JSON line; for an invalid line it has the keys 'line' and 'error'."""
    requests = [_parse(number, line) for number, line in lines]
    rows = zip(*self([request['history'] for request in requests if 'history' in request], k))
    for request in requests:
      if 'error' in request:
        yield request
        continue
      item_row, score_row = next(rows)
      known = len(self.known(request['history']))
      yield {
        'user': request['user'],
        'skipped': len(request['history']) - known,
        **({} if known else {'from': 'popularity', 'reason': _REASONS[bool(request['history'])]}),
        'recommendations': [
          {'item': index, **self.items[index], 'score': round(score, 6)}
          for index, score in zip(item_row.tolist(), score_row.tolist())
          if index >= 0
        ],
      }


def _parse(number: int, line: bytes) -> dict[str, Any]:
  """'user' and 'history' of a line; for an invalid line 'line', 'error' and, where it can be read, 'user'."""
  user = None
  try:
    record = json.loads(line.decode('utf-8'))
    if not isinstance(record, dict):
      raise ValueError('it is not a JSON object')
    given, history = record.get('user'), record.get('history')
    if not isinstance(given, str | int | None):
      raise ValueError('"user" is neither a string nor an integer')
    user = given
    if not isinstance(history, list):
      raise ValueError('"history" is not a list' if 'history' in record else '"history" is missing')
    for place, item in enumerate(history):
      if isinstance(item, bool) or not isinstance(item, str | int):
        raise ValueError(f'"history"[{place}] is neither a string nor an integer')
    return {'user': user, 'history': history}
  except (ValueError, RecursionError) as error:
    kind = '' if type(error) is ValueError else 'not valid JSON: '
    message = f'{kind}{" ".join(str(error).split())[:100]}; expected {{"user": ..., "history": [items]}}'
    return {'line': number, **({} if user is None else {'user': user}), 'error': message}


def _batches(users: list[int]) -> Iterator[list[int]]:
  """The users, so many at a time as one of USERS says."""
  while users:
    size = next(size for size in USERS if size <= len(users))
    yield users[:size]
    users = users[size:]


def _padded(rows: list[list[int]], width: int) -> np.ndarray:
  """int32 [rows, width] with the given rows, -1 after the last entry of each."""
  padded = np.full((len(rows), width), -1, np.int32)
  for row, indices in enumerate(rows):
    padded[row, : len(indices)] = indices
  return padded


def _normal_form(raw_id: str) -> str:
  return unicodedata.normalize('NFC', raw_id.strip(BLANKS))


def _numbered(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
  """The lines that are not blank, with their numbers from 1, without a byte order mark."""
  for number, line in enumerate(lines, 1):
    line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
    if line.strip():
      yield number, line


def main() -> None:
  """Answers the lines of stdin on stdout."""
  if closed := [name for name in ('stdin', 'stdout') if getattr(sys, name) is None]:
    _fail(f'{closed[0]} is closed; expected it open')
  try:
    recommender = Recommender()
  except OSError as error:
    _fail(f'{error}; expected an export for this platform, {jax.default_backend()}, in {FOLDER}')
  k = sys.argv[1] if len(sys.argv) > 1 else str(min(10, recommender.beam))
  if len(sys.argv) > 2 or not (k.isascii() and k.isdecimal() and 1 <= int(k) <= recommender.beam):
    _fail(f'the arguments are {" ".join(sys.argv[1:])}; expected the number of items, 1 to {recommender.beam}')
  numbered = _numbered(sys.stdin.buffer)
  try:
    while chunk := list(itertools.islice(numbered, USERS_PER_CHUNK)):
      for answer in recommender.answers(chunk, int(k)):
        print(json.dumps(answer), flush=True)
  except OSError as error:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if not isinstance(error, BrokenPipeError):  # else the reader has enough
      _fail(f'{error}; expected users that can be read, and a disk with room for the answers')


def _fail(message: str) -> NoReturn:
  print(f'recommend.py: {message}', file=sys.stderr)
  sys.exit(2)


if __name__ == '__main__':
  main()
