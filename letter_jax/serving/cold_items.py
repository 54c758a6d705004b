"""Items that came after the training: the trained tokenizer gives them semantic IDs, from their text alone."""

import codecs
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from letter_jax.configuration import Config
from letter_jax.data.dataset import TEXT_FIELDS
from letter_jax.data.letter_format import field_text
from letter_jax.data.raw_ids import is_raw_id
from letter_jax.serving.catalogue import Catalogue
from letter_jax.system.errors import InputError
from letter_jax.workdir import PROJECTION, Workdir


def read_cold_items(path: pathlib.Path) -> list[dict[str, Any]]:
  """One JSON object a line, as `with_cold_items` wants them.

  Raises:
    InputError: no file, or a line that is none.
  """
  try:
    lines = path.read_bytes().removeprefix(codecs.BOM_UTF8).split(b'\n')
  except OSError as error:
    raise InputError(f'{path} cannot be read ({error}); expected cold items, one JSON object a line') from error
  found = []
  for number, line in enumerate(lines, 1):
    if not line.strip():
      continue
    try:
      found.append(json.loads(line.decode('utf-8')))
    except (ValueError, RecursionError) as error:
      raise InputError(
        f'{path}:{number} is no JSON ({" ".join(str(error).split())[:100]}); expected an object such as '
        '{"id": "B00X", "title": "..."}'
      ) from error
  if not found:
    raise InputError(f'{path} is empty; expected cold items, one JSON object a line')
  return found


def with_cold_items(
  catalogue: Catalogue, items: Sequence[Mapping[str, Any]], config: Config, workdir: Workdir
) -> Catalogue:
  """The catalogue with `items` behind the others, each with a semantic ID of its own.

  Args:
    items: as in `Recommender.from_workdir`.
    config: of the workdir's run.

  Raises:
    InputError: an item that is not as it should be; a workdir without what tokenises it.
  """
  from letter_jax.tokenizer.assignment import assign_later_items
  from letter_jax.tokenizer.training import encode_items

  if config.semantic_ids.path:
    raise InputError(
      f'{workdir} was given its semantic IDs (config.semantic_ids.path) and has no tokenizer; expected '
      'one that was trained, to tokenise cold items'
    )
  ids = [_id_of(item, place) for place, item in enumerate(items, 1)]
  seen = set()
  for place, raw_id in enumerate(ids, 1):
    if catalogue.number(raw_id) is not None or raw_id in seen:
      raise InputError(f'cold item {place}: "id" {raw_id!r} is that of another item; expected a new one')
    seen.add(raw_id)
  text_MxT = _embeddings(items, config, workdir)
  latent_Mxd, codebooks_LxKxd = encode_items(
    config.tokenizer, text_MxT, workdir.tokenizer, mesh=config.mesh, checkpoints=config.checkpoints
  )
  codes_MxL = assign_later_items(latent_Mxd, codebooks_LxKxd, catalogue.ids.codes_NxL)
  titles = [field_text(f'cold item {place}', 'title', item.get('title')) for place, item in enumerate(items, 1)]
  return catalogue.having(ids, titles, codes_MxL)


def _id_of(item: Mapping[str, Any], place: int) -> str:
  if not isinstance(item, Mapping):
    raise InputError(
      f'cold item {place} is {str(item)[:40]!r}; expected an object such as {{"id": "B00X", "title": "..."}}'
    )
  if not is_raw_id(item.get('id')):
    raise InputError(f'cold item {place}: "id" is {item.get("id")!r}; expected the raw id, a text')
  return item['id']


def _embeddings(items: Sequence[Mapping[str, Any]], config: Config, workdir: Workdir) -> np.ndarray:
  """float32 [M, T], in the space of the workdir's text embeddings."""
  if config.text_embeddings.path:
    return _given_rows(items, workdir.read_rows(workdir.text_embeddings, mmap=True).shape[1])
  texts = [_texts_of(item, place) for place, item in enumerate(items, 1)]
  if config.text_embeddings.model:
    from letter_jax.text_embeddings.language_models import embed_items

    return embed_items(texts, config.text_embeddings)
  from letter_jax.text_embeddings.tf_idf import TextProjection

  return TextProjection.read(workdir.text_embeddings / PROJECTION).rows(texts)


def _given_rows(items: Sequence[Mapping[str, Any]], dim: int) -> np.ndarray:
  rows_MxT = np.empty((len(items), dim), np.float32)
  for row, item in enumerate(items):
    try:
      values = np.asarray(item['embedding'], np.float32)
      if values.shape != (dim,) or not np.isfinite(values).all():
        raise ValueError
    except (KeyError, TypeError, ValueError):
      raise InputError(
        f'cold item {row + 1} ({item["id"]!r}) has no "embedding" of {dim} finite numbers; expected its '
        'row, made as those of config.text_embeddings.path'
      ) from None
    rows_MxT[row] = values
  return rows_MxT


def _texts_of(item: Mapping[str, Any], place: int) -> dict[str, str]:
  where = f'cold item {place} ({item["id"]!r})'
  texts = {field: field_text(where, field, item.get(field)) for field in TEXT_FIELDS}
  if not any(texts.values()):
    raise InputError(f'{where} has no text; expected "title", "brand", "categories" or "description" to tokenise it by')
  return texts
