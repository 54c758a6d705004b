"""Metrics of a training, three ways: on the terminal, in JSON lines, for TensorBoard."""

import json
import pathlib

import tensorboardX
from tqdm import tqdm

from letter_jax.system import processes

# What is worth a place on the terminal; the files have everything.
SHOWN = {
  'loss': 'loss',
  'reconstruction': 'reconstruction',
  'collision_rate': 'collisions',
  'recall@10': 'Recall@10',
  'ndcg@10': 'NDCG@10',
}


class MetricWriter:
  """Writes `metrics.jsonl` and TensorBoard files under `directory`; in process 0 alone.

  On a terminal the training's state stands on its progress bar, and a line is written for each validation; elsewhere
  each is a line.

  A resumed training starts at `resume_step`; what an interrupted one had logged past it is dropped, so that each step
  stands in the files once.
  """

  def __init__(self, directory: pathlib.Path, label: str, resume_step: int, bar: tqdm):
    self._writes = processes.is_first()
    if not self._writes:
      return
    directory.mkdir(parents=True, exist_ok=True)
    self._path = directory / 'metrics.jsonl'
    self._label, self._bar = label, bar
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
    shown = '  '.join(f'{title} {values[name]:.4f}' for name, title in SHOWN.items() if name in values)
    if kind == 'train' and not self._bar.disable:
      self._bar.set_postfix_str(shown, refresh=False)
      return
    rate = f'  {values["examples_per_second"]:,.0f} examples/s' if 'examples_per_second' in values else ''
    tqdm.write(f'{self._label} {kind:10} epoch {epoch:6.2f}  step {step:6}  {shown}{rate}')

  def close(self) -> None:
    if self._writes:
      self._lines.close()
      self._board.close()
