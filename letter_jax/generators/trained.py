"""A trained generator of a workdir, for a user's own code."""

import functools
import pathlib
from collections.abc import Callable

import jax
import numpy as np

from letter_jax.configuration import MeshConfig
from letter_jax.decoding import item_trie
from letter_jax.decoding.beam_search import Beams
from letter_jax.generators import base_model
from letter_jax.generators.training import generator_search, whole_params
from letter_jax.training import sharding
from letter_jax.training.checkpoints import restore_generator


def search_of(workdir, beam: int = 20) -> Callable[[np.ndarray], Beams]:
  """The constrained search of the best generator of a finished (or running) `--workdir`, on the default device.

  Returns:
    A function of histories, int [B, C] item ids, oldest first, negative behind the last of each row. It is compiled
    anew for every shape. Of histories that a language model's context has no room for, the latest items count.

  Raises:
    InputError: the folder has no generator checkpoint, or one that cannot be read.
  """
  workdir = pathlib.Path(workdir)
  restored = restore_generator(workdir)
  config, codes_NxL = restored.config, restored.semantic_ids
  mesh = sharding.make_mesh(MeshConfig(), jax.local_devices()[:1])
  base = base_model.of_workdir(config.generator, workdir, codes_NxL.shape[1] * restored.codebook_size)
  params = whole_params(config, restored.params, mesh, base)
  trie = item_trie.build(codes_NxL)
  search = jax.jit(functools.partial(
    generator_search(config, codes_NxL.shape[1], restored.codebook_size, mesh, base), beam=beam))
  longest = base_model.longest_history(base, codes_NxL.shape[1]) if base else None
  return lambda histories_BxC: search(params, _latest(np.asarray(histories_BxC, np.int32), longest), codes_NxL, trie)


def _latest(histories_BxC: np.ndarray, longest: int | None) -> np.ndarray:
  """The latest `longest` items of each row, flush left."""
  if longest is None or histories_BxC.shape[1] <= longest:
    return histories_BxC
  start_B = np.maximum((histories_BxC >= 0).sum(axis=1) - longest, 0)
  return np.take_along_axis(histories_BxC, start_B[:, None] + np.arange(longest), axis=1)
