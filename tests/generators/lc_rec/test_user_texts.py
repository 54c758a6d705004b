"""Texts about users: the file's format, and texts by slot."""

import json

import pytest

from letter_jax.generators.lc_rec.user_texts import UserTexts, read_user_texts, texts_by_slot
from letter_jax.system.errors import InputError
from tests.small_data import interactions


def user_file(tmp_path, content):
  path = tmp_path / 'NAME.user.json'
  path.write_text(content if isinstance(content, str) else json.dumps(content))
  return path


def test_texts_of_users_are_read_with_their_training_intentions_only(tmp_path):
  texts = read_user_texts(
    user_file(
      tmp_path,
      {
        'user_explicit_preference': {'a': 'likes\n steel', 'b': ['likes wood', ' ', 'and glue'], 'c': []},
        'user_vague_intention': {'train': {'a': 'wants a ruler'}, 'test': {'a': 'secret'}},
      },
    )
  )
  assert texts == UserTexts(
    {'a': ('likes steel',), 'b': ('likes wood', 'and glue'), 'c': ()}, {'a': ('wants a ruler',)}
  )


@pytest.mark.parametrize(
  'content,message',
  [
    ('{', 'NAME.user.json cannot be read .*expected JSON'),
    ([], 'the key user_explicit_preference is missing'),
    ({'user_explicit_preference': {}}, 'the key user_vague_intention.train is missing'),
    (
      {'user_explicit_preference': {}, 'user_vague_intention': {'a': 'x'}},
      'the key user_vague_intention.train is miss',
    ),
    ({'user_explicit_preference': ['x'], 'user_vague_intention': {'train': {}}}, 'user_explicit_preference is a list'),
    (
      {'user_explicit_preference': {'a': 3}, 'user_vague_intention': {'train': {}}},
      'user_explicit_preference of user "a" is 3; expected a text or a list of texts',
    ),
    (
      {'user_explicit_preference': {}, 'user_vague_intention': {'train': {'a': [['x']]}}},
      r'user_vague_intention.train of user "a" is \[\["x"\]\]',
    ),
  ],
)
def test_a_file_of_a_different_structure_is_an_input_error(tmp_path, content, message):
  with pytest.raises(InputError, match=message) as error:
    read_user_texts(user_file(tmp_path, content))
  assert '\n' not in str(error.value)


def test_a_missing_file_is_an_input_error(tmp_path):
  with pytest.raises(InputError, match='cannot be read'):
    read_user_texts(tmp_path / 'NAME.user.json')


def test_texts_of_users_without_interactions_are_left_out():
  data = interactions([[0, 1, 2], [1, 2, 0]])
  by_slot = texts_by_slot(data, UserTexts({'user 1': ('x', 'y'), 'stranger': ('z',)}, {}))
  assert by_slot['preference'][0].tolist() == [1, 1] and by_slot['preference'][1] == ['x', 'y']
  assert by_slot['intention'][0].tolist() == [] and by_slot['intention'][1] == []
