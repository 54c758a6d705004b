"""The section of the report on the course of training: a plot of each logged quantity."""

import re
from collections.abc import Mapping

import numpy as np
from markupsafe import Markup

from letter_jax.reporting import figures, page
from letter_jax.reporting.finished import Finished
from letter_jax.workdir import TRAINING_LOG, Curves, read_training_log

_UNPLOTTED = ('examples_per_second', 'ndcg@1')  # NDCG@1 equals Recall@1
_TITLES = {'recall': 'Recall@k', 'ndcg': 'NDCG@k'}
_CAPTIONS = {
  'loss': 'the objective, the weighted sum of all terms',
  'reconstruction': 'mean squared error of the text embedding, whose variance is 1',
  'contrastive': 'alignment with the collaborative embeddings',
  'codebook': 'distance between codes and the residuals they quantise, by level (the commitment term is equal)',
  'diversity': 'diversity loss of the codes, by level',
  'gradient_norm': 'before clipping; a spike marks an unstable step',
  'items': 'cross-entropy of the codes',
  'words': 'cross-entropy of the words',
  'recall': 'validation',
  'ndcg': 'validation; the checkpoint is chosen by NDCG@10',
  'collision_rate': 'share of items that are not the first with their ID, before collisions are resolved',
  'codes_used': 'by level',
  'perplexity': 'effective number of codes in use, by level',
}


def section(run: Finished) -> page.Section:
  """The curves of every training whose `metrics.jsonl` is in the workdir.

  Raises:
    InputError: a log is damaged.
  """
  content: list[Markup] = []
  workdir = run.workdir
  for folder, heading in (
    (workdir.collaborative, 'SASRec'),
    (workdir.lightgcn, 'LightGCN'),
    (workdir.tokenizer, 'Tokenizer'),
    (workdir.generator, 'Generator'),
  ):
    log = read_training_log(folder)
    if log is not None:
      content += [page.heading(heading), page.figures(_plots(log, best_epoch(log)))]
  return page.Section(
    'training',
    'Training',
    'Training, term by term',
    'Every logged quantity over epochs. Dots are validations, and a dashed vertical line marks the checkpoint that was '
    'kept. Look for curves that are still falling at the end (train longer), and for validation that gets worse while '
    'the training loss improves (overfitting).',
    content or [page.note(f'Not shown: this workdir has no training logs ({TRAINING_LOG}).')],
  )


def best_epoch(log: Mapping[str, Curves]) -> float | None:
  """The epoch of the checkpoint that was kept: the first with the best validation. None without validation."""
  metric, best = ('reconstruction', np.argmin) if 'reconstruction' in log['validation'] else ('ndcg@10', np.argmax)
  if metric not in log['validation']:
    return None
  epochs, values = log['validation'][metric]
  return float(epochs[best(values)])


def _plots(log: Mapping[str, Curves], best: float | None) -> list[Markup]:
  """A plot per quantity, with its levels, its k's, or its training and validation values as the curves."""
  plots: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
  dots: dict[str, set[str]] = {}
  for kind, curves in log.items():
    for term, curve in curves.items():
      quantity, part = _split_term(term)
      if term in _UNPLOTTED or quantity == 'commitment':
        continue
      label = (f'@{part}' if '@' in term else f'level {part}') if part else kind
      plots.setdefault(quantity, {})[label] = curve
      if kind == 'validation':
        dots.setdefault(quantity, set()).add(label)
  return [
    page.figure(
      figures.lines(series, 'epoch', best, frozenset(dots.get(quantity, ()))),
      _TITLES.get(quantity, quantity.replace('_', ' ')),
      _CAPTIONS.get(quantity, ''),
    )
    for quantity, series in plots.items()
  ]


def _split_term(term: str) -> tuple[str, str]:
  """'codebook_2' -> ('codebook', '2'), 'recall@10' -> ('recall', '10'), 'loss' -> ('loss', '')."""
  match = re.search(r'[_@](\d+)$', term)
  return (term[: match.start()], match[1]) if match else (term, '')
