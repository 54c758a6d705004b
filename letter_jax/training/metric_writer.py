"""Metrics of a training, three ways: a line on the terminal, JSON lines, TensorBoard."""

import json
import pathlib

import tensorboardX
from tqdm import tqdm

from letter_jax import processes


class MetricWriter:
  """Writes `metrics.jsonl` and TensorBoard files under `directory`; in process 0 alone.

  A resumed training starts at `resume_step`; what an interrupted one had logged past it is dropped, so that each step
  stands in the files once.
  """

  def __init__(self, directory: pathlib.Path, label: str, resume_step: int):
    self._writes = processes.is_first()
    if not self._writes:
      return
    directory.mkdir(parents=True, exist_ok=True)
    self._path = directory / 'metrics.jsonl'
    self._label = label
    kept = []
    if self._path.exists():
      for line in self._path.read_text(encoding='utf-8').splitlines():
        try:
          if json.loads(line)['step'] <= resume_step:
            kept.append(line)
        except (ValueError, KeyError):  # the line that a kill cut short
          continue
    self._path.write_text(''.join(f'{line}\n' for line in kept), encoding='utf-8')
    self._lines = self._path.open('a', encoding='utf-8')
    self._board = tensorboardX.SummaryWriter(str(directory / 'tensorboard'), purge_step=resume_step + 1)

  def write(self, step: int, epoch: float, kind: str, values: dict[str, float]) -> None:
    """One line; `kind` is 'train' or 'validation', values are scalars by name."""
    if not self._writes:
      return
    self._lines.write(json.dumps({'step': step, 'epoch': epoch, 'kind': kind, **values}) + '\n')
    self._lines.flush()
    for name, value in values.items():
      self._board.add_scalar(f'{kind}/{name}', value, step)
    shown = '  '.join(f'{name} {value:.4g}' for name, value in values.items())
    tqdm.write(f'{self._label} {kind:10} step {step} epoch {epoch:.2f}  {shown}')

  def close(self) -> None:
    if self._writes:
      self._lines.close()
      self._board.close()
