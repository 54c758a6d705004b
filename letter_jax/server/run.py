"""The server as a process: its socket, its signals, and its end."""

import asyncio
import contextlib
import dataclasses
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable

import uvicorn

from letter_jax.server.app import make_app
from letter_jax.server.asked import Limits
from letter_jax.server.gathering import Gatherer
from letter_jax.server.metrics import Metrics
from letter_jax.server.models import Loading, Models
from letter_jax.serving.recommender import Recommender
from letter_jax.system.errors import InputError
from letter_jax.system.wording import counted

GRACE_SECONDS = 30  # for requests that were accepted before SIGTERM


@dataclasses.dataclass(frozen=True)
class ServerSettings:
  """How the server listens and gathers.

  Attributes:
    host, port: where it listens; port 0 for any that is free.
    wait_seconds: how long a user waits for others to be searched for together, at most, while nothing is searched for.
    queue_users: users who may wait; a request beyond them is answered with 503.
    searches: how many run at a time.
    admin_token: what POST /-/reload asks for; '' for no such route.
    limits: what a single request may ask for.
  """

  host: str
  port: int
  wait_seconds: float
  queue_users: int
  searches: int
  admin_token: str
  limits: Limits


def serve(load: Callable[[], Recommender], settings: ServerSettings, say: Callable[[str], None]) -> None:
  """Serves until SIGTERM or SIGINT, and finishes what was accepted before.

  It listens at once, and is ready (`GET /readyz`) when the first recommender is loaded. SIGHUP loads another one.

  Args:
    load: returns a recommender that is warm; called in a thread of its own.
    settings: where to listen, and how to gather.
    say: prints a line for the operator.

  Raises:
    InputError: the port is taken, or the first recommender cannot be loaded.
  """
  # A thread that comes back from the device waits at most so long for Python's lock, instead of 5 ms.
  sys.setswitchinterval(0.0005)
  with _listening(settings.host, settings.port) as listener:
    asyncio.run(_serve(load, settings, listener, say))


@contextlib.contextmanager
def _listening(host: str, port: int):
  family = socket.AF_INET6 if ':' in host else socket.AF_INET
  try:
    listener = socket.create_server((host, port), family=family, backlog=2048)
    # Head and body of an answer are two writes; without this the second waits 40 ms for a client's acknowledgement.
    # asyncio sets it for the sockets that it makes itself, and connections inherit it from here.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
  except (OSError, OverflowError) as error:
    reason = getattr(error, 'strerror', None) or error
    raise InputError(
      f'--host={host} --port={port} cannot be listened on ({reason}); expected an address of this machine and a free '
      'port'
    ) from error
  with listener:
    yield listener


class _Server(uvicorn.Server):
  """Leaves signals to `_serve`."""

  def capture_signals(self):
    return contextlib.nullcontext()


async def _serve(
  load: Callable[[], Recommender], settings: ServerSettings, listener: socket.socket, say: Callable[[str], None]
) -> None:
  metrics = Metrics()
  models = Models(load, metrics)
  gatherer = Gatherer(settings.wait_seconds, settings.queue_users, settings.searches, metrics)
  app = make_app(models, gatherer, metrics, settings.limits, settings.admin_token)
  server = _Server(
    uvicorn.Config(
      app,
      log_config=None,
      access_log=False,
      server_header=False,
      timeout_graceful_shutdown=GRACE_SECONDS,
      lifespan='on',
    )
  )
  loop = asyncio.get_running_loop()
  failure: Exception | None = None

  def end() -> None:
    if server.should_exit:  # asked twice
      server.force_exit = True
      return
    server.should_exit = True
    say('terminated; what was accepted is still answered')

  async def load_first() -> None:
    nonlocal failure
    try:
      seconds = await models.load()
    except Exception as error:
      failure = error
      server.should_exit = True
      return
    assert models.current is not None
    say(f'ready after {seconds:.1f} s: {counted(len(models.current.recommender.catalogue), "item")}')

  async def reload() -> None:
    try:
      seconds = await models.load()
    except Loading:
      say('SIGHUP: a model is being loaded already')
    except InputError as error:
      print(f'serve: SIGHUP: {error}; the model from before keeps answering', file=sys.stderr, flush=True)
    except Exception:
      traceback.print_exc()
    else:
      assert models.current is not None
      say(f'reloaded in {seconds:.1f} s: {counted(len(models.current.recommender.catalogue), "item")}')

  tasks: set[asyncio.Task] = set()

  def start_reload() -> None:
    task = asyncio.create_task(reload())
    tasks.add(task)
    task.add_done_callback(tasks.discard)

  for number in (signal.SIGTERM, signal.SIGINT):
    loop.add_signal_handler(number, end)
  loop.add_signal_handler(signal.SIGHUP, start_reload)  # also under nohup, where it is ignored: an operator sends it
  host, port = listener.getsockname()[:2]
  say(f'listening on http://{f"[{host}]" if ":" in host else host}:{port}; its page is /docs')
  tasks.add(asyncio.create_task(load_first()))
  await server.serve([listener])
  if failure is not None:
    raise failure
  if models.loading:  # a compilation cannot be stopped, and nobody waits for it any more
    sys.stdout.flush()
    os._exit(0)
