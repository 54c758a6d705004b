"""`--stage=serve` asked over loopback by a client of its own process: latencies at given rates, and the most a second.

    python -m tests.benchmarks.serving --workdir=FINISHED [--rates=50,100,200] [--seconds=10] [--json=FILE]

Requests are of one user each, with histories of 1 to 20 random items and 10 items in the answer; at a rate they arrive
at random moments (a Poisson process) over 64 connections, whether or not the ones before are answered. For the most a
second, every one of the connections asks again as soon as it has its answer. Last, the model is reloaded in the middle
of requests at the first rate.
"""

import argparse
import asyncio
import contextlib
import json
import pathlib
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator

import numpy as np

from letter_jax.workdir import Workdir
from tests.benchmarks import table

CONNECTIONS = 64


class Client:
  """Connections that are kept, and the seconds of each answered request."""

  def __init__(self, port: int, bodies: list[bytes]):
    self._port, self._bodies = port, bodies
    self._queue: asyncio.Queue[tuple[float, bytes] | None] = asyncio.Queue()
    self.seconds: list[float] = []

  async def at_rate(self, rate: float, seconds: float) -> np.ndarray:
    """Milliseconds of every request, from the moment that it was due."""
    random = np.random.default_rng(0)
    async with self._connected():
      due = time.perf_counter()
      for gap in random.exponential(1 / rate, int(rate * seconds)):
        due += gap
        await asyncio.sleep(max(due - time.perf_counter(), 0))
        self._queue.put_nowait((due, self._bodies[random.integers(len(self._bodies))]))
    return 1e3 * np.array(self.seconds)

  async def most(self, seconds: float) -> float:
    """Requests a second."""
    started = time.perf_counter()
    async with self._connected():
      while time.perf_counter() - started < seconds:
        if self._queue.qsize() < CONNECTIONS:
          for body in self._bodies[:CONNECTIONS]:
            self._queue.put_nowait((time.perf_counter(), body))
        await asyncio.sleep(0.005)
    return len(self.seconds) / (time.perf_counter() - started)

  @contextlib.asynccontextmanager
  async def _connected(self) -> AsyncIterator[None]:
    self.seconds = []
    workers = [asyncio.create_task(self._work()) for _ in range(CONNECTIONS)]
    yield
    for _ in workers:
      self._queue.put_nowait(None)
    await asyncio.gather(*workers)

  async def _work(self) -> None:
    reader, writer = await asyncio.open_connection('127.0.0.1', self._port)
    while (asked := await self._queue.get()) is not None:
      due, body = asked
      writer.write(b'POST /recommend HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n' % len(body) + body)
      head = await reader.readuntil(b'\r\n\r\n')
      found = re.search(rb'content-length: (\d+)', head, re.I)
      await reader.readexactly(int(found.group(1)) if found else 0)
      if not head.startswith(b'HTTP/1.1 200'):
        raise SystemExit(f'a request was answered with {head[:40]!r}')
      self.seconds.append(time.perf_counter() - due)
    writer.close()


def requests(workdir: pathlib.Path) -> list[bytes]:
  folder, random = Workdir(workdir), np.random.default_rng(1)
  ids = folder.read_raw_ids() or tuple(map(str, range(len(folder.read_semantic_ids()))))
  return [
    json.dumps({'history': [ids[item] for item in random.choice(len(ids), random.integers(1, 21))]}).encode()
    for _ in range(500)
  ]


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_argument('--rates', default='50,100,200')
  parser.add_argument('--seconds', type=float, default=10)
  table.add_arguments(parser)
  arguments = parser.parse_args()
  with tempfile.TemporaryDirectory() as scratch:
    token = secrets.token_hex()
    (token_file := pathlib.Path(scratch, 'token')).write_text(token)
    command = [sys.executable, '-m', 'letter_jax.main', '--stage=serve', f'--workdir={arguments.workdir}', '--port=0']
    command.append(f'--admin_token_file={token_file}')
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
      try:
        port, ready = 0, 0.0
        for line in server.stdout:
          if found := re.search(r'http://127.0.0.1:(\d+)', line):
            port = int(found.group(1))
          if found := re.search(r'ready after ([\d.]+) s', line):
            ready = float(found.group(1))
            break
        rows = asyncio.run(measure(port, token, arguments))
      finally:
        server.terminate()
  table.report([{'name': 'ready after the start', 'unit': 's', 'ours': ready}, *rows], arguments)


async def measure(port: int, token: str, arguments: argparse.Namespace) -> list[dict]:
  client = Client(port, requests(arguments.workdir))
  rates = [float(rate) for rate in arguments.rates.split(',')]
  await client.at_rate(rates[0], 3)  # connections and caches
  rows = []
  for rate in rates:
    rows += _latencies(f'{rate:,.0f} requests/s', await client.at_rate(rate, arguments.seconds))
  rows.append({'name': 'most', 'unit': 'requests/s', 'ours': await client.most(arguments.seconds)})
  asked = asyncio.create_task(client.at_rate(rates[0], arguments.seconds))
  await asyncio.sleep(arguments.seconds / 4)
  started = time.perf_counter()
  reader, writer = await asyncio.open_connection('127.0.0.1', port)
  writer.write(f'POST /-/reload HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n'.encode())
  if not (await reader.readuntil(b'\r\n\r\n')).startswith(b'HTTP/1.1 200'):
    raise SystemExit('the reload was refused')
  rows.append({'name': 'a reload meanwhile', 'unit': 's', 'ours': time.perf_counter() - started})
  writer.close()
  return rows + _latencies(f'{rates[0]:,.0f} requests/s and a reload', await asked)


def _latencies(name: str, milliseconds: np.ndarray) -> list[dict]:
  found = {'p50': np.percentile(milliseconds, 50), 'p99': np.percentile(milliseconds, 99), 'max': milliseconds.max()}
  return [{'name': f'{name}: {key}', 'unit': 'ms', 'ours': float(value)} for key, value in found.items()]


if __name__ == '__main__':
  main()
