"""The routes, asked over loopback."""

import concurrent.futures
import json
import socket
import threading
import time
import weakref

import numpy as np
import pytest

from letter_jax.serving import jsonl
from letter_jax.system.errors import InputError
from tests.forked import HANG_SECONDS
from tests.server.conftest import ITEMS, TOKEN, table_recommender, until

Limits = pytest.importorskip('letter_jax.server.asked').Limits


def of_command(recommender, users, k=10, **options):
  """The answers of --stage=recommend."""
  lines = [(number, json.dumps(user).encode()) for number, user in enumerate(users, 1)]
  return [json.loads(answer.line) for answer in next(jsonl.recommend_lines(recommender, [lines], k, **options))]


def without_scores(answers):
  return [
    {**answer, 'recommendations': [{**entry, 'score': None} for entry in answer['recommendations']]}
    for answer in answers
  ]


USERS = [
  {'user': 'a', 'history': ['103', '117', 104]},
  {'user': 7, 'history': ['139']},
  {'user': None, 'history': []},
  {'user': 'b', 'history': ['unknown', '101', '999']},
  {'user': 'c', 'history': ['unknown']},
  {'user': 'd', 'history': [str(100 + item) for item in range(30)]},
]


def test_the_answers_are_those_of_the_command(start, recommender):
  client = start(recommender)
  expected = of_command(recommender, USERS)
  together = client.recommend(users=USERS)['users']
  assert without_scores(together) == without_scores(expected)
  alone = [client.recommend(**user) for user in USERS]
  assert without_scores(alone) == without_scores(expected)
  for found in (together, alone):
    for answer, other in zip(found, expected):
      scores, others = ([entry['score'] for entry in each['recommendations']] for each in (answer, other))
      np.testing.assert_allclose(scores, others, atol=1e-5)


def test_options_are_those_of_the_command(start, recommender):
  client, user = start(recommender), USERS[0]
  assert len(client.recommend(**user, k=3)['recommendations']) == 3
  kept = client.recommend(**user, exclude_history=False, k=20)
  assert without_scores([kept]) == without_scores(of_command(recommender, [user], 20, exclude_history=False))
  few = client.recommend(**user, allow=['105', 106, '107'], deny=['106', 'who'])
  assert {entry['id'] for entry in few['recommendations']} == {'105', '107'}
  again = client.recommend(**user, allow=['105', '106', '107'], deny=['106', 'who'])  # remembered
  assert {entry['id'] for entry in again['recommendations']} == {'105', '107'}
  skipped = client.recommend(**user, allow=['105', 'who'], skip_unknown=True)
  assert [entry['id'] for entry in skipped['recommendations']] == ['105']
  repeated = client.recommend(**user, repeat=['103'], allow=['103', '117', '105'])
  assert {entry['id'] for entry in repeated['recommendations']} == {'103', '105'}


def test_lists_that_arrive_together_are_prepared_once(start, monkeypatch):
  recommender, prepared, all_asked = table_recommender(3), [], threading.Event()
  among = recommender.among

  def slow(*lists):
    prepared.append(lists)
    all_asked.wait(HANG_SECONDS)
    return among(*lists)

  monkeypatch.setattr(recommender, 'among', slow)
  client = start(recommender)
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    answers = [pool.submit(client.recommend, **USERS[0], allow=['105', '107']) for _ in range(4)]
    until(lambda: prepared)
    time.sleep(0.1)  # for the others to arrive
    all_asked.set()
    assert {len(answer.result()['recommendations']) for answer in answers} == {2}
  assert len(prepared) == 1
  monkeypatch.setattr(recommender, 'among', lambda *lists: prepared.append(lists) or among(*lists))
  for _ in range(2):  # what is wrong is not remembered
    status, _, answer = client.request('POST', '/recommend', {**USERS[0], 'allow': ['who']})
    assert status == 400 and 'who' in answer['error']
  assert len(prepared) == 3


def test_many_at_once_get_what_each_gets_alone(start, recommender):
  client = start(recommender, wait_seconds=0.005)
  random = np.random.default_rng(0)
  users = [
    {'user': number, 'history': [str(item) for item in random.integers(100, 100 + ITEMS, random.integers(1, 25))]}
    for number in range(150)
  ]
  options = [{'k': 5}, {'k': 20, 'exclude_history': False}, {'deny': ['105']}]
  bodies = [{**user, **options[number % 3]} for number, user in enumerate(users)]
  with concurrent.futures.ThreadPoolExecutor(30) as pool:
    found = list(pool.map(lambda body: client.recommend(**body), bodies))
  for body, answer in zip(bodies, found):
    assert answer['user'] == body['user']
    assert without_scores([answer]) == without_scores([client.recommend(**body)])
  text = client.request('GET', '/metrics')[2]
  assert 'letter_requests_total{path="/recommend",status="200"} 300.0' in text
  assert 'letter_users_total 300.0' in text and 'letter_queue_users 0.0' in text
  searches = float(text.partition('letter_batch_users_count ')[2].split()[0])
  assert 150 < searches < 300  # some of the first 150 shared one


@pytest.mark.parametrize(
  'body, message',
  [
    (b'', 'not valid JSON'),
    (b'{"history": [1}', 'not valid JSON'),
    (b'\xff\xfe', 'not valid JSON'),
    (b'[' * 100_000, 'not valid JSON'),
    (['a'], 'is not a JSON object'),
    ({'history': ['101'], 'kk': 3}, '"kk" is no key of a request; expected some of allow, deny'),
    ({'user': 'a'}, '"history" is missing; expected'),
    ({'history': '101'}, '"history" is "101"'),
    ({'history': ['101', None]}, r'"history"\[1\] is null'),
    ({'history': ['101', 1.5]}, r'"history"\[1\] is 1.5'),
    ({'history': ['101'], 'user': []}, r'"user" is \[\]'),
    ({'users': [{'history': ['101']}, {'history': [True]}]}, r'"users"\[1\]: "history"\[0\] is true'),
    ({'users': [{'history': ['101'], 'deny': ['102']}]}, r'"users"\[0\]: "deny" is no key of a user'),
    ({'users': {}}, r'"users" is \{\}; expected a list'),
    ({'users': [], 'history': []}, '"users" stands next to "history"'),
    ({'users': [{'history': []}] * 6}, '"users" has 6 users; expected at most 5'),
    ({'history': ['101'] * 31}, '"history" has 31 items; expected at most 30'),
    ({'history': ['101'], 'k': 21}, '"k" is 21; expected 1 to 20'),
    ({'history': ['101'], 'k': True}, '"k" is true'),
    ({'history': ['101'], 'k': 10**30}, '"k" is 1'),
    ({'history': ['101'], 'exclude_history': 'no'}, '"exclude_history" is "no"; expected true or false'),
    ({'history': ['101'], 'allow': '101'}, '"allow" is "101"; expected a list'),
    ({'history': ['101'], 'deny': [{}]}, r'"deny"\[0\] is \{\}'),
    ({'history': ['101'], 'allow': ['who']}, "1 allowed item is unknown, the first is 'who'"),
    ({'history': ['101'], 'allow': []}, 'no item is allowed'),
    ({'history': ['101'], 'repeat': ['101'], 'exclude_history': False}, '"repeat" stands next to'),
  ],
)
def test_a_wrong_request_is_answered_with_one_line(start, recommender, body, message):
  client = start(recommender, limits=Limits(users=5, history=30))
  status, _, answer = client.request('POST', '/recommend', body)
  assert status == 400 and list(answer) == ['error']
  assert '\n' not in answer['error'] and 'Traceback' not in answer['error']
  with pytest.raises(InputError, match=message):
    raise InputError(answer['error'])
  assert client.recommend(history=['101'])['recommendations']


def test_what_is_too_large_or_nowhere(start, recommender):
  client = start(recommender, limits=Limits(body_bytes=1000))
  status, _, answer = client.request('POST', '/recommend', {'history': ['101'] * 300})
  assert status == 413 and 'more than 1,000 bytes' in answer['error']
  declared = {'content-length': '9' * 30}
  with socket.create_connection(('127.0.0.1', client.port), timeout=HANG_SECONDS) as connection:
    head = ''.join(f'{name}: {value}\r\n' for name, value in {'host': 'x', **declared}.items())
    connection.sendall(f'POST /recommend HTTP/1.1\r\n{head}\r\n'.encode())
    assert connection.recv(100).split()[1] in (b'413', b'400')
  parts = [b'{"history": [', *[b'"101", '] * 300, b'"101"]}']
  with socket.create_connection(('127.0.0.1', client.port), timeout=HANG_SECONDS) as connection:
    chunks = b''.join(b'%x\r\n%b\r\n' % (len(part), part) for part in (*parts, b''))
    connection.sendall(b'POST /recommend HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n' + chunks)
    assert connection.recv(100).split()[1] == b'413'
  assert client.request('GET', '/nowhere')[0] == 404 and client.request('GET', '/recommend')[0] == 405
  assert client.request('POST', '/-/reload')[0] == 404  # without a token there is no such route
  assert client.request('GET', '/nowhere')[2] == {'error': 'Not Found'}
  text = client.request('GET', '/metrics')[2]
  assert 'path="other",status="404"' in text and '/nowhere' not in text


def test_until_a_model_is_loaded_nothing_is_recommended(start, recommender):
  client = start(recommender, ready=False)
  for method, path, body in (('GET', '/readyz', None), ('POST', '/recommend', {'history': ['101']})):
    status, headers, answer = client.request(method, path, body)
    assert status == 503 and headers['retry-after'] == '1' and 'the model is being loaded' in answer['error']
  assert client.request('GET', '/healthz')[::2] == (200, {'status': 'ok'})
  assert client.request('GET', '/docs')[0] == 200
  client.load()
  assert client.request('GET', '/readyz')[::2] == (200, {'status': 'ready'})
  assert client.recommend(history=['101'])['recommendations']


class Held:
  """A recommender whose searches wait until they are let go, or fail."""

  def __init__(self, recommender):
    self._recommender, self.gate, self.entered, self.broken = recommender, threading.Event(), threading.Event(), False
    self.searched, self.histories = [], []  # the number of users of each search, and what they had

  def __getattr__(self, name):
    return getattr(self._recommender, name)

  def lists(self, known, *arguments):
    self.searched.append(len(known))
    self.histories.append(known)
    self.entered.set()
    assert self.gate.wait(HANG_SECONDS)
    if self.broken:
      raise RuntimeError('out of memory')
    return self._recommender.lists(known, *arguments)


def test_a_full_queue_is_said_at_once(start, recommender):
  held = Held(recommender)
  client = start(lambda: held, queue_users=3, searches=1)
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    first = pool.submit(client.recommend, history=['101'])
    assert held.entered.wait(HANG_SECONDS)
    waiting = pool.submit(client.recommend, users=[{'history': ['102']}] * 2)
    until(lambda: 'letter_queue_users 2.0' in client.request('GET', '/metrics')[2])
    status, headers, answer = client.request('POST', '/recommend', {'users': [{'history': ['103']}] * 2})
    assert status == 503 and headers['retry-after'] == '1' and 'too many users wait' in answer['error']
    held.gate.set()
    assert first.result()['recommendations'] and len(waiting.result()['users']) == 2
  assert len(client.recommend(users=[{'history': ['103']}] * 2)['users']) == 2


def test_a_search_that_fails_is_not_the_end(start, recommender, capfd):
  held = Held(recommender)
  held.broken = True
  held.gate.set()
  client = start(lambda: held)
  status, _, answer = client.request('POST', '/recommend', {'history': ['101']})
  assert status == 500 and answer == {'error': 'the server has failed; its log says how'}
  until(lambda: 'RuntimeError: out of memory' in capfd.readouterr().err)  # written after the answer
  held.broken = False
  assert client.recommend(history=['101'])['recommendations']


def test_a_client_that_leaves_is_not_searched_for(start, recommender):
  held = Held(recommender)
  client = start(lambda: held, searches=1)
  body = json.dumps({'history': ['101']}).encode()
  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    first = pool.submit(client.recommend, history=['102'])
    assert held.entered.wait(HANG_SECONDS)
    for _ in range(3):
      with socket.create_connection(('127.0.0.1', client.port)) as connection:
        connection.sendall(b'POST /recommend HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b' % (len(body), body))
        until(lambda: 'letter_queue_users 0.0' not in client.request('GET', '/metrics')[2])
    with socket.create_connection(('127.0.0.1', client.port)) as connection:
      connection.sendall(b'POST /recommend HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{"his')
    until(lambda: 'path="/recommend",status="499"} 4.0' in client.request('GET', '/metrics')[2])
    held.gate.set()
    assert first.result()['recommendations']
  assert client.recommend(history=['101'])['recommendations']
  assert held.searched == [1, 1]


def test_a_large_request_does_not_keep_others_waiting(start, recommender):
  held = Held(recommender)
  client = start(lambda: held, searches=1)
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    large = pool.submit(client.recommend, users=[{'history': ['101']}] * 100)
    assert held.entered.wait(HANG_SECONDS)
    small = pool.submit(client.recommend, user='small', history=['102'])
    until(lambda: 'letter_queue_users 85.0' in client.request('GET', '/metrics')[2])
    held.gate.set()
    assert small.result()['user'] == 'small' and len(large.result()['users']) == 100
  assert sum(held.searched) == 101
  assert held.histories[1].count([2]) == 1  # in the second search already


def test_a_model_that_was_replaced_is_forgotten(start):
  first = table_recommender(0)
  gone = weakref.ref(first)
  client = start(first, table_recommender(1), admin_token=TOKEN)
  del first
  client.recommend(**USERS[0], deny=['105'])
  assert client.request('POST', '/-/reload', headers={'authorization': f'Bearer {TOKEN}'})[0] == 200
  client.recommend(**USERS[0])
  until(lambda: gone() is None)


def lists_of(recommender):
  """What `recommend` gives for one user of this recommender."""
  return [entry['id'] for entry in of_command(recommender, [USERS[0]])[0]['recommendations']]


def test_another_model_takes_the_place_of_the_first(start, recommender):
  other, fewer = table_recommender(1), table_recommender(2, items=30)
  client = start(recommender, other, fewer, admin_token=TOKEN)
  ids = lambda: [entry['id'] for entry in client.recommend(**USERS[0])['recommendations']]
  assert ids() == lists_of(recommender) != lists_of(other)
  for headers in ({}, {'authorization': 'Bearer wrong'}, {'authorization': TOKEN}):
    status, _, answer = client.request('POST', '/-/reload', headers=headers)
    assert status == 401 and TOKEN not in answer['error']
  assert ids() == lists_of(recommender)
  bearer = {'authorization': f'Bearer {TOKEN}'}
  assert client.request('POST', '/-/reload', headers=bearer)[2]['items'] == ITEMS
  assert ids() == lists_of(other)
  assert client.request('POST', '/-/reload', headers=bearer)[2]['items'] == 30
  assert ids() == lists_of(fewer) and client.recommend(history=['139'])['skipped'] == 1
  status, _, answer = client.request('POST', '/-/reload', headers=bearer)
  assert status == 409 and answer['error'] == 'no model is left; expected one; the model from before keeps answering'
  assert ids() == lists_of(fewer)
  text = client.request('GET', '/metrics')[2]
  assert 'letter_loads_total{result="done"} 3.0' in text and 'letter_loads_total{result="refused"} 1.0' in text


def test_who_was_accepted_before_a_reload_is_answered_by_the_model_of_then(start, recommender):
  """Rows of items differ between models, and a history has been read by the first."""
  held, loading, go_on = Held(recommender), threading.Event(), threading.Event()

  def slowly():
    loading.set()
    assert go_on.wait(HANG_SECONDS)
    return table_recommender(1)

  client = start(lambda: held, slowly, admin_token=TOKEN)
  bearer = {'authorization': f'Bearer {TOKEN}'}
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    reload = pool.submit(client.request, 'POST', '/-/reload', None, bearer)
    assert loading.wait(HANG_SECONDS)
    assert client.request('POST', '/-/reload', headers=bearer)[0] == 409
    accepted = pool.submit(client.recommend, **USERS[0])
    assert held.entered.wait(HANG_SECONDS)
    go_on.set()
    assert reload.result()[0] == 200
    held.gate.set()
    assert [entry['id'] for entry in accepted.result()['recommendations']] == lists_of(recommender)
  found = client.recommend(**USERS[0])['recommendations']
  assert [entry['id'] for entry in found] == lists_of(table_recommender(1))


def test_the_routes_are_described(start, recommender):
  client = start(recommender, admin_token=TOKEN)
  status, _, described = client.request('GET', '/openapi.json')
  assert status == 200 and described['openapi'].startswith('3.1')
  assert set(described['paths']) == {'/recommend', '/healthz', '/readyz', '/metrics', '/-/reload'}
  body = described['paths']['/recommend']['post']['requestBody']['content']['application/json']
  assert client.recommend(**body['example'])['recommendations']
  status, headers, page = client.request('GET', '/docs')
  assert status == 200 and headers['content-type'].startswith('text/html')
  for word in ('/recommend', 'exclude_history', 'at most 20', '"100"', '503', '/-/reload'):
    assert word.replace('"', '&#34;') in page
  assert 'http://' not in page and 'https://' not in page  # nothing from outside
