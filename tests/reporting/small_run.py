"""A finished run of 60 users and 30 items whose files are written without any training, for tests of the pages."""

import dataclasses
import json
import pathlib

import numpy as np

from letter_jax.configuration import Config, flattened
from letter_jax.data import splits, store
from letter_jax.data.dataset import Dataset
from letter_jax.evaluation import history, popularity, ranks
from letter_jax.system import artifacts
from letter_jax.tokenizer.diagnostics import diagnose
from tests.small_data import config_with, distinct_codes, interactions

USERS, ITEMS, LEVELS, CODES = 60, 30, 3, 8
HOSTILE = '<script>alert("$1$")</script> & co'
METRICS = tuple(f'{name}@{k}' for name in ('recall', 'ndcg') for k in (1, 5, 10, 20))


def data(texts: bool = True) -> Dataset:
  random = np.random.default_rng(0)
  sequences = [random.integers(0, ITEMS, random.integers(4, 12)) for _ in range(USERS)]
  sequences[0][0] = ITEMS - 1
  of_items = tuple(
    {
      'title': HOSTILE if item == 7 else f'thing {item}',
      'brand': '',
      'description': '',
      'categories': f'All > Kind {item % 3}',
    }
    for item in range(ITEMS)
  )
  return Dataset('Small & <b>', interactions(sequences, ITEMS), of_items if texts else None)


def write_run(workdir: pathlib.Path, settings: dict | None = None, seed: int = 0, texts: bool = True) -> Config:
  """Writes all files of a finished run but its checkpoints; `seed` determines the recommendations."""
  config = config_with({'tokenizer.model.levels': LEVELS, 'tokenizer.model.codebook_size': CODES, **(settings or {})})
  whole = data(texts)
  store.save(whole, workdir / 'dataset')
  random = np.random.default_rng(seed)
  for name in ('text_embeddings', 'collaborative'):
    artifacts.write_npy(workdir / name / 'embeddings.npy', np.random.default_rng(1).normal(size=(ITEMS, 6)))
  codes_NxL = distinct_codes(ITEMS, LEVELS, CODES)
  artifacts.write_npy(workdir / 'semantic_ids' / 'semantic_ids.npy', codes_NxL)
  artifacts.write_json(
    workdir / 'semantic_ids' / 'report.json',
    {
      'items': ITEMS,
      'collided': 9,
      'moved': 5,
      'moved_at_level': [0, 1, 4],
      'error_increase_mean': 0.25,
      'error_increase_max': 1.5,
      'colliding_after': 0,
      'codebook_size': CODES,
      **diagnose(codes_NxL, CODES),
    },
  )
  artifacts.write_json(workdir / 'generator' / 'generator.json', {'config': dataclasses.asdict(config)})
  for name in ('collaborative', 'generator'):
    _write_log(workdir / name, {'loss': 2.5}, {metric: 0.1 for metric in METRICS})
    artifacts.write_json(
      workdir / name / 'stage.json',
      {
        'complete': True,
        'seconds': 75.0,
        'settings': flattened(dataclasses.asdict(config)),
        'machine': 'eight abaci' if name == 'generator' else 'one abacus',
      },
    )
  _write_evaluation(workdir, config, whole, random)
  return config


def add_tokenizer(workdir: pathlib.Path) -> None:
  """Adds the log and the best metrics of a trained tokenizer."""
  _write_log(
    workdir / 'tokenizer',
    {'codebook_1': 0.5, 'codebook_2': 0.25, 'commitment_1': 0.5},
    {'reconstruction': 0.2, 'perplexity_1': 7.0},
  )
  artifacts.write_json(workdir / 'tokenizer' / 'best_validation.json', {'reconstruction': 0.2, 'collision_rate': 0.3})


def _write_log(directory: pathlib.Path, train: dict, validation: dict) -> None:
  lines = [
    json.dumps({'step': 5 * epoch, 'epoch': float(epoch), 'kind': kind, **values})
    for epoch in (1, 2, 3)
    for kind, values in (('train', {**train, 'examples_per_second': 800.0}), ('validation', validation))
  ]
  directory.mkdir(parents=True, exist_ok=True)
  (directory / 'metrics.jsonl').write_text('\n'.join(lines) + '\n', encoding='utf-8')


def _write_evaluation(workdir: pathlib.Path, config: Config, whole: Dataset, random) -> None:
  examples = splits.test_examples(whole.interactions, config.data.history_length)
  items_UxK = np.stack([random.permutation(ITEMS)[:20] for _ in range(USERS)])
  match_UxK = items_UxK == examples.targets[:, None]
  everybody_U = np.ones(USERS, int)
  ranks_by_model = {
    ranks.GENERATOR: np.stack([match_UxK.argmax(axis=1), everybody_U, match_UxK.any(axis=1)]).astype(np.int32),
    'sasrec': np.stack([random.integers(0, ITEMS, USERS), everybody_U, everybody_U]).astype(np.int32),
    'popularity': popularity.popularity_metrics(popularity.training_counts(whole.interactions), examples.targets)[1],
  }
  # Without the history a place is better by one.
  out = {model: np.stack([np.maximum(place - 1, 0), *rest]) for model, (place, *rest) in ranks_by_model.items()}
  figures = {
    model: history.in_both(_by_split(ranks_3xU), _by_split(out[model]), exclude_history=False)
    for model, ranks_3xU in ranks_by_model.items()
  }
  of_both = ranks_by_model | {ranks.history_out(model): ranks_3xU for model, ranks_3xU in out.items()}
  ranks.write(workdir / 'evaluation' / ranks.FILE, of_both)
  lines = [
    json.dumps(
      {
        'user': whole.interactions.users[user],
        'target': int(examples.targets[user]),
        'history': examples.items[examples.start[user] : examples.end[user]].tolist(),
        'items': items_UxK[user].tolist(),
        'scores': [-1.0] * 20,
      }
    )
    for user in range(USERS)
  ]
  (workdir / 'evaluation' / 'predictions.jsonl').write_text('\n'.join(lines) + '\n', encoding='utf-8')
  generator = figures.pop(ranks.GENERATOR)
  by_length = {length: {'recall@10': 0.25, 'ndcg@10': 0.125} for length in ('0', '1', '2', '3', 'whole')}
  artifacts.write_json(
    workdir / 'evaluation' / 'metrics.json',
    {
      **generator,
      'users': USERS,
      'beam': 20,
      'generator_step': 15,
      'baselines': figures,
      'short_histories': {'users': USERS, **by_length},
      history.MAIN: history.HISTORY_IN,
      history.SERVED: history.choose(generator),
      history.REPEATS: {'validation': 0.25, 'test': 0.125},
    },
  )


def _by_split(ranks_3xU: np.ndarray) -> dict:
  of_test = {metric: float(ranks.gains(ranks_3xU, metric).mean()) for metric in METRICS}
  return {'test': of_test, 'validation': {name: value / 2 for name, value in of_test.items()}}
