"""Writing JSON files for readers, and checking that an error is one line."""

import json

import pytest

from letter_jax.system.errors import InputError


def write(folder, name, value):
  (folder / name).write_text(value if isinstance(value, str) else json.dumps(value), encoding='utf-8')
  return folder / name


def one_line(call, *parts):
  with pytest.raises(InputError) as caught:
    call()
  message = str(caught.value)
  assert '\n' not in message
  for part in parts:
    assert str(part) in message
