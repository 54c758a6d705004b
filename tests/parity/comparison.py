"""What the parity programs share: relative errors, printed one a line, and the verdict."""

import numpy as np


class Comparison:
  """Call it per quantity; `exit_code` is 0 when all held."""

  def __init__(self):
    self._failed = []

  def __call__(self, name: str, ours, golden, tolerance: float) -> None:
    """Largest absolute difference relative to the largest golden value."""
    ours, golden = np.asarray(ours, np.float64), np.asarray(golden, np.float64)
    if ours.shape != golden.shape:
      self._report(name, f'shape {ours.shape}, expected {golden.shape}', False)
      return
    error = float(np.max(np.abs(ours - golden)) / max(float(np.max(np.abs(golden))), 1e-12))
    self._report(name, f'{error:.3g}', error <= tolerance)  # NaN fails

  def equal(self, name: str, ours, golden) -> None:
    """Share of entries that differ; any fails."""
    ours, golden = np.asarray(ours), np.asarray(golden)
    same_shape = ours.shape == golden.shape
    error = float(np.mean(ours != golden)) if same_shape else 1.0
    self._report(name, f'{error:.3g}', same_shape and error == 0)

  def exit_code(self) -> int:
    if self._failed:
      print(f'FAILED: {", ".join(self._failed)}')
      return 1
    print('all hold')
    return 0

  def _report(self, name: str, error: str, holds: bool) -> None:
    print(f'{name}  {error}' + ('' if holds else '  TOO LARGE'))
    if not holds:
      self._failed.append(name)
