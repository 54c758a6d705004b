"""From a recipe's `ConfigDict` to a validated `Config`."""

import dataclasses
import datetime
import difflib
import math
import operator
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections

from letter_jax.configuration import checks
from letter_jax.configuration.schema import Config
from letter_jax.system import home
from letter_jax.system.errors import InputError

# Limits of a setting, with the comparison of a value with the limit, and its words.
_BOUNDS: tuple[tuple[str, Callable[[Any, Any], bool], str], ...] = (
  ('minimum', operator.ge, 'at least'),
  ('above', operator.gt, 'more than'),
  ('maximum', operator.le, 'at most'),
  ('below', operator.lt, 'less than'),
)


def default_config() -> ml_collections.ConfigDict:
  """The defaults of `Config` as a ConfigDict that a recipe can change."""
  return ml_collections.ConfigDict(dataclasses.asdict(Config()))


def flattened(tree: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """The values of a nested mapping by dotted key, such as {'a.b': 1} for {'a': {'b': 1}}."""
  flat = {}
  for key, value in tree.items():
    flat.update(flattened(value, f'{prefix}{key}.') if isinstance(value, Mapping) else {f'{prefix}{key}': value})
  return flat


def from_config_dict(config: ml_collections.ConfigDict | Mapping[str, Any]) -> Config:
  """The validated `Config` of a ConfigDict or nested dict; keys that are missing have their defaults.

  Raises:
    InputError: a key is unknown, a value has the wrong type or is out of range, or two settings contradict each other.
      The message names the key.
  """
  values = config.to_dict() if isinstance(config, ml_collections.ConfigDict) else dict(config)
  built: Config = _build_section(Config, values, '')
  checks.check(built)
  return built


def _build_section(kind: Any, values: Any, prefix: str) -> Any:
  """An instance of the dataclass `kind`, whose keys start with `prefix` ('' or 'generator.')."""
  fields = {field.name: field for field in dataclasses.fields(kind)}
  if not isinstance(values, dict):
    raise InputError(f'config.{prefix[:-1]} is {values!r}; expected a section with keys {", ".join(fields)}')
  for name in values:
    if name not in fields:
      similar = difflib.get_close_matches(str(name), fields, n=1)
      raise InputError(
        f'config.{prefix}{name} does not exist; '
        + (f'did you mean config.{prefix}{similar[0]}?' if similar else f'expected one of {sorted(fields)}')
      )
  hints = typing.get_type_hints(kind)
  built = {}
  for name, field in fields.items():
    if name not in values:
      continue
    if dataclasses.is_dataclass(hints[name]):
      built[name] = _build_section(hints[name], values[name], f'{prefix}{name}.')
    else:
      built[name] = _checked(values[name], hints[name], field.metadata, f'{prefix}{name}')
  return kind(**built)


def _checked(value: Any, hint: Any, limits: Mapping[str, Any], key: str) -> Any:
  """The value of a setting, or of an entry of one, as the type `hint`; raises InputError where it is invalid."""
  if isinstance(hint, types.GenericAlias):
    return _checked_tuple(value, hint, limits, key)
  if hint is float and isinstance(value, int) and not isinstance(value, bool):
    value = float(value)
  if not _is(value, hint):
    raise InputError(f'config.{key} is {value!r}; expected {_words(hint)}')
  _check_limits(value, limits, key)
  return home.expanded(value, f'config.{key}') if limits['path'] else value


def _is(value: Any, hint: Any) -> bool:
  return isinstance(value, hint) and not (hint is int and isinstance(value, bool))


def _checked_tuple(value: Any, hint: types.GenericAlias, limits: Mapping[str, Any], key: str) -> tuple[Any, ...]:
  """A value for `tuple[X, ...]`, or for `tuple[X, Y]`, a pair; limits apply to each entry."""
  first, second = typing.get_args(hint)
  any_length = second is Ellipsis
  if not isinstance(value, (tuple, list)) or (not any_length and len(value) != 2):
    raise InputError(f'config.{key} is {value!r}; expected {_words(hint)}')
  if any_length and first in (int, str) and not all(_is(entry, first) for entry in value):
    raise InputError(f'config.{key} is {value!r}; expected {_words(hint)}')
  hints = [first] * len(value) if any_length else [first, second]
  return tuple(_checked(entry, hints[i], limits, f'{key}[{i}]') for i, entry in enumerate(value))


def _check_limits(value: Any, limits: Mapping[str, Any], key: str) -> None:
  if isinstance(value, float) and not math.isfinite(value):
    raise InputError(f'config.{key} is {value}; expected a finite number')
  for name, holds, words in _BOUNDS:
    bound = limits[name]
    if bound is not None and not holds(value, bound):
      raise InputError(f'config.{key} is {value}; expected {words} {bound}')
  if limits['date'] and value:
    try:
      datetime.date.fromisoformat(value)
    except ValueError:
      raise InputError(f'config.{key} is {value!r}; expected a day as YYYY-MM-DD') from None
  if limits['choices'] is not None and value not in limits['choices']:
    raise InputError(f'config.{key} is {value!r}; expected one of {", ".join(map(repr, limits["choices"]))}')


def expected_value(key: str) -> str:
  """What a setting takes, in words, such as 'an integer'; 'a value' for a key that does not exist."""
  hint: Any = Config
  for name in key.split('.'):
    hint = typing.get_type_hints(hint).get(name) if dataclasses.is_dataclass(hint) else None
  return 'a value' if hint is None else _words(hint)


def _words(hint: Any) -> str:
  """A type of the schema in words."""
  if isinstance(hint, types.GenericAlias):
    first, second = typing.get_args(hint)
    return f'a list of {_plural(first)}' if second is Ellipsis else f'a pair of {_words(first)} and {_words(second)}'
  if isinstance(hint, types.UnionType):
    return ', or '.join(map(_words, typing.get_args(hint)))
  return {int: 'an integer', float: 'a number', str: 'text', bool: 'true or false'}.get(hint, 'a section')


def _plural(hint: Any) -> str:
  return {int: 'integers', str: 'texts'}.get(hint) or _words(hint).replace('a pair', 'pairs', 1)
