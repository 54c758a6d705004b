"""The centre and the scale of the text embeddings that a tokenizer was trained on, and their file."""

import dataclasses
import pathlib

import numpy as np

from letter_jax.system import artifacts

FILE = 'input_scale.npz'


@dataclasses.dataclass(frozen=True, eq=False)
class InputScale:
  """Text embeddings are centred and divided by one scalar, to unit variance: alpha and beta are relative to that.

  Attributes: mean float32 [text_dim]; deviation, the root mean square of the centred entries.
  """

  mean: np.ndarray
  deviation: float

  @classmethod
  def of(cls, text_NxT: np.ndarray) -> 'InputScale':
    """The scale of a catalogue's text embeddings [N, T]; if all rows are equal, they are only centred."""
    mean = text_NxT.mean(axis=0, dtype=np.float64)
    deviation = float(np.sqrt(np.mean((text_NxT - mean) ** 2)))
    return cls(mean.astype(np.float32), deviation if deviation > 0 else 1.0)

  def apply(self, text_NxT: np.ndarray) -> np.ndarray:
    """Float32 [N, T], centred and scaled."""
    return ((text_NxT - self.mean) / self.deviation).astype(np.float32)

  def write(self, directory: pathlib.Path) -> None:
    """Writes the file in the folder of the training."""
    artifacts.write_npz(directory / FILE, {'mean': self.mean, 'deviation': np.asarray(self.deviation)})

  @classmethod
  def read(cls, directory: pathlib.Path) -> 'InputScale':
    """The scale that `write` wrote."""
    with np.load(directory / FILE, allow_pickle=False) as arrays:
      return cls(arrays['mean'], float(arrays['deviation']))
