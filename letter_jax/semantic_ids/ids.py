"""Semantic IDs of a catalogue: the codes of every item, where they are stored, and what models derive from them.

A semantic ID belongs to a raw id, the id of the item in the source of the data. Row numbers are valid within one run
only. On disk the codes are therefore stored together with the raw ids, as a CSV table (`id,code_1,...,code_L`) that
any later run can match to its own catalogue.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from letter_jax import sharding
from letter_jax.data import index_format
from letter_jax.data.matching import match
from letter_jax.ops.rounding import with_room
from letter_jax.semantic_ids import item_trie, table
from letter_jax.semantic_ids.item_trie import ItemTrie, Paths
from letter_jax.semantic_ids.table import INDEX, TABLE
from letter_jax.semantic_ids.vocabulary import FIRST_CODE, Vocabulary
from letter_jax.system import artifacts
from letter_jax.system.errors import InputError
from letter_jax.system.wording import counted


@dataclasses.dataclass(frozen=True, eq=False)
class SemanticIds:
  """The semantic IDs of N items, row i for item i.

  Attributes:
    codes_NxL: int32 [N, L], codes in 0 .. K - 1.
    codebook_size: K, codes per level.
  """

  codes_NxL: np.ndarray
  codebook_size: int

  def __post_init__(self) -> None:
    codes = np.asarray(self.codes_NxL)
    if codes.ndim != 2 or 0 in codes.shape or not np.issubdtype(codes.dtype, np.integer):
      raise InputError(f'semantic IDs are {codes.dtype} {list(codes.shape)}; expected integers [items, levels]')
    if codes.min() < 0 or codes.max() >= self.codebook_size:
      raise InputError(
        f'semantic IDs have codes from {codes.min()} to {codes.max()}; expected 0 to {self.codebook_size - 1}'
      )
    object.__setattr__(self, 'codes_NxL', codes.astype(np.int32, copy=False))

  def __len__(self) -> int:
    return len(self.codes_NxL)

  @property
  def levels(self) -> int:
    """L, codes per item."""
    return self.codes_NxL.shape[1]

  @functools.cached_property
  def host_trie(self) -> ItemTrie:
    """The catalogue as a trie of numpy arrays, built on first use; `place` puts it on devices."""
    return ItemTrie.build_on_host(self.codes_NxL)

  @functools.cached_property
  def trie(self) -> ItemTrie:
    """The catalogue as a trie on the default device, built on first use."""
    return jax.tree.map(jnp.asarray, self.host_trie)

  @functools.cached_property
  def leaves_N(self) -> np.ndarray:
    """int32 [N], the leaf of every item in the trie, in host memory."""
    return item_trie.leaves_of_items(self.host_trie)

  def vocabulary(self, first_code: int = FIRST_CODE) -> Vocabulary:
    """The tokens of a model that has `first_code` tokens before the codes."""
    return Vocabulary(self.levels, self.codebook_size, first_code)

  def place(self, mesh: jax.sharding.Mesh, room: bool = False) -> 'PlacedIds':
    """Codes and trie on every device of the mesh, once; only their shapes on a mesh that is planned for.

    Args:
      mesh: the devices.
      room: round the shapes up, so that programs compiled for these IDs serve those of a catalogue that grew a little.
        For a search that excludes items (`Search.items`): the items that are not there are never among its candidates.
    """
    codes, trie = self.codes_NxL, self.host_trie
    if room:
      codes = item_trie.padded(codes, with_room(len(self)), -1)
      trie = trie.with_room(self.codebook_size)
    codes_NxL, placed = sharding.put((codes, trie), sharding.replicated(mesh))
    return PlacedIds(self, mesh, codes_NxL, placed, room)

  @classmethod
  def read(
    cls, path: str | os.PathLike[str], raw_ids: Sequence[str] | None, num_items: int, codebook_size: int | None = None
  ) -> 'SemanticIds':
    """`read_given` without the word on how they were matched.

    Args:
      codebook_size: K, which the files do not have; None for the smallest that has all codes.

    Raises:
      InputError: as `read_given`, or a code is not below `codebook_size`.
    """
    read = read_given(pathlib.Path(path), raw_ids, num_items)[0]
    if codebook_size is None:
      return read
    if codebook_size < read.codebook_size:
      raise InputError(f'{path} has the code {read.codebook_size - 1}; expected codes below {codebook_size}')
    return dataclasses.replace(read, codebook_size=codebook_size)

  def write(self, directory: str | os.PathLike[str], raw_ids: Sequence[str] | None) -> None:
    """Writes the table with raw ids, if the data has any, and `index.json` in LETTER's format, into `directory`."""
    directory = pathlib.Path(directory)
    table.write(directory / TABLE, raw_ids, self.codes_NxL)
    artifacts.write(directory / INDEX, lambda path: index_format.write_index(path, self.codes_NxL))


@dataclasses.dataclass(frozen=True, eq=False)
class PlacedIds:
  """Semantic IDs on the devices of a mesh: the one copy that training and search share.

  Attributes:
    host: the same in host memory.
    codes_NxL: int32, replicated; -1 in the rows of items that are not there, where there is room for more.
    trie: replicated.
    room: whether there is room for more items.
  """

  host: SemanticIds
  mesh: jax.sharding.Mesh
  codes_NxL: jax.Array
  trie: ItemTrie
  room: bool = False

  @property
  def rows(self) -> int:
    """The number of items, with those that there is room for: the rows that arrays with a row per item must have."""
    return self.codes_NxL.shape[0]

  def with_room(self, array: Any, value: float = 0) -> Any:
    """A host array with a row for each item, with further rows of `value` for the items that there is room for."""
    return item_trie.padded(array, self.rows, value)

  @functools.cached_property
  def nodes_NxL(self) -> jax.Array:
    """int32 [N, L], nodes of levels 0 .. L - 1 that lead to each item, for `catalogue_loss`; placed on first use."""
    return sharding.put(item_trie.nodes_of_items(self.host.host_trie), sharding.replicated(self.mesh))

  @functools.cached_property
  def paths(self) -> Paths:
    """The path to each item, for searches that exclude items; placed on first use."""
    paths = Paths.of(self.host.host_trie)
    return sharding.put(paths.with_room() if self.room else paths, sharding.replicated(self.mesh))

  def loss_arrays(self, softmax: str) -> tuple[Any, ...]:
    """What a loss reads: codes alone, or with the softmax over the catalogue (codes, nodes, trie)."""
    return (self.codes_NxL, self.nodes_NxL, self.trie) if softmax == 'catalogue' else (self.codes_NxL,)


def read_given(path: pathlib.Path, raw_ids: Sequence[str] | None, num_items: int) -> tuple[SemanticIds, bool]:
  """Semantic IDs from outside the run: a table with raw ids, or LETTER's `index.json`.

  A table is matched by raw id. So is an `index.json` with a table of the same codes next to it, as a run writes them.
  An `index.json` alone is taken by position.

  Args:
    raw_ids: of the catalogue, in its order; None where the data has none.
    num_items: N.

  Returns:
    the IDs, in the order of the catalogue, and whether they were matched by raw id.

  Raises:
    InputError: a file that is missing or damaged, or made for a different catalogue.
  """
  if raw_ids is not None and len(raw_ids) != num_items:
    raise InputError(f'{len(raw_ids):,} raw ids for {counted(num_items, "item")}; expected one for each')
  table_path = path if path.suffix == '.csv' else path.with_name(TABLE)
  if path != table_path and not table_path.is_file():
    return _with_smallest_codebook(index_format.read_index(path, num_items)), False
  names, codes_MxL = table.read(table_path)
  if path != table_path and not np.array_equal(index_format.read_index(path, len(codes_MxL)), codes_MxL):
    raise InputError(f'{path} has other codes than {table_path}; expected the same, or no {TABLE} next to it')
  if names is not None:
    return _with_smallest_codebook(codes_MxL[match(raw_ids, names, table_path)]), True
  if len(codes_MxL) != num_items:
    raise InputError(
      f'{table_path} has {counted(len(codes_MxL), "row")} without raw ids; expected one for each of the '
      f'{counted(num_items, "item")}'
    )
  return _with_smallest_codebook(codes_MxL), False


def _with_smallest_codebook(codes_NxL: np.ndarray) -> SemanticIds:
  return SemanticIds(codes_NxL, int(codes_NxL.max()) + 1)
