"""What a request to `POST /recommend` asks for, read from its body; what is wrong is said as the command says it."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import msgspec

from letter_jax.serving.catalogue import Catalogue, Item
from letter_jax.serving.requests import Request, read_user, shown, wrong_item
from letter_jax.system.errors import InputError

EXPECTED = '{"user": ..., "history": [items]}, or {"users": [such objects]}'
_OF_ONE = ('user', 'history')
_OPTIONS = ('k', 'exclude_history', 'allow', 'deny', 'repeat', 'skip_unknown')


@dataclasses.dataclass(frozen=True)
class Limits:
  """What a single request may ask for.

  Attributes:
    body_bytes: of the body.
    users: in a request.
    history: items of a history.
  """

  body_bytes: int = 4 * 2**20
  users: int = 1024
  history: int = 1024


@dataclasses.dataclass(frozen=True)
class ItemLists:
  """The items that may be recommended, the arguments of `Recommender.among`; hashable, and hashed once."""

  allow: tuple[Item, ...] | None = None
  deny: tuple[Item, ...] = ()
  skip_unknown: bool = False
  repeat: tuple[Item, ...] | None = None

  def __hash__(self) -> int:
    return self._hash

  @functools.cached_property
  def _hash(self) -> int:
    return hash((self.allow, self.deny, self.skip_unknown, self.repeat))


@dataclasses.dataclass(frozen=True)
class Asked:
  """A valid request.

  Attributes:
    users: who is to be answered.
    many: whether the body has a list of users, and so has the answer.
    k: items for each user.
    exclude_history: as in `Recommender.recommend`.
    lists: the items to choose from.
  """

  users: Sequence[Request]
  many: bool
  k: int
  exclude_history: bool | None
  lists: ItemLists


def read_body(body: bytes, catalogue: Catalogue, beam: int, limits: Limits) -> Asked:
  """The request in a body.

  Args:
    body: JSON, UTF-8.
    catalogue: that items are looked up in.
    beam: the largest number of items for each user.
    limits: what it may ask for.

  Raises:
    InputError: one line that says what is wrong, and what was expected.
  """
  try:
    record = msgspec.json.decode(body)
  except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
    raise InputError(f'not valid JSON ({error}); expected {EXPECTED}') from None
  if not isinstance(record, dict):
    raise InputError(f'{shown(record)} is not a JSON object; expected {EXPECTED}')
  known = {*_OF_ONE, 'users', *_OPTIONS}
  if unknown := [key for key in record if key not in known]:
    raise InputError(f'{shown(unknown[0])} is no key of a request; expected some of {", ".join(sorted(known))}')
  many = 'users' in record
  if many and (given := [key for key in _OF_ONE if key in record]):
    raise InputError(f'"users" stands next to "{given[0]}"; expected {EXPECTED}')
  records = record['users'] if many else [record]
  if not isinstance(records, list):
    raise InputError(f'"users" is {shown(records)}; expected a list of {{"user": ..., "history": [items]}}')
  if len(records) > limits.users:
    raise InputError(f'"users" has {len(records):,} users; expected at most {limits.users:,}')
  users = []
  for place, of_user in enumerate(records):
    where = f'"users"[{place}]: ' if many else ''
    if many and isinstance(of_user, dict) and (others := [key for key in of_user if key not in _OF_ONE]):
      raise InputError(f'{where}{shown(others[0])} is no key of a user; expected it beside "users", for all of them')
    history = of_user.get('history') if isinstance(of_user, dict) else None
    if isinstance(history, list) and len(history) > limits.history:
      raise InputError(f'{where}"history" has {len(history):,} items; expected at most {limits.history:,}, the latest')
    request = Request(place + 1)
    read_user(request, of_user, catalogue)
    if request.error:
      raise InputError(f'{where}{request.error}; expected {{"user": ..., "history": [items]}}')
    users.append(request)
  exclude_history = _bool(record, 'exclude_history')
  lists = ItemLists(
    _items(record, 'allow'),
    _items(record, 'deny') or (),
    _bool(record, 'skip_unknown') or False,
    _items(record, 'repeat'),
  )
  if lists.repeat is not None and exclude_history is False:
    raise InputError('"repeat" stands next to "exclude_history": false; expected one of the two')
  return Asked(users, many, _k(record, beam), exclude_history, lists)


def _k(record: dict[str, Any], beam: int) -> int:
  k = record.get('k')
  if k is None:
    return min(10, beam)
  if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= beam:
    raise InputError(f'"k" is {shown(k)}; expected 1 to {beam}, the beams of the search')
  return k


def _bool(record: dict[str, Any], key: str) -> bool | None:
  value = record.get(key)
  if not isinstance(value, bool | None):
    raise InputError(f'"{key}" is {shown(value)}; expected true or false')
  return value


def _items(record: dict[str, Any], key: str) -> tuple[Item, ...] | None:
  items = record.get(key)
  if items is None:
    return None
  if not isinstance(items, list):
    raise InputError(f'"{key}" is {shown(items)}; expected a list of items')
  if error := wrong_item(key, items):
    raise InputError(error)
  return tuple(items)
