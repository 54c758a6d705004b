"""Features of the items: what a generator knows of an item besides its semantic ID.

A source of features is a matrix with a row for every item: text embeddings, collaborative embeddings, or a file from
outside (images, prices). Each is centred and scaled to unit variance; side by side, they go through one trained kernel
and are added to the item's position (LIGER, arXiv 2411.18814, has both kinds in the encoder). The features are not
trained.

An item that comes after training has a text, and for the other sources no row: it gets the row that ridge regression
on the text predicts.

Shapes: N items, M later items, T columns of the text, W columns of a source, F columns of all sources.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping

import numpy as np

from letter_jax.system import artifacts
from letter_jax.tokenizer.input_scale import InputScale

FILE = 'features.npz'  # in the folder of the generator
# Penalties of the ridge regression, of which leave-one-out errors choose one, and the items that it is fitted to.
_PENALTIES = tuple(10.0**power for power in range(-1, 6))
_FITTED = 20_000


@dataclasses.dataclass(frozen=True, eq=False)
class ItemFeatures:
  """The features of a catalogue.

  Attributes:
    rows: source -> float32 [N, W], centred and scaled.
    scales: source -> the centre and the scale.
  """

  rows: Mapping[str, np.ndarray]
  scales: Mapping[str, InputScale]

  @classmethod
  def of(cls, given: Mapping[str, np.ndarray], scales: Mapping[str, InputScale] | None = None) -> 'ItemFeatures':
    """Features from the rows of each source, float [N, W], of any scale.

    Args:
      scales: the centre and the scale of each source; by default those of the rows.
    """
    scales = scales or {source: InputScale.of(rows) for source, rows in given.items()}
    return cls({source: scales[source].apply(rows) for source, rows in given.items()}, scales)

  @functools.cached_property
  def table_NxF(self) -> np.ndarray:
    """float32, all sources side by side."""
    return np.concatenate(list(self.rows.values()), axis=1)

  def extended(self, text_NxT: np.ndarray, text_MxT: np.ndarray) -> 'ItemFeatures':
    """The features of the catalogue and of M items after it.

    Args:
      text_NxT: float, text embeddings of the catalogue.
      text_MxT: float, text embeddings of the later items.
    """
    later = {
      source: self.scales[source].apply(text_MxT) if source == 'text' else _predicted(text_NxT, rows, text_MxT)
      for source, rows in self.rows.items()
    }
    rows = {source: np.concatenate([rows, later[source]]) for source, rows in self.rows.items()}
    return dataclasses.replace(self, rows=rows)

  def write(self, directory: pathlib.Path) -> None:
    """Writes `FILE` into `directory`."""
    arrays = {'sources': np.array(json.dumps(list(self.rows)))}
    for place, (source, rows) in enumerate(self.rows.items()):
      scale = self.scales[source]
      arrays |= {f'rows_{place}': rows, f'mean_{place}': scale.mean, f'deviation_{place}': np.array(scale.deviation)}
    artifacts.write_npz(directory / FILE, arrays)

  @classmethod
  def read(cls, directory: pathlib.Path) -> 'ItemFeatures':
    """The features that `write` wrote.

    Raises:
      InputError: the file does not exist or is damaged.
    """
    arrays = artifacts.read_npz(directory / FILE, 'the features of the items that the generator was trained with')
    sources = json.loads(str(arrays['sources']))
    return cls(
      {source: arrays[f'rows_{place}'] for place, source in enumerate(sources)},
      {
        source: InputScale(arrays[f'mean_{place}'], float(arrays[f'deviation_{place}']))
        for place, source in enumerate(sources)
      },
    )


def _predicted(text_NxT: np.ndarray, rows_NxW: np.ndarray, text_MxT: np.ndarray) -> np.ndarray:
  """float32 [M, W], what the text says about the rows of a source."""
  from sklearn.linear_model import RidgeCV

  fitted = np.random.default_rng(0).permutation(len(rows_NxW))[:_FITTED]
  scale = InputScale.of(text_NxT)
  regression = RidgeCV(_PENALTIES).fit(scale.apply(text_NxT[fitted]), rows_NxW[fitted])
  # A single column comes back as a vector.
  return regression.predict(scale.apply(text_MxT)).reshape(len(text_MxT), -1).astype(np.float32)
