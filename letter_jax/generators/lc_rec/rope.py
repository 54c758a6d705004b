"""Rotary positions as a Hugging Face config.json describes them, read as transformers 5 does or refused.

The keys are in 'rope_parameters' (transformers 5), or in 'rope_scaling' and 'rope_theta' (before). Of both,
'rope_scaling' counts and 'rope_parameters' does not. A 'rope_theta' within them counts more than one beside them.
"""

import math
import pathlib
from collections.abc import Mapping
from typing import Any

from letter_jax.generators.lc_rec.llama import RopeScaling
from letter_jax.system.errors import InputError

THETA = 10000.0  # where config.json has none


def read_rope(path: pathlib.Path, config: Mapping[str, Any], context: int) -> tuple[float, RopeScaling | None]:
  """The base of the rotary frequencies, theta, and how they are scaled.

  Args:
    path: of the config.json, for messages.
    config: its content.
    context: 'max_position_embeddings' or its default.

  Raises:
    InputError: the positions are of a kind that is not supported (YaRN, partial, different in each type of layer), or a
      key is missing or malformed.
  """
  name, rope = _section(path, config)
  for key, value in rope.items():
    if isinstance(value, dict):
      raise InputError(f'{path}: {name} has {key!r} of its own; expected the same positions in all layers')
  partial = rope.get('partial_rotary_factor', config.get('partial_rotary_factor'))
  if partial is not None and partial != 1:
    raise InputError(f'{path}: partial_rotary_factor is {partial!r}; expected none, or 1')
  theta = _number(path, 'rope_theta', rope.get('rope_theta', config.get('rope_theta', THETA)))
  kind = rope.get('rope_type', rope.get('type', 'default'))
  if kind == 'default':
    return theta, None
  if kind not in ('linear', 'llama3'):
    raise InputError(f"{path}: positions are scaled as {kind!r}; expected 'default', 'linear' or 'llama3'")

  def scale(key: str) -> float:
    return _number(path, f'positions are scaled as {kind!r} and {key!r}', rope.get(key))

  if kind == 'linear':
    return theta, RopeScaling('linear', scale('factor'))
  low, high = scale('low_freq_factor'), scale('high_freq_factor')
  if low >= high:
    raise InputError(f'{path}: low_freq_factor is {low}; expected less than high_freq_factor, {high}')
  original = rope.get('original_max_position_embeddings', context)
  original = config.get('original_max_position_embeddings', original)
  if type(original) is not int or original < 1:
    raise InputError(f'{path}: original_max_position_embeddings is {original!r}; expected an integer of at least 1')
  return theta, RopeScaling('llama3', scale('factor'), low, high, original)


def _section(path: pathlib.Path, config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
  """The dict that counts, and its name."""
  for name in ('rope_scaling', 'rope_parameters'):
    if not isinstance(config.get(name, {}), dict | None):
      raise InputError(f'{path}: {name} is {config[name]!r}; expected an object or null')
  name = 'rope_scaling' if config.get('rope_scaling') else 'rope_parameters'
  return name, config.get(name) or {}


def _number(path: pathlib.Path, name: str, value: Any) -> float:
  if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value) or value <= 0:
    raise InputError(f'{path}: {name} is {value!r}; expected a number above 0')
  return float(value)
