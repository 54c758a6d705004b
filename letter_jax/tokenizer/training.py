"""Training of the LETTER tokenizer: data on the device, an epoch one jitted scan."""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from letter_jax import sharding
from letter_jax.configuration import MeshConfig, RQVAEConfig, TokenizerConfig
from letter_jax.ops.rounding import ceil_div, round_up
from letter_jax.tokenizer import checks, clustering, diagnostics, losses
from letter_jax.tokenizer.input_scale import InputScale
from letter_jax.tokenizer.rqvae import RQVAE, RQVAEOutput
from letter_jax.training import loop, optimizers
from letter_jax.training.checkpoints import Progress, folder, read_best
from letter_jax.training.state import Metrics, TrainState, make_step


def train_tokenizer(
  config: TokenizerConfig,
  text_NxT: np.ndarray,
  collaborative_Nxd: np.ndarray,
  directory: pathlib.Path | None,
  *,
  seed: int,
  mesh: MeshConfig = MeshConfig(),
  checkpoints: str = '',
  verbose: bool = True,
) -> tuple[dict[str, Any], Progress]:
  """Trains, or resumes, under `directory`; returns (parameters of `RQVAE`, the loop's progress).

  Args:
    text_NxT: float text embeddings of all items, neither centred nor scaled.
    collaborative_Nxd: float, row i of the same item as row i of the text. It must have `latent_dim` columns, and
      alpha means what it means in the paper if the root mean square of the rows' lengths is 0.3:
      `letter_jax.collaborative.embeddings.collaborative_rows` makes such rows of embeddings of any width.
    directory: folder of the input scale, the metrics and, unless `checkpoints` is given, the checkpoints; None:
      nothing is written.
    seed: of the parameters, the order of the items and the positives.
    mesh: how the devices are arranged; all of them share the batches by default.
    checkpoints: folder for the checkpoints instead of `directory`, as `config.checkpoints` of a run.
    verbose: whether progress is shown on the terminal.

  Raises:
    InputError: an array is not what it should be (`checks.text_embeddings`, `checks.collaborative_embeddings`).
    TrainingDiverged: a loss is no longer finite.
  """
  text_NxT = checks.text_embeddings(text_NxT)
  collaborative_Nxd = checks.collaborative_embeddings(collaborative_Nxd, len(text_NxT), config.model.latent_dim)
  scale = InputScale.of(text_NxT)
  if directory is not None:
    scale.write(directory)
  program = tokenizer_program(
    config, scale.apply(text_NxT), collaborative_Nxd, seed, sharding.make_mesh(mesh), mesh.fully_sharded
  )
  return loop.train(program, config.training, directory, 'tokenizer', checkpoints, verbose)


def tokenizer_program(
  config: TokenizerConfig,
  scaled_NxT: np.ndarray,
  collaborative_Nxd: np.ndarray,
  seed: int,
  mesh: jax.sharding.Mesh,
  fully_sharded: bool = False,
) -> loop.Program:
  """The training of `train_tokenizer` as the loop takes it.

  Args:
    scaled_NxT: float32 text embeddings, centred and scaled.
    collaborative_Nxd, seed: as for `train_tokenizer`.
    mesh: devices that share the batches.
    fully_sharded: parameters and optimizer state are split over 'data', too.
  """
  settings, training = config.model, config.training
  items, text_dim = scaled_NxT.shape
  layout = sharding.Layout(mesh, config.partition, fully_sharded)
  data = sharding.put((scaled_NxT, collaborative_Nxd), sharding.replicated(mesh))
  model = RQVAE(settings, text_dim)
  batch = min(training.batch_size, items)
  steps_per_epoch = ceil_div(items, batch)
  # Each device computes its rows of a batch; the contrastive loss and Sinkhorn still see all rows.
  rows = round_up(batch, mesh.shape['data'])
  over_data = functools.partial(jax.lax.with_sharding_constraint, shardings=sharding.split_over_data(mesh))
  optimizer = optimizers.adamw(training, training.total_steps(steps_per_epoch, steps_per_epoch))
  key = jax.random.key(seed)

  def init(scaled_NxT: jax.Array) -> TrainState:
    params = model.init(key, scaled_NxT[:1], training=False)['params']
    # k-means amplifies rounding errors: every device computes all of it, in the same way on any mesh.
    params = jax.lax.with_sharding_constraint(params, sharding.replicated(mesh))
    latent_Nxd = cast(jax.Array, model.apply({'params': params}, scaled_NxT, method=RQVAE.encode))
    codebooks = clustering.start_codebooks(
      jax.random.fold_in(key, 1), latent_Nxd, settings.levels, settings.codebook_size
    )
    return TrainState.create({**params, 'codebooks': codebooks}, optimizer)

  def epoch(state: TrainState, data: tuple[jax.Array, jax.Array]) -> tuple[TrainState, Metrics]:
    scaled_NxT, collaborative_Nxd = data
    epoch_key = jax.random.fold_in(jax.random.fold_in(key, 2), state.step // steps_per_epoch)
    shuffle_key, cluster_key = jax.random.split(epoch_key)
    order = jnp.pad(jax.random.permutation(shuffle_key, items), (0, steps_per_epoch * batch - items))
    weight = (jnp.arange(steps_per_epoch * batch) < items).astype(jnp.float32)
    clusters = losses.clusters_of_codes(cluster_key, state.params['codebooks'], settings.clusters)

    def loss_sum(
      params: Any, index_and_weight: tuple[jax.Array, jax.Array], key: jax.Array
    ) -> tuple[jax.Array, jax.Array, Metrics]:
      index_B, weight_B = over_data(index_and_weight)
      x_BxT = scaled_NxT[index_B]
      output = cast(RQVAEOutput, model.apply({'params': params}, x_BxT, training=True, weight_N=weight_B))
      positives = losses.sample_positives(key, output.quantized.codes_NxL, clusters)
      terms = losses.tokenizer_losses(
        settings, output, params['codebooks'], x_BxT, collaborative_Nxd[index_B], positives, weight_B
      )
      count = weight_B.sum()
      return terms.total * count, count, {name: (value * count, count) for name, value in _by_level(terms).items()}

    step = make_step(loss_sum, optimizer, jax.random.fold_in(key, 3), layout)
    batches = tuple(
      jnp.pad(part.reshape(steps_per_epoch, batch), ((0, 0), (0, rows - batch))) for part in (order, weight)
    )
    return jax.lax.scan(step, state, batches)

  jitted_epoch = jax.jit(epoch, donate_argnums=0)

  @jax.jit
  def inspect(params: Any, data: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    scaled_NxT, collaborative_Nxd = data
    output = cast(RQVAEOutput, model.apply({'params': params}, scaled_NxT, training=False))
    return output.quantized.codes_NxL, jnp.mean((output.reconstruction_NxT - scaled_NxT) ** 2)

  def evaluate(params: Any) -> dict[str, float]:
    codes_NxL, reconstruction = inspect(params, data)
    usage = diagnostics.diagnose(codes_NxL, settings.codebook_size)
    by_level = {
      f'{name}_{level + 1}': value for name in ('codes_used', 'perplexity') for level, value in enumerate(usage[name])
    }
    return {'reconstruction': float(reconstruction), 'collision_rate': usage['collision_rate'], **by_level}

  return loop.Program(
    init=init,
    init_arguments=data[:1],
    layout=layout,
    step=jitted_epoch,
    arguments=lambda first_step: (data,),
    steps_per_call=steps_per_epoch,
    steps_per_epoch=steps_per_epoch,
    examples_per_epoch=items,
    evaluate=evaluate,
    selection='reconstruction',
    larger_is_better=False,
  )


def restore_tokenizer(
  directory: pathlib.Path, layout: sharding.Layout, checkpoints: str = ''
) -> tuple[dict[str, Any], InputScale]:
  """Parameters of the best `RQVAE` trained under `directory` and the scale of its input.

  Args:
    directory, checkpoints: as `train_tokenizer` had them.
    layout: where the parameters are put.

  Raises:
    InputError: there is no checkpoint, or none that can be read.
  """
  params, _ = read_best(folder(checkpoints, directory, 'tokenizer'), layout)
  return params, InputScale.read(directory)


def encode_items(
  config: TokenizerConfig,
  text_NxT: np.ndarray,
  directory: pathlib.Path,
  *,
  mesh: MeshConfig = MeshConfig(),
  checkpoints: str = '',
) -> tuple[np.ndarray, np.ndarray]:
  """Latents float32 [N, d] and codebooks float32 [L, K, d] of the trained tokenizer under `directory`.

  Args:
    config, directory, checkpoints: as `train_tokenizer` had them.
    text_NxT: float32 text embeddings of any items, from the same source as those of the training.
    mesh: how the devices are arranged; every one of them encodes all items.

  Raises:
    InputError: there is no checkpoint, or none that can be read, or the text is not what it should be.
  """
  params, scale = restore_tokenizer(directory, sharding.Layout(sharding.make_mesh(mesh)), checkpoints)
  return encode(config.model, params, scale, text_NxT), sharding.fetch(params['codebooks'])


def encode(config: RQVAEConfig, params: Mapping[str, Any], scale: InputScale, text_MxT: np.ndarray) -> np.ndarray:
  """Latents float32 [M, d] of text embeddings [M, T], on every device that has the parameters.

  Raises:
    InputError: the text is not what it should be (`checks.text_embeddings`).
  """
  text_MxT = checks.text_embeddings(text_MxT, len(scale.mean))
  return sharding.fetch(_encode_scaled(RQVAE(config, len(scale.mean)), params, scale.apply(text_MxT)))


@functools.partial(jax.jit, static_argnums=0)
def _encode_scaled(model: RQVAE, params: Mapping[str, Any], x_MxT: jax.Array) -> jax.Array:
  return model.apply({'params': params}, x_MxT, method=RQVAE.encode)


def _by_level(terms: losses.TokenizerLosses) -> dict[str, jax.Array]:
  """The terms by name; 'codebook_1' is that of the first level."""
  named = {'reconstruction': terms.reconstruction, 'contrastive': terms.contrastive}
  for name, per_level in (
    ('codebook', terms.codebook_L),
    ('commitment', terms.commitment_L),
    ('diversity', terms.diversity_L),
  ):
    named.update({f'{name}_{level + 1}': per_level[level] for level in range(len(per_level))})
  return named
