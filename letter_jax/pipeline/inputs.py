"""Inputs from outside a run: the files that settings name, what is wrong with them, and how they are read."""

import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from letter_jax.configuration import MADE_FEATURES, Config
from letter_jax.data import matching
from letter_jax.system.errors import InputError
from letter_jax.system.wording import counted
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

  files = kind(config.generator).input_files(config.generator)
  for source in config.generator.features:
    if source not in MADE_FEATURES:
      files |= given_rows_files(f'generator.features/{source}', source)
  return files


class GivenInputs:
  """What the settings give in place of a stage's results, in the order of the catalogue.

  Each is read once: when it is checked, before anything is trained, or else by its stage. What was read is kept until
  `forget`.
  """

  def __init__(self, config: Config, workdir: Workdir):
    self._config, self._workdir = config, workdir
    self._read: dict[str, Any] = {}  # by stage

  def text_rows(self) -> tuple[np.ndarray, bool]:
    """Text embeddings float32 [N, T], and whether they were matched by raw id."""
    return self._once('text_embeddings', lambda: self._rows(self._config.text_embeddings.path, 'text embeddings'))

  def collaborative_rows(self) -> tuple[np.ndarray, bool]:
    """Collaborative embeddings float32 [N, d], and whether they were matched by raw id."""
    return self._once('collaborative', lambda: self._rows(self._config.collaborative.path, 'collaborative embeddings'))

  def semantic_ids(self) -> 'tuple[SemanticIds, bool]':
    """Semantic IDs, and whether they were matched by raw id."""
    from letter_jax.semantic_ids.ids import read_given

    path, workdir = pathlib.Path(self._config.semantic_ids.path), self._workdir
    return self._once('semantic_ids', lambda: read_given(path, workdir.read_raw_ids(), workdir.read_summary()['items']))

  def features(self) -> dict[str, tuple[np.ndarray, bool]]:
    """The files of `config.generator.features`: rows float32 [N, W], and whether they were matched by raw id."""
    files = [source for source in self._config.generator.features if source not in MADE_FEATURES]
    return self._once('generator', lambda: {source: self._rows(source, 'features of items') for source in files})

  def forget(self, stage: str) -> None:
    """Frees what was read for a stage."""
    self._read.pop(stage, None)

  def _once(self, stage: str, read: Callable[[], Any]) -> Any:
    if stage not in self._read:
      self._read[stage] = read()
    return self._read[stage]

  def _rows(self, path: str, meaning: str) -> tuple[np.ndarray, bool]:
    workdir = self._workdir
    return matching.read_rows(pathlib.Path(path), workdir.read_raw_ids(), workdir.read_summary()['items'], meaning)


def check_inputs(config: Config, workdir: Workdir, given: GivenInputs) -> None:
  """Raises InputError for inputs from outside that cannot fit the data set."""
  summary = workdir.read_summary()
  items = summary['items']
  model, beam = config.tokenizer.model, config.evaluation.beam
  if beam > items:
    raise InputError(f'config.evaluation.beam is {beam}; expected at most the number of items, {items}')
  if beam < min(20, items):
    raise InputError(f'config.evaluation.beam is {beam}; expected at least {min(20, items)}, as metrics go to rank 20')
  levels, codebook_size = model.levels, model.codebook_size
  if config.semantic_ids.path:
    ids, _ = given.semantic_ids()
    levels, codebook_size = ids.levels, ids.codebook_size
  else:
    if config.semantic_ids.collisions == 'resolve' and items > model.codebook_size**model.levels:
      raise InputError(
        f'{counted(items, "item")} cannot have semantic IDs of their own: {counted(model.levels, "level")} of '
        f'{model.codebook_size} codes; expected larger config.tokenizer.model.codebook_size or levels'
      )
  learned_ids, features = not config.semantic_ids.path, config.generator.features
  if config.text_embeddings.path and (learned_ids or 'text' in features):
    given.text_rows()
  if config.collaborative.path:
    dim = given.collaborative_rows()[0].shape[1]
    if learned_ids and dim != model.latent_dim:
      raise InputError(
        f'{config.collaborative.path} has {dim} columns; expected config.tokenizer.model.latent_dim, '
        f'{model.latent_dim} (letter_jax.collaborative.embeddings.collaborative_rows makes such rows of others)'
      )
  given.features()
  from letter_jax.generators.generator import kind

  has_texts = summary['items_without_text'] is not None
  kind(config.generator).check(config.generator, has_texts, levels, codebook_size)


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
