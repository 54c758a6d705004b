"""Users of different requests are searched for together.

One search runs at a time, in a thread of its own. While it runs users wait in a queue, and the next search takes as
many of them as fit in a batch. So batches grow with the load, and a request to an idle server waits for nobody longer
than `wait_seconds`.
"""

import asyncio
import collections
import concurrent.futures
import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from letter_jax.server.metrics import Metrics
from letter_jax.serving.recommender import Choice, Recommender


class Busy(Exception):
  """The queue has no room for the users of a request."""


@dataclasses.dataclass(eq=False)
class _Job:
  """The users of one request, who may be searched for in several batches.

  Attributes:
    known: the history of each, as indices of items.
    items_UxK, scores_UxK: what is found for them.
    left: how many are still waited for.
    done: set when none is.
  """

  known: Sequence[Sequence[int]]
  items_UxK: np.ndarray
  scores_UxK: np.ndarray
  left: int
  done: asyncio.Future[None]


# Users who can share a search: a recommender, a choice of its items, and whether histories are excluded.
_Key = tuple[Recommender, Choice | None, bool | None]


class Gatherer:
  """Gathers users into batches; its methods are called from one event loop."""

  def __init__(self, wait_seconds: float, queue_users: int, metrics: Metrics) -> None:
    """Starts no search yet.

    Args:
      wait_seconds: how long the first user of a batch waits for others before an idle device searches.
      queue_users: users that may wait.
      metrics: where batches and the length of the queue are noted.
    """
    self._wait_seconds, self._queue_users, self._metrics = wait_seconds, queue_users, metrics
    self._waiting: collections.OrderedDict[_Key, collections.deque[tuple[_Job, int]]] = collections.OrderedDict()
    self._queued = 0
    self._some = asyncio.Event()
    self._thread = concurrent.futures.ThreadPoolExecutor(1, 'search')

  async def search(self, key: _Key, known: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Items int32 and scores float32 [U, beam] of U histories, as `Recommender.searches` finds them.

    Args:
      key: who can share a search with them.
      known: histories, as indices of items.

    Raises:
      Busy: the queue is full.
    """
    shape = (len(known), key[0].beam)
    items_UxK, scores_UxK = np.full(shape, -1, np.int32), np.full(shape, -np.inf, np.float32)
    if not known:
      return items_UxK, scores_UxK
    if self._queued + len(known) > self._queue_users:
      raise Busy
    job = _Job(known, items_UxK, scores_UxK, len(known), asyncio.get_running_loop().create_future())
    self._waiting.setdefault(key, collections.deque()).extend((job, user) for user in range(len(known)))
    self._note_queued(len(known))
    self._some.set()
    await job.done
    return items_UxK, scores_UxK

  async def run(self) -> None:
    """Searches until it is cancelled."""
    loop = asyncio.get_running_loop()
    while True:
      await self._some.wait()
      if self._wait_seconds:
        await asyncio.sleep(self._wait_seconds)
      while self._waiting:
        key, batch = self._take()
        if not batch:
          continue
        self._metrics.batch_users.observe(len(batch))
        try:
          found = await loop.run_in_executor(self._thread, _search, key, [job.known[user] for job, user in batch])
        except Exception as error:
          for job in {job for job, _ in batch}:
            if not job.done.done():
              job.done.set_exception(error)
          continue
        for (job, user), items_K, scores_K in zip(batch, *found):
          job.items_UxK[user], job.scores_UxK[user] = items_K, scores_K
          job.left -= 1
          if not job.left and not job.done.done():
            job.done.set_result(None)
      self._some.clear()

  def close(self) -> None:
    """Lets no further search begin."""
    self._thread.shutdown(wait=False, cancel_futures=True)

  def _take(self) -> tuple[_Key, list[tuple[_Job, int]]]:
    """The users of the next batch: those who can share a search with the one who waits longest."""
    key, queue = next(iter(self._waiting.items()))
    batch: list[tuple[_Job, int]] = []
    taken = 0
    while queue and len(batch) < key[0].batch:
      job, user = queue.popleft()
      taken += 1
      if not job.done.done():  # its client is still there
        batch.append((job, user))
    # Who is left goes behind the others, lest a large request keeps them waiting.
    del self._waiting[key]
    if queue:
      self._waiting[key] = queue
    self._note_queued(-taken)
    return key, batch

  def _note_queued(self, change: int) -> None:
    self._queued += change
    self._metrics.queue_users.set(self._queued)


def _search(key: _Key, known: list[Sequence[int]]) -> tuple[Any, Any]:
  recommender, choice, exclude_history = key
  items_UxK = np.full((len(known), recommender.beam), -1, np.int32)
  scores_UxK = np.full(items_UxK.shape, -np.inf, np.float32)
  for users, batch in recommender.searches(known, exclude_history, choice):
    items_UxK[users], scores_UxK[users] = (part[: len(users)] for part in jax.device_get(batch))
  return items_UxK, scores_UxK
