"""Reads the files of a finished run from its workdir, as the pages need them."""

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
    config: the configuration of the run.
    workdir: the folder the run wrote.
    summary: `dataset/summary.json`.
    item_names: the names of all items, None if the source had none.
    texts: the texts of all items, None if the source had none.
    examples: the test example of each user.
    lengths_U: int64 [users], items before the test item, as far as they are kept (`config.data.window_users`).
    counts_N: int64 [items], training interactions of each item.
    metrics: `evaluation/metrics.json`.
    ranks: model -> int32 [3, users] (`evaluation/ranks.py`).
    codes_NxL: int32 [items, levels], the semantic IDs.
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
    """The name of the generator as the page shows it."""
    return GENERATORS[self.config.generator.architecture]

  def model_names(self) -> dict[str, str]:
    """Key in `ranks` -> name on the page, for the models with results; the generator is first."""
    return {
      ranks.GENERATOR: self.generator_name,
      **{key: name for key, name in NAMES.items() if key in self.metrics['baselines']},
    }

  def test_metrics(self, model: str) -> dict[str, float]:
    """The test metrics of a model, by its key in `ranks`."""
    return self.metrics['test'] if model == ranks.GENERATOR else self.metrics['baselines'][model]['test']

  def title(self, item: int) -> str:
    """The title of an item; if it has none, its name; if it has none, its index."""
    title = self.texts[item]['title'] if self.texts else ''
    name = self.item_names[item] if self.item_names else ''
    return title or name or f'item {item}'


def read_finished(config: Config, workdir: pathlib.Path) -> Finished:
  """Reads the files of a run.

  Raises:
    InputError: the evaluation is not complete, or a file is damaged.
  """
  metrics = evaluation(workdir)
  directory, window = workdir / 'dataset', config.data.window_users
  data = (
    store.StreamedInteractions(directory, window, config.data.history_length + 2)
    if window
    else store.load_interactions(directory)
  )
  counts_N, recent = popularity.training_counts(data), data.recent()
  examples = splits.test_examples(recent, config.data.history_length)
  ranks_by_model = ranks.read(workdir / 'evaluation' / ranks.FILE)
  for model, ranks_3xU in ranks_by_model.items():
    if ranks_3xU.shape[1] != len(examples):
      raise InputError(
        f'{workdir}/evaluation has ranks of {ranks_3xU.shape[1]} users ({model}), but the data set has '
        f'{len(examples)}; {REDO}'
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
    ranks_by_model,
    codes_NxL,
    read_json(workdir / 'semantic_ids' / 'report.json'),
  )


def read_json(path: pathlib.Path) -> Any:
  """The content of a JSON file; InputError if it does not exist or is damaged."""
  try:
    return json.loads(path.read_text(encoding='utf-8'))
  except (OSError, ValueError) as error:
    raise InputError(
      f'{path} cannot be read ({error}); expected the file that the stage of that folder writes'
    ) from error


def evaluation(workdir: pathlib.Path) -> dict:
  """`evaluation/metrics.json`; InputError that names the workdir if it does not exist."""
  path = workdir / 'evaluation' / 'metrics.json'
  if not path.exists():
    raise InputError(
      f'{workdir} has no evaluation/metrics.json; expected the workdir of a run whose evaluation is complete'
    )
  return read_json(path)


def predictions(workdir: pathlib.Path) -> Iterator[dict]:
  """The lines of `evaluation/predictions.jsonl`, one at a time, users in the order of the data set.

  Raises:
    InputError: the file does not exist, or a line is not valid JSON.
  """
  path = workdir / 'evaluation' / 'predictions.jsonl'
  try:
    with path.open(encoding='utf-8') as file:
      yield from map(json.loads, file)
  except (OSError, ValueError) as error:
    raise InputError(f'{path} cannot be read ({error}); {REDO}') from error


def training_log(directory: pathlib.Path) -> dict[str, Curves] | None:
  """{'train': curves, 'validation': curves} from a stage's `metrics.jsonl`; None if nothing was trained.

  Raises:
    InputError: a line is damaged.
  """
  path = directory / 'metrics.jsonl'
  if not path.exists():
    return None
  points_of: dict[str, dict[str, list]] = {'train': {}, 'validation': {}}
  for row, line in enumerate(path.read_text(encoding='utf-8').splitlines(), 1):
    try:
      values = json.loads(line)
      kind, epoch = values.pop('kind'), values.pop('epoch')
      del values['step']
      for name, value in values.items():
        points_of[kind].setdefault(name, []).append((float(epoch), float(value)))
    except (ValueError, KeyError, TypeError) as error:
      raise InputError(
        f'{path}:{row} cannot be read ({error}); expected a line of metrics written by training'
      ) from error
  return {
    kind: {name: tuple(np.array(points, np.float64).T) for name, points in curves.items()}
    for kind, curves in points_of.items()
  }


def stage_records(workdir: pathlib.Path) -> dict[str, dict]:
  """The `stage.json` of each stage that has one, in pipeline order: 'seconds', 'machine', 'settings', ..."""
  records = {stage: workdir / stage / 'stage.json' for stage in STAGES}
  return {stage: read_json(path) for stage, path in records.items() if path.exists()}


def duration(seconds: float | None) -> str:
  """A time for readers: '4.2 s', '2 min 05 s', '1 h 10 min'; a dash if it is not known."""
  if seconds is None:
    return '–'
  if seconds < 60:
    return f'{seconds:.1f} s'
  minutes, rest = divmod(round(seconds), 60)
  return f'{minutes} min {rest:02} s' if minutes < 60 else f'{minutes // 60} h {minutes % 60:02} min'


def settings(config: Mapping) -> dict[str, Any]:
  """The values of a (nested) configuration by dotted key, lists as tuples."""
  return {key: _frozen(value) for key, value in flattened(config).items()}


def _frozen(value: Any) -> Any:
  return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value
