"""Users of different requests are searched for together.

A few searches run at a time, each in a thread of its own. While they run users wait in a queue, and the next search
takes as many of them as fit in a batch. So batches grow with the load, and a request to an idle server waits for nobody
longer than `wait_seconds`.
"""

import asyncio
import collections
import concurrent.futures
import dataclasses
from collections.abc import Sequence

import numpy as np

from letter_jax.server.metrics import Metrics
from letter_jax.serving.recommender import Choice, Recommender

BATCH = 16  # users of a search: more would keep each other waiting, and save little
TURN = 4  # users of one request in a batch, while others wait


class Busy(Exception):
  """The queue has no room for the users of a request."""


@dataclasses.dataclass(eq=False)
class _Job:
  """Users of one request who can share a search; they may be searched for in several batches.

  Attributes:
    users: those who have not been searched for yet.
    request: all users of the request.
  """

  users: collections.deque[int]
  request: '_Users'


@dataclasses.dataclass(eq=False)
class _Users:
  """The users of one request.

  Attributes:
    known: the history of each, as indices of items.
    items_UxK, scores_UxK: what is found for them.
    left: how many are still waited for.
    done: set when none is; cancelled when the client has gone.
  """

  known: Sequence[Sequence[int]]
  items_UxK: np.ndarray
  scores_UxK: np.ndarray
  left: int
  done: asyncio.Future[None]


@dataclasses.dataclass(frozen=True)
class Shared:
  """What users have in common who can share a search.

  Attributes:
    recommender: who answers them.
    choice: of its items; None for all.
    exclude_history: as in `Recommender.recommend`.
  """

  recommender: Recommender
  choice: Choice | None = None
  exclude_history: bool | None = None


class Gatherer:
  """Gathers users into batches; its methods are called from one event loop."""

  def __init__(self, wait_seconds: float, queue_users: int, searches: int, metrics: Metrics) -> None:
    """Starts no search yet.

    Args:
      wait_seconds: how long the first user of a batch waits for others while nothing is searched for.
      queue_users: users that may wait.
      searches: how many may run at a time.
      metrics: where batches and the length of the queue are noted.
    """
    self._wait_seconds, self._queue_users, self._metrics = wait_seconds, queue_users, metrics
    self._waiting: collections.OrderedDict[tuple[Shared, int], collections.deque[_Job]] = collections.OrderedDict()
    self._queued = self._running = 0
    self._some, self._free = asyncio.Event(), asyncio.Semaphore(searches)
    self._threads = concurrent.futures.ThreadPoolExecutor(searches, 'search')
    self._tasks: set[asyncio.Task] = set()

  async def search(self, shared: Shared, known: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Items int32 and scores float32 [U, beam] of U histories, as `Recommender.lists` finds them.

    Args:
      shared: with whom they can share a search.
      known: histories, as indices of items.

    Raises:
      Busy: the queue is full.
    """
    shape = (len(known), shared.recommender.beam)
    items_UxK, scores_UxK = np.full(shape, -1, np.int32), np.full(shape, -np.inf, np.float32)
    if not known:
      return items_UxK, scores_UxK
    if self._queued + len(known) > self._queue_users:
      raise Busy
    request = _Users(known, items_UxK, scores_UxK, len(known), asyncio.get_running_loop().create_future())
    by_width: dict[int, _Job] = {}
    for user, history in enumerate(known):
      width = shared.recommender.width(len(history))
      by_width.setdefault(width, _Job(collections.deque(), request)).users.append(user)
    for width, job in by_width.items():
      self._waiting.setdefault((shared, width), collections.deque()).append(job)
    self._note_queued(len(known))
    self._some.set()
    await request.done  # cancelled with this call
    return items_UxK, scores_UxK

  async def run(self) -> None:
    """Searches until it is cancelled."""
    while True:
      await self._some.wait()
      if self._wait_seconds and not self._running:
        await asyncio.sleep(self._wait_seconds)
      await self._free.acquire()
      shared, batch = self._take()
      if batch:
        self._running += 1
        task = asyncio.create_task(self._answer(shared, batch))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
      else:
        self._free.release()
      if not self._waiting:
        self._some.clear()

  def close(self) -> None:
    """Lets no further search begin."""
    self._threads.shutdown(wait=False, cancel_futures=True)

  async def _answer(self, shared: Shared, batch: list[tuple[_Users, int]]) -> None:
    """Searches for the users of a batch."""
    self._metrics.batch_users.observe(len(batch))
    known = [request.known[user] for request, user in batch]
    try:
      found = await asyncio.get_running_loop().run_in_executor(
        self._threads, shared.recommender.lists, known, shared.exclude_history, shared.choice
      )
    except Exception as error:
      for request in {request for request, _ in batch}:
        if not request.done.done():
          request.done.set_exception(error)
      return
    finally:
      self._running -= 1
      self._free.release()
    for (request, user), items_K, scores_K in zip(batch, *found):
      request.items_UxK[user], request.scores_UxK[user] = items_K, scores_K
      request.left -= 1
      if not request.left and not request.done.done():
        request.done.set_result(None)

  def _take(self) -> tuple[Shared, list[tuple[_Users, int]]]:
    """The users of the next batch, who can share a search; kinds of users, and requests of a kind, take turns."""
    key, jobs = self._waiting.popitem(last=False)
    shared, _ = key
    batch: list[tuple[_Users, int]] = []
    taken = 0
    while jobs and len(batch) < min(shared.recommender.batch, BATCH):
      job = jobs.popleft()
      if job.request.done.done():  # its client has gone, or a search for others of it has failed
        taken += len(job.users)
        continue
      for _ in range(min(len(job.users), TURN, BATCH - len(batch))):
        batch.append((job.request, job.users.popleft()))
        taken += 1
      if job.users:
        jobs.append(job)
    if jobs:
      self._waiting[key] = jobs
    self._note_queued(-taken)
    return shared, batch

  def _note_queued(self, change: int) -> None:
    self._queued += change
    self._metrics.queue_users.set(self._queued)
