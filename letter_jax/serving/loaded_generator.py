"""The trained generator of a workdir with all that goes with it, to be used and not to be trained."""

import dataclasses
import functools
import pathlib

import jax

from letter_jax import sharding
from letter_jax.configuration import Config, MeshConfig
from letter_jax.generators.generator import generator_layout, whole_params
from letter_jax.generators.lc_rec import base_model
from letter_jax.generators.lc_rec.base_model import BaseModel
from letter_jax.serving.catalogue import Catalogue
from letter_jax.system.errors import InputError
from letter_jax.training.checkpoints import describe_generator, restore_generator


@dataclasses.dataclass(frozen=True)
class TrainedGenerator:
  """Attributes:
  config: of its run, with the mesh that it lies on now.
  mesh: of this process' devices.
  catalogue: as it was trained.
  codebook_size: K.
  trained: its best parameters; of a language model those beside its base.
  base: None of a T5.
  """

  config: Config
  mesh: jax.sharding.Mesh
  catalogue: Catalogue
  codebook_size: int
  trained: dict
  base: BaseModel | None

  @classmethod
  def of_workdir(cls, workdir: pathlib.Path, mesh_config: MeshConfig) -> 'TrainedGenerator':
    """Raises InputError where there is none, or one that cannot be read."""
    described, mesh = describe_generator(workdir), sharding.make_mesh(mesh_config, jax.local_devices())
    config = dataclasses.replace(described.config, mesh=mesh_config)
    catalogue = Catalogue.of_workdir(workdir, described.semantic_ids)
    base = base_model.of_workdir(config.generator, workdir, described.semantic_ids.shape[1] * described.codebook_size)
    trained = restore_generator(workdir, generator_layout(config, mesh)).params
    return cls(config, mesh, catalogue, described.codebook_size, trained, base)

  @functools.cached_property
  def params(self) -> dict:
    """All parameters."""
    return whole_params(self.config, self.trained, self.mesh, self.base)

  def require_beam(self, beam: int, items: int) -> None:
    if not 1 <= beam <= items:
      raise InputError(f'beam is {beam}; expected 1 to {items}, the number of items')
