"""Training of the tokenizer beside Cornac's LETTER, and its start beside k-means-constrained.

    python -m tests.benchmarks.tokenizer_training --data=FOLDER [--json=FILE]

An epoch of both: the codes' clusters, then AdamW on every item in batches of 1,024, Sinkhorn at the last level and all
of LETTER's losses. Ours is one compiled call an epoch, as the program runs it. The start of one codebook stands beside
k-means-constrained with one seed (its users take the best of ten), ten iterations and the same points and size bounds;
that takes minutes.
"""

import argparse
import time

import jax
import numpy as np

from letter_jax import sharding
from letter_jax.configuration import Config, MeshConfig, RQVAEConfig
from letter_jax.system import malloc
from letter_jax.tokenizer import clustering
from letter_jax.tokenizer.input_scale import InputScale
from letter_jax.tokenizer.training import tokenizer_program
from tests.benchmarks import inputs, table
from tests.benchmarks.in_subprocess import InSubprocess

BATCH = 1024


class Peer:
  """Cornac's LETTERRQVAE, trained as its `LETTER._fit_rqvae` does."""

  def __init__(
    self, config: RQVAEConfig, scaled_NxT: np.ndarray, collaborative_Nxd: np.ndarray, codebooks_LxKxd: np.ndarray
  ):
    import torch
    from cornac.models.letter.letter import LETTERRQVAE

    self._torch, self._config = torch, config
    self._model = LETTERRQVAE(
      input_dim=scaled_NxT.shape[1],
      hidden_dims=config.hidden,
      latent_dim=config.latent_dim,
      num_levels=config.levels,
      codebook_size=config.codebook_size,
      commitment_weight=config.commitment,
      n_clusters=config.clusters,
      sk_epsilons=[0.0] * (config.levels - 1) + [config.sinkhorn_epsilon],
      sk_iters=config.sinkhorn_iterations,
    )
    self._model.codebooks.data.copy_(torch.tensor(codebooks_LxKxd))
    self._text, self._collaborative = torch.tensor(scaled_NxT), torch.tensor(collaborative_Nxd)
    self._optimizer = torch.optim.AdamW(self._model.parameters(), lr=1e-3, weight_decay=1e-4)
    self._loader = torch.utils.data.DataLoader(range(len(scaled_NxT)), batch_size=BATCH, shuffle=True)
    self.rate(1)

  def rate(self, epochs: int) -> float:
    start = time.perf_counter()
    for _ in range(epochs):
      self._model.train()
      self._model.update_diversity_clusters()
      for item in self._loader:
        _, _, reconstruction, quantizer, collaborative, diversity = self._model(
          self._text[item], self._collaborative[item]
        )
        loss = reconstruction + quantizer + self._config.beta * diversity + self._config.alpha * collaborative
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        loss.item()
    return epochs / (time.perf_counter() - start)


class PeerStart:
  """k-means-constrained from one seed; its users take the best of ten."""

  def __init__(self, latent_Nxd: np.ndarray, clusters: int):
    self._latent_Nxd, self._clusters = latent_Nxd.astype(np.float64), clusters

  def seconds(self) -> tuple[float, float]:
    """And the inertia."""
    from k_means_constrained import KMeansConstrained

    smallest, largest = clustering.size_bounds(len(self._latent_Nxd), self._clusters)
    start = time.perf_counter()
    found = KMeansConstrained(
      self._clusters, size_min=smallest, size_max=largest, max_iter=10, n_init=1, random_state=0
    ).fit(self._latent_Nxd)
    return time.perf_counter() - start, float(found.inertia_)


class Ours:
  """The program's own training, to be run in a process of its own as the program is."""

  def __init__(self, config: Config, scaled_NxT: np.ndarray, collaborative_Nxd: np.ndarray):
    malloc.reuse_freed_memory()  # as the program does
    self._program = tokenizer_program(
      config.tokenizer, scaled_NxT, collaborative_Nxd, config.seed, sharding.make_mesh(MeshConfig())
    )
    self._state = jax.jit(self._program.init)(*self._program.init_arguments)
    self._start = np.asarray(self._state.params['codebooks'])
    self.rate(1)

  def codebooks(self) -> np.ndarray:
    """That the training started with."""
    return self._start

  def rate(self, epochs: int) -> float:
    start = time.perf_counter()
    for _ in range(epochs):
      self._state, metrics = self._program.step(self._state, *self._program.arguments(None))
    jax.block_until_ready(metrics)
    return epochs / (time.perf_counter() - start)


def start_rows(latent_Nxd: np.ndarray, settings: RQVAEConfig, repeats: int, with_peer: bool) -> list[dict]:
  """Seconds of all levels, and seconds and inertia of the first beside the peer's."""
  start = jax.jit(clustering.start_codebooks, static_argnums=(2, 3))
  key, codes = jax.random.key(0), settings.codebook_size

  def seconds(function, *of) -> float:
    before = time.perf_counter()
    jax.block_until_ready(function(key, latent_Nxd, *of))
    return time.perf_counter() - before

  def whole() -> float:
    return seconds(start, settings.levels, codes)

  def one() -> float:
    return seconds(clustering.balanced_kmeans, codes)

  whole(), one()
  size = f'{len(latent_Nxd):,} x {latent_Nxd.shape[1]}'
  rows = [table.compare(f'start, {size} -> {settings.levels} x {codes}', 's', whole, None, repeats)]
  if not with_peer:
    return rows
  centers_Kxd, labels_N = (np.asarray(part) for part in clustering.balanced_kmeans(key, latent_Nxd, codes))
  inertia = float(((latent_Nxd - centers_Kxd[labels_N]) ** 2).sum())
  peer, found = InSubprocess(PeerStart, latent_Nxd, codes), []

  def peer_seconds() -> float:
    found.append(peer.call('seconds'))
    return found[-1][0]

  rows.append(
    table.compare(f'{size} -> {codes}; peer: k-means-constrained', 's', one, peer_seconds, 1, lower_is_better=True)
  )
  peer.close()
  return [
    *rows,
    {'name': 'its inertia', 'unit': '', 'ours': inertia, 'peer': found[0][1], 'ratio': found[0][1] / inertia},
  ]


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  inputs.add_arguments(parser, 'Beauty')
  parser.add_argument('--epochs', type=int, default=5, help='that are timed together')
  table.add_peer_arguments(parser)
  arguments = parser.parse_args()
  malloc.reuse_freed_memory()
  config, rows = Config(), []
  for text_NxT, collaborative_Nxd, name in inputs.embeddings(arguments):
    scaled_NxT = InputScale.of(text_NxT).apply(text_NxT)
    ours = InSubprocess(Ours, config, scaled_NxT, collaborative_Nxd)
    # Here and not in a process of its own: Cornac's k-means hangs in one that is not the first.
    peer = (
      None if arguments.ours else Peer(config.tokenizer.model, scaled_NxT, collaborative_Nxd, ours.call('codebooks'))
    )
    rows.append(
      table.compare(
        f'tokenizer on {name}' + '; peer: Cornac' * (peer is not None),
        'epochs/s',
        lambda ours=ours: ours.call('rate', arguments.epochs),
        peer and (lambda peer=peer: peer.rate(max(arguments.epochs // 2, 1))),
        arguments.repeats,
      )
    )
    ours.close()
  # Latents as they are before training: a random encoder's.
  latent_Nxd = np.random.default_rng(0).standard_normal((len(scaled_NxT), 32)).astype(np.float32)
  rows += start_rows(latent_Nxd, config.tokenizer.model, arguments.repeats, not arguments.ours)
  table.report(rows, arguments)


if __name__ == '__main__':
  main()
