"""The catalogue as a trie of semantic IDs in device arrays: one step looks at a beam's children and at nothing else.

A node of level l is a distinct prefix of l codes; level 0 is the root alone, level L has the leaves. Nodes of a level
are numbered in lexicographic order of their prefixes, so the children of a node are neighbours, and an edge and the
node it leads to share one number: each level is a CSR matrix of two arrays.

Shapes: N items, L levels, B users, W beams, C_l children of a node of level l at most.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ItemTrie:
  """Semantic IDs of a catalogue. A pytree; what is static is compared when jit looks for a compiled function.

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

  @property
  def levels(self) -> int:
    return len(self.branching)

  @property
  def num_leaves(self) -> int:
    """Distinct semantic IDs."""
    return self.nodes[-1]

  @property
  def num_items(self) -> int:
    return self.item.shape[0]


def build(codes_NxL: np.ndarray) -> ItemTrie:
  """The trie of all items' semantic IDs, on the default device.

  Args:
    codes_NxL: integers [N, L], N and L at least 1; several items may share an ID.
  """
  return jax.tree.map(jnp.asarray, build_on_host(codes_NxL))


def build_on_host(codes_NxL: np.ndarray) -> ItemTrie:
  """`build`, with numpy arrays, to be placed on devices before it is used under jit."""
  if codes_NxL.ndim != 2 or 0 in codes_NxL.shape or not np.issubdtype(codes_NxL.dtype, np.integer):
    raise ValueError(f'semantic IDs must be integers [items, levels], not {codes_NxL.dtype} {codes_NxL.shape}')
  if codes_NxL.min() < 0:
    raise ValueError('semantic IDs must not be negative')
  num_items, levels = codes_NxL.shape
  codebook_size = int(codes_NxL.max()) + 1
  item_N = _lexicographic_order(codes_NxL, codebook_size)

  # Sorted by ID, the rows of a node are neighbours: row i starts a node of level l + 1 where one of its first l + 1
  # codes differs from the row before.
  dtype = np.min_scalar_type(codebook_size - 1)
  start = np.zeros(1, np.int64)
  is_start_N = np.arange(num_items) == 0
  nodes, branching, first_edges, codes = [1], [], [], []
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
  first_item = np.append(start, num_items).astype(np.int32) if shared else None
  return ItemTrie(
    first_edge=tuple(first_edges),
    code=tuple(codes),
    item=item_N.astype(np.int32),
    first_item=first_item,
    nodes=tuple(nodes),
    branching=tuple(branching),
    codebook_size=codebook_size,
  )


def children(trie: ItemTrie, level: int, node_BxW: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The children of nodes of one level, in order of their codes. The cost does not depend on the size of the trie.

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
  if trie.first_edge[level] is None:
    start_BxW, end_BxW = parent_BxW, parent_BxW + 1
  else:
    start_BxW, end_BxW = trie.first_edge[level][parent_BxW], trie.first_edge[level][parent_BxW + 1]
  child_BxWxC = start_BxW[..., None] + jnp.arange(width, dtype=jnp.int32)
  valid_BxWxC = (child_BxWxC < end_BxW[..., None]) & (node_BxW >= 0)[..., None]
  # The padding behind the codes keeps every slice of C inside the array: XLA moves a slice that is not.
  code_BxWxC = _slices(trie.code[level], start_BxW, width).astype(jnp.int32)
  return jnp.where(valid_BxWxC, child_BxWxC, -1), jnp.where(valid_BxWxC, code_BxWxC, 0), valid_BxWxC


def leaf_sizes(trie: ItemTrie, leaves: jax.Array) -> jax.Array:
  """int32, how many items share each of these leaves (any shape); 0 for a leaf of -1."""
  if trie.first_item is None:
    return (leaves >= 0).astype(jnp.int32)
  leaf = jnp.maximum(leaves, 0)
  return jnp.where(leaves >= 0, trie.first_item[leaf + 1] - trie.first_item[leaf], 0)


def items_of_leaves(trie: ItemTrie, leaves: jax.Array, rank: jax.Array | int = 0) -> jax.Array:
  """int32 item ids: of the items at each leaf (any shape), the one with this rank; -1 where there is none."""
  leaf = jnp.maximum(leaves, 0)
  first = leaf if trie.first_item is None else trie.first_item[leaf]
  item = trie.item[jnp.minimum(first + rank, trie.num_items - 1)]
  return jnp.where(rank < leaf_sizes(trie, leaves), item, -1)


def leaves_of_items(trie: ItemTrie) -> np.ndarray:
  """int32 [N] on the host, the leaf of every item: the targets that beams are compared with."""
  sizes = None if trie.first_item is None else np.diff(np.asarray(trie.first_item))
  leaf_N = np.empty(trie.num_items, np.int32)
  leaf_N[np.asarray(trie.item)] = np.repeat(np.arange(trie.num_leaves), 1 if sizes is None else sizes)
  return leaf_N


def nodes_of_items(trie: ItemTrie) -> np.ndarray:
  """int32 [N, L] on the host, the nodes of levels 0 .. L - 1 that lead to each item."""
  nodes_NxL = np.empty((trie.num_items, trie.levels), np.int32)
  node_N = leaves_of_items(trie)
  for level in reversed(range(trie.levels)):
    if trie.first_edge[level] is not None:
      node_N = np.searchsorted(np.asarray(trie.first_edge[level]), node_N, side='right') - 1
    nodes_NxL[:, level] = node_N
  return nodes_NxL


def _slices(array: jax.Array, start_BxW: jax.Array, width: int) -> jax.Array:
  """array[start:start + width] for every start, [B, W, width]: one gather of slices, not of single elements."""
  dimensions = jax.lax.GatherDimensionNumbers(
    offset_dims=(start_BxW.ndim,), collapsed_slice_dims=(), start_index_map=(0,)
  )
  return jax.lax.gather(
    array, start_BxW[..., None], dimensions, slice_sizes=(width,), mode=jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS
  )


def _lexicographic_order(codes_NxL: np.ndarray, codebook_size: int) -> np.ndarray:
  """int64 [N], a stable order of the rows; as many codes as fit into 63 bits are compared at once."""
  bits = max(1, (codebook_size - 1).bit_length())
  per_key = max(1, 63 // bits)
  keys = []
  for first in range(0, codes_NxL.shape[1], per_key):
    key_N = np.zeros(len(codes_NxL), np.int64)
    for level in range(first, min(first + per_key, codes_NxL.shape[1])):
      key_N = (key_N << bits) | codes_NxL[:, level].astype(np.int64)
    keys.append(key_N)
  return np.argsort(keys[0], kind='stable') if len(keys) == 1 else np.lexsort(keys[::-1])
