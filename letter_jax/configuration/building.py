"""From a recipe's `ConfigDict` to a validated `Config`."""

import dataclasses
import datetime
import difflib
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

import ml_collections

from letter_jax.configuration import checks
from letter_jax.configuration.schema import Config
from letter_jax.system.errors import InputError


def default_config() -> ml_collections.ConfigDict:
  """The defaults of `Config` as a ConfigDict that a recipe can change."""
  return ml_collections.ConfigDict(dataclasses.asdict(Config()))


def flattened(tree: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """Values by dotted key: {'a': {'b': 1}} as {'a.b': 1}."""
  flat = {}
  for key, value in tree.items():
    flat.update(flattened(value, f'{prefix}{key}.') if isinstance(value, Mapping) else {f'{prefix}{key}': value})
  return flat


def from_config_dict(config) -> Config:
  """A validated `Config`; raises InputError naming the key that is wrong."""
  values = config.to_dict() if hasattr(config, 'to_dict') else dict(config)
  built = _build(Config, values, '')
  checks.check(built)
  return built


def _build(kind, values, prefix: str):
  if not isinstance(values, dict):
    raise InputError(
      f'config.{prefix[:-1]} is {values!r}; expected a section with keys '
      f'{", ".join(f.name for f in dataclasses.fields(kind))}'
    )
  fields = {field.name: field for field in dataclasses.fields(kind)}
  hints = typing.get_type_hints(kind)
  for key in values:
    if key not in fields:
      close = difflib.get_close_matches(str(key), fields, n=1)
      raise InputError(
        f'config.{prefix}{key} does not exist; '
        + (f'did you mean config.{prefix}{close[0]}?' if close else f'expected one of {sorted(fields)}')
      )
  built = {}
  for name, field in fields.items():
    if name not in values:
      continue
    where = f'{prefix}{name}'
    if dataclasses.is_dataclass(hints[name]):
      built[name] = _build(hints[name], values[name], f'{where}.')
    else:
      built[name] = _checked(values[name], hints[name], field.metadata, where)
  return kind(**built)


def _checked(value: Any, hint, limits, where: str):
  if isinstance(hint, types.GenericAlias):  # tuple[int, ...], or tuple[str, X]: a pair
    *of_entries, last = hint.__args__
    if not isinstance(value, (tuple, list)) or (last is not Ellipsis and len(value) != len(hint.__args__)):
      said = 'a pair' if last is not Ellipsis else f'a tuple of {getattr(of_entries[0], "__name__", of_entries[0])}'
      raise InputError(f'config.{where} is {value!r}; expected {said}')
    hints = of_entries * len(value) if last is Ellipsis else hint.__args__
    return tuple(
      _checked(entry, of_entry, limits, f'{where}[{i}]') for i, (entry, of_entry) in enumerate(zip(value, hints))
    )
  if hint is float and isinstance(value, int) and not isinstance(value, bool):
    value = float(value)
  if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
    raise InputError(
      f'config.{where} is {value!r} ({type(value).__name__}); expected {getattr(hint, "__name__", hint)}'
    )
  if hint is float and not math.isfinite(value):
    raise InputError(f'config.{where} is {value}; expected a finite number')
  rules = (
    ('minimum', lambda v, m: v >= m, 'at least'),
    ('above', lambda v, m: v > m, 'more than'),
    ('maximum', lambda v, m: v <= m, 'at most'),
    ('below', lambda v, m: v < m, 'less than'),
  )
  for rule, holds, words in rules:
    bound = limits[rule]
    if bound is not None and not holds(value, bound):
      raise InputError(f'config.{where} is {value}; expected {words} {bound}')
  if limits['date'] and value:
    try:
      datetime.date.fromisoformat(value)
    except ValueError:
      raise InputError(f'config.{where} is {value!r}; expected a day as YYYY-MM-DD') from None
  if limits['choices'] is not None and value not in limits['choices']:
    raise InputError(f'config.{where} is {value!r}; expected one of {", ".join(map(repr, limits["choices"]))}')
  return value
