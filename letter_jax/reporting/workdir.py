"""What a finished run left in its workdir, as the pages need it; workdirs of earlier versions lack some of it."""

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from letter_jax.configuration import Config, flattened
from letter_jax.data import splits, store
from letter_jax.evaluation import popularity, ranks
from letter_jax.reporting.results_table import GENERATORS
from letter_jax.system.errors import InputError

NAMES = {'sasrec': 'SASRec', 'lightgcn': 'LightGCN', 'popularity': 'popularity'}
REDO = 'run again with --stage=evaluate --overwrite'
STAGES = ('dataset', 'text_embeddings', 'collaborative', 'tokenizer', 'semantic_ids', 'generator', 'evaluation')

# name -> (epoch, value), float64 [points] each
Curves = dict[str, tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Finished:
  """A run whose evaluation is complete.

  Attributes:
    summary: `dataset/summary.json`.
    item_names, texts: of all items, each None where the source had none.
    examples: the test example of every user.
    lengths_U: int64, items before it, as far as they are kept (`config.data.window_users`).
    counts_N: int64 [items], training interactions of each item.
    metrics: `evaluation/metrics.json`.
    ranks: model -> int32 [3, users], as far as they are known (`evaluation/ranks.py`).
    codes_NxL: int32, the semantic IDs.
    ids: `semantic_ids/report.json`.
  """

  config: Config
  workdir: pathlib.Path
  summary: dict
  item_names: tuple[str, ...] | None
  texts: tuple[dict[str, str], ...] | None
  examples: splits.Examples
  lengths_U: np.ndarray
  counts_N: np.ndarray
  metrics: dict
  ranks: dict[str, np.ndarray]
  codes_NxL: np.ndarray
  ids: dict

  @property
  def generator_name(self) -> str:
    return GENERATORS[self.config.generator.architecture]

  def model_names(self) -> dict[str, str]:
    """Key in `ranks` -> name on the page, of the models with results, the generator first."""
    return {
      ranks.GENERATOR: self.generator_name,
      **{key: name for key, name in NAMES.items() if key in self.metrics['baselines']},
    }

  def test_metrics(self, model: str) -> dict[str, float]:
    return self.metrics['test'] if model == ranks.GENERATOR else self.metrics['baselines'][model]['test']

  def title(self, item: int) -> str:
    """What a reader knows the item by: title, else name, else number."""
    titled = self.texts[item]['title'] if self.texts else ''
    named = self.item_names[item] if self.item_names else ''
    return titled or named or f'item {item}'


def read_finished(config: Config, workdir: pathlib.Path) -> Finished:
  """Reads all of it; InputError where the evaluation is not complete or a file is damaged."""
  metrics = evaluation(workdir)
  directory, window = workdir / 'dataset', config.data.window_users
  data = (
    store.StreamedInteractions(directory, window, config.data.history_length + 2)
    if window
    else store.load_interactions(directory)
  )
  counts_N, recent = popularity.training_counts(data), data.recent()
  examples = splits.test_examples(recent, config.data.history_length)
  found = test_ranks(workdir, metrics)
  if 'popularity' not in found:
    found['popularity'] = popularity.popularity_metrics(counts_N, examples.targets)[1]
  for model, ranks_3xU in found.items():
    if ranks_3xU.shape[1] != len(examples):
      raise InputError(
        f'{workdir}/evaluation has the ranks of {ranks_3xU.shape[1]} users ({model}) where the data set '
        f'has {len(examples)}; {REDO}'
      )
  codes_NxL = np.load(workdir / 'semantic_ids' / 'semantic_ids.npy', allow_pickle=False)
  return Finished(
    config,
    workdir,
    store.load_summary(directory),
    *store.load_items(directory),
    examples,
    recent.lengths - 1,
    counts_N,
    metrics,
    found,
    codes_NxL,
    read_json(workdir / 'semantic_ids' / 'report.json'),
  )


def read_json(path: pathlib.Path) -> Any:
  try:
    return json.loads(path.read_text(encoding='utf-8'))
  except (OSError, ValueError) as error:
    raise InputError(f'{path} cannot be read ({error}); expected what the stage of that folder writes') from error


def evaluation(workdir: pathlib.Path) -> dict:
  """`evaluation/metrics.json`; InputError that names the workdir where there is none."""
  path = workdir / 'evaluation' / 'metrics.json'
  if not path.exists():
    raise InputError(
      f'{workdir} has no evaluation/metrics.json; expected the workdir of a run whose evaluation is complete'
    )
  return read_json(path)


def predictions(workdir: pathlib.Path) -> Iterator[dict]:
  """The lines of `evaluation/predictions.jsonl`, one at a time, users in the order of the data set."""
  path = workdir / 'evaluation' / 'predictions.jsonl'
  try:
    with path.open(encoding='utf-8') as file:
      yield from map(json.loads, file)
  except (OSError, ValueError) as error:
    raise InputError(f'{path} cannot be read ({error}); {REDO}') from error


def test_ranks(workdir: pathlib.Path, metrics: dict) -> dict[str, np.ndarray]:
  """`evaluation/ranks.npz`; where an earlier version wrote none, the generator's from its recommendations.

  With IDs that items share, a place in the list is not a rank, and nothing is known.
  """
  path = workdir / 'evaluation' / ranks.FILE
  if path.exists():
    return ranks.read(path)
  if 'test_string_match' in metrics:
    return {}
  place_U = np.array(
    [line['items'].index(line['target']) if line['target'] in line['items'] else -1 for line in predictions(workdir)]
  )
  return {ranks.GENERATOR: np.stack([np.maximum(place_U, 0), np.ones_like(place_U), place_U >= 0]).astype(np.int32)}


def training_log(directory: pathlib.Path) -> dict[str, Curves] | None:
  """{'train': curves, 'validation': curves} of `metrics.jsonl`; None where nothing was trained."""
  path = directory / 'metrics.jsonl'
  if not path.exists():
    return None
  found: dict[str, dict[str, list]] = {'train': {}, 'validation': {}}
  for row, line in enumerate(path.read_text(encoding='utf-8').splitlines(), 1):
    try:
      values = json.loads(line)
      kind, epoch = values.pop('kind'), values.pop('epoch')
      del values['step']
      for name, value in values.items():
        found[kind].setdefault(name, []).append((float(epoch), float(value)))
    except (ValueError, KeyError, TypeError) as error:
      raise InputError(
        f'{path}:{row} cannot be read ({error}); expected a line of metrics as training writes it'
      ) from error
  return {
    kind: {name: tuple(np.array(points, np.float64).T) for name, points in curves.items()}
    for kind, curves in found.items()
  }


def stage_records(workdir: pathlib.Path) -> dict[str, dict]:
  """`stage.json` of each stage that has one, in the order of the pipeline: 'seconds', 'machine' (not in all), ..."""
  records = {stage: workdir / stage / 'stage.json' for stage in STAGES}
  return {stage: read_json(path) for stage, path in records.items() if path.exists()}


def duration(seconds: float | None) -> str:
  """In words: '4 s', '2 min 05 s', '1 h 10 min'."""
  if seconds is None:
    return '–'
  if seconds < 60:
    return f'{seconds:.1f} s'
  minutes, rest = divmod(round(seconds), 60)
  return f'{minutes} min {rest:02} s' if minutes < 60 else f'{minutes // 60} h {minutes % 60:02} min'


def settings(config: Mapping) -> dict[str, Any]:
  """A config's values by dotted key, lists as tuples."""
  return {key: _frozen(value) for key, value in flattened(config).items()}


def _frozen(value: Any) -> Any:
  return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value
