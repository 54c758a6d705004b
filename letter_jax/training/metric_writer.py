"""Metrics of a training, written to the terminal, to a file of JSON lines, for TensorBoard and to a tracker."""

import json
import pathlib

import tensorboardX
from tqdm import tqdm

from letter_jax.system import processes
from letter_jax.training import trackers
from letter_jax.training.files import TENSORBOARD, TRAINING_LOG

# The metrics shown on the terminal, with their titles; the files have all metrics.
SHOWN = {
  'loss': 'loss',
  'reconstruction': 'reconstruction',
  'collision_rate': 'collisions',
  'recall@10': 'Recall@10',
  'ndcg@10': 'NDCG@10',
}


class MetricWriter:
  """Writes `metrics.jsonl` and TensorBoard files under a folder, in process 0 only.

  On a terminal, training metrics are shown on the progress bar and only validations print a line; otherwise both print
  lines.
  """

  def __init__(
    self, directory: pathlib.Path | None, label: str, resume_step: int, bar: tqdm, verbose: bool = True
  ) -> None:
    """Opens the files.

    Args:
      directory: folder of the files, created if it does not exist; None: there are no files.
      label: name of the training, at the beginning of each line on the terminal.
      resume_step: the last step that is done already, -1 where none is, not even the validation of step 0; anything
        that an interrupted run logged after it is dropped, so that each step is in the files once.
      bar: the progress bar of the training.
      verbose: whether anything is shown on the terminal.
    """
    self._label, self._bar = label, bar
    self._shows, self._writes = verbose and processes.is_first(), directory is not None and processes.is_first()
    if directory is None or not self._writes:
      return
    directory.mkdir(parents=True, exist_ok=True)
    self._path = directory / TRAINING_LOG
    kept: list[str] = []
    if self._path.exists():
      for line in self._path.read_text(encoding='utf-8').splitlines():
        try:
          if json.loads(line)['step'] <= resume_step:
            kept.append(line)
        except (ValueError, KeyError):  # a line cut short by a kill
          continue
    self._path.write_text(''.join(f'{line}\n' for line in kept), encoding='utf-8')
    self._lines = self._path.open('a', encoding='utf-8')
    self._board = tensorboardX.SummaryWriter(str(directory / TENSORBOARD), purge_step=resume_step + 1)

  def write(self, step: int, epoch: float, kind: str, values: dict[str, float], left: str = '') -> None:
    """Writes the metrics of one step.

    Args:
      step: optimizer steps done.
      epoch: the same in epochs.
      kind: 'train' or 'validation'.
      values: scalars by name.
      left: how much time is left, for the terminal; '' where that is not known.
    """
    if self._writes:
      self._lines.write(json.dumps({'step': step, 'epoch': epoch, 'kind': kind, **values}) + '\n')
      self._lines.flush()
      for name, value in values.items():
        self._board.add_scalar(f'{kind}/{name}', value, step)
      trackers.log(self._label, step, {f'{kind}/{name}': value for name, value in values.items()})
    if not self._shows:
      return
    shown = '  '.join(f'{title} {values[name]:.4f}' for name, title in SHOWN.items() if name in values)
    if kind == 'train' and not self._bar.disable:
      self._bar.set_postfix_str(shown, refresh=False)
      return
    rate = f'  {values["examples_per_second"]:,.0f} examples/s' if 'examples_per_second' in values else ''
    left = left and f'  {left}'
    tqdm.write(f'{self._label} {kind:10} epoch {epoch:6.2f}  step {step:6}  {shown}{rate}{left}')

  def close(self) -> None:
    """Closes the files."""
    if self._writes:
      self._lines.close()
      self._board.close()
