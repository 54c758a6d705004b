"""Files of a workdir: written whole or not at all, by process 0 alone, and recognised by their content."""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from letter_jax.system import processes
from letter_jax.system.errors import InputError


def write(path: pathlib.Path, writer: Callable[[pathlib.Path], object]) -> None:
  """Lets `writer` fill a temporary file beside `path` and renames it: a kill leaves the old file or the new one.

  Raises:
    InputError: the disk is full or cannot be written.
  """
  if not processes.is_first():
    return
  temporary = path.with_name(f'.{path.name}.partial')
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer(temporary)
    os.replace(temporary, path)
  except OSError as error:
    with contextlib.suppress(OSError):
      temporary.unlink()
    raise InputError(
      f'{path} could not be written ({error}); expected a disk with room that can be written; '
      'what is complete is kept, and the same command goes on from it'
    ) from error


def write_json(path: pathlib.Path, value: Any) -> None:
  write(path, lambda temporary: temporary.write_text(json.dumps(value, indent=2) + '\n', encoding='utf-8'))


def write_npy(path: pathlib.Path, array: np.ndarray) -> None:
  def save(temporary: pathlib.Path):
    with temporary.open('wb') as file:
      np.save(file, array, allow_pickle=False)

  write(path, save)


def read_npz(path: pathlib.Path, expected: str) -> dict[str, np.ndarray]:
  """All arrays of an .npz file; InputError, which ends with `expected`, where it is not there or damaged."""
  try:
    with np.load(path, allow_pickle=False) as file:
      return {name: file[name] for name in file.files}
  except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error) as error:
    raise InputError(f'{path} cannot be read ({error}); expected {expected}') from error


def write_npz(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
  def save(temporary: pathlib.Path):
    with temporary.open('wb') as file:
      np.savez(file, **arrays)

  write(path, save)


def fingerprint(path: pathlib.Path) -> str:
  """SHA-256 of a file, or of a folder's files and their names."""
  if path.is_dir():
    content = hashlib.sha256()
    for file in sorted(path.rglob('*')):
      if file.is_file():
        content.update(f'{file.relative_to(path)}\0{fingerprint(file)}\n'.encode())
    return content.hexdigest()
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def remove(paths: list[pathlib.Path]) -> None:
  """Removes files and folders, as far as they are there."""
  if processes.is_first():
    for path in paths:
      if path.is_dir():
        shutil.rmtree(path)
      else:
        path.unlink(missing_ok=True)
