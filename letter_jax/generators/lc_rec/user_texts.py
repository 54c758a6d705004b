"""Texts about users: what they like (preferences) and what they look for (intentions), read from LC-Rec's JSON file."""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from letter_jax.data.dataset import Interactions
from letter_jax.system.errors import InputError


@dataclasses.dataclass(frozen=True)
class UserTexts:
  """Texts about users, by the users' names in the interactions.

  Attributes:
    preferences: user -> texts about what the user likes.
    intentions: user -> texts about what the user looks for, in the last training interaction.
  """

  preferences: dict[str, tuple[str, ...]]
  intentions: dict[str, tuple[str, ...]]


def texts_by_slot(interactions: Interactions, texts: UserTexts | None) -> dict[str, tuple[np.ndarray, list[str]]]:
  """The texts as the slots of templates need them; texts of users without interactions are left out.

  Returns:
    'intention' and 'preference' -> (int64 [texts], the user of each text; the texts).

  Raises:
    InputError: there are texts, but none of a user of the interactions.
  """
  index_of_user = {user: index for index, user in enumerate(interactions.users)}
  if texts is not None and not index_of_user.keys() & (texts.intentions.keys() | texts.preferences.keys()):
    raise InputError(
      'config.generator.user_texts names none of the users; expected names like '
      f'{", ".join(map(repr, interactions.users[:3]))}'
    )
  by_slot = {}
  for slot, table in (
    ('intention', texts.intentions if texts else {}),
    ('preference', texts.preferences if texts else {}),
  ):
    pairs = [
      (index_of_user[user], text) for user, of_user in table.items() if user in index_of_user for text in of_user
    ]
    by_slot[slot] = np.array([user for user, _ in pairs], np.int64), [text for _, text in pairs]
  return by_slot


def read_user_texts(path: pathlib.Path) -> UserTexts:
  """Reads LC-Rec's NAME.user.json; of the intentions only 'train', because the others describe held-out items.

      {"user_explicit_preference": {user: text or [texts]}, "user_vague_intention": {"train": {user: text or [texts]}}}

  Raises:
    InputError: the file cannot be read or has a different structure.
  """
  path = pathlib.Path(path)
  try:
    content = json.loads(path.read_text(encoding='utf-8-sig'))
  except (OSError, ValueError, RecursionError) as error:
    raise InputError(f'{path} cannot be read ({" ".join(str(error).split())}); expected JSON in UTF-8') from error
  return UserTexts(
    _texts_of_users(path, content, 'user_explicit_preference'),
    _texts_of_users(path, content, 'user_vague_intention', 'train'),
  )


def _texts_of_users(path: pathlib.Path, content: Any, *keys: str) -> dict[str, tuple[str, ...]]:
  """user -> texts without surplus white space and empty ones, from the table at `keys` of the file's content."""
  name, table = '.'.join(keys), content
  for key in keys:
    if not isinstance(table, dict) or key not in table:
      raise InputError(f'{path}: the key {name} is missing; expected {{user: text or [texts]}} there')
    table = table[key]
  if not isinstance(table, dict):
    raise InputError(f'{path}: {name} is a {type(table).__name__}; expected {{user: text or [texts]}}')
  texts_of_user = {}
  for user, texts in table.items():
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
      raise InputError(
        f'{path}: {name} of user {json.dumps(user)} is {json.dumps(texts)[:80]}; expected a text or a list of texts'
      )
    clean = (' '.join(text.split()).encode('utf-8', 'replace').decode('utf-8') for text in texts)
    texts_of_user[user] = tuple(text for text in clean if text)
  return texts_of_user
