"""The recommender that the server answers with, and how another one takes its place."""

import asyncio
import collections
import concurrent.futures
import dataclasses
import gc
import threading
import time
from collections.abc import Callable
from typing import Any

from letter_jax.server.asked import ItemLists
from letter_jax.server.metrics import Metrics
from letter_jax.serving.recommender import Choice, Recommender
from letter_jax.system.errors import InputError

CHOICES = 64  # lists of items that are remembered


class Loading(Exception):
  """A recommender is being loaded; another cannot be loaded at the same time."""


@dataclasses.dataclass(frozen=True, eq=False)
class Served:
  """A recommender that is ready, with the choices among its items that were asked for last."""

  recommender: Recommender
  _choices: collections.OrderedDict[ItemLists, Choice] = dataclasses.field(default_factory=collections.OrderedDict)

  def known_choice(self, lists: ItemLists) -> Choice | None:
    """The choice of `choose` where it is remembered."""
    choice = self._choices.get(lists)
    if choice is not None:
      self._choices.move_to_end(lists)
    return choice

  def choose(self, lists: ItemLists) -> Choice:
    """The items that may be recommended; InputError as of `Recommender.among`."""
    return self.recommender.among(lists.allow, lists.deny, lists.skip_unknown, lists.repeat)

  def remember(self, lists: ItemLists, choice: Choice) -> None:
    """Lets `known_choice` find a choice; the one that was used least recently is forgotten."""
    self._choices[lists] = choice
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
    self._loading = False
    self.current: Served | None = None

  @property
  def loading(self) -> bool:
    """Whether a recommender is being loaded."""
    return self._loading

  async def load(self) -> float:
    """Loads a recommender, beside the current one if there is any, and puts it in its place; returns the seconds.

    Raises:
      Loading: another load is under way.
      InputError: the recommender cannot be loaded; the current one stays.
    """
    if self._loading:
      raise Loading
    self._loading, started = True, time.perf_counter()
    try:
      recommender = await asyncio.wrap_future(_in_thread(self._load))
    except InputError:
      self._metrics.reloads.labels('refused').inc()
      raise
    finally:
      self._loading = False
    self.current = Served(recommender)
    # What lives from now on need not be looked at again by every full collection of garbage.
    gc.freeze()
    self._metrics.reloads.labels('done').inc()
    self._metrics.ready.set(1)
    self._metrics.items.set(len(recommender.catalogue))
    self._metrics.loaded.set_to_current_time()
    return time.perf_counter() - started


def _in_thread(function: Callable[[], Any]) -> concurrent.futures.Future:
  """Calls a function in a thread that does not keep the program from ending."""
  future: concurrent.futures.Future = concurrent.futures.Future()

  def call() -> None:
    try:
      future.set_result(function())
    except BaseException as error:
      future.set_exception(error)

  threading.Thread(target=call, daemon=True, name='load').start()
  return future
