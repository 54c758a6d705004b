"""The catalogue as a trie of semantic IDs in device arrays: a search step reads only the children of the beams.

A node of level l is a distinct prefix of l codes; level 0 is the root alone, level L has the leaves. Nodes of a level
are numbered in lexicographic order of their prefixes, so the children of a node are neighbours, and an edge and the
node it leads to share one number: each level is a CSR matrix of two arrays.

Shapes: N items, L levels, B users, W beams, C_l children of a node of level l at most.
"""

import dataclasses
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from letter_jax.data import ragged
from letter_jax.ops.rounding import next_power_of_two, with_room
from letter_jax.system.errors import InputError


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ItemTrie:
  """The semantic IDs of a catalogue, as a pytree whose static fields are part of the key of jit's cache.

  Attributes:
    first_edge: for each level, int32 [nodes of the level + 1]; node n has edges first_edge[n]:first_edge[n + 1]. None
      where every node of the level has one child: its number is then the node's own.
    code: for each level, [edges of the level + C_l] (the last C_l are padding), the code that an edge adds, in the
      smallest unsigned integer type that holds all codes.
    item: int32 [N], item ids in order of their leaves; those that share a leaf in ascending order.
    first_item: int32 [leaves + 1], leaf f has item[first_item[f]:first_item[f + 1]]; None where no two items share one.
    nodes: static, number of nodes at levels 0 .. L.
    branching: static, (C_0, ..., C_{L-1}), most children that a node of the level has.
    codebook_size: static, the smallest K that holds all codes.
  """

  first_edge: tuple[jax.Array | None, ...]
  code: tuple[jax.Array, ...]
  item: jax.Array
  first_item: jax.Array | None
  nodes: tuple[int, ...] = dataclasses.field(metadata={'static': True})
  branching: tuple[int, ...] = dataclasses.field(metadata={'static': True})
  codebook_size: int = dataclasses.field(metadata={'static': True})

  @classmethod
  def build(cls, codes_NxL: np.ndarray) -> 'ItemTrie':
    """The trie of all items' semantic IDs, on the default device.

    To use it on all devices of a mesh, place it there once, replicated: `jax.device_put(trie, NamedSharding(mesh,
    PartitionSpec()))`. Pass it to a jitted function as an argument: a captured trie would be a constant of the program.

    Args:
      codes_NxL: any integer dtype, N and L at least 1; row i is the semantic ID of item i. Items may share an ID.

    Raises:
      InputError: `codes_NxL` has a different shape or dtype, or a negative code.
    """
    return jax.tree.map(jnp.asarray, cls.build_on_host(codes_NxL))

  @classmethod
  def build_on_host(cls, codes_NxL: np.ndarray) -> 'ItemTrie':
    """`build`, with numpy arrays, to be placed on devices before it is used under jit."""
    codes_NxL = np.asarray(codes_NxL)
    if codes_NxL.ndim != 2 or 0 in codes_NxL.shape or not np.issubdtype(codes_NxL.dtype, np.integer):
      raise InputError(f'semantic IDs must be integers [items, levels], not {codes_NxL.dtype} {codes_NxL.shape}')
    if codes_NxL.min() < 0:
      raise InputError('semantic IDs must not be negative')
    num_items, levels = codes_NxL.shape
    codebook_size = int(codes_NxL.max()) + 1
    item_N = _lexicographic_order(codes_NxL, codebook_size)

    # Sorted by ID, the rows of a node are neighbours: row i starts a node of level l + 1 where one of its first l + 1
    # codes differs from the row before.
    dtype = np.min_scalar_type(codebook_size - 1)
    start = np.zeros(1, np.int64)
    is_start_N = np.arange(num_items) == 0
    nodes, branching = [1], []
    first_edges: list[Any] = []
    codes: list[Any] = []
    for level in range(levels):
      code_N = codes_NxL[item_N, level].astype(dtype)
      is_start_N[1:] |= code_N[1:] != code_N[:-1]
      child_start = np.flatnonzero(is_start_N)
      first_edge = np.append(np.searchsorted(child_start, start), len(child_start)).astype(np.int32)
      most = int(np.diff(first_edge).max())
      nodes.append(len(child_start))
      branching.append(most)
      first_edges.append(None if most == 1 else first_edge)
      codes.append(np.pad(code_N[child_start], (0, most)))
      start = child_start

    shared = len(start) < num_items
    first_item: Any = np.append(start, num_items).astype(np.int32) if shared else None
    item: Any = item_N.astype(np.int32)
    return cls(
      first_edge=tuple(first_edges),
      code=tuple(codes),
      item=item,
      first_item=first_item,
      nodes=tuple(nodes),
      branching=tuple(branching),
      codebook_size=codebook_size,
    )

  def with_room(self, codebook_size: int) -> 'ItemTrie':
    """The same catalogue, on the host, in arrays with room for some more items (`ops.rounding.with_room`).

    A search finds the same in it, and the program that was compiled for it serves other catalogues of about this size.
    Items that are not there yet have no leaf; their numbers must not be among the candidates.

    Args:
      codebook_size: K of the model.
    """
    nodes = (1, *(with_room(count) for count in self.nodes[1:]))
    items = with_room(self.num_items)
    branching = tuple(min(_with_room(most), codebook_size) for most in self.branching)
    first_edges, codes = [], []
    for level, most in enumerate(branching):
      edges, first_edge = self.nodes[level + 1], cast(Any, self.first_edge[level])
      if first_edge is None:
        first_edge = np.arange(edges + 1, dtype=np.int32)
      first_edges.append(padded(first_edge, nodes[level] + 1, edges))
      codes.append(padded(np.asarray(self.code[level])[:edges], nodes[level + 1] + most, 0))
    first_item: Any = None if self.first_item is None else padded(self.first_item, nodes[-1] + 1, self.num_items)
    return ItemTrie(
      first_edge=tuple(first_edges),
      code=tuple(codes),
      item=padded(self.item, items, items - 1),
      first_item=first_item,
      nodes=nodes,
      branching=branching,
      codebook_size=codebook_size,
    )

  @property
  def levels(self) -> int:
    """L, codes per semantic ID."""
    return len(self.branching)

  @property
  def num_leaves(self) -> int:
    """Number of distinct semantic IDs."""
    return self.nodes[-1]

  @property
  def num_items(self) -> int:
    """N, items of the catalogue."""
    return self.item.shape[0]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Paths:
  """The path to each item of a trie, as a pytree that is made once for a catalogue.

  Attributes:
    nodes_NxL: int32, nodes of levels 1 .. L on the path to each item.
    rank_N: int32, place of each item among those with its semantic ID; None where no two items share one.
    largest_leaf: static, S, the largest number of items with one semantic ID.
  """

  nodes_NxL: jax.Array
  rank_N: jax.Array | None
  largest_leaf: int = dataclasses.field(metadata={'static': True})

  @classmethod
  def of(cls, trie: ItemTrie) -> 'Paths':
    """The paths of all items of `trie`, with numpy arrays; `ids.PlacedIds.paths` are those on devices."""
    leaves_N = leaves_of_items(trie)
    nodes_NxL: Any = np.concatenate([nodes_of_items(trie)[:, 1:], leaves_N[:, None]], axis=1)
    if trie.first_item is None:
      return cls(nodes_NxL, None, 1)
    first_item = np.asarray(trie.first_item)
    rank_N: Any = np.empty(len(leaves_N), np.int32)
    rank_N[np.asarray(trie.item)] = ragged.positions(np.diff(first_item))
    return cls(nodes_NxL, rank_N, int(np.diff(first_item).max()))

  def with_room(self) -> 'Paths':
    """The same on the host, with rows for as many items as `ItemTrie.with_room` has."""
    items = with_room(len(self.nodes_NxL))
    rank_N = None if self.rank_N is None else padded(self.rank_N, items, 0)
    return Paths(padded(self.nodes_NxL, items, 0), rank_N, next_power_of_two(self.largest_leaf))


def children(trie: ItemTrie, level: int, node_BxW: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The children of nodes of one level, in order of their codes; the cost is independent of the size of the trie.

  Args:
    level: static, 0 .. L - 1.
    node_BxW: int32, nodes of the level; -1 where there is none.

  Returns:
    node_BxWxC: int32, nodes of the next level, C = trie.branching[level]; -1 where there is none.
    code_BxWxC: int32, the codes that lead to them; 0 where there is none.
    valid_BxWxC: bool, where there is one.
  """
  parent_BxW = jnp.maximum(node_BxW, 0)
  width = trie.branching[level]
  first_edge = trie.first_edge[level]
  if first_edge is None:
    start_BxW, end_BxW = parent_BxW, parent_BxW + 1
  else:
    start_BxW, end_BxW = first_edge[parent_BxW], first_edge[parent_BxW + 1]
  child_BxWxC = start_BxW[..., None] + jnp.arange(width, dtype=jnp.int32)
  valid_BxWxC = (child_BxWxC < end_BxW[..., None]) & (node_BxW >= 0)[..., None]
  # The padding after the codes keeps every slice of C inside the array; XLA would shift one that is not.
  code_BxWxC = _slices(trie.code[level], start_BxW, width).astype(jnp.int32)
  return jnp.where(valid_BxWxC, child_BxWxC, -1), jnp.where(valid_BxWxC, code_BxWxC, 0), valid_BxWxC


def leaf_sizes(trie: ItemTrie, leaves: jax.Array) -> jax.Array:
  """The number of items at each leaf: int32, the shape of `leaves`; 0 where a leaf is -1."""
  if trie.first_item is None:
    return (leaves >= 0).astype(jnp.int32)
  leaf = jnp.maximum(leaves, 0)
  return jnp.where(leaves >= 0, trie.first_item[leaf + 1] - trie.first_item[leaf], 0)


def items_of_leaves(trie: ItemTrie, leaves: jax.Array, rank: jax.Array | int = 0) -> jax.Array:
  """The item of a given rank at each leaf.

  Args:
    leaves: int32, any shape; -1 where there is none.
    rank: place among the items of the leaf, in ascending order of their ids; broadcasts against `leaves`.

  Returns:
    int32 item ids; -1 where the leaf has no item of that rank.
  """
  leaf = jnp.maximum(leaves, 0)
  first = leaf if trie.first_item is None else trie.first_item[leaf]
  item = trie.item[jnp.minimum(first + rank, trie.num_items - 1)]
  return jnp.where(rank < leaf_sizes(trie, leaves), item, -1)


def leaves_of_items(trie: ItemTrie) -> np.ndarray:
  """The leaf of every item, int32 [N] on the host: the targets that beams are compared with."""
  sizes = None if trie.first_item is None else np.diff(np.asarray(trie.first_item))
  leaf_N = np.empty(trie.num_items, np.int32)
  leaf_N[np.asarray(trie.item)] = np.repeat(np.arange(trie.num_leaves), 1 if sizes is None else sizes)
  return leaf_N


def nodes_of_items(trie: ItemTrie) -> np.ndarray:
  """The nodes of levels 0 .. L - 1 on the path to each item, int32 [N, L] on the host."""
  nodes_NxL = np.empty((trie.num_items, trie.levels), np.int32)
  node_N = leaves_of_items(trie)
  for level in reversed(range(trie.levels)):
    if trie.first_edge[level] is not None:
      node_N = np.searchsorted(np.asarray(trie.first_edge[level]), node_N, side='right') - 1
    nodes_NxL[:, level] = node_N
  return nodes_NxL


def _with_room(most: int) -> int:
  """A number of children, rounded up to a power of two or one and a half of it; at least 2."""
  power = next_power_of_two(max(most, 2))
  return power * 3 // 4 if most <= power * 3 // 4 and power > 2 else power


def padded(array: Any, rows: int, value: float) -> Any:
  """A host array with more rows, [rows, ...], the further ones filled with `value`."""
  array = np.asarray(array)
  return np.pad(array, ((0, rows - len(array)), *[(0, 0)] * (array.ndim - 1)), constant_values=value)


def _slices(array: jax.Array, start_BxW: jax.Array, width: int) -> jax.Array:
  """array[start:start + width] for every start, [B, W, width], as one gather of slices instead of single elements."""
  dimensions = jax.lax.GatherDimensionNumbers(
    offset_dims=(start_BxW.ndim,), collapsed_slice_dims=(), start_index_map=(0,)
  )
  return jax.lax.gather(
    array, start_BxW[..., None], dimensions, slice_sizes=(width,), mode=jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS
  )


def _lexicographic_order(codes_NxL: np.ndarray, codebook_size: int) -> np.ndarray:
  """int64 [N], the stable lexicographic order of the rows; as many codes as fit into 63 bits are compared at once."""
  bits = max(1, (codebook_size - 1).bit_length())
  per_key = max(1, 63 // bits)
  keys = []
  for first in range(0, codes_NxL.shape[1], per_key):
    key_N = np.zeros(len(codes_NxL), np.int64)
    for level in range(first, min(first + per_key, codes_NxL.shape[1])):
      key_N = (key_N << bits) | codes_NxL[:, level].astype(np.int64)
    keys.append(key_N)
  return np.argsort(keys[0], kind='stable') if len(keys) == 1 else np.lexsort(keys[::-1])
