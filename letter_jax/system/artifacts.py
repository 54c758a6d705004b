"""Files of a workdir: written atomically, by process 0 only, and identified by their content."""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from letter_jax.system import processes
from letter_jax.system.errors import InputError


def write(path: pathlib.Path, writer: Callable[[pathlib.Path], object]) -> None:
  """Writes a file atomically: a kill leaves the old file or the new one. Only process 0 writes.

  The file gets the mode of any new file here (the umask), whatever mode `writer` gives it.

  Args:
    path: the file; missing parent folders are created.
    writer: writes the content to the temporary path that it gets, in the same folder, which is then renamed.

  Raises:
    InputError: the disk is full or not writable.
  """
  if not processes.is_first():
    return
  temporary = path.with_name(f'.{path.name}.partial')
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.unlink(missing_ok=True)
    temporary.touch()
    mode = stat.S_IMODE(temporary.stat().st_mode)
    writer(temporary)
    temporary.chmod(mode)
    os.replace(temporary, path)
  except OSError as error:
    with contextlib.suppress(OSError):
      temporary.unlink()
    raise InputError(
      f'{path} could not be written ({error}); expected a writable disk with free space; '
      'what is complete is kept, and the same command continues from it'
    ) from error


@contextlib.contextmanager
def replaced_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """A context with a new, empty folder, which at its end becomes `folder` and replaces what that held.

  Whoever reads `folder` finds what it held before or what it holds afterwards; for an instant between there is none.
  After an error it is as before.
  """
  partial, old = (folder.with_name(f'.{folder.name}.{state}') for state in ('partial', 'replaced'))
  if old.exists() and not folder.exists():  # a kill in that instant
    old.rename(folder)
  shutil.rmtree(partial, ignore_errors=True)
  partial.mkdir(parents=True)
  try:
    yield partial
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
      folder.rename(old)
    try:
      partial.rename(folder)
    except OSError:
      if old.exists():
        old.rename(folder)
      raise
  finally:
    shutil.rmtree(partial, ignore_errors=True)
  shutil.rmtree(old, ignore_errors=True)


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes a JSON value, indented, as `write` does."""
  write(path, lambda temporary: temporary.write_text(json.dumps(value, indent=2) + '\n', encoding='utf-8'))


def write_npy(path: pathlib.Path, array: np.ndarray) -> None:
  """Writes an array as .npy, as `write` does."""

  def save(temporary: pathlib.Path) -> None:
    with temporary.open('wb') as file:
      np.save(file, array, allow_pickle=False)

  write(path, save)


def read_npz(path: pathlib.Path, expected: str) -> dict[str, np.ndarray]:
  """All arrays of an .npz file, by name.

  Args:
    path: the file.
    expected: the end of the error message: which file was expected.

  Raises:
    InputError: the file does not exist or is damaged.
  """
  try:
    with np.load(path, allow_pickle=False) as file:
      return {name: file[name] for name in file.files}
  except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error) as error:
    raise InputError(f'{path} cannot be read ({error}); expected {expected}') from error


def write_npz(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes arrays as .npz, as `write` does."""
  arrays_by_name: dict[str, Any] = dict(arrays)

  def save(temporary: pathlib.Path) -> None:
    with temporary.open('wb') as file:
      np.savez(file, **arrays_by_name)

  write(path, save)


def fingerprint(path: pathlib.Path) -> str:
  """SHA-256, in hexadecimal, of a file's content, or of the relative names and contents of a folder's files."""
  if path.is_dir():
    content = hashlib.sha256()
    for file in sorted(path.rglob('*')):
      if file.is_file():
        content.update(f'{file.relative_to(path)}\0{fingerprint(file)}\n'.encode())
    return content.hexdigest()
  with path.open('rb') as opened:
    return hashlib.file_digest(opened, 'sha256').hexdigest()


def remove(paths: list[pathlib.Path]) -> None:
  """Removes the files and folders that exist. Only process 0 removes them."""
  if processes.is_first():
    for path in paths:
      if path.is_dir():
        shutil.rmtree(path)
      else:
        path.unlink(missing_ok=True)
