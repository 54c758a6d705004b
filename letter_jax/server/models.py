"""The recommender that the server answers with, and how another one takes its place."""

import asyncio
import collections
import concurrent.futures
import dataclasses
import functools
import gc
import threading
import time
from collections.abc import Callable

from letter_jax.server.asked import ItemLists
from letter_jax.server.metrics import Metrics
from letter_jax.serving.recommender import Choice, Recommender
from letter_jax.system.errors import InputError

CHOICES = 16  # lists of items that are remembered
REMEMBERED_ITEMS = 10_000  # items of a list that is remembered, at most


class Loading(Exception):
  """A recommender is being loaded; another cannot be loaded at the same time."""


@dataclasses.dataclass(frozen=True, eq=False)
class Served:
  """A recommender that is ready, with the choices among its items that were asked for last; used by one event loop."""

  recommender: Recommender
  _choices: collections.OrderedDict[ItemLists, asyncio.Task[Choice]] = dataclasses.field(
    default_factory=collections.OrderedDict
  )

  async def choice(self, lists: ItemLists) -> Choice:
    """The items that may be recommended, made once for all who ask meanwhile; InputError as of `Recommender.among`.

    Unless the lists are long the choice is remembered; the one used least recently is forgotten.
    """
    making = self._choices.get(lists)
    if making is None:
      of_lists = (lists.allow, lists.deny, lists.skip_unknown, lists.repeat)
      making = asyncio.create_task(asyncio.to_thread(self.recommender.among, *of_lists))  # long lists take a while
      self._choices[lists] = making
      making.add_done_callback(functools.partial(self._keep_or_forget, lists))
    self._choices.move_to_end(lists)
    return await asyncio.shield(making)  # whoever leaves does not keep it from the others

  def _keep_or_forget(self, lists: ItemLists, made: asyncio.Task[Choice]) -> None:
    long = len(lists.allow or ()) + len(lists.deny) + len(lists.repeat or ()) > REMEMBERED_ITEMS
    if (made.cancelled() or made.exception() or long) and self._choices.get(lists) is made:
      del self._choices[lists]
    while len(self._choices) > CHOICES:
      self._choices.popitem(last=False)


class Models:
  """The recommender of the moment. Its methods are called from one event loop."""

  def __init__(self, load: Callable[[], Recommender], metrics: Metrics) -> None:
    """Loads nothing yet.

    Args:
      load: returns a recommender that is warm, or raises InputError; called in another thread.
      metrics: where loads are noted.
    """
    self._load, self._metrics = load, metrics
    self._thread: threading.Thread | None = None
    self.current: Served | None = None

  @property
  def loading(self) -> bool:
    """Whether a recommender is being loaded."""
    return self._thread is not None and self._thread.is_alive()

  async def load(self) -> float:
    """Loads a recommender, beside the current one if there is any, and puts it in its place; returns the seconds.

    Raises:
      Loading: another load is under way.
      Exception: what the load has raised, InputError where it has refused; the current recommender stays.
    """
    if self.loading:
      raise Loading
    started = time.perf_counter()
    loaded: concurrent.futures.Future[Recommender] = concurrent.futures.Future()

    def call() -> None:
      loaded.set_running_or_notify_cancel()
      try:
        loaded.set_result(self._load())
      except BaseException as error:
        loaded.set_exception(error)

    # A thread that does not keep the program from ending, and that nobody can cancel.
    self._thread = threading.Thread(target=call, daemon=True, name='load')
    self._thread.start()
    try:
      recommender = await asyncio.shield(asyncio.wrap_future(loaded))
    except Exception as error:
      self._metrics.loads.labels('refused' if isinstance(error, InputError) else 'failed').inc()
      raise
    if self.current is None:
      # Modules and the like need not be looked at again by every full collection of garbage.
      gc.freeze()
    self.current = Served(recommender)
    self._metrics.loads.labels('done').inc()
    self._metrics.ready.set(1)
    self._metrics.items.set(len(recommender.catalogue))
    self._metrics.loaded.set_to_current_time()
    return time.perf_counter() - started
