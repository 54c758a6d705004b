"""Files of a workdir: written whole or not at all, and recognised by their content."""

import hashlib
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np


def write(path: pathlib.Path, writer: Callable[[pathlib.Path], None]) -> None:
  """Lets `writer` fill a temporary file beside `path` and renames it: a kill leaves the old file or the new one."""
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f'.{path.name}.partial')
  writer(temporary)
  os.replace(temporary, path)


def write_json(path: pathlib.Path, value: Any) -> None:
  write(path, lambda temporary: temporary.write_text(json.dumps(value, indent=2) + '\n', encoding='utf-8'))


def write_npy(path: pathlib.Path, array: np.ndarray) -> None:
  def save(temporary: pathlib.Path):
    with temporary.open('wb') as file:
      np.save(file, array, allow_pickle=False)
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
