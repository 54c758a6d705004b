"""A peer in a process of its own: its threads and its memory are then not ours, nor ours its."""

import concurrent.futures
import multiprocessing
from typing import Any

_object: Any = None


class InSubprocess:
  """An object that another process makes and keeps; `call` waits for one of its methods."""

  def __init__(self, factory, *arguments):
    """Both are pickled, and so are all arguments and results."""
    self._process = concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context('spawn'))
    self._process.submit(_make, factory, arguments).result()

  def call(self, method: str, *arguments):
    return self._process.submit(_call, method, arguments).result()

  def close(self) -> None:
    self._process.shutdown()


def _make(factory, arguments) -> None:
  global _object
  _object = factory(*arguments)


def _call(method: str, arguments):
  return getattr(_object, method)(*arguments)
