"""A workdir: the folder of one run, the names of its files, and how each is read.

    WORKDIR/dataset/          tables (TFDS, ArrayRecord), lengths.npy, summary.json, first_purchases.npy; of raw files
                              left_out_items.csv
    WORKDIR/text_embeddings/  embeddings.npy and embeddings.ids.json; tf_idf.npz, where the rows are TF-IDF
    WORKDIR/collaborative/    embeddings.npy and embeddings.ids.json; metrics.json, ranks.npz; checkpoints
    WORKDIR/tokenizer/        input_scale.npz, best_validation.json; checkpoints
    WORKDIR/semantic_ids/     semantic_ids.npy, semantic_ids.csv (with raw ids), index.json, report.json; and, of IDs
                              learned here, latents.npy and codebooks.npy; added.npy, where an earlier run's
                              tokenizer is kept
    WORKDIR/generator/        generator.json; features.npz, where items have features; tokenizer/, where the text
                              tokenizer is made here; checkpoints
    WORKDIR/evaluation/       metrics.json, predictions.jsonl, ranks.npz; fusion.json, where the generator has
                              partners, and bought_together.safetensors, where that is one
    WORKDIR/report.html, plan.json, export/; of a comparison or a sweep compare.json, compare.html

Each stage's folder also has `stage.json`, its record (`pipeline/record.py`), and, where it trains, `metrics.jsonl` and
`tensorboard/`.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from letter_jax.configuration import Config, DataConfig, from_config_dict
from letter_jax.data import dataset, left_out, matching, store
from letter_jax.data.dataset import Windows
from letter_jax.evaluation import history, ranks
from letter_jax.evaluation.first_purchases import FirstPurchases, count_first_purchases
from letter_jax.generators import features
from letter_jax.semantic_ids import table
from letter_jax.system import artifacts, processes
from letter_jax.system.errors import InputError
from letter_jax.tokenizer import input_scale
from letter_jax.training import files

if TYPE_CHECKING:
  from letter_jax.semantic_ids.ids import SemanticIds
  from letter_jax.sharding import Layout

# Names of files. What is also written outside of a workdir is named where it is written, and known here from there.
TFDS, LENGTHS, SUMMARY = dataset.TFDS, dataset.LENGTHS, dataset.SUMMARY
EMBEDDINGS = 'embeddings.npy'
EMBEDDING_IDS = matching.ids_file(pathlib.Path(EMBEDDINGS)).name
FIRST_PURCHASES = 'first_purchases.npy'
PROJECTION = 'tf_idf.npz'
METRICS, RANKS, PREDICTIONS = 'metrics.json', ranks.FILE, 'predictions.jsonl'
INPUT_SCALE, BEST_VALIDATION = input_scale.FILE, 'best_validation.json'
CODES, CODES_TABLE, INDEX, IDS_REPORT = 'semantic_ids.npy', table.TABLE, table.INDEX, 'report.json'
LATENTS, CODEBOOKS, ADDED = 'latents.npy', 'codebooks.npy', 'added.npy'
DESCRIPTION, FEATURES, FUSION = 'generator.json', features.FILE, 'fusion.json'
BOUGHT_TOGETHER = 'bought_together.safetensors'
REPORT, PLAN, EXPORT = 'report.html', 'plan.json', 'export'
COMPARISON, COMPARISON_PAGE = 'compare.json', 'compare.html'
SERVED = 'served_'  # of the keys of predictions in the protocol of `recommend`, where that is not the main one
RECORD = 'stage.json'
TRAINING_LOG, TENSORBOARD, CHECKPOINTS = files.TRAINING_LOG, files.TENSORBOARD, files.CHECKPOINTS
CHECKPOINT_FOLDERS = (files.LATEST, files.BEST)

REDO_EVALUATION = 'run again with --stage=evaluate --overwrite'

# Metric name -> (epoch, value), float64 [points] each.
Curves = dict[str, tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class RestoredGenerator:
  """A trained generator.

  Attributes:
    params: the trained parameters, float32: all parameters of `generators.tiger.t5.T5`; of a language model with a
      frozen base the adapters and new rows (`Generator.whole_params` adds the base).
    config: the configuration of its run; `config.generator` has the sizes.
    semantic_ids: the semantic IDs that it generates.
    step: optimizer step of the parameters.
    validation: the metrics that selected them, such as {'ndcg@10': ...}.
  """

  params: Any
  config: Config
  semantic_ids: 'SemanticIds'
  step: int
  validation: dict[str, float]


class Workdir:
  """Typed paths and readers of one run's folder.

  Attributes:
    root: the folder.
    dataset, text_embeddings, collaborative, tokenizer, semantic_ids, generator, evaluation: the folders of the stages.
    lightgcn: the folder of LightGCN's training.
    tf_idf: the file of the TF-IDF terms and their projection, where the text embeddings are made of those.
    latents, codebooks: files of the tokenizer's latents and codebooks, where the semantic IDs are learned here.
    codes_table: the file of the semantic IDs with raw ids.
    checkpoints: the folder of the generator's checkpoints, unless `config.checkpoints` names another.
    metrics, predictions, bought_together: files of the evaluation.
    report, plan: files.
    comparison, comparison_page: files of a comparison of runs, or of a sweep.
    export: a folder.
  """

  def __init__(self, root: str | os.PathLike):
    self.root = pathlib.Path(root)
    self.dataset = self.root / 'dataset'
    self.text_embeddings = self.root / 'text_embeddings'
    self.collaborative = self.root / 'collaborative'
    self.lightgcn = self.collaborative / 'lightgcn'
    self.tokenizer = self.root / 'tokenizer'
    self.semantic_ids = self.root / 'semantic_ids'
    self.generator = self.root / 'generator'
    self.evaluation = self.root / 'evaluation'
    self.tf_idf = self.text_embeddings / PROJECTION
    self.latents, self.codebooks = self.semantic_ids / LATENTS, self.semantic_ids / CODEBOOKS
    self.codes_table = self.semantic_ids / CODES_TABLE
    self.checkpoints = self.generator / CHECKPOINTS
    self.metrics, self.predictions = self.evaluation / METRICS, self.evaluation / PREDICTIONS
    self.bought_together = self.evaluation / BOUGHT_TOGETHER
    self.report = self.root / REPORT
    self.plan = self.root / PLAN
    self.comparison, self.comparison_page = self.root / COMPARISON, self.root / COMPARISON_PAGE
    self.export = self.root / EXPORT

  def __str__(self) -> str:
    return str(self.root)

  def read_interactions(self, config: DataConfig, part: tuple[int, int] = (0, 1)) -> Windows:
    """All interactions, in memory or as a stream of windows of users (`config.window_users`).

    Args:
      part: this process' share of each window, and the number of shares.
    """
    if not config.window_users:
      return store.load_interactions(self.dataset)
    # Validation and test targets are kept in addition to the history.
    return store.StreamedInteractions(self.dataset, config.window_users, config.history_length + 2, *part)

  def read_summary(self) -> dict[str, Any]:
    """`dataset/summary.json`."""
    return store.load_summary(self.dataset)

  def read_raw_ids(self) -> tuple[str, ...] | None:
    """Raw ids of all items; None where the source has no ids of its own."""
    return store.load_raw_ids(self.dataset)

  def read_item_names(self) -> tuple[str, ...]:
    """Raw ids of all items; '0', '1', ... where the source has no ids of its own."""
    return self.read_raw_ids() or tuple(map(str, range(self.read_summary()['items'])))

  def read_last_times(self) -> np.ndarray | None:
    """int64 [users], microseconds since 1970 of each user's last interaction; None where the data has no times."""
    return store.load_last_times(self.dataset)

  def read_left_out(self) -> dict[str, str]:
    """Raw id -> step of the preparation that left the item out (`data/left_out.py`); empty where none is known."""
    return left_out.read(self.dataset / left_out.FILE)

  def write_first_purchases(self, data: Windows) -> None:
    """Counts and writes the first purchases of all users, for users of whom nothing is known."""
    artifacts.write_npy(self.dataset / FIRST_PURCHASES, count_first_purchases(data))

  def read_first_purchases(self) -> FirstPurchases:
    """The popularity of first purchases."""
    path = self.dataset / FIRST_PURCHASES
    try:
      counts_2xN = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
      raise InputError(f'{path} cannot be read ({error}); {store.REDO}') from error
    if counts_2xN.shape != (2, self.read_summary()['items']):
      raise InputError(f'{path} is an array {list(counts_2xN.shape)}, not of the items of the data; {store.REDO}')
    return FirstPurchases(counts_2xN)

  def read_texts(self) -> tuple[dict[str, str], ...] | None:
    """Texts of all items, field -> text; None where the source has none."""
    return store.load_texts(self.dataset)

  def has_rows(self, folder: pathlib.Path) -> bool:
    """Whether the rows of `text_embeddings` or `collaborative` have been written."""
    return (folder / EMBEDDINGS).exists()

  def read_rows(self, folder: pathlib.Path, mmap: bool = False) -> np.ndarray:
    """float32 [items, D], the rows of `text_embeddings` or `collaborative`."""
    return np.load(folder / EMBEDDINGS, mmap_mode='r' if mmap else None, allow_pickle=False)

  def write_rows(self, folder: pathlib.Path, rows: np.ndarray) -> None:
    """Writes embedding rows with the raw ids of their items, so that they can be given to another run."""
    if processes.is_first():
      matching.write_rows(folder / EMBEDDINGS, rows, self.read_raw_ids())

  def has_semantic_ids(self) -> bool:
    """Whether semantic IDs have been written."""
    return (self.semantic_ids / IDS_REPORT).exists() and (self.semantic_ids / CODES).exists()

  def read_semantic_ids(self) -> 'SemanticIds':
    """The semantic IDs; InputError where there are none or they are damaged."""
    from letter_jax.semantic_ids.ids import SemanticIds

    path = self.semantic_ids / CODES
    try:
      codes_NxL = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
      raise InputError(f'{path} cannot be read ({error}); expected the output of the stage semantic_ids') from error
    report = self.read_ids_report()
    if not isinstance(report, dict) or not isinstance(report.get('codebook_size'), int):
      raise InputError(f'{self.semantic_ids / IDS_REPORT} has no codebook_size; expected the output of semantic_ids')
    return SemanticIds(codes_NxL, report['codebook_size'])

  def read_ids_report(self) -> dict[str, Any]:
    """`semantic_ids/report.json`: codebook size, use of the codes, collisions and what was done about them."""
    return read_json(self.semantic_ids / IDS_REPORT)

  def write_semantic_ids(self, ids: 'SemanticIds', report: dict[str, Any]) -> None:
    """Writes the codes, their table with raw ids, LETTER's index, and the report."""
    if processes.is_first():
      artifacts.write_npy(self.semantic_ids / CODES, ids.codes_NxL)
      ids.write(self.semantic_ids, self.read_raw_ids())
      artifacts.write_json(self.semantic_ids / IDS_REPORT, {**report, 'codebook_size': ids.codebook_size})

  def write_latents(self, latents_NxD: np.ndarray, codebooks_LxKxD: np.ndarray) -> None:
    """Writes what the report shows of the tokenizer; a single process makes it, and restores nothing."""
    artifacts.write_npy(self.latents, latents_NxD)
    artifacts.write_npy(self.codebooks, codebooks_LxKxD)

  def write_added_items(self, added_N: np.ndarray) -> None:
    """Writes what `read_added_items` reads."""
    artifacts.write_npy(self.semantic_ids / ADDED, added_N)

  def read_added_items(self, num_items: int) -> np.ndarray:
    """bool [N], whether an item came after the training of the tokenizer."""
    path = self.semantic_ids / ADDED
    if not path.exists():
      return np.zeros(num_items, bool)
    try:
      added_N = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
      raise InputError(f'{path} cannot be read ({error}); expected the output of the stage semantic_ids') from error
    if added_N.shape != (num_items,):
      raise InputError(
        f'{path} is an array {list(added_N.shape)}, not of the items of the data; expected [{num_items}]'
      )
    return added_N

  def write_tokenizer_validation(self, metrics: dict[str, float]) -> None:
    """Writes the metrics of the tokenizer's best validation."""
    artifacts.write_json(self.tokenizer / BEST_VALIDATION, metrics)

  def read_tokenizer_validation(self) -> dict[str, float]:
    """Metrics of the tokenizer's best validation; empty where no tokenizer was trained."""
    path = self.tokenizer / BEST_VALIDATION
    return read_json(path) if path.exists() else {}

  def write_generator_config(self, config: Config) -> None:
    """Writes the configuration of the generator's run; its best checkpoint can then be used while it trains."""
    artifacts.write_json(self.generator / DESCRIPTION, {'config': dataclasses.asdict(config)})

  def forget_untrained_generator(self, prepared: Sequence[str]) -> None:
    """Removes what the stage has prepared where it has not trained, so that the next attempt may have other settings.

    Args:
      prepared: names of files and folders that a generator of its kind prepares.
    """
    if not (self.generator / TRAINING_LOG).exists():
      artifacts.remove([self.generator / name for name in (DESCRIPTION, FEATURES, *prepared)])

  def read_generator_config(self) -> Config:
    """The configuration of the generator's run; InputError where the stage has not begun."""
    path = self.generator / DESCRIPTION
    try:
      return from_config_dict(json.loads(path.read_text(encoding='utf-8'))['config'])
    except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
      raise InputError(
        f'{self.root} has no generator to restore ({error}); expected a workdir whose generator stage has run'
      ) from error

  def restore_generator(self, layout: 'Layout | None' = None) -> RestoredGenerator:
    """The parameters of the best validation so far, of a finished or a running training.

    Args:
      layout: a `sharding.Layout`; by default everything is on the default device.

    Raises:
      InputError: the folder has no generator checkpoint, or none that can be read.
    """
    from letter_jax.sharding import on_one_device
    from letter_jax.training.checkpoints import folder, read_best

    config = self.read_generator_config()
    params, progress = read_best(folder(config.checkpoints, self.generator, 'generator'), layout or on_one_device())
    return RestoredGenerator(params, config, self.read_semantic_ids(), progress.step, progress.best_metrics)

  def write_collaborative_results(self, metrics: dict[str, dict], of_users: dict[str, np.ndarray]) -> None:
    """Writes what `read_collaborative_metrics` and `read_collaborative_ranks` read."""
    ranks.write(self.collaborative / RANKS, of_users)
    artifacts.write_json(self.collaborative / METRICS, metrics)

  def read_collaborative_ranks(self) -> dict[str, np.ndarray]:
    """Model -> int32 [3, users], as in `read_ranks`."""
    return ranks.read(self.collaborative / RANKS)

  def read_collaborative_metrics(self) -> dict[str, dict]:
    """Model -> {'validation': metrics, 'test': metrics} of the models trained by the stage collaborative."""
    return read_json(self.collaborative / METRICS)

  def read_metrics(self) -> dict[str, Any]:
    """`evaluation/metrics.json`; InputError that names the workdir where it does not exist."""
    if not self.metrics.exists():
      raise InputError(
        f'{self.root} has no {self.metrics.relative_to(self.root)}; expected the workdir of a run whose evaluation is '
        'complete'
      )
    metrics = read_json(self.metrics)
    expected = f'expected what the evaluation of this version writes: {REDO_EVALUATION}'
    if not isinstance(metrics, dict) or history.MAIN not in metrics:
      raise InputError(f'{self.metrics} has no {history.MAIN!r}; {expected}')
    for figures in (metrics, metrics.get(ranks.FUSED, metrics)):
      served = figures.get(history.SERVED) if isinstance(figures, dict) else None
      if not history.is_choice(served):
        raise InputError(f'{self.metrics} has {history.SERVED!r}: {served!r}; {expected}')
    return metrics

  def read_served_protocol(self, fused: bool) -> dict[str, Any] | None:
    """Whether `recommend` excludes the items of a history, as validation chose (`evaluation/history.py`, `choose`).

    None where there is no evaluation.

    Args:
      fused: whether the generator recommends together with its partners.

    Raises:
      InputError: `metrics.json` is damaged.
    """
    if not self.metrics.exists():
      return None
    metrics = self.read_metrics()
    return metrics.get(ranks.FUSED, metrics)[history.SERVED] if fused else metrics[history.SERVED]

  def write_metrics(self, metrics: dict[str, Any], of_users: dict[str, np.ndarray]) -> None:
    """Writes what `read_metrics` and `read_ranks` read."""
    ranks.write(self.evaluation / RANKS, of_users)
    artifacts.write_json(self.metrics, metrics)

  def write_fusion(self, fusion: dict[str, Any]) -> None:
    """Writes what `read_fusion` reads."""
    artifacts.write_json(self.evaluation / FUSION, fusion)

  def read_fusion(self) -> dict[str, Any] | None:
    """`evaluation/fusion.json`: the generator's 'partners', 'candidates' and 'weights' of each; None without any."""
    path = self.evaluation / FUSION
    return read_json(path) if path.exists() else None

  def read_ranks(self) -> dict[str, np.ndarray]:
    """Model -> int32 [3, users], the rank of every test user's target (`evaluation/ranks.py`)."""
    return ranks.read(self.evaluation / RANKS)

  def write_predictions(self, lines: Iterable[dict[str, Any]]) -> None:
    """Writes what `read_predictions` reads."""

    def write(path: pathlib.Path) -> None:
      with path.open('w', encoding='utf-8') as file:
        file.writelines(f'{json.dumps(line)}\n' for line in lines)

    artifacts.write(self.predictions, write)

  def read_predictions(self) -> Iterator[dict[str, Any]]:
    """The lines of `evaluation/predictions.jsonl`, one at a time, users in the order of the data set."""
    try:
      with self.predictions.open(encoding='utf-8') as file:
        yield from map(json.loads, file)
    except (OSError, ValueError) as error:
      raise InputError(f'{self.predictions} cannot be read ({error}); {REDO_EVALUATION}') from error

  def read_records(self) -> dict[str, dict[str, Any]]:
    """Folder -> record of each stage that has one, in pipeline order: 'seconds', 'machine', 'settings', ..."""
    folders = (
      self.dataset,
      self.text_embeddings,
      self.collaborative,
      self.tokenizer,
      self.semantic_ids,
      self.generator,
      self.evaluation,
    )
    return {folder.name: read_json(folder / RECORD) for folder in folders if (folder / RECORD).exists()}


def training_log(folder: pathlib.Path) -> pathlib.Path:
  """The file that `read_training_log` reads."""
  return folder / TRAINING_LOG


def read_training_log(folder: pathlib.Path) -> dict[str, Curves] | None:
  """{'train': curves, 'validation': curves} of a stage's `metrics.jsonl`; None where nothing was trained."""
  path = training_log(folder)
  if not path.exists():
    return None
  points: dict[str, dict[str, list[tuple[float, float]]]] = {'train': {}, 'validation': {}}
  for row, line in enumerate(path.read_text(encoding='utf-8').splitlines(), 1):
    try:
      values = json.loads(line)
      kind, epoch = values.pop('kind'), values.pop('epoch')
      del values['step']
      for name, value in values.items():
        points[kind].setdefault(name, []).append((float(epoch), float(value)))
    except (ValueError, KeyError, TypeError) as error:
      raise InputError(
        f'{path}:{row} cannot be read ({error}); expected a line of metrics as training writes it'
      ) from error
  return {
    kind: {name: tuple(np.array(pairs, np.float64).T) for name, pairs in curves.items()}
    for kind, curves in points.items()
  }


def read_json(path: pathlib.Path) -> Any:
  """The content of a JSON file of a workdir; InputError where it does not exist or is damaged."""
  try:
    return json.loads(path.read_text(encoding='utf-8'))
  except (OSError, ValueError) as error:
    raise InputError(f'{path} cannot be read ({error}); expected the output of the stage of that folder') from error


def restore_generator(workdir: str | os.PathLike, layout: 'Layout | None' = None) -> RestoredGenerator:
  """The best generator of a finished or running `--workdir`: parameters, configuration, semantic IDs.

  Args:
    layout: a `sharding.Layout` for the parameters; by default they are on the default device.

  Raises:
    InputError: the folder has no generator checkpoint, or none that can be read.
  """
  return Workdir(workdir).restore_generator(layout)
