"""The server as a process: `--stage=serve` on a finished workdir."""

import concurrent.futures
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading

import pytest

from tests import forked
from tests.forked import HANG_SECONDS
from tests.paths import ROOT
from tests.server.conftest import TOKEN, until

pytestmark = pytest.mark.slow
pytest.importorskip('uvicorn')

# Few programs: the others are tested in tests/serving/test_programs.py.
PROGRAM = """
import sys
from letter_jax.decoding import user_batches
from letter_jax.serving import recommender
user_batches.ROWS, recommender.EXCLUDED = (16,), (1024,)
from letter_jax.main import run
sys.argv[0] = 'letter-jax'
run()
"""


@contextlib.contextmanager
def serving(workdir, *flags, program=PROGRAM):
  command = [sys.executable, '-c', program, '--stage=serve', f'--workdir={workdir}', '--port=0', *flags]
  process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
  give_up = threading.Timer(HANG_SECONDS, process.kill)  # whoever waits for its next line reads the end
  give_up.start()
  try:
    yield process
  finally:
    give_up.cancel()
    process.kill()
    process.communicate()


def port_of(process):
  listening = process.stdout.readline()
  return int(re.search(r'http://127.0.0.1:(\d+); its page is /docs', listening).group(1))


def ask(port, method, path, body=None, headers=None):
  connection = http.client.HTTPConnection('127.0.0.1', port, timeout=HANG_SECONDS)
  with contextlib.closing(connection):
    connection.request(method, path, None if body is None else json.dumps(body), headers or {})
    response = connection.getresponse()
    content = response.read()
    return response.status, json.loads(content) if b'{' in content[:1] else content.decode()


def wait_until(process, word):
  while word not in (line := process.stdout.readline()):
    assert line, process.stderr.read()
  return line


# As nohup starts it: SIGHUP, which a shell sends to what it leaves behind, is ignored.
UNDER_NOHUP = f'import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n{PROGRAM}'


def test_a_day_of_a_server(small_run, tmp_path):
  """It answers, is given another model by a link, twice, refuses a broken one, and ends with what it accepted."""
  first, second, broken = (tmp_path / name for name in ('first', 'second', 'broken'))
  for folder in (first, second):
    shutil.copytree(small_run, folder)
  shutil.copytree(small_run, broken)
  shutil.rmtree(broken / 'generator')
  link, token = tmp_path / 'model', tmp_path / 'token'
  token.write_text(f'{TOKEN}\n')

  def link_to(folder):
    os.symlink(folder, tmp_path / 'new')
    os.replace(tmp_path / 'new', link)

  link_to(first)
  with serving(link, f'--admin_token_file={token}', program=UNDER_NOHUP) as process:
    port = port_of(process)
    assert str(first.resolve()) in wait_until(process, 'loaded')
    wait_until(process, 'ready after')
    body = {'user': 'a', 'history': ['3', '14', '15']}
    status, answer = ask(port, 'POST', '/recommend', body)
    assert status == 200 and len(answer['recommendations']) == 10
    assert ask(port, 'GET', '/readyz')[0] == 200

    link_to(second)
    process.send_signal(signal.SIGHUP)
    assert str(second.resolve()) in wait_until(process, 'loaded')
    wait_until(process, 'reloaded in')
    assert ask(port, 'POST', '/recommend', body) == (200, answer)

    link_to(broken)
    bearer = {'authorization': f'Bearer {TOKEN}'}
    status, refused = ask(port, 'POST', '/-/reload', headers=bearer)
    assert status == 409 and 'has no finished generator; expected' in refused['error']
    assert ask(port, 'POST', '/recommend', body) == (200, answer)
    process.send_signal(signal.SIGHUP)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
      many = {'users': [body] * 500}
      asked = [pool.submit(ask, port, 'POST', '/recommend', many) for _ in range(8)]
      until(lambda: 'letter_queue_users 0.0' not in ask(port, 'GET', '/metrics')[1])
      process.send_signal(signal.SIGTERM)
      answered = [future.result() for future in asked]
    # Connections that were not accepted yet are refused; what was accepted is answered in full.
    assert all(status == 200 and len(found['users']) == 500 for status, found in answered)
    said, error = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 0 and 'terminated' in said
    assert re.fullmatch(r'serve: SIGHUP: .* the model from before keeps answering\n', error)


def test_an_answer_does_not_wait_for_an_acknowledgement():
  run = pytest.importorskip('letter_jax.server.run')
  with run._listening('127.0.0.1', 0) as listener, socket.create_connection(listener.getsockname()):
    connection, _ = listener.accept()
    with connection:
      assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_server_that_cannot_begin(small_run, tmp_path):
  with socket.create_server(('127.0.0.1', 0)) as taken:
    port = taken.getsockname()[1]
    for workdir, flags, message in (
      (small_run, [f'--port={port}'], f'--port={port} cannot be listened on'),
      (small_run, ['--host=192.0.2.1'], '--host=192.0.2.1 --port=0 cannot be listened on'),
      (small_run, ['--beam=0'], 'beam is 0; expected 1 to 60'),
      (small_run, ['--max_history=2000'], '--max_history=2000; expected at most'),
      (small_run, ['--queue_users=0'], '--queue_users=0; expected at least 1'),
      (small_run, ['--admin_token_file=/dev/null'], 'has no token of at least 16'),
      (tmp_path, [], 'letter_jax: error'),
    ):
      ended = forked.run('--stage=serve', f'--workdir={workdir}', '--port=0', *flags)
      assert ended.returncode == 2 and message in ended.stderr and ended.stderr.count('\n') == 1, ended.stderr


def test_a_server_outlives_whoever_reads_its_lines(small_run):
  with serving(small_run) as process:
    port = port_of(process)
    wait_until(process, 'ready after')
    process.stdout.close()
    process.stdout = None
    assert ask(port, 'POST', '/recommend', {'history': ['3']})[0] == 200
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=HANG_SECONDS) == 0


def test_a_server_that_is_not_ready_ends_at_once(small_run):
  with serving(small_run) as process:
    port_of(process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 0
