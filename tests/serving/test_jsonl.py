"""JSON lines: answered in order, any number of them; invalid lines are answered with an error."""

import itertools
import json
import queue

import pytest

import letter_jax
from letter_jax.serving import jsonl

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def recommender(finished):
  return letter_jax.Recommender.from_workdir(finished, beam=20)


def answers(recommender, requests, **settings):
  given = [request if isinstance(request, bytes) else json.dumps(request).encode() for request in requests]
  chunks = jsonl.recommend_lines(recommender, jsonl.whole_chunks(given), **{'k': 3, **settings})
  return [(answer.good, json.loads(answer.line)) for chunk in chunks for answer in chunk]


def test_each_line_gets_its_answer_in_order(recommender, predictions, monkeypatch):
  monkeypatch.setattr(jsonl, 'USERS_AT_ONCE', 7)
  users = [{'user': user['user'], 'history': user['history']} for user in predictions[:20]]
  found = answers(recommender, [*users[:9], b'\n', *users[9:]])
  assert [answer['user'] for _, answer in found] == [user['user'] for user in users]
  expected = recommender.recommend([user['history'] for user in users], k=3)
  for (good, answer), items, scores in zip(found, expected.items_UxK.tolist(), expected.scores_UxK.tolist()):
    assert good and answer['skipped'] == 0 and len(answer['recommendations']) == 3
    for entry, item, score in zip(answer['recommendations'], items, scores):
      assert entry == {
        'item': item,
        'id': str(item),
        'title': recommender.catalogue.titles[item],
        'score': pytest.approx(score, abs=1e-5),
        'semantic_id': recommender.catalogue.semantic_id(item),
      }
      assert entry['title'] and entry['semantic_id'].startswith('<a_')


@pytest.mark.parametrize(
  'line, message',
  [
    (b'{', 'not valid JSON'),
    (b'\xff', 'not valid JSON'),
    (b'[1]', 'is not a JSON object'),
    (b'{"user": "a"}', '"history" is missing'),
    (b'{"history": null}', '"history" is null'),
    (b'{"history": 3}', '"history" is 3'),
    (b'{"history": [true]}', '"history"[0] is true'),
    (b'{"history": [1, 2.5]}', '"history"[1] is 2.5'),
    (b'{"user": [], "history": []}', '"user" is []'),
    (b'[' * 100_000, 'not valid JSON'),
  ],
)
def test_an_invalid_line_is_answered_and_the_rest_goes_on(recommender, line, message):
  found = answers(recommender, [{'history': [1]}, line, {'history': [2]}])
  assert [good for good, _ in found] == [True, False, True]
  assert found[1][1]['line'] == 2 and message in found[1][1]['error'] and 'expected' in found[1][1]['error']


def test_unknown_items_are_skipped_and_counted(recommender):
  (_, found), (_, same) = answers(recommender, [{'history': ['who', 5, 10**30]}, {'history': ['5']}])
  assert found['skipped'] == 2 and found['user'] is None
  assert found['recommendations'] == same['recommendations']


def test_where_no_item_is_known_the_line_says_what_it_is_from(recommender):
  (_, empty), (_, unknown), (_, known) = answers(
    recommender, [{'history': []}, {'user': 'u', 'history': ['who', 99]}, {'history': ['who', ' 5 ']}]
  )
  assert empty['from'] == unknown['from'] == 'popularity' and 'from' not in known
  assert empty['reason'] == 'the history is empty' and empty['skipped'] == 0
  assert unknown['reason'] == 'no item of the history is known' and unknown['skipped'] == 2
  assert list(empty) == ['user', 'skipped', 'from', 'reason', 'recommendations']
  expected = recommender.recommend([[]], k=3)
  assert [entry['item'] for entry in empty['recommendations']] == expected.items_UxK[0].tolist()
  assert empty['recommendations'] == unknown['recommendations'] and known['skipped'] == 1


@pytest.mark.parametrize('chunks_of', [jsonl.whole_chunks, jsonl.ready_chunks])
def test_a_stream_without_end_is_answered(recommender, monkeypatch, chunks_of):
  monkeypatch.setattr(jsonl, 'USERS_AT_ONCE', 4)
  read = itertools.count()
  endless = (json.dumps({'user': number, 'history': [number % 60]}).encode() for number in read)
  found = jsonl.recommend_lines(recommender, chunks_of(endless), 3)
  users = []
  while len(users) < 10:
    users += [json.loads(answer.line)['user'] for answer in next(found)]
  assert users == list(range(len(users)))
  assert next(read) <= len(users) + 20  # a few chunks ahead at most


def test_a_program_that_waits_for_each_answer_gets_it(recommender):
  questions, answers = queue.Queue(), []
  found = jsonl.recommend_lines(recommender, jsonl.ready_chunks(iter(questions.get, None)), 3)
  for number in range(3):
    questions.put(json.dumps({'user': number, 'history': [number]}).encode())
    answers.append(next(found))
  assert [json.loads(answer.line)['user'] for chunk in answers for answer in chunk] == [0, 1, 2]
  questions.put(None)
  assert list(found) == []


def test_an_error_while_reading_is_raised_to_the_caller(recommender):
  def broken():
    yield b'{"history": [1]}'
    raise OSError('gone')

  with pytest.raises(OSError, match='gone'):
    list(jsonl.recommend_lines(recommender, jsonl.ready_chunks(broken()), 3))


def test_a_byte_order_mark_is_ignored(recommender):
  ((good, _),) = answers(recommender, [b'\xef\xbb\xbf{"history": [1]}'])
  assert good


def test_cold_items_are_marked(finished):
  recommender = letter_jax.Recommender.from_workdir(finished, cold_items=[{'id': 'new', 'title': 'Watering can'}])
  among = recommender.among(['new', '4'])
  ((_, found),) = answers(recommender, [{'history': [1]}], among=among)
  assert {entry['id']: entry.get('cold', False) for entry in found['recommendations']} == {'new': True, '4': False}
