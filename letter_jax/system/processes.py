"""Several processes as one program, on JAX's own runtime: which one writes, and how all end when one fails.

Every process runs the same stages. Work for a single process (preparing data, writing a record) goes through
`on_first_process`: process 0 does it, and every process gets its result or its error. A process that fails announces
the reason before it exits; a thread in each of the others then exits with the same reason, whatever the process is
doing.
"""

import contextlib
import faulthandler
import itertools
import json
import os
import pathlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from letter_jax.system import lock
from letter_jax.system.errors import InputError, Preempted

HEARTBEAT_SECONDS = 30  # silence after which a process counts as dead
_LONG = 10 * 24 * 3600 * 1000  # ms; a process that waits is ended by the one that fails
_GRACE_SECONDS = 10.0  # in which the other processes read why this one failed
_LAST_SECONDS = 3.0  # by which process 0 outlives the others: the runtime aborts them once its service is gone
_FAILURE = 'letter_jax/failure'


class _Group:
  """The processes that run as one program: their coordination service, and a thread that watches for a failure.

  Attributes:
    client: of JAX's coordination service, which has a key-value store.
    index, count: of this process, and of how many.
    exchanges: numbers the exchanges; the same on every process, since all make the same calls in the same order.
    preemption_checks: numbers the calls of `preemption_agreed`, for as long as JAX's service lives.
  """

  def __init__(self, client: Any, index: int, count: int) -> None:
    self.client, self.index, self.count = client, index, count
    self.exchanges, self.preemption_checks = itertools.count(), itertools.count()
    self._shutting_down = threading.Event()
    self._exiting = threading.Lock()  # never released: the first thread that acquires it ends the process
    self._watcher = threading.Thread(target=self._watch, daemon=True)
    self._watcher.start()

  def get(self, key: str, milliseconds: int = _LONG) -> str:
    """The value of a key, once some process has set it; raises an exception when time is up."""
    return self.client.blocking_key_value_get(key, milliseconds)

  def set(self, key: str, value: str) -> None:
    """Sets a key; raises an exception where it is set already."""
    self.client.key_value_set(key, value)

  def announce_failure(self, error: BaseException) -> None:
    """Tells the others why this process failed and waits until they know; exits if one of them failed first."""
    message = ' '.join(str(error).split())[:1000] or type(error).__name__
    try:
      self.set(_FAILURE, json.dumps([self.index, message, 2 if isinstance(error, InputError) else 1]))
    except Exception:  # another process announced its failure first, or the service is gone
      self.exit_with_peer_error()
    others = [index for index in range(self.count) if index != self.index]
    for index in others:
      with contextlib.suppress(Exception):
        self.get(f'{_FAILURE}_read/{index}', int(_GRACE_SECONDS * 1000 / len(others)))
    if self.index == 0:
      time.sleep(_LAST_SECONDS)

  def exit_with_peer_error(self) -> None:
    """Exits with the announced reason, if another process has announced a failure."""
    try:
      index, message, status = json.loads(self.get(_FAILURE, 1000))
    except Exception:
      return
    if index == self.index:
      return
    self._exiting.acquire()
    print(f'letter_jax: error: process {index} failed: {message}', file=sys.stderr, flush=True)
    with contextlib.suppress(Exception):
      self.set(f'{_FAILURE}_read/{self.index}', '')
    if self.index == 0:
      time.sleep(_LAST_SECONDS)
    lock.release_all()
    os._exit(status)

  def shut_down(self) -> None:
    """Disconnects the processes, once all of them have called this."""
    import jax

    exchange('done')
    self._shutting_down.set()
    self._watcher.join()
    jax.distributed.shutdown()

  def _watch(self) -> None:
    while not self._shutting_down.is_set():
      try:
        self.get(_FAILURE, 1000)
      except Exception as error:
        if 'DEADLINE_EXCEEDED' not in str(error):
          time.sleep(1)  # if the service is gone, the runtime ends this process
        continue
      self.exit_with_peer_error()


_group: _Group | None = None  # None: this process is alone


def initialize(coordinator: str | None = None, count: int | None = None, index: int | None = None) -> None:
  """Joins the other processes; to be called before JAX is used for anything else.

  Args:
    coordinator: HOST:PORT of process 0. Without it, all three come from TPU metadata, Slurm or another cluster that
      `jax.distributed` detects.
    count: number of processes.
    index: of this process, from 0.

  Raises:
    InputError: the arguments are inconsistent, no cluster is detected, or not all processes joined.
  """
  import jax

  global _group
  arguments = (coordinator, count, index)
  if arguments != (None, None, None) and (coordinator is None or count is None or index is None or index >= count):
    raise InputError(
      f'--coordinator={coordinator}, --processes={count} and --process={index}; expected all three, '
      'with --process below --processes, or --distributed alone'
    )
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  faulthandler.disable()  # when another process dies, JAX logs the reason and aborts: no stack of every thread as well
  try:
    jax.distributed.initialize(coordinator, count, index, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
  except Exception as error:  # ValueError, RuntimeError and the runtime's exceptions
    message = ' '.join(str(error).split())[:300]
    raise InputError(
      f'the processes could not be joined ({message}); expected --coordinator, --processes and '
      '--process for processes that all start, or --distributed on a TPU pod or under Slurm'
    ) from error
  # The only private part of JAX used here: its key-value store, which works without devices.
  from jax._src.distributed import global_state

  if jax.process_index():
    sys.stdout = open(os.devnull, 'w')  # noqa: SIM115, for the life of the process
  _group = _Group(global_state.client, jax.process_index(), jax.process_count())


def is_first() -> bool:
  """Whether this process writes logs, reports and artifacts."""
  return _group is None or _group.index == 0


def count() -> int:
  """The number of processes that run as one program."""
  return 1 if _group is None else _group.count


def on_first_process(function: Callable[[], Any]) -> Any:
  """The result of `function`, which process 0 runs while the others wait.

  Args:
    function: returns a JSON value; called on process 0 only.

  Raises:
    InputError: on every process, where `function` raised one.
  """
  if _group is None or _group.count == 1:
    return function()
  key = f'letter_jax/first/{next(_group.exchanges)}'
  if _group.index:
    answer = json.loads(_group.get(key))
    if 'error' in answer:
      raise InputError(answer['error'])
    return answer['result']
  try:
    result = function()
  except InputError as error:
    _group.set(key, json.dumps({'error': str(error)}))
    raise
  _group.set(key, json.dumps({'result': result}))
  return result


def exchange(value: Any) -> list[Any]:
  """The JSON values that all processes pass, in the order of their indices; waits for the last of them."""
  if _group is None or _group.count == 1:
    return [value]
  key = f'letter_jax/exchange/{next(_group.exchanges)}'
  _group.set(f'{key}/{_group.index}', json.dumps(value))
  return [json.loads(_group.get(f'{key}/{index}')) for index in range(_group.count)]


def preemption_agreed() -> bool:
  """Whether several processes, of which some got SIGTERM, have agreed to save and stop now.

  Every process calls this equally often. JAX agrees on the number of a coming call, so the numbers have to increase by
  one through all trainings of a run, whatever their steps: the counter lives as long as the connection.
  """
  from jax.experimental import multihost_utils

  return _group is not None and multihost_utils.reached_preemption_sync_point(next(_group.preemption_checks))


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
  """A context in which this program, with all of its processes, is the only one that writes to a folder.

  Process 0 holds the lock (`lock.Lock`).

  Raises:
    InputError: on every process, where another program holds it.
  """
  of_folder = lock.Lock(folder)
  on_first_process(of_folder.acquire)
  try:
    yield
  finally:
    of_folder.release()


@contextlib.contextmanager
def fail_together() -> Iterator[None]:
  """A context in which a failure of one process ends all, with the reason of the first that failed."""
  try:
    yield
  except Preempted:
    _shut_down()
    raise
  except BaseException as error:
    if _group is not None and _group.count > 1:
      _group.announce_failure(error)
    raise
  _shut_down()


def _shut_down() -> None:
  if _group is not None and _group.count > 1:
    _group.shut_down()
