"""Users as JSON lines in, recommendations as JSON lines out, in constant memory and in the same order.

    {"user": "A3SGXH7AUHU8GW", "history": ["B00004TJ09", 17, ...]}     items by raw id or number, the oldest first
    {"user": "A3SGXH7AUHU8GW", "skipped": 0, "recommendations":
        [{"item": 41, "id": "B000068PBJ", "title": "...", "score": -3.21, "semantic_id": "<a_7><b_3><c_0>"}, ...]}

An item that came after the training has "cold": true. A line that cannot be used becomes {"line": 7, "error": "..."},
with its "user" where that can be read.
"""

import codecs
import dataclasses
import itertools
import json
import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from letter_jax.serving.recommender import Choice, Recommender

USERS_AT_ONCE = 1024  # read, sorted by length and searched together


@dataclasses.dataclass
class Request:
  """One line: known items and how many were skipped, or what is wrong with it."""

  line: int
  user: Any = None
  known: list[int] = dataclasses.field(default_factory=list)
  skipped: int = 0
  error: str = ''


class Answer(NamedTuple):
  """To one line: JSON, whether it could be used, and how many items of its history are unknown."""

  line: str
  good: bool
  skipped: int = 0


def recommend_lines(
  recommender: Recommender,
  chunks: Iterable[list[tuple[int, bytes]]],
  k: int,
  exclude_history: bool = True,
  among: Choice | None = None,
) -> Iterator[list[Answer]]:
  """The answers to the lines of each chunk, in order.

  Args:
    chunks: (number, line) pairs, of `whole_chunks` or `ready_chunks`. An empty one asks for what is under way; else a
      chunk is on the devices while the one before is written.
  """
  before = None
  for chunk in chunks:
    requests = [parse(recommender, number, line) for number, line in chunk]
    good = [request for request in requests if not request.error]
    searches = list(
      recommender.searches([request.known for request in good], exclude_history, among, recommender.batch)
    )
    if before:
      yield list(_answers(recommender, *before, k))
    before = (requests, good, searches) if chunk else None
  if before:
    yield list(_answers(recommender, *before, k))


def whole_chunks(lines: Iterable[bytes]) -> Iterator[list[tuple[int, bytes]]]:
  """USERS_AT_ONCE lines at a time, numbered from 1, without the blank ones: for what can be read at once."""
  numbered = _numbered(lines)
  while chunk := list(itertools.islice(numbered, USERS_AT_ONCE)):
    yield chunk


def ready_chunks(lines: Iterable[bytes]) -> Iterator[list[tuple[int, bytes]]]:
  """The same, but never more than what is there; empty before it waits: who asks line by line is answered so."""
  waiting: queue.Queue = queue.Queue(2 * USERS_AT_ONCE)
  end = object()

  def read() -> None:
    try:
      for pair in _numbered(lines):
        waiting.put(pair)
      waiting.put(end)
    except BaseException as error:  # raised where it is waited for
      waiting.put(error)

  threading.Thread(target=read, daemon=True).start()
  chunk: list = []
  while True:
    try:
      pair = waiting.get(block=False)
    except queue.Empty:
      yield chunk
      if chunk:
        yield []
      chunk = []
      pair = waiting.get()
    if isinstance(pair, BaseException):
      raise pair
    if pair is end:
      yield chunk
      return
    chunk.append(pair)
    if len(chunk) == USERS_AT_ONCE:
      yield chunk
      chunk = []


def _numbered(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
  for number, line in enumerate(lines, 1):
    if number == 1:
      line = line.removeprefix(codecs.BOM_UTF8)
    if line.strip():
      yield number, line


def parse(recommender: Recommender, number: int, line: bytes) -> Request:
  request = Request(number)
  try:
    record = json.loads(line.decode('utf-8'))
  except (ValueError, RecursionError) as error:
    request.error = f'no JSON ({" ".join(str(error).split())[:100]})'
  else:
    request.error = _read(recommender, request, record)
  if request.error:
    request.error += '; expected {"user": ..., "history": [items]}'
  return request


def _read(recommender: Recommender, request: Request, record) -> str:
  """Fills the request; what is wrong, or ''."""
  if not isinstance(record, dict):
    return f'{_shown(record)} is no object'
  user, history = record.get('user'), record.get('history')
  if not isinstance(user, str | int | None):
    return f'"user" is {_shown(user)}, no text and no whole number'
  request.user = user
  if not isinstance(history, list):
    return '"history" is missing' if history is None else f'"history" is {_shown(history)}'
  for place, item in enumerate(history):
    if isinstance(item, bool) or not isinstance(item, str | int):
      return f'"history"[{place}] is {_shown(item)}, no raw id and no number of an item'
    found = recommender.catalogue.number(item)
    if found is None:
      request.skipped += 1
    else:
      request.known.append(found)
  return ''


def _answers(
  recommender: Recommender, requests: list[Request], good: list[Request], searches: list, k: int
) -> Iterator[Answer]:
  items_UxK = np.empty((len(good), k), np.int32)
  scores_UxK = np.empty((len(good), k), np.float32)
  for users, found in searches:
    items_UxK[users], scores_UxK[users] = (part[: len(users), :k] for part in jax.device_get(found))
  rows = iter(zip(items_UxK.tolist(), scores_UxK.tolist()))
  for request in requests:
    if request.error:
      user = {} if request.user is None else {'user': request.user}
      yield Answer(json.dumps({'line': request.line, **user, 'error': request.error}, ensure_ascii=False), False)
      continue
    found = [_recommendation(recommender.catalogue, item, score) for item, score in zip(*next(rows)) if item >= 0]
    answer = {'user': request.user, 'skipped': request.skipped, 'recommendations': found}
    yield Answer(json.dumps(answer, ensure_ascii=False), True, request.skipped)


def _recommendation(catalogue, item: int, score: float) -> dict[str, Any]:
  cold = {'cold': True} if item >= catalogue.trained else {}
  return {
    'item': item,
    'id': catalogue.raw_ids[item],
    'title': catalogue.titles[item],
    'score': round(score, 6),
    'semantic_id': catalogue.semantic_id(item),
    **cold,
  }


def _shown(value) -> str:
  said = json.dumps(value, ensure_ascii=False)
  return said if len(said) <= 40 else f'{said[:37]}...'
