"""Several processes as one program, on JAX's own runtime: who writes, who waits, and how all end when one fails.

Every process runs the same stages. Work for a single process (preparing data, writing a record) goes through
`on_first_process`: process 0 does it, and every process gets its result or its error. A process that fails announces
why before it exits, and a thread in each of the others then exits with the same reason, whatever it is doing.
"""

import contextlib
import faulthandler
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from letter_jax.system.errors import InputError, Preempted

HEARTBEAT_SECONDS = 30  # silence after which a process counts as dead
_LONG = 10 * 24 * 3600 * 1000  # ms; who waits is ended by whoever fails
_GRACE_SECONDS = 10.0  # in which the others are to have read why it failed
_LAST_WORDS_SECONDS = 3.0  # by which process 0 outlives them: when its service is gone, the runtime aborts who is left
_FAILURE = 'letter_jax/failure'

_client = None  # of JAX's coordination service
_index, _count = 0, 1
_numbers = itertools.count()  # the same on every process, as all call in the same order


def initialize(coordinator: str | None = None, count: int | None = None, index: int | None = None) -> None:
  """Joins the other processes; before JAX is used for anything else.

  Args:
    coordinator: HOST:PORT of process 0. Where it is not given, TPU metadata, Slurm or another cluster that
      `jax.distributed` knows tells all three.
    count, index: how many processes there are, and which this one is.

  Raises:
    InputError: there is no such cluster, or not all processes came.
  """
  import jax

  global _client, _index, _count
  given = [value is not None for value in (coordinator, count, index)]
  if any(given) and not (all(given) and index < count):
    raise InputError(
      f'--coordinator={coordinator}, --processes={count} and --process={index}; expected all three, '
      'with --process below --processes, or --distributed alone'
    )
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  faulthandler.disable()  # where another process died, JAX says so and aborts: no need for every thread's stack
  try:
    jax.distributed.initialize(coordinator, count, index, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
  except Exception as error:  # ValueError, RuntimeError and what the runtime raises
    said = ' '.join(str(error).split())[:300]
    raise InputError(
      f'the processes could not be joined ({said}); expected --coordinator, --processes and '
      '--process for processes that all start, or --distributed on a TPU pod or under Slurm'
    ) from error
  # The one thing of it that is not public: its key-value store, which works without devices.
  from jax._src.distributed import global_state

  _client, _index, _count = global_state.client, jax.process_index(), jax.process_count()
  if _index:
    sys.stdout = open(os.devnull, 'w')  # noqa: SIM115, for the life of the process
  _watcher.start()


def is_first() -> bool:
  """Whether this process writes logs, reports and artifacts."""
  return _index == 0


def count() -> int:
  """Processes that run as one program."""
  return _count


def on_first_process(function: Callable[[], Any]) -> Any:
  """The result (JSON) of `function`, which process 0 runs while the others wait.

  Raises:
    InputError: on every process, where it raised one.
  """
  if _count == 1:
    return function()
  key = f'letter_jax/first/{next(_numbers)}'
  if _index:
    told = json.loads(_client.blocking_key_value_get(key, _LONG))
    if 'error' in told:
      raise InputError(told['error'])
    return told['result']
  try:
    result = function()
  except InputError as error:
    _client.key_value_set(key, json.dumps({'error': str(error)}))
    raise
  _client.key_value_set(key, json.dumps({'result': result}))
  return result


def exchange(value: Any) -> list:
  """What every process says (JSON), in their order; all wait for the last."""
  if _count == 1:
    return [value]
  key = f'letter_jax/exchange/{next(_numbers)}'
  _client.key_value_set(f'{key}/{_index}', json.dumps(value))
  return [json.loads(_client.blocking_key_value_get(f'{key}/{index}', _LONG)) for index in range(_count)]


@contextlib.contextmanager
def fail_together() -> Iterator[None]:
  """What fails inside fails everywhere, with the reason of the first that failed."""
  try:
    yield
  except Preempted:
    _shut_down()
    raise
  except BaseException as error:
    if _count > 1:
      _announce_failure(error)
    raise
  _shut_down()


def _shut_down() -> None:
  """Ends what joins the processes, once all have come to it."""
  if _count > 1:
    import jax

    exchange('done')
    _left.set()
    _watcher.join()
    jax.distributed.shutdown()


def _announce_failure(error: BaseException) -> None:
  """Says why this process failed and waits until the others know; if another was faster, its reason is the one."""
  said = ' '.join(str(error).split())[:1000] or type(error).__name__
  try:
    _client.key_value_set(_FAILURE, json.dumps([_index, said, 2 if isinstance(error, InputError) else 1]))
  except Exception:  # there is one already, or nobody is left to tell
    _exit_with_peer_error()
  others = [index for index in range(_count) if index != _index]
  for index in others:
    with contextlib.suppress(Exception):
      _client.blocking_key_value_get(f'{_FAILURE}_read/{index}', int(_GRACE_SECONDS * 1000 / len(others)))
  if _index == 0:
    time.sleep(_LAST_WORDS_SECONDS)


def _watch() -> None:
  while not _left.is_set():
    try:
      _client.blocking_key_value_get(_FAILURE, 1000)
    except Exception as error:
      if 'DEADLINE_EXCEEDED' not in str(error):
        time.sleep(1)  # if the service is gone, the runtime ends this process
      continue
    _exit_with_peer_error()


_left = threading.Event()
_watcher = threading.Thread(target=_watch, daemon=True)
_ending = threading.Lock()  # never released: the first thread that comes ends the process


def _exit_with_peer_error() -> None:
  """Ends this process, if another failed, with what that one said."""
  try:
    index, said, status = json.loads(_client.blocking_key_value_get(_FAILURE, 1000))
  except Exception:
    return
  if index == _index:
    return
  _ending.acquire()
  print(f'letter_jax: error: process {index} failed: {said}', file=sys.stderr, flush=True)
  with contextlib.suppress(Exception):
    _client.key_value_set(f'{_FAILURE}_read/{_index}', '')
  if _index == 0:
    time.sleep(_LAST_WORDS_SECONDS)
  os._exit(status)
