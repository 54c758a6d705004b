"""JSON lines: users in, recommendations out, in constant memory and in the same order.

    {"user": "A3SGXH7AUHU8GW", "history": ["B00004TJ09", ...]}         items by raw id, the oldest first
    {"user": "A3SGXH7AUHU8GW", "skipped": 0, "recommendations":
        [{"item": 41, "id": "B000068PBJ", "title": "...", "score": -3.21, "semantic_id": "<a_7><b_3><c_0>"}, ...]}

"id" is the item; "item" is its row in this run and differs in the next one. A history without a known item is answered
with the popularity of first purchases: the answer then has "from": "popularity" and the "reason". A cold item (newer
than the training) has "cold": true. An invalid line is answered with {"line": 7, "error": "..."}, and with its "user"
where that can be read.
"""

import codecs
import itertools
import json
import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from letter_jax.serving.catalogue import Item
from letter_jax.serving.recommender import Choice, Recommender
from letter_jax.serving.requests import Request, answered, read_user

# Users that are read together and grouped by the length of their histories. The last batch of each group is padded with
# rows that nobody needs: about 11% more work of the search than without groups, and 25% more with 1,024 users.
USERS_AT_ONCE = 2048
WAIT_SECONDS = 0.2

NumberedLine = tuple[int, bytes]  # line number, from 1, and content
Batch = tuple[np.ndarray, tuple[jax.Array | np.ndarray, jax.Array | np.ndarray]]  # as `Recommender.searches` yields it


class Answer(NamedTuple):
  """The answer to one line.

  Attributes:
    line: the answer, JSON without a newline.
    good: whether the line of the input was valid.
    known: number of known items of the history.
    unknown: the unknown items of the history.
  """

  line: str
  good: bool
  known: int = 0
  unknown: Sequence[Item] = ()


def recommend_lines(
  recommender: Recommender,
  chunks: Iterable[list[NumberedLine]],
  k: int,
  exclude_history: bool | None = None,
  among: Choice | None = None,
) -> Iterator[list[Answer]]:
  """Answers the lines of each chunk, in order.

  The devices search for a chunk while the answers to the previous one are being written. An answer depends on its line
  alone, to the last bit, however the lines are cut into chunks.

  Args:
    recommender: a recommender with a beam of at least `k`.
    chunks: of `whole_chunks` or `ready_chunks`. After an empty chunk the answers so far are yielded at once.
    k: items for each user.
    exclude_history: as in `Recommender.recommend`.
    among: as in `Recommender.recommend`.
  """
  pending = None
  for chunk in chunks:
    requests = [parse(recommender, number, line) for number, line in chunk]
    valid = [request for request in requests if not request.error]
    searches = list(
      recommender.searches([request.known for request in valid], exclude_history, among, recommender.batch)
    )
    if pending:
      yield list(_answers(recommender, *pending, k))
    pending = (requests, valid, searches) if chunk else None
  if pending:
    yield list(_answers(recommender, *pending, k))


def whole_chunks(lines: Iterable[bytes]) -> Iterator[list[NumberedLine]]:
  """Chunks of USERS_AT_ONCE lines, without blank ones, for an input that never waits, such as a file."""
  numbered = _numbered(lines)
  while chunk := list(itertools.islice(numbered, USERS_AT_ONCE)):
    yield chunk


def ready_chunks(lines: Iterable[bytes]) -> Iterator[list[NumberedLine]]:
  """Chunks of at most USERS_AT_ONCE lines, as many as are ready, for an input such as a pipe.

  An empty chunk is yielded before waiting for the next line. A program that writes one line and waits for its answer
  therefore gets it. While waiting, one is yielded every WAIT_SECONDS, so that a reader can end.
  """
  waiting: queue.Queue = queue.Queue(2 * USERS_AT_ONCE)
  end = object()

  def read() -> None:
    try:
      for numbered_line in _numbered(lines):
        waiting.put(numbered_line)
      waiting.put(end)
    except BaseException as error:  # raised again in the thread that reads the queue
      waiting.put(error)

  threading.Thread(target=read, daemon=True).start()
  chunk: list[NumberedLine] = []
  while True:
    try:
      entry = waiting.get(block=False)
    except queue.Empty:
      yield chunk
      if chunk:
        yield []
      chunk = []
      while (entry := _get(waiting)) is None:
        yield []
    if isinstance(entry, BaseException):
      raise entry
    if entry is end:
      yield chunk
      return
    chunk.append(entry)
    if len(chunk) == USERS_AT_ONCE:
      yield chunk
      chunk = []


def _get(waiting: queue.Queue) -> Any:
  """The next entry; None where none comes for a while."""
  try:
    return waiting.get(timeout=WAIT_SECONDS)
  except queue.Empty:
    return None


def _numbered(lines: Iterable[bytes]) -> Iterator[NumberedLine]:
  """The lines that are not blank, with their numbers, without a byte order mark."""
  for number, line in enumerate(lines, 1):
    if number == 1:
      line = line.removeprefix(codecs.BOM_UTF8)
    if line.strip():
      yield number, line


def parse(recommender: Recommender, number: int, line: bytes) -> Request:
  """The request of a line; an invalid line gives a request with an error.

  Args:
    recommender: with the catalogue that items are looked up in.
    number: of the line, from 1.
    line: UTF-8.
  """
  request = Request(number)
  try:
    record = json.loads(line.decode('utf-8'))
  except (ValueError, RecursionError) as error:
    request.error = f'not valid JSON ({" ".join(str(error).split())[:100]})'
  else:
    read_user(request, record, recommender.catalogue)
  if request.error:
    request.error += '; expected {"user": ..., "history": [items]}'
  return request


def _answers(
  recommender: Recommender, requests: list[Request], valid: list[Request], searches: list[Batch], k: int
) -> Iterator[Answer]:
  """The answers to all requests, in order.

  Args:
    valid: those without an error.
    searches: batches of `valid`, under way on the devices.
  """
  items_UxK = np.empty((len(valid), k), np.int32)
  scores_UxK = np.empty((len(valid), k), np.float32)
  for users, batch in searches:
    items_UxK[users], scores_UxK[users] = (part[: len(users), :k] for part in jax.device_get(batch))
  rows = iter(zip(items_UxK.tolist(), scores_UxK.tolist()))
  for request in requests:
    if request.error:
      user = {} if request.user is None else {'user': request.user}
      yield Answer(json.dumps({'line': request.line, **user, 'error': request.error}, ensure_ascii=False), False)
      continue
    answer = answered(request, *next(rows), recommender.catalogue)
    yield Answer(json.dumps(answer, ensure_ascii=False), True, len(request.known), request.unknown)
