"""The trained generator of a workdir, with its parameters, ready for searching and exporting."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from letter_jax import sharding
from letter_jax.configuration import Config, MeshConfig
from letter_jax.decoding.fusion import DenseScores, FusedUserSearch
from letter_jax.decoding.user_search import UserSearch
from letter_jax.generators.generator import Generator, kind
from letter_jax.semantic_ids.ids import SemanticIds
from letter_jax.system.errors import InputError
from letter_jax.workdir import Workdir

Partner = tuple[DenseScores, Any]  # the scores of a dense model, and its parameters on the devices


def serving_config(workdir: Workdir, mesh: MeshConfig) -> Config:
  """The configuration of a workdir's run, with the mesh of this process.

  Raises:
    InputError: the workdir has no generator.
  """
  return dataclasses.replace(workdir.read_generator_config(), mesh=mesh)


@dataclasses.dataclass(frozen=True)
class LoadedGenerator:
  """A trained generator on the devices of this process.

  Attributes:
    workdir: of its run.
    config: the configuration of its run, with the mesh of this process.
    generator: over the semantic IDs of its run, or over those of a larger catalogue.
    trained: the best trained parameters; without the frozen base of a language model.
    step: optimizer step of the parameters.
  """

  workdir: Workdir
  config: Config
  generator: Generator
  trained: Any
  step: int

  @classmethod
  def of_workdir(cls, workdir: Workdir, config: Config) -> 'LoadedGenerator':
    """The generator of a workdir on the mesh of `config`, which may span several processes.

    Raises:
      InputError: the workdir has no generator that can be read.
    """
    return cls._restore(workdir, config, workdir.read_semantic_ids(), sharding.make_mesh(config.mesh))

  @classmethod
  def for_serving(
    cls,
    workdir: Workdir,
    config: Config,
    ids: SemanticIds,
    later_text_MxT: np.ndarray | None = None,
    room: bool = False,
  ) -> 'LoadedGenerator':
    """The generator of a workdir on the devices of this process alone.

    Args:
      config: `serving_config` of the workdir.
      ids: the semantic IDs of the run, alone or before those of items that came later.
      later_text_MxT: float, text embeddings of the items that came later; None where there are none.
      room: as in `SemanticIds.place`, for arrays of the partners too.

    Raises:
      InputError: the workdir has no generator that can be read.
    """
    loaded = cls._restore(workdir, config, ids, sharding.make_mesh(config.mesh, jax.local_devices()), room)
    if later_text_MxT is None:
      return loaded
    text_NxT = workdir.read_rows(workdir.text_embeddings, mmap=True)
    return dataclasses.replace(loaded, generator=loaded.generator.with_later_items(text_NxT, later_text_MxT))

  @classmethod
  def _restore(
    cls, workdir: Workdir, config: Config, ids: SemanticIds, mesh: jax.sharding.Mesh, room: bool = False
  ) -> 'LoadedGenerator':
    of_kind, placed = kind(config.generator), ids.place(mesh, room)
    generator = of_kind.for_search(config.generator, placed, config.mesh.fully_sharded, workdir.generator)
    restored = workdir.restore_generator(generator.layout())
    return cls(workdir, config, generator, restored.params, restored.step)

  @property
  def ids(self) -> SemanticIds:
    """The semantic IDs, in host memory."""
    return self.generator.ids.host

  @functools.cached_property
  def params(self) -> dict:
    """All parameters, on the devices: the trained ones and, of a language model, the frozen base."""
    return self.generator.whole_params(self.trained)

  def fused_search(
    self, search: UserSearch, partners: Sequence[Partner], candidates: int
  ) -> tuple[FusedUserSearch, tuple[Any, tuple[Any, ...]]]:
    """The search of the generator and its partners, and the parameters of all.

    Args:
      search: of the generator.
      partners: as of `partner`, at least one.
      candidates: of the partners (`config.fusion.candidates`).
    """
    scores, params = zip(*partners)
    return FusedUserSearch(search, scores, self.fusion_width(candidates)), (self.params, params)

  def partner(self, name: str) -> Partner:
    """The scores of a partner and its parameters, on the devices; InputError where it cannot be read.

    Args:
      name: as in `config.fusion.partners`.
    """
    ids, config = self.generator.ids, self.config
    if name == 'bought_together':
      from letter_jax.collaborative import bought_together

      arrays = bought_together.BoughtTogether.read(self.workdir.bought_together)
      params = (arrays.with_all_columns() if ids.room else arrays).params()
      return bought_together.scores, sharding.put(jax.tree.map(ids.with_room, params), sharding.replicated(ids.mesh))
    from letter_jax.collaborative.sasrec_training import read_sasrec

    return read_sasrec(
      config.collaborative.model,
      len(self.ids),
      config.data.history_length,
      self.workdir.collaborative,
      sharding.Layout(ids.mesh),
      config.checkpoints,
      ids.rows,
    )

  def fusion_width(self, candidates: int) -> int:
    """`candidates`, but at most the number of items."""
    return min(candidates, len(self.ids))

  def require_beam(self, beam: int) -> None:
    """Raises InputError unless `beam` is from 1 to the number of items."""
    if not 1 <= beam <= len(self.ids):
      raise InputError(f'beam is {beam}; expected 1 to {len(self.ids)}, the number of items')
