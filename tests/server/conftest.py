"""Servers in a thread, with recommenders that score by tables."""

import asyncio
import contextlib
import http.client
import json
import threading
import time

import jax.numpy as jnp
import numpy as np
import pytest

from letter_jax import sharding
from letter_jax.configuration import MeshConfig
from letter_jax.decoding.user_batches import UserBatches
from letter_jax.decoding.user_search import Search, UserSearch
from letter_jax.evaluation.first_purchases import FirstPurchases
from letter_jax.semantic_ids.ids import SemanticIds
from letter_jax.serving.catalogue import Catalogue
from letter_jax.serving.recommender import Recommender
from letter_jax.system.errors import InputError
from tests.forked import HANG_SECONDS
from tests.small_data import distinct_codes

uvicorn = pytest.importorskip('uvicorn')

from letter_jax.server.app import make_app  # noqa: E402
from letter_jax.server.asked import Limits  # noqa: E402
from letter_jax.server.gathering import Gatherer  # noqa: E402
from letter_jax.server.metrics import Metrics  # noqa: E402
from letter_jax.server.models import Models  # noqa: E402

ITEMS, LEVELS, K, ROWS, LENGTH = 40, 2, 8, 16, 12
TOKEN = 'a-token-of-nobody'


def _begin(table_IxLxK, items_BxC, codes_NxL):
  weight_BxC = jnp.where(items_BxC >= 0, 1.3 ** jnp.arange(items_BxC.shape[1]), 0)
  of_user_BxLxK = jnp.einsum('bc,bclk->blk', weight_BxC, table_IxLxK[jnp.maximum(items_BxC, 0)])

  def step(level, codes_BxW, cache):
    width = 1 if codes_BxW is None else codes_BxW.shape[1]
    return jnp.repeat(of_user_BxLxK[:, None, level], width, axis=1), cache

  return step, None


def table_recommender(seed, items=ITEMS):
  """A recommender of items '100', '101', ... whose lists depend on the seed."""
  table = np.random.default_rng(seed).normal(size=(ITEMS, LEVELS, K)).astype(np.float32)
  ids = SemanticIds(distinct_codes(ITEMS, LEVELS, K)[:items], K)
  placed = ids.place(sharding.make_mesh(MeshConfig()))
  names = tuple(str(100 + item) for item in range(items))
  catalogue = Catalogue(names, names, ids, items, True, FirstPurchases(np.ones((2, items), np.int64)))
  search = UserSearch(Search(_begin, renormalise=False), placed, UserBatches(placed.mesh, ROWS), 20)
  return Recommender(search, table, catalogue, LENGTH)


@pytest.fixture(scope='session')
def recommender():
  return table_recommender(0)


def until(happened):
  """Waits until `happened()` is true."""
  deadline = time.monotonic() + HANG_SECONDS
  while not happened():
    assert time.monotonic() < deadline


class Client:
  """Requests to a server, and what it was made of."""

  def __init__(self, port, models, loop):
    self.port, self.models, self._loop = port, models, loop

  def request(self, method, path, body=None, headers=None):
    """Status, headers and body, parsed where it is JSON."""
    connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=HANG_SECONDS)
    try:
      encoded = body if isinstance(body, bytes | None) else json.dumps(body).encode()
      connection.request(method, path, encoded, headers or {})
      response = connection.getresponse()
      content = response.read()
      is_json = response.headers.get('content-type', '').startswith('application/json')
      return response.status, response.headers, json.loads(content) if is_json else content.decode()
    finally:
      connection.close()

  def recommend(self, **body):
    status, _, answer = self.request('POST', '/recommend', body)
    assert status == 200, answer
    return answer

  def load(self):
    """Loads the next recommender."""
    return asyncio.run_coroutine_threadsafe(self.models.load(), self._loop).result(HANG_SECONDS)


@pytest.fixture
def start():
  """Starts a server of recommenders that are loaded one after the other; the first at once, unless told otherwise."""
  with contextlib.ExitStack() as stack:

    def start(*recommenders, ready=True, wait_seconds=0.0, queue_users=1000, searches=2, limits=None, admin_token=''):
      waiting, started, made = list(recommenders), threading.Event(), {}

      def load():
        if not waiting:
          raise InputError('no model is left; expected one')
        following = waiting.pop(0)
        return following() if callable(following) else following

      async def serve():
        metrics = Metrics()
        models = Models(load, metrics)
        gatherer = Gatherer(wait_seconds, queue_users, searches, metrics)
        app = make_app(models, gatherer, metrics, limits or Limits(), admin_token)
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan='on'))
        serving = asyncio.create_task(server.serve())
        while not server.started:
          await asyncio.sleep(0.01)
        if ready:
          await models.load()
        made.update(
          server=server,
          client=Client(server.servers[0].sockets[0].getsockname()[1], models, asyncio.get_running_loop()),
        )
        started.set()
        await serving

      thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
      thread.start()
      assert started.wait(HANG_SECONDS)

      def end():
        made['server'].should_exit = True
        thread.join(HANG_SECONDS)
        assert not thread.is_alive()

      stack.callback(end)
      return made['client']

    yield start
