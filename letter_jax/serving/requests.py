"""A user as JSON, and the answer as JSON, for the command (`jsonl.py`) and for the server alike."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from letter_jax.serving.catalogue import Catalogue, Item


@dataclasses.dataclass
class Request:
  """One user who is to be answered.

  Attributes:
    line: number of the line that asks, from 1.
    user: the name of the user, a string, an integer or None.
    known: indices of the items of the history, without unknown items.
    unknown: the unknown items.
    error: what is wrong with the request, '' for a valid one.
  """

  line: int
  user: str | int | None = None
  known: list[int] = dataclasses.field(default_factory=list)
  unknown: list[Item] = dataclasses.field(default_factory=list)
  error: str = ''


def read_user(request: Request, record: Any, catalogue: Catalogue) -> None:
  """Sets the request's fields, or its error, from parsed JSON.

  Args:
    record: such as {"user": "A3SGXH7AUHU8GW", "history": ["B00004TJ09", ...]}; other keys are ignored.
    catalogue: that items are looked up in.
  """
  request.error = _fill(request, record, catalogue)


def _fill(request: Request, record: Any, catalogue: Catalogue) -> str:
  """Sets the request's fields; returns what is wrong with the record, or ''."""
  if not isinstance(record, dict):
    return f'{shown(record)} is not a JSON object'
  user, history = record.get('user'), record.get('history')
  if not isinstance(user, str | int | None):
    return f'"user" is {shown(user)}, which is neither a string nor an integer'
  request.user = user
  if not isinstance(history, list):
    return f'"history" is {shown(history)}' if 'history' in record else '"history" is missing'
  if error := wrong_item('history', history):
    return error
  for item in history:
    index = catalogue.index_of(item)
    if index is None:
      request.unknown.append(item)
    else:
      request.known.append(index)
  return ''


def wrong_item(key: str, items: Sequence[Any]) -> str:
  """What is wrong with the first value of a list that is not an item, or ''."""
  for place, item in enumerate(items):
    if isinstance(item, bool) or not isinstance(item, str | int):
      return f'"{key}"[{place}] is {shown(item)}, which is neither a string nor an integer'
  return ''


def answered(request: Request, items: Sequence[int], scores: Sequence[float], catalogue: Catalogue) -> dict[str, Any]:
  """The answer to a valid request.

  Args:
    items, scores: as the recommender found them, best first; a negative item where there are fewer.
  """
  answer: dict[str, Any] = {'user': request.user, 'skipped': len(request.unknown)}
  if not request.known:
    reason = 'no item of the history is known' if request.unknown else 'the history is empty'
    answer |= {'from': 'popularity', 'reason': reason}
  answer['recommendations'] = [
    _recommendation(catalogue, item, score) for item, score in zip(items, scores) if item >= 0
  ]
  return answer


def _recommendation(catalogue: Catalogue, item: int, score: float) -> dict[str, Any]:
  """One entry of "recommendations"."""
  cold = {'cold': True} if item >= catalogue.trained else {}
  return {
    'item': item,
    'id': catalogue.raw_ids[item],
    'title': catalogue.titles[item],
    'score': round(score, 6),
    'semantic_id': catalogue.semantic_id(item),
    **cold,
  }


def shown(value: Any) -> str:
  """A value as JSON, cut to 40 characters."""
  text = json.dumps(value, ensure_ascii=False)
  return text if len(text) <= 40 else f'{text[:37]}...'
