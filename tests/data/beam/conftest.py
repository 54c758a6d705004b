"""Beam looks at the signature of every method of every DoFn, again and again: a third of these tests' time."""

import functools
import types

import pytest
from apache_beam.transforms import core


@pytest.fixture(autouse=True, scope='package')
def signatures_are_read_once():
  """Remembers the arguments of methods, by their functions."""
  read = core.get_function_args_defaults
  read_once = functools.cache(lambda function: read(types.MethodType(function, object())))

  def read_or_remembered(f):
    return tuple(map(list, read_once(f.__func__))) if isinstance(f, types.MethodType) else read(f)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(core, 'get_function_args_defaults', read_or_remembered)
    yield
