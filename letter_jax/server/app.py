"""The routes of the server, as a Starlette application."""

import asyncio
import contextlib
import hmac
import sys
import time
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import msgspec
import prometheus_client as prometheus
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from letter_jax.server import openapi
from letter_jax.server.asked import Asked, ItemLists, Limits, read_body
from letter_jax.server.gathering import Busy, Gatherer, Shared
from letter_jax.server.metrics import Metrics
from letter_jax.server.models import Loading, Models, Served
from letter_jax.serving.requests import answered
from letter_jax.system.errors import InputError

RETRY_SECONDS = 1  # in Retry-After

LARGE = 65536  # bytes of a body, from which it is read, and answered, beside the event loop


class Handlers:
  """What answers the requests."""

  def __init__(self, models: Models, gatherer: Gatherer, metrics: Metrics, limits: Limits, admin_token: str) -> None:
    """See `make_app`."""
    self._models, self._gatherer, self._metrics = models, gatherer, metrics
    self._limits, self._admin_token = limits, admin_token

  async def recommend(self, request: Request) -> Response:
    """POST /recommend."""
    body = await _body(request, self._limits.body_bytes)
    started = time.perf_counter()
    served = self._models.current
    if served is None:
      raise _unavailable('the model is being loaded')
    try:
      of_body = (read_body, body, served.recommender.catalogue, served.recommender.beam, self._limits)
      asked = await _call(len(body) > LARGE, *of_body)
      choice = None if asked.lists == ItemLists() else await served.choice(asked.lists)
    except InputError as error:
      raise HTTPException(400, str(error)) from None
    try:
      known = [user.known for user in asked.users]
      shared = Shared(served.recommender, choice, asked.exclude_history)
      found = await _unless_gone(request, self._gatherer.search(shared, known))
    except Busy:
      raise _unavailable('too many users wait for recommendations') from None
    self._metrics.users.inc(len(asked.users))
    self._metrics.unknown_items.inc(sum(len(user.unknown) for user in asked.users))
    answer = await _call(len(body) > LARGE, _answer, served, asked, *found)
    self._metrics.seconds.observe(time.perf_counter() - started)
    return answer

  async def reload(self, request: Request) -> Response:
    """POST /-/reload."""
    given = request.headers.get('authorization', '').encode('utf-8', 'replace')
    if not hmac.compare_digest(given, f'Bearer {self._admin_token}'.encode()):
      raise HTTPException(
        401,
        'expected "Authorization: Bearer TOKEN", with the token of --admin_token_file',
        {'WWW-Authenticate': 'Bearer'},
      )
    try:
      seconds = await self._models.load()
    except Loading:
      raise HTTPException(409, 'another model is being loaded; expected one reload at a time') from None
    except InputError as error:
      raise HTTPException(409, f'{error}; the model from before keeps answering') from None
    current = self._models.current
    return _json({'items': len(current.recommender.catalogue) if current else 0, 'seconds': round(seconds, 3)})

  async def healthz(self, request: Request) -> Response:
    """GET /healthz: the process answers."""
    return _json({'status': 'ok'})

  async def readyz(self, request: Request) -> Response:
    """GET /readyz: recommendations are answered at once."""
    if self._models.current is None:
      raise _unavailable('the model is being loaded')
    return _json({'status': 'ready'})

  async def metrics(self, request: Request) -> Response:
    """GET /metrics."""
    return Response(self._metrics.text(), headers={'content-type': prometheus.CONTENT_TYPE_LATEST})

  async def openapi(self, request: Request) -> Response:
    """GET /openapi.json."""
    current = self._models.current
    return _json(openapi.description(current.recommender if current else None, self._limits, bool(self._admin_token)))

  async def docs(self, request: Request) -> Response:
    """GET /docs."""
    current = self._models.current
    described = openapi.description(current.recommender if current else None, self._limits, bool(self._admin_token))
    return HTMLResponse(openapi.page(described))


def make_app(models: Models, gatherer: Gatherer, metrics: Metrics, limits: Limits, admin_token: str) -> ASGIApp:
  """The application.

  Args:
    models: where the recommender of the moment is found.
    gatherer: searches for users of all requests.
    metrics: what is counted.
    limits: what a request may ask for.
    admin_token: lets its bearer reload the model; '' for no such route.
  """
  handlers = Handlers(models, gatherer, metrics, limits, admin_token)
  routes = [
    Route('/recommend', handlers.recommend, methods=['POST']),
    Route('/healthz', handlers.healthz),
    Route('/readyz', handlers.readyz),
    Route('/metrics', handlers.metrics),
    Route('/openapi.json', handlers.openapi),
    Route('/docs', handlers.docs),
  ]
  if admin_token:
    routes.append(Route('/-/reload', handlers.reload, methods=['POST']))
  paths = {route.path for route in routes}

  @contextlib.asynccontextmanager
  async def lifespan(app: Starlette) -> AsyncIterator[None]:
    searches = asyncio.create_task(gatherer.run())
    try:
      yield
    finally:
      searches.cancel()
      gatherer.close()

  async def refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _json({'error': error.detail}, error.status_code, error.headers)

  async def fail(request: Request, error: Exception) -> Response:
    return _json({'error': 'the server has failed; its log says how'}, 500)

  app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: refuse, 500: fail})
  return _Counted(app, metrics, paths)


class _Counted:
  """Counts the requests of an application, and keeps traces in the log."""

  def __init__(self, app: ASGIApp, metrics: Metrics, paths: set[str]) -> None:
    self._app, self._metrics, self._paths = app, metrics, paths

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    if scope['type'] != 'http':
      await self._app(scope, receive, send)
      return
    status = 500

    async def noted(message: Any) -> None:
      nonlocal status
      if message['type'] == 'http.response.start':
        status = message['status']
      await send(message)

    try:
      await self._app(scope, receive, noted)
    except ClientDisconnect:
      status = 499
    except Exception:
      traceback.print_exc(file=sys.stderr)
    path = scope['path'] if scope['path'] in self._paths else 'other'
    self._metrics.requests.labels(path, str(status)).inc()


async def _body(request: Request, limit: int) -> bytes:
  """The body of a request; HTTPException 413 where it is larger than `limit` bytes."""
  too_large = HTTPException(413, f'the body has more than {limit:,} bytes; expected fewer users at a time')
  declared = request.headers.get('content-length', '')
  if declared.isdecimal() and int(declared) > limit:
    raise too_large
  parts, size = [], 0
  async for part in request.stream():
    size += len(part)
    if size > limit:
      raise too_large
    parts.append(part)
  return b''.join(parts)


async def _call(aside: bool, function: Callable[..., Any], *arguments: Any) -> Any:
  """Calls a function, where it takes long `aside` in a thread."""
  return await asyncio.to_thread(function, *arguments) if aside else function(*arguments)


async def _unless_gone(request: Request, search: Coroutine[Any, Any, Any]) -> Any:
  """The result of a search, which is cancelled when the client leaves; ClientDisconnect then."""
  found, gone = asyncio.ensure_future(search), asyncio.ensure_future(request.receive())  # the body has been read
  try:
    await asyncio.wait({found, gone}, return_when=asyncio.FIRST_COMPLETED)
    if not found.done():
      raise ClientDisconnect
    return found.result()
  finally:
    found.cancel()
    gone.cancel()


def _answer(served: Served, asked: Asked, items_UxK: Any, scores_UxK: Any) -> Response:
  catalogue = served.recommender.catalogue
  answers = [
    answered(user, items, scores, catalogue)
    for user, items, scores in zip(asked.users, items_UxK[:, : asked.k].tolist(), scores_UxK[:, : asked.k].tolist())
  ]
  return _json({'users': answers} if asked.many else answers[0])


def _unavailable(why: str) -> HTTPException:
  return HTTPException(503, f'{why}; expected to be asked again', headers={'Retry-After': str(RETRY_SECONDS)})


def _json(value: Any, status: int = 200, headers: Any = None) -> Response:
  return Response(msgspec.json.encode(value), status, headers, media_type='application/json')
