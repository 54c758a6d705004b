"""Cold items: items newer than the training, which the trained tokenizer gives semantic IDs from their text alone."""

import codecs
import contextlib
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from letter_jax.configuration import Config
from letter_jax.data.dataset import TEXT_FIELDS
from letter_jax.data.letter_format import field_text
from letter_jax.data.raw.cleaning import clean
from letter_jax.data.raw_ids import as_raw_id
from letter_jax.serving.catalogue import Catalogue
from letter_jax.system.errors import InputError
from letter_jax.workdir import Workdir

# Parsed JSON, or what a caller of `Recommender.from_workdir` passes: checked here, before it is used.
ColdItem = Mapping[str, Any]


def read_cold_items(path: pathlib.Path) -> list[ColdItem]:
  """Reads a file with one cold item, a JSON object, per line; blank lines are ignored.

  Returns:
    The parsed lines, as `with_cold_items` takes them.

  Raises:
    InputError: the file cannot be read or is empty, or a line is not valid JSON.
  """
  try:
    lines = path.read_bytes().removeprefix(codecs.BOM_UTF8).split(b'\n')
  except OSError as error:
    raise InputError(f'{path} cannot be read ({error}); expected cold items, one JSON object per line') from error
  items = []
  for number, line in enumerate(lines, 1):
    if not line.strip():
      continue
    try:
      items.append(json.loads(line.decode('utf-8')))
    except (ValueError, RecursionError) as error:
      raise InputError(
        f'{path}:{number} is not valid JSON ({" ".join(str(error).split())[:100]}); expected an object such as '
        '{"id": "B00X", "title": "..."}'
      ) from error
  if not items:
    raise InputError(f'{path} is empty; expected cold items, one JSON object per line')
  return items


def with_cold_items(
  catalogue: Catalogue, items: Sequence[ColdItem], config: Config, workdir: Workdir
) -> tuple[Catalogue, np.ndarray]:
  """The catalogue with M cold items after its own, each with a semantic ID that no other item has.

  Args:
    items: as in `Recommender.from_workdir`.
    config: the configuration of the workdir's run.
    workdir: a run that trained a tokenizer.

  Returns:
    the catalogue, and the text embeddings of the cold items, float32 [M, T].

  Raises:
    InputError: an item is malformed or has a raw id that exists already, or the workdir has no tokenizer.
  """
  from letter_jax.tokenizer.assignment import assign_later_items
  from letter_jax.tokenizer.training import encode_items

  if config.semantic_ids.path:
    raise InputError(
      f'{workdir} was given its semantic IDs (config.semantic_ids.path) and has no tokenizer; expected a workdir with '
      'a trained tokenizer, to tokenise cold items'
    )
  raw_ids = _raw_ids(items, catalogue)
  texts = [_texts(item, place, catalogue.own_ids) for place, item in enumerate(items, 1)]
  text_MxT = _text_embeddings(items, texts, raw_ids, config, workdir)
  latent_Mxd, codebooks_LxKxd = encode_items(
    config.tokenizer, text_MxT, workdir.tokenizer, mesh=config.mesh, checkpoints=config.checkpoints
  )
  codes_MxL = assign_later_items(latent_Mxd, codebooks_LxKxd, catalogue.ids.codes_NxL)
  return catalogue.extended(raw_ids, [text['title'] for text in texts], codes_MxL), text_MxT


def _raw_ids(items: Sequence[ColdItem], catalogue: Catalogue) -> list[str]:
  """The raw ids of the items; InputError for one that is invalid or not new."""
  raw_ids = [_raw_id(item, place, catalogue.own_ids) for place, item in enumerate(items, 1)]
  seen = set()
  for place, raw_id in enumerate(raw_ids, 1):
    if catalogue.index_of(raw_id) is not None or raw_id in seen:
      raise InputError(f'cold item {place}: "id" {raw_id!r} is the id of a different item; expected a new one')
    seen.add(raw_id)
  return raw_ids


def _raw_id(item: ColdItem, place: int, own_ids: bool) -> str:
  """The raw id in its normal form; a number is the raw id with these digits, as in a history."""
  if not isinstance(item, Mapping):
    raise InputError(
      f'cold item {place} is {str(item)[:40]!r}; expected an object such as {{"id": "B00X", "title": "..."}}'
    )
  given = item.get('id')
  raw_id = as_raw_id(str(given) if own_ids and type(given) is int else given)
  if raw_id is None:
    raise InputError(f'cold item {place}: "id" is {given!r}; expected the raw id, a non-empty string')
  return raw_id


def _text_embeddings(
  items: Sequence[ColdItem], texts: list[dict[str, str]], raw_ids: list[str], config: Config, workdir: Workdir
) -> np.ndarray:
  """float32 [M, T], made in the same way as the workdir's text embeddings."""
  if config.text_embeddings.path:
    return _given_rows(items, workdir.read_rows(workdir.text_embeddings, mmap=True).shape[1])
  for place, (raw_id, text) in enumerate(zip(raw_ids, texts), 1):
    if not any(text.values()):
      raise InputError(
        f'cold item {place} ({raw_id!r}) has no text; expected "title", "brand", "categories" or "description", to '
        'tokenise it from'
      )
  if config.text_embeddings.model:
    from letter_jax.text_embeddings.language_models import embed_items

    with contextlib.redirect_stdout(sys.stderr):  # stdout may be the recommendations
      return embed_items(texts, config.text_embeddings)
  from letter_jax.text_embeddings.tf_idf import WITHOUT_TERMS, TextProjection

  rows_MxT = TextProjection.read(workdir.tf_idf).rows(texts)
  zeros = np.flatnonzero(~rows_MxT.any(axis=1))
  if len(zeros):
    print(
      f'recommend: the texts of {len(zeros):,} of {len(items):,} cold items have no term of the catalogue, such as '
      f'{raw_ids[zeros[0]]!r}: {WITHOUT_TERMS}',
      file=sys.stderr,
      flush=True,
    )
  return rows_MxT


def _given_rows(items: Sequence[ColdItem], dim: int) -> np.ndarray:
  """float32 [M, dim], the items' "embedding" values."""
  rows_MxT = np.empty((len(items), dim), np.float32)
  for row, item in enumerate(items):
    try:
      values = np.asarray(item['embedding'], np.float32)
      if values.shape != (dim,) or not np.isfinite(values).all():
        raise ValueError
    except (KeyError, TypeError, ValueError):
      raise InputError(
        f'cold item {row + 1} ({item["id"]!r}) has no "embedding" of {dim} finite numbers; expected a row made in the '
        'same way as those of config.text_embeddings.path'
      ) from None
    rows_MxT[row] = values
  return rows_MxT


def _texts(item: ColdItem, place: int, cleaned: bool) -> dict[str, str]:
  """Text field -> text, `cleaned` as those of the catalogue were that come from raw files."""
  where = f'cold item {place} ({item["id"]!r})'
  texts = {field: field_text(where, field, item.get(field)) for field in TEXT_FIELDS}
  return {field: clean(text) for field, text in texts.items()} if cleaned else texts
