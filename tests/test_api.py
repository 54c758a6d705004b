"""The public API: lazy, listed, complete."""

import subprocess
import sys

import pytest

import letter_jax
from tests.paths import ROOT


def test_every_listed_name_exists_and_is_documented():
  for name in letter_jax.__all__:
    assert name in dir(letter_jax)
    if name != '__version__':
      assert getattr(letter_jax, name).__doc__, name


def test_importing_the_package_imports_no_jax():
  program = 'import sys, letter_jax; dir(letter_jax); print(letter_jax.__version__, "jax" in sys.modules)'
  done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=True)
  assert done.stdout.split() == [letter_jax.__version__, 'False']


def test_an_unknown_name_is_an_attribute_error():
  with pytest.raises(AttributeError, match="no attribute 'Tokeniser'"):
    _ = letter_jax.Tokeniser


def test_an_input_error_is_a_value_error():
  assert issubclass(letter_jax.InputError, ValueError)


def test_the_list_is_complete_and_the_version_is_stated_once():
  assert set(letter_jax.__all__) == {*letter_jax._MODULES, '__version__'}
  source = (ROOT / 'letter_jax' / '__init__.py').read_text(encoding='utf-8')
  assert source.count('\n__version__ = ') == 1
