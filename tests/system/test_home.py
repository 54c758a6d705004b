"""Home folders as they are, and as they are not: no HOME, a user without an entry, a folder that cannot be written."""

import pathlib
import pwd

import pytest

from letter_jax.system import home
from letter_jax.system.errors import InputError


@pytest.fixture
def nobody(monkeypatch):
  """No HOME, and a user id without an entry."""

  def unknown(uid):
    raise KeyError(uid)

  monkeypatch.delenv('HOME')
  monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
  monkeypatch.setattr(pwd, 'getpwuid', unknown)


def test_a_tilde_is_the_home_folder(monkeypatch):
  monkeypatch.setenv('HOME', '/home/ann')
  paths = ['~', '~/x', 'x', '', '/x/~', 'gs://bucket/~', '~nobody-of-this-name/x']
  expected = ['/home/ann', '/home/ann/x', 'x', '', '/x/~', 'gs://bucket/~', '~nobody-of-this-name/x']
  assert [home.expanded(path, '--flag') for path in paths] == expected


def test_a_tilde_without_a_home_folder(nobody):
  assert home.expanded('x', '--flag') == 'x'
  for path in ('~', '~/x'):
    with pytest.raises(
      InputError, match=f'^--flag is {path}, but there is no home folder .*; expected a path without ~'
    ):
      home.expanded(path, '--flag')


def test_caches_are_under_the_home_folder_or_where_xdg_says(monkeypatch, tmp_path):
  monkeypatch.setenv('HOME', str(tmp_path / 'home'))
  in_home = tmp_path / 'home/.cache/letter_jax/compiled'
  for base, expected in (
    ('', in_home),
    ('relative', in_home),
    (str(tmp_path / 'xdg'), tmp_path / 'xdg/letter_jax/compiled'),
  ):
    monkeypatch.setenv('XDG_CACHE_HOME', base)
    assert home.cache_folder('compiled') == expected and list(expected.iterdir()) == []
  assert not pathlib.Path('relative').exists()


def test_no_home_folder_no_cache(nobody, monkeypatch):
  assert home.cache_folder('compiled') is None
  monkeypatch.setenv('HOME', '')
  assert home.cache_folder('compiled') is None


def test_no_cache_where_nothing_can_be_written(monkeypatch, tmp_path):
  (tmp_path / 'home').write_text('a file is in the way')
  monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
  monkeypatch.setenv('HOME', str(tmp_path / 'home'))
  assert home.cache_folder('compiled') is None
