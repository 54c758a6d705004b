"""The tokenizer as one object: two matrices in, semantic IDs out, and one file to keep it in."""

import dataclasses
import json
import os
import pathlib
from typing import Any

import flax.traverse_util
import jax
import numpy as np

from letter_jax import sharding
from letter_jax.collaborative.embeddings import collaborative_rows
from letter_jax.configuration import RQVAEConfig, TokenizerConfig, from_config_dict
from letter_jax.semantic_ids.ids import SemanticIds
from letter_jax.system import artifacts
from letter_jax.system.errors import InputError
from letter_jax.tokenizer import checks
from letter_jax.tokenizer.assignment import assign_later_items, assign_semantic_ids
from letter_jax.tokenizer.input_scale import InputScale
from letter_jax.tokenizer.rqvae import RQVAE
from letter_jax.tokenizer.training import encode, train_tokenizer

_FORMAT = 'letter_jax tokenizer 1'
_PARAMETERS = 'parameters/'  # before the name of a parameter in a file
_EXPECTED = 'a file written by LetterTokenizer.save'


@dataclasses.dataclass(frozen=True, eq=False)
class LetterTokenizer:
  """A trained tokenizer.

  ```
  tokenizer = LetterTokenizer.train(text, collaborative)
  codes_NxL = tokenizer.codes()
  ```

  Attributes:
    config: sizes, loss weights and training settings.
    params: parameters of `rqvae.RQVAE`, numpy float32.
    scale: centre and scale of the text embeddings.
    latents_Nxd: float32, encoder outputs of the training catalogue.
  """

  config: TokenizerConfig
  params: dict[str, Any]
  scale: InputScale
  latents_Nxd: np.ndarray

  @classmethod
  def train(
    cls,
    text: np.ndarray,
    collaborative: np.ndarray | None = None,
    config: TokenizerConfig | RQVAEConfig = TokenizerConfig(),
    seed: int = 42,
    *,
    directory: str | os.PathLike[str] | None = None,
    verbose: bool = False,
  ) -> 'LetterTokenizer':
    """Trains a tokenizer on a catalogue, on all devices.

    Args:
      text: float [N, T], text embeddings, one row per item, of any scale.
      collaborative: float [N, E], collaborative embeddings of the same items, or None to train on text alone
        (alpha 0). Rows with `latent_dim` columns are used as they are; their lengths should then be 0.3 in the root
        mean square, for alpha to mean what it means in the paper. Rows of any other width go through
        `letter_jax.collaborative.embeddings.collaborative_rows`, which gives them that width and that length.
      config: all settings, or only those of the model.
      seed: of the parameters, the order of the items and the positives.
      directory: folder that keeps checkpoints and metrics, and where an interrupted training resumes; None keeps
        nothing but the result.
      verbose: whether progress is printed.

    Raises:
      InputError: an array or a setting is not what it should be, or `directory` cannot be written or resumed from.
      TrainingDiverged: a loss is no longer finite.
    """
    config = _checked_config(config)
    text = checks.text_embeddings(text)
    if collaborative is None:
      config = dataclasses.replace(config, model=dataclasses.replace(config.model, alpha=0.0))
      rows_Nxd = np.zeros((len(text), config.model.latent_dim), np.float32)
    else:
      rows_Nxd = checks.collaborative_embeddings(collaborative, len(text))
      if rows_Nxd.shape[1] != config.model.latent_dim:
        rows_Nxd = collaborative_rows(rows_Nxd, config.model.latent_dim)
    folder = None if directory is None else pathlib.Path(directory)
    trained, _ = train_tokenizer(config, text, rows_Nxd, folder, seed=seed, verbose=verbose)
    params, scale = sharding.fetch(trained), InputScale.of(text)
    return cls(config, params, scale, encode(config.model, params, scale, text))

  @property
  def codebooks_LxKxd(self) -> np.ndarray:
    """Float32 [L, K, d]."""
    return self.params['codebooks']

  def encode(self, text: np.ndarray) -> np.ndarray:
    """Latents float32 [M, d] of text embeddings [M, T] from the same source as those of the training.

    Raises:
      InputError: the text is not what it should be (`checks.text_embeddings`).
    """
    return encode(self.config.model, self.params, self.scale, text)

  def codes(self, text: np.ndarray | None = None, collisions: str = 'resolve') -> np.ndarray:
    """Semantic IDs int32 [N, L] of a whole catalogue; with 'resolve' no two are equal. Arguments as in `assign`."""
    return self.assign(text, collisions)[0]

  def semantic_ids(self, text: np.ndarray | None = None) -> SemanticIds:
    """`codes` with the codebook size: what a trie, a vocabulary and a file need."""
    return SemanticIds(self.codes(text), self.config.model.codebook_size)

  def assign(self, text: np.ndarray | None = None, collisions: str = 'resolve') -> tuple[np.ndarray, dict[str, Any]]:
    """Semantic IDs of a whole catalogue, and a report of the collisions.

    Args:
      text: float [N, T], text embeddings of the catalogue; None: the catalogue of the training.
      collisions: 'resolve' (no two IDs equal) or 'reference' (LETTER's rounds); see `assignment`.

    Returns:
      codes int32 [N, L] and the report of `assignment.assign_semantic_ids`.

    Raises:
      InputError: `collisions` has a different value, the text is not what it should be, or there are fewer IDs than
        items.
    """
    latent_Nxd = self.latents_Nxd if text is None else self.encode(text)
    return assign_semantic_ids(latent_Nxd, self.codebooks_LxKxd, self.config.model, collisions)

  def add(self, text: np.ndarray, taken_codes_NxL: np.ndarray) -> np.ndarray:
    """Semantic IDs int32 [M, L] of new items, all different and none of them taken.

    Args:
      text: float [M, T], text embeddings of the new items.
      taken_codes_NxL: int [N, L], IDs of the items that keep theirs, such as `codes()`.

    Raises:
      InputError: an array is not what it should be, or not enough IDs are left.
    """
    return assign_later_items(self.encode(text), self.codebooks_LxKxd, taken_codes_NxL)

  def save(self, path: str | os.PathLike[str]) -> None:
    """Writes everything to one .npz file, replacing it if it exists.

    Raises:
      InputError: the file cannot be written.
    """
    parameters = flax.traverse_util.flatten_dict(self.params, sep='/')
    artifacts.write_npz(
      pathlib.Path(path),
      {
        'format': np.array(_FORMAT),
        'config': np.array(json.dumps(dataclasses.asdict(self.config))),
        'mean': self.scale.mean,
        'deviation': np.array(self.scale.deviation),
        'latents': self.latents_Nxd,
        **{_PARAMETERS + name: value for name, value in parameters.items()},
      },
    )

  @classmethod
  def load(cls, path: str | os.PathLike[str]) -> 'LetterTokenizer':
    """The tokenizer that `save` wrote, exactly.

    Raises:
      InputError: the file does not exist, is damaged, or was not written by `save`.
    """
    path = pathlib.Path(path)
    arrays = artifacts.read_npz(path, _EXPECTED)
    if str(arrays.get('format')) != _FORMAT:
      raise InputError(f'{path} is not a saved tokenizer; expected {_EXPECTED}')
    try:
      config = from_config_dict({'tokenizer': json.loads(str(arrays['config']))}).tokenizer
      mean, deviation, latents = arrays['mean'], float(arrays['deviation']), arrays['latents']
    except (ValueError, KeyError) as error:
      raise InputError(f'{path} is damaged ({error}); expected {_EXPECTED}') from error
    parameters = {
      name.removeprefix(_PARAMETERS): value for name, value in arrays.items() if name.startswith(_PARAMETERS)
    }
    shapes = {name: value.shape for name, value in parameters.items()}
    if mean.ndim != 1 or shapes != _parameter_shapes(config.model, len(mean)):
      raise InputError(f'{path} is damaged (its parameters do not fit its config); expected {_EXPECTED}')
    return cls(config, flax.traverse_util.unflatten_dict(parameters, sep='/'), InputScale(mean, deviation), latents)


def _checked_config(config: TokenizerConfig | RQVAEConfig) -> TokenizerConfig:
  """A `TokenizerConfig` whose values were checked as those of a recipe; InputError names the one that is wrong."""
  if isinstance(config, RQVAEConfig):
    config = TokenizerConfig(model=config)
  if not isinstance(config, TokenizerConfig):
    raise InputError(f'config is a {type(config).__name__}; expected a TokenizerConfig or an RQVAEConfig')
  return from_config_dict({'tokenizer': dataclasses.asdict(config)}).tokenizer


def _parameter_shapes(config: RQVAEConfig, text_dim: int) -> dict[str, tuple[int, ...]]:
  """Shapes of the parameters of `RQVAE`, by names such as 'encoder/layer_0/kernel'."""
  init = lambda key, x_NxT: RQVAE(config, text_dim).init(key, x_NxT, training=False)['params']
  shapes = jax.eval_shape(init, jax.random.key(0), jax.ShapeDtypeStruct((1, text_dim), np.float32))
  return {name: leaf.shape for name, leaf in flax.traverse_util.flatten_dict(shapes, sep='/').items()}
