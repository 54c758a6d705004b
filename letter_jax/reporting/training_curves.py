"""The part of the report on how training went: every term that was logged, a plot for each."""

import re

import numpy as np

from letter_jax.reporting import figures, page
from letter_jax.reporting.finished import Finished
from letter_jax.reporting.page import Html
from letter_jax.workdir import Curves, read_training_log

# Folder under the workdir -> heading.
_TRAININGS = {
  'collaborative': 'SASRec',
  'collaborative/lightgcn': 'LightGCN',
  'tokenizer': 'Tokenizer',
  'generator': 'Generator',
}
_UNPLOTTED = ('examples_per_second', 'ndcg@1')  # NDCG@1 is Recall@1
_MEANINGS = {
  'loss': 'what is minimised, all terms with their weights',
  'reconstruction': 'mean squared error of the text embedding, whose variance is 1',
  'contrastive': 'alignment with the collaborative embeddings',
  'codebook': 'distance of the codes from what they stand for, by level (the commitment term has the same value)',
  'diversity': 'of the codes, by level',
  'gradient_norm': 'before clipping; a spike is a step that went astray',
  'items': 'cross-entropy of the codes',
  'words': 'cross-entropy of the words',
  'recall': 'validation',
  'ndcg': 'validation; the checkpoint is chosen by NDCG@10',
  'collision_rate': 'share of items that are not the first with their ID, before collisions are resolved',
  'codes_used': 'by level',
  'perplexity': 'how many codes of a level are used as if evenly',
}


def section(run: Finished) -> Html:
  parts = []
  for folder, heading in _TRAININGS.items():
    log = read_training_log(run.workdir.root / folder)
    if log is not None:
      parts += [page.tag('h3', heading), page.figures(_plots(folder.replace('/', '-'), log, best_epoch(folder, log)))]
  if not parts:
    parts = [page.note('Not shown: this workdir has no training logs (metrics.jsonl).')]
  return page.section(
    'training',
    'Training, term by term',
    'Every quantity that training wrote, over epochs; dots are validations, and a broken upright line is the '
    'checkpoint that was kept. Look for curves that still fall at the end (train longer), and for validation '
    'that turns while training goes on (overfitting).',
    *parts,
  )


def best_epoch(folder: str, log: dict[str, Curves]) -> float | None:
  """Of the checkpoint that was kept: the first validation that none is better than."""
  name, best = ('reconstruction', np.argmin) if folder == 'tokenizer' else ('ndcg@10', np.argmax)
  if name not in log['validation']:
    return None
  epochs, values = log['validation'][name]
  return float(epochs[best(values)])


def _plots(name: str, log: dict[str, Curves], best: float | None) -> list[Html]:
  """Terms of several levels or ranks in one plot; what is measured in validation too is drawn into it."""
  plots: dict[str, dict[str, tuple]] = {}
  dots: dict[str, set[str]] = {}
  for kind, curves in log.items():
    for term, curve in curves.items():
      base, part = re.fullmatch(r'(.+?)(?:[_@](\d+))?', term).groups()
      if term in _UNPLOTTED or base == 'commitment':
        continue
      label = (f'@{part}' if '@' in term else f'level {part}') if part else kind
      plots.setdefault(base, {})[label] = curve
      if kind == 'validation':
        dots.setdefault(base, set()).add(label)
  return [
    page.figure(
      figures.lines(f'{name}-{base}', series, 'epoch', best, frozenset(dots.get(base, ()))),
      _title(base),
      _MEANINGS.get(base, ''),
    )
    for base, series in plots.items()
  ]


def _title(base: str) -> str:
  return {'recall': 'Recall@k', 'ndcg': 'NDCG@k'}.get(base, base.replace('_', ' '))
