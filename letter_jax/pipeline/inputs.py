"""Inputs from outside a run: the files that settings name, what is wrong with them, and how they are read."""

import pathlib
from typing import TYPE_CHECKING

import numpy as np

from letter_jax.configuration import Config
from letter_jax.data import matching
from letter_jax.system.errors import InputError
from letter_jax.workdir import Workdir

if TYPE_CHECKING:
  from letter_jax.semantic_ids.ids import SemanticIds


def text_embeddings_files(config: Config) -> dict[str, pathlib.Path]:
  """The given rows, or the files of the language model's folder, by config key."""
  if config.text_embeddings.path:
    return given_rows_files('text_embeddings.path', config.text_embeddings.path)
  if not config.text_embeddings.model:
    return {}
  from letter_jax.text_embeddings.language_models import model_files

  folder = pathlib.Path(config.text_embeddings.model)
  return {f'text_embeddings.model/{path.relative_to(folder).as_posix()}': path for path in model_files(str(folder))}


def given_rows_files(key: str, path: str) -> dict[str, pathlib.Path]:
  """A given .npy file and the raw ids next to it, if there are any; none where nothing is given."""
  if not path:
    return {}
  ids = matching.ids_file(pathlib.Path(path))
  return {key: pathlib.Path(path), **({f'{key}/{ids.name}': ids} if ids.is_file() else {})}


def semantic_ids_files(config: Config) -> dict[str, pathlib.Path]:
  """The given semantic IDs and the table with raw ids next to them, if there is one."""
  if not config.semantic_ids.path:
    return {}
  from letter_jax.semantic_ids.table import TABLE

  path = pathlib.Path(config.semantic_ids.path)
  table = path.with_name(TABLE)
  return {
    'semantic_ids.path': path,
    **({f'semantic_ids.path/{TABLE}': table} if table != path and table.is_file() else {}),
  }


def generator_files(config: Config) -> dict[str, pathlib.Path]:
  """The weights and texts that the generator starts from."""
  from letter_jax.generators.generator import kind

  return kind(config.generator).input_files(config.generator)


def check_inputs(config: Config, root: pathlib.Path) -> None:
  """Raises InputError for inputs from outside that cannot fit the data set."""
  workdir = Workdir(root)
  summary = workdir.read_summary()
  items = summary['items']
  model, beam = config.tokenizer.model, config.evaluation.beam
  if beam > items:
    raise InputError(f'config.evaluation.beam is {beam}; expected at most the number of items, {items}')
  if beam < min(20, items):
    raise InputError(f'config.evaluation.beam is {beam}; expected at least {min(20, items)}, as metrics go to rank 20')
  levels, codebook_size = model.levels, model.codebook_size
  if config.semantic_ids.path:
    ids, _ = given_semantic_ids(config, workdir)
    levels, codebook_size = ids.levels, ids.codebook_size
  else:
    if config.semantic_ids.collisions == 'resolve' and items > model.codebook_size**model.levels:
      raise InputError(
        f'{items} items cannot have semantic IDs of their own: {model.levels} levels of '
        f'{model.codebook_size} codes; expected larger config.tokenizer.model.codebook_size or levels'
      )
    if config.text_embeddings.path:
      given_rows(config.text_embeddings.path, workdir, 'text embeddings')
    if config.collaborative.path:
      dim = given_rows(config.collaborative.path, workdir, 'collaborative embeddings')[0].shape[1]
      if dim != model.latent_dim:
        raise InputError(
          f'{config.collaborative.path} has {dim} columns; expected config.tokenizer.model.latent_dim, '
          f'{model.latent_dim}'
        )
  from letter_jax.generators.generator import kind

  has_texts = summary['items_without_text'] is not None
  kind(config.generator).check(config.generator, has_texts, levels, codebook_size)


def given_rows(path: str, workdir: Workdir, meaning: str) -> tuple[np.ndarray, bool]:
  """Rows in the order of the catalogue, and whether they were matched by raw id."""
  return matching.read_rows(pathlib.Path(path), workdir.read_raw_ids(), workdir.read_summary()['items'], meaning)


def given_semantic_ids(config: Config, workdir: Workdir) -> 'tuple[SemanticIds, bool]':
  from letter_jax.semantic_ids.ids import read_given

  path, items = pathlib.Path(config.semantic_ids.path), workdir.read_summary()['items']
  return read_given(path, workdir.read_raw_ids(), items)


def print_matching(stage: str, path: str, matched: bool, workdir: Workdir) -> None:
  """Says how given rows and items belong together, where the data has ids of its own."""
  if matched:
    print(f'{stage}: {path}, matched by raw id', flush=True)
  elif workdir.read_raw_ids():
    print(
      f'{stage}: {path} carries no raw ids: it is matched to this data set by position (docs/data.md says which file '
      'with raw ids to put next to it)',
      flush=True,
    )
