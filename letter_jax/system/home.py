"""The user's home folder: `~` in paths, and caches, which are optional."""

import os
import pathlib
import tempfile

from letter_jax.system.errors import InputError


def expanded(path: str, where: str) -> str:
  """A path with `~` or `~USER` at its beginning replaced by that home folder, as a shell does it.

  Args:
    path: any path, or something else that may stand in its place, such as an address (gs://...).
    where: the flag or key that gives it, for the error message.

  Raises:
    InputError: there is no home folder.
  """
  whole = os.path.expanduser(path)
  if whole == path and (path == '~' or path.startswith('~/')):
    raise InputError(f'{where} is {path}, but there is no home folder (HOME is not set); expected a path without ~')
  return whole


def cache_folder(name: str) -> pathlib.Path | None:
  """`$XDG_CACHE_HOME/letter_jax/NAME`, by default under `~/.cache`, created; None where it cannot be written."""
  base = os.environ.get('XDG_CACHE_HOME')
  if not base or not os.path.isabs(base):  # the XDG standard says to ignore a relative path
    home = os.path.expanduser('~')
    if not os.environ.get('HOME', home) or not os.path.isabs(home):
      return None
    base = os.path.join(home, '.cache')
  folder = pathlib.Path(base, 'letter_jax', name)
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
      return folder
  except OSError:
    return None
