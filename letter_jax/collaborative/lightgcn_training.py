"""Training of LightGCN: the graph on the device, an epoch one jitted scan."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from letter_jax import sharding
from letter_jax.collaborative import lightgcn
from letter_jax.collaborative.full_ranking import evaluate_both_ways, full_ranking
from letter_jax.configuration import LightGCNConfig, MeshConfig
from letter_jax.data import splits
from letter_jax.data.dataset import Interactions
from letter_jax.ops.rounding import ceil_div
from letter_jax.training import loop, optimizers
from letter_jax.training.state import LossSum, Metrics, TrainState, make_step


def train_lightgcn(
  config: LightGCNConfig,
  data: Interactions,
  directory: pathlib.Path,
  *,
  seed: int,
  mesh: MeshConfig = MeshConfig(),
  checkpoints: str = '',
  evaluated_users: int = 0,
) -> tuple[tuple[jax.Array, jax.Array], dict[str, Any], dict[str, np.ndarray]]:
  """Trains, or resumes, under `directory`.

  Args:
    data: the interactions of all users; the last two of each user are held out.
    directory: folder of the metrics and, unless `checkpoints` is given, the checkpoints.
    seed: of the embeddings, the order of the edges and the negatives.
    mesh: how the devices are arranged.
    checkpoints: folder for the checkpoints instead of `directory`, as `config.checkpoints` of a run.
    evaluated_users: how many users it is validated and tested on, as for `splits.test_examples`; 0 for all.

  Returns:
    (users float32 [U, D], items float32 [N, D]) of the best validation, propagated; metrics and ranks of the test, as
    `evaluate_both_ways`.
  """
  training = config.training
  device_mesh = sharding.make_mesh(mesh)
  layout = sharding.Layout(device_mesh)  # the graph is not split: every device propagates all of it
  graph = sharding.put(lightgcn.build_graph(data), sharding.replicated(device_mesh))
  edges = len(graph.to_users.source_E)
  batch = min(training.batch_size, edges)
  steps_per_epoch = ceil_div(edges, batch)
  optimizer = optimizers.adamw(training, training.total_steps(steps_per_epoch, steps_per_epoch))
  key = jax.random.key(seed)

  def init(graph: lightgcn.Graph) -> TrainState:
    return TrainState.create(lightgcn.initial_parameters(config, graph, key), optimizer)

  def epoch(state: TrainState, graph: lightgcn.Graph) -> tuple[TrainState, Metrics]:
    shuffle_key = jax.random.fold_in(jax.random.fold_in(key, 1), state.step // steps_per_epoch)
    order = jnp.pad(jax.random.permutation(shuffle_key, edges), (0, steps_per_epoch * batch - edges))
    weight = (jnp.arange(steps_per_epoch * batch) < edges).astype(jnp.float32)
    step = make_step(bpr_sum(config, graph), optimizer, jax.random.fold_in(key, 2), layout)
    return jax.lax.scan(step, state, (order.reshape(steps_per_epoch, batch), weight.reshape(steps_per_epoch, batch)))

  jitted_epoch = jax.jit(epoch, donate_argnums=0)
  final = jax.jit(lambda params, graph: lightgcn.embeddings(config, params, graph))
  rank = full_ranking(lightgcn.scores, data.num_items, device_mesh)
  validation = splits.validation_examples(data, 1, evaluated_users)  # the user tells the model everything
  whole = validation.whole_histories(data)
  program = loop.Program(
    init=init,
    init_arguments=(graph,),
    layout=layout,
    step=jitted_epoch,
    arguments=lambda first_step: (graph,),
    steps_per_call=steps_per_epoch,
    steps_per_epoch=steps_per_epoch,
    examples_per_epoch=edges,
    # As the authors select: the history is out of the ranking.
    evaluate=lambda params: rank(final(params, graph), validation, 1, whole)[0],
  )
  params, _ = loop.train(program, training, directory, 'lightgcn', checkpoints)
  best = final(params, graph)
  return best, *evaluate_both_ways(rank, best, data, 1, 'lightgcn', evaluated_users)


def bpr_sum(config: LightGCNConfig, graph: lightgcn.Graph) -> LossSum:
  """The loss of equation 15: each training interaction against an item drawn from those its user did not train on.

  The decay is half the squares of the triple's three embeddings in E^(0), as in the authors' code, not of all.
  """

  def loss_sum(
    params: Any, edge_and_weight: tuple[jax.Array, jax.Array], key: jax.Array
  ) -> tuple[jax.Array, jax.Array, Metrics]:
    edge_B, weight_B = edge_and_weight
    user_B, positive_B = graph.to_users.destination_E[edge_B], graph.to_users.source_E[edge_B]
    negative_B = lightgcn.draw_unseen(key, graph, user_B)
    # A user who trained on every item has no negative.
    weight_B = weight_B * (graph.degree_U[user_B] < len(graph.item_scale_N))
    users_UxD, items_NxD = lightgcn.embeddings(config, params, graph)
    margin_B = jnp.sum(users_UxD[user_B] * (items_NxD[positive_B] - items_NxD[negative_B]), axis=1)
    own = params['user_embeddings'][user_B], *(params['item_embeddings'][item_B] for item_B in (positive_B, negative_B))
    bpr = jnp.sum(jax.nn.softplus(-margin_B) * weight_B)
    decay = config.l2 / 2 * jnp.sum(sum(jnp.sum(rows_BxD**2, axis=1) for rows_BxD in own) * weight_B)
    count = weight_B.sum()
    return bpr + decay, count, {'bpr': (bpr, count), 'l2': (decay, count)}

  return loss_sum
