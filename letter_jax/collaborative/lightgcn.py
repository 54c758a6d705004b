"""LightGCN (He et al. 2020): embeddings smoothed over the graph of users and items; scores are dot products.

Equation numbers are the paper's. Shapes: U users, N items, D width, E edges, B rows, T cells.
"""

import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from letter_jax.configuration import LightGCNConfig
from letter_jax.data import ragged
from letter_jax.data.dataset import Interactions
from letter_jax.data.splits import is_training


class Edges(flax.struct.PyTreeNode):
  """Edges in one direction, sorted by destination, then source.

  Attributes: destination_E, source_E, int32.
  """

  destination_E: jax.Array
  source_E: jax.Array


class Graph(flax.struct.PyTreeNode):
  """Who trained on what: distinct (user, item) pairs, R of equation 6, once in each direction.

  Attributes:
    to_users, to_items: the same edges, towards users and towards items.
    user_scale_U, item_scale_N: float32, 1 / sqrt(number of neighbours), D^-1/2 of equation 7; 0 where there is none.
    first_U, degree_U: int32; the items of user u are to_users.source_E[first_U[u]:first_U[u] + degree_U[u]], ascending.
  """

  to_users: Edges
  to_items: Edges
  user_scale_U: jax.Array
  item_scale_N: jax.Array
  first_U: jax.Array
  degree_U: jax.Array


def build_graph(data: Interactions) -> Graph:
  """The graph of the training interactions, on the host: neither the last item of a user nor the last but one."""
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
  """E^(0), all that is trained: float32 normal of deviation 0.1, as in the authors' code (the paper has Xavier's)."""
  user_key, item_key = jax.random.split(key)
  draw = lambda key, count: 0.1 * jax.random.normal(key, (count, config.dim), jnp.float32)
  return {
    'user_embeddings': draw(user_key, len(graph.user_scale_U)),
    'item_embeddings': draw(item_key, len(graph.item_scale_N)),
  }


def embeddings(config: LightGCNConfig, params, graph: Graph) -> tuple[jax.Array, jax.Array]:
  """The final embeddings of equation 4, float32 [U, D] and [N, D]: the mean over the layers 0 .. K.

  A user or item without edges keeps its own embedding, over K + 1.
  """
  return _mean_of_layers(config.layers, (params['user_embeddings'], params['item_embeddings']), graph)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _mean_of_layers(layers: int, nodes, graph: Graph):
  totals = nodes
  for _ in range(layers):
    nodes = _propagate(nodes, graph)
    totals = jax.tree.map(jnp.add, totals, nodes)
  return jax.tree.map(lambda total: total / (layers + 1), totals)


def _propagate(nodes, graph: Graph):
  """One layer, equations 3 and 7: every node becomes the normalised sum of its neighbours."""
  users_UxD, items_NxD = nodes
  user_scale_Ux1, item_scale_Nx1 = graph.user_scale_U[:, None], graph.item_scale_N[:, None]
  # Rows are scaled before and after the sum and not edges within it: there are fewer of them.
  gathered = lambda rows, edges, count: jax.ops.segment_sum(
    rows[edges.source_E], edges.destination_E, count, indices_are_sorted=True
  )
  return (
    gathered(items_NxD * item_scale_Nx1, graph.to_users, len(users_UxD)) * user_scale_Ux1,
    gathered(users_UxD * user_scale_Ux1, graph.to_items, len(items_NxD)) * item_scale_Nx1,
  )


# The mean is a polynomial in a symmetric matrix (equation 8), so it is its own transpose: gradients take the same
# sorted sums backwards, where those that JAX derives would scatter in no order.
_mean_of_layers.defvjp(
  lambda layers, nodes, graph: (_mean_of_layers(layers, nodes, graph), graph),
  lambda layers, graph, gradients: (_mean_of_layers(layers, gradients, graph), None),
)


def draw_unseen(key: jax.Array, graph: Graph, user_B: jax.Array) -> jax.Array:
  """Int32 [B]: for each user an item that it did not train on, all equally likely (any, where there is none).

  The r-th unseen item has r unseen ones and some seen ones before it; how many, a binary search in the user's sorted
  items tells. Nothing is drawn twice, and the work is the same for all.
  """
  items, edges_E = len(graph.item_scale_N), graph.to_users.source_E
  first_B, degree_B = graph.first_U[user_B], graph.degree_U[user_B]
  rank_B = jax.random.randint(key, user_B.shape, 0, jnp.maximum(items - degree_B, 1))

  def halve(_, bounds):
    low_B, high_B = bounds
    middle_B = (low_B + high_B) // 2
    item_B = edges_E[jnp.minimum(first_B + middle_B, len(edges_E) - 1)]
    is_before_B = (item_B - middle_B <= rank_B) & (low_B < high_B)
    return jnp.where(is_before_B, middle_B + 1, low_B), jnp.where(is_before_B, high_B, middle_B)

  before_B, _ = jax.lax.fori_loop(0, items.bit_length(), halve, (jnp.zeros_like(degree_B), degree_B))
  return jnp.minimum(rank_B + before_B, items - 1)


def scores(final, user_B: jax.Array, history_BxT: jax.Array, target_B: jax.Array) -> jax.Array:
  """Float32 [B, N]: equation 5 for all items, -inf for those that the user already had, as in the authors' evaluation.

  Here a user can have an item again. A target that is in the history stays in the ranking: a rank of its own, instead
  of a user that no ranking could satisfy.

  Args:
    final: users [U, D] and items [N, D] of `embeddings`.
    history_BxT: int32, all items before the target; negative on padding.
  """
  users_UxD, items_NxD = final
  scores_BxN = users_UxD[user_B] @ items_NxD.T
  is_out_BxT = (history_BxT >= 0) & (history_BxT != target_B[:, None])
  out_BxT = jnp.where(is_out_BxT, history_BxT, len(items_NxD))  # beyond the last: dropped
  return scores_BxN.at[jnp.arange(len(user_B))[:, None], out_BxT].set(-jnp.inf, mode='drop')
