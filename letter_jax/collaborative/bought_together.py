"""Bought together as a dense model: how likely each item is next, by what stands next to the user's last items.

The counts are those of the baseline (`evaluation/bought_together.py`). They become probabilities as in Dirichlet
smoothing: PRIOR observations of the items' popularity are added to them, so that every item can be next. Nothing is
trained.

Shapes: B users, C items of a history, N items, K neighbours of an item.
"""

import dataclasses
import pathlib
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file, save_file

from letter_jax.evaluation.bought_together import LAST, NEIGHBOURS, UNIT
from letter_jax.system import artifacts
from letter_jax.system.errors import InputError

if TYPE_CHECKING:
  from scipy import sparse

PRIOR = 1.0


@dataclasses.dataclass(frozen=True)
class BoughtTogether:
  """The counts of a data set.

  Attributes:
    items_NxK: int32, the neighbours of each item; any item where `counts_NxK` is 0.
    counts_NxK: float32, how often each stands next to the item.
    popularity_N: float32, the share of each item in the training interactions, with one more of each.
  """

  items_NxK: np.ndarray
  counts_NxK: np.ndarray
  popularity_N: np.ndarray

  @classmethod
  def of(cls, neighbours_NxN: 'sparse.csr_array', counts_N: np.ndarray) -> 'BoughtTogether':
    """The counts as rows of equal lengths.

    Args:
      neighbours_NxN: as of `evaluation.bought_together.neighbours`.
      counts_N: int64, the training interactions of each item.
    """
    lengths_N = np.diff(neighbours_NxN.indptr)
    column_NxK = np.arange(int(lengths_N.max(initial=1)))
    there_NxK = column_NxK < lengths_N[:, None]
    items_NxK, counts_NxK = np.zeros(there_NxK.shape, np.int32), np.zeros(there_NxK.shape, np.float32)
    items_NxK[there_NxK], counts_NxK[there_NxK] = neighbours_NxN.indices, neighbours_NxN.data / UNIT
    return cls(items_NxK, counts_NxK, ((counts_N + 1) / (counts_N + 1).sum()).astype(np.float32))

  @classmethod
  def read(cls, path: pathlib.Path) -> 'BoughtTogether':
    """Reads what `write` wrote; InputError where the file does not exist or is damaged."""
    try:
      return cls(**load_file(path))
    except Exception as error:  # of safetensors, of the file system, or another set of names
      raise InputError(f'{path} cannot be read ({error}); expected the file that the stage evaluate writes') from error

  def with_all_columns(self) -> 'BoughtTogether':
    """The same in arrays with as many columns as any data set has."""
    more = ((0, 0), (0, NEIGHBOURS - self.items_NxK.shape[1]))
    return dataclasses.replace(self, items_NxK=np.pad(self.items_NxK, more), counts_NxK=np.pad(self.counts_NxK, more))

  def write(self, path: pathlib.Path) -> None:
    """Writes the arrays as .safetensors."""
    artifacts.write(path, lambda partial: save_file(self.params(), partial))

  def params(self) -> dict[str, np.ndarray]:
    """The arrays as the parameters of `scores`."""
    return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def scores(params: dict[str, jax.Array], items_BxC: jax.Array) -> jax.Array:
  """log p(next item), float32 [B, N]: a `fusion.DenseScores`. Pure.

  Args:
    params: as of `BoughtTogether.params`.
    items_BxC: int32, histories, left-aligned, negative on padding.
  """
  B, N = items_BxC.shape[0], params['popularity_N'].shape[0]
  length_B, row_Bx1 = (items_BxC >= 0).sum(axis=1), jnp.arange(B)[:, None]
  counts_BxN = jnp.zeros((B, N), jnp.float32)
  for age in range(1, LAST + 1):  # 1 for the latest
    place_B = length_B - age
    item_B = jnp.take_along_axis(items_BxC, jnp.maximum(place_B, 0)[:, None], axis=1)[:, 0]
    weight_B = jnp.where(place_B >= 0, 1 / age, 0)
    item_B = jnp.maximum(item_B, 0)  # of a history without items
    counts_BxN = counts_BxN.at[row_Bx1, params['items_NxK'][item_B]].add(
      params['counts_NxK'][item_B] * weight_B[:, None]
    )
  total_Bx1 = counts_BxN.sum(axis=1, keepdims=True) + PRIOR
  return jnp.log((counts_BxN + PRIOR * params['popularity_N']) / total_Bx1)
