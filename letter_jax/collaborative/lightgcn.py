"""LightGCN (He et al. 2020): embeddings smoothed over the graph of users and items; scores are dot products.

Equation numbers are the paper's. Shapes: U users, N items, D width, E edges, B rows, T cells.
"""

import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from letter_jax.configuration import LightGCNConfig
from letter_jax.data import ragged
from letter_jax.data.dataset import Interactions
from letter_jax.data.splits import is_training

Array = jax.Array | np.ndarray  # on the host where a graph is built, on the devices where it is used


class Edges(flax.struct.PyTreeNode):
  """Edges in one direction, sorted by destination, then source.

  Attributes: destination_E, source_E, int32.
  """

  destination_E: Array
  source_E: Array


class Graph(flax.struct.PyTreeNode):
  """The training interactions as distinct (user, item) pairs, R of equation 6, once in each direction.

  Attributes:
    to_users, to_items: the same edges, towards users and towards items.
    user_scale_U, item_scale_N: float32, 1 / sqrt(number of neighbours), D^-1/2 of equation 7; 0 without neighbours.
    first_U, degree_U: int32; the items of user u are to_users.source_E[first_U[u]:first_U[u] + degree_U[u]], ascending.
  """

  to_users: Edges
  to_items: Edges
  user_scale_U: Array
  item_scale_N: Array
  first_U: Array
  degree_U: Array


def build_graph(data: Interactions) -> Graph:
  """The graph of the training interactions, as numpy arrays; the last two items of each user are held out."""
  user_I = np.repeat(np.arange(len(data.lengths)), data.lengths)
  pair_I = user_I * data.num_items + data.items  # int64: sorts by user, then item
  user_E, item_E = (part.astype(np.int32) for part in np.divmod(np.unique(pair_I[is_training(data)]), data.num_items))
  by_item_E = np.lexsort((user_E, item_E))
  degree_U = np.bincount(user_E, minlength=len(data.lengths))
  degree_N = np.bincount(item_E, minlength=data.num_items)
  scale = lambda degree: np.where(degree > 0, np.maximum(degree, 1) ** -0.5, 0).astype(np.float32)
  return Graph(
    Edges(user_E, item_E),
    Edges(item_E[by_item_E], user_E[by_item_E]),
    scale(degree_U),
    scale(degree_N),
    ragged.starts(degree_U).astype(np.int32),
    degree_U.astype(np.int32),
  )


def initial_parameters(config: LightGCNConfig, graph: Graph, key: jax.Array) -> dict[str, jax.Array]:
  """E^(0), the only parameters: float32 normal with deviation 0.1, as in the authors' code (the paper has Xavier)."""
  user_key, item_key = jax.random.split(key)
  draw = lambda key, count: 0.1 * jax.random.normal(key, (count, config.dim), jnp.float32)
  return {
    'user_embeddings': draw(user_key, len(graph.user_scale_U)),
    'item_embeddings': draw(item_key, len(graph.item_scale_N)),
  }


def embeddings(config: LightGCNConfig, params: Any, graph: Graph) -> tuple[jax.Array, jax.Array]:
  """The final embeddings of equation 4, float32 [U, D] and [N, D]: the mean over the layers 0 .. K.

  A user or item without edges keeps its own embedding, divided by K + 1.
  """
  return _mean_of_layers(config.layers, (params['user_embeddings'], params['item_embeddings']), graph)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _mean_of_layers(layers: int, nodes: tuple[jax.Array, jax.Array], graph: Graph) -> tuple[jax.Array, jax.Array]:
  totals = nodes
  for _ in range(layers):
    nodes = _propagate(nodes, graph)
    totals = jax.tree.map(jnp.add, totals, nodes)
  return jax.tree.map(lambda total: total / (layers + 1), totals)


def _propagate(nodes: tuple[jax.Array, jax.Array], graph: Graph) -> tuple[jax.Array, jax.Array]:
  """One layer, equations 3 and 7: every node becomes the normalised sum of its neighbours."""
  users_UxD, items_NxD = nodes
  user_scale_Ux1, item_scale_Nx1 = graph.user_scale_U[:, None], graph.item_scale_N[:, None]
  # Rows are scaled before and after the sum, not edges within it: there are fewer rows.
  gathered = lambda rows, edges, count: jax.ops.segment_sum(
    rows[edges.source_E], edges.destination_E, count, indices_are_sorted=True
  )
  return (
    gathered(items_NxD * item_scale_Nx1, graph.to_users, len(users_UxD)) * user_scale_Ux1,
    gathered(users_UxD * user_scale_Ux1, graph.to_items, len(items_NxD)) * item_scale_Nx1,
  )


# The mean is a polynomial in a symmetric matrix (equation 8), so it is its own transpose: gradients are the
# same sorted sums, where those that JAX derives would be unordered scatters.
_mean_of_layers.defvjp(
  lambda layers, nodes, graph: (_mean_of_layers(layers, nodes, graph), graph),
  lambda layers, graph, gradients: (_mean_of_layers(layers, gradients, graph), None),
)


def draw_unseen(key: jax.Array, graph: Graph, user_B: jax.Array) -> jax.Array:
  """Int32 [B]: for each user an item that it did not train on, uniformly drawn (any item if it trained on all).

  The r-th unseen item has r unseen and some seen ones before it; a binary search in the user's sorted items finds how
  many. Nothing is drawn twice, and the work is the same for all users.
  """
  items, edges_E = len(graph.item_scale_N), graph.to_users.source_E
  first_B, degree_B = graph.first_U[user_B], graph.degree_U[user_B]
  rank_B = jax.random.randint(key, user_B.shape, 0, jnp.maximum(items - degree_B, 1))

  def halve(_: jax.Array, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    low_B, high_B = bounds
    middle_B = (low_B + high_B) // 2
    item_B = edges_E[jnp.minimum(first_B + middle_B, len(edges_E) - 1)]
    is_before_B = (item_B - middle_B <= rank_B) & (low_B < high_B)
    return jnp.where(is_before_B, middle_B + 1, low_B), jnp.where(is_before_B, high_B, middle_B)

  before_B, _ = jax.lax.fori_loop(0, items.bit_length(), halve, (jnp.zeros_like(degree_B), degree_B))
  return jnp.minimum(rank_B + before_B, items - 1)


def scores(final: tuple[jax.Array, jax.Array], user_B: jax.Array, history_BxT: jax.Array) -> jax.Array:
  """Float32 [B, N]: equation 5 for all items.

  Args:
    final: users [U, D] and items [N, D] of `embeddings`.
    user_B: int32.
    history_BxT: not used: a user's embedding is of all items of the training.
  """
  users_UxD, items_NxD = final
  return users_UxD[user_B] @ items_NxD.T
