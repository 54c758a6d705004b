"""The work of each stage: read its inputs, call the package that does the work, write the results.

Packages are imported by the stage that uses them, so that a run loads no more than it needs.
"""

import dataclasses
import json
import pathlib
from typing import TYPE_CHECKING

import numpy as np

from letter_jax.configuration import RAW_SOURCES, Config
from letter_jax.data import matching, sources, splits, store
from letter_jax.data.dataset import Interactions, Windows
from letter_jax.system import artifacts, machine, processes
from letter_jax.system.errors import InputError
from letter_jax.workdir import (
  BEST_VALIDATION,
  CODEBOOKS,
  DESCRIPTION,
  LATENTS,
  METRICS,
  PREDICTIONS,
  PROJECTION,
  RANKS,
  TRAINING_LOG,
  Workdir,
)

if TYPE_CHECKING:
  from letter_jax.evaluation.evaluator import Evaluation
  from letter_jax.semantic_ids.ids import SemanticIds


def text_embeddings_files(config: Config) -> dict[str, pathlib.Path]:
  """The given rows, or the files of the language model's folder, by config key."""
  if config.text_embeddings.path:
    return given_rows_files('text_embeddings.path', config.text_embeddings.path)
  if not config.text_embeddings.model:
    return {}
  from letter_jax.text_embeddings.language_models import model_files

  folder = pathlib.Path(config.text_embeddings.model)
  return {f'text_embeddings.model/{path.relative_to(folder).as_posix()}': path for path in model_files(str(folder))}


def given_rows_files(key: str, path: str) -> dict[str, pathlib.Path]:
  """A given .npy file and the raw ids next to it, if there are any; none where nothing is given."""
  if not path:
    return {}
  ids = matching.ids_file(pathlib.Path(path))
  return {key: pathlib.Path(path), **({f'{key}/{ids.name}': ids} if ids.is_file() else {})}


def semantic_ids_files(config: Config) -> dict[str, pathlib.Path]:
  """The given semantic IDs and the table with raw ids next to them, if there is one."""
  if not config.semantic_ids.path:
    return {}
  from letter_jax.semantic_ids.table import TABLE

  path = pathlib.Path(config.semantic_ids.path)
  table = path.with_name(TABLE)
  return {
    'semantic_ids.path': path,
    **({f'semantic_ids.path/{TABLE}': table} if table != path and table.is_file() else {}),
  }


def generator_files(config: Config) -> dict[str, pathlib.Path]:
  """The weights and texts that the generator starts from."""
  from letter_jax.generators.generator import kind

  return kind(config.generator).input_files(config.generator)


def _read_interactions(config: Config, workdir: Workdir) -> Windows:
  """All interactions, or a stream of which this process reads its share."""
  if not config.data.window_users:
    return workdir.read_interactions(config.data)
  from letter_jax import sharding

  return workdir.read_interactions(config.data, sharding.data_part(sharding.make_mesh(config.mesh)))


def check_devices(config: Config) -> None:
  """Raises InputError where `config.mesh` does not fit the devices of this machine."""
  from letter_jax import sharding

  sharding.data_part(sharding.make_mesh(config.mesh))


def header(config: Config, workdir: pathlib.Path) -> str:
  """The first line of a run: generator, data, devices, mesh, folder."""
  from letter_jax import sharding
  from letter_jax.generators.generator import NAMES

  mesh = sharding.make_mesh(config.mesh)
  over = f' of {processes.count()} processes' if processes.count() > 1 else ''
  data, generator = f'{config.data.source} {config.data.name}'.strip(), NAMES[config.generator.architecture]
  return (
    f'letter_jax: {generator}, data {data}, seed {config.seed}; {machine.devices()}{over}, '
    f'mesh data {mesh.shape["data"]} x model {mesh.shape["model"]}; {workdir}'
  )


def check_inputs(config: Config, root: pathlib.Path) -> None:
  """Raises InputError for inputs from outside that cannot fit the data set."""
  workdir = Workdir(root)
  summary = workdir.read_summary()
  items = summary['items']
  model, beam = config.tokenizer.model, config.evaluation.beam
  if beam > items:
    raise InputError(f'config.evaluation.beam is {beam}; expected at most the number of items, {items}')
  if beam < min(20, items):
    raise InputError(f'config.evaluation.beam is {beam}; expected at least {min(20, items)}, as metrics go to rank 20')
  levels, codebook_size = model.levels, model.codebook_size
  if config.semantic_ids.path:
    ids, _ = _given_semantic_ids(config, workdir)
    levels, codebook_size = ids.levels, ids.codebook_size
  else:
    if config.semantic_ids.collisions == 'resolve' and items > model.codebook_size**model.levels:
      raise InputError(
        f'{items} items cannot have semantic IDs of their own: {model.levels} levels of '
        f'{model.codebook_size} codes; expected larger config.tokenizer.model.codebook_size or levels'
      )
    if config.text_embeddings.path:
      _given_rows(config.text_embeddings.path, workdir, 'text embeddings')
    if config.collaborative.path:
      dim = _given_rows(config.collaborative.path, workdir, 'collaborative embeddings')[0].shape[1]
      if dim != model.latent_dim:
        raise InputError(
          f'{config.collaborative.path} has {dim} columns; expected config.tokenizer.model.latent_dim, '
          f'{model.latent_dim}'
        )
  from letter_jax.generators.generator import kind

  has_texts = summary['items_without_text'] is not None
  kind(config.generator).check(config.generator, has_texts, levels, codebook_size)


def _given_rows(path: str, workdir: Workdir, meaning: str) -> tuple[np.ndarray, bool]:
  """Rows in the order of the catalogue, and whether they were matched by raw id."""
  return matching.read_rows(pathlib.Path(path), workdir.read_items()[0], workdir.read_summary()['items'], meaning)


def _given_semantic_ids(config: Config, workdir: Workdir) -> 'tuple[SemanticIds, bool]':
  from letter_jax.semantic_ids.ids import read_given

  path, items = pathlib.Path(config.semantic_ids.path), workdir.read_summary()['items']
  return read_given(path, workdir.read_items()[0], items)


def _say_matching(stage: str, path: str, matched: bool, workdir: Workdir) -> None:
  """Says how given rows and items belong together, where the data has ids of its own."""
  if matched:
    print(f'{stage}: {path}, matched by raw id', flush=True)
  elif workdir.read_items()[0]:
    print(
      f'{stage}: {path} carries no raw ids: row i is taken as item i of this data set (put the ids next to it to be '
      'sure: docs/data.md)',
      flush=True,
    )


def dataset(config: Config, root: pathlib.Path) -> None:
  """Prepares interactions and items from their source."""
  workdir = Workdir(root)
  if config.data.source == 'prepared':
    store.adopt(sources.prepared_folder(config.data), workdir.dataset)
  else:
    store.save(sources.read_dataset(config.data, config.seed, _download_manager(config)), workdir.dataset)
  summary = workdir.read_summary()
  print(
    f'dataset: {summary["name"]}: {summary["users"]:,} users, {summary["items"]:,} items, '
    f'{summary["interactions"]:,} interactions, {summary["training_examples"]:,} training examples'
  )


def _download_manager(config: Config):
  """The download manager of TFDS, where raw files are to be downloaded."""
  if config.data.source not in RAW_SOURCES or config.data.path:
    return None
  import tensorflow_datasets as tfds

  folder = pathlib.Path(config.data.downloads or '~/.cache/letter_jax/downloads').expanduser()
  return tfds.download.DownloadManager(download_dir=folder)


def text_embeddings(config: Config, root: pathlib.Path) -> None:
  """Embeds the text of every item, or takes given rows."""
  workdir = Workdir(root)
  if config.text_embeddings.path:
    rows, matched = _given_rows(config.text_embeddings.path, workdir, 'text embeddings')
    _say_matching('text_embeddings', config.text_embeddings.path, matched, workdir)
  else:
    from letter_jax.text_embeddings.tf_idf import embed_texts

    rows, projection = embed_texts(workdir.read_items()[1], config.text_embeddings, config.seed)
    if projection:  # for items that come after training
      projection.write(workdir.text_embeddings / PROJECTION)
  workdir.write_rows(workdir.text_embeddings, rows, workdir.read_raw_ids())


def collaborative(config: Config, root: pathlib.Path) -> None:
  """Trains SASRec (and LightGCN), or takes given rows; writes the rows that the tokenizer aligns with."""
  from letter_jax import sharding
  from letter_jax.evaluation import ranks

  workdir, settings = Workdir(root), config.collaborative
  data = _read_interactions(config, workdir)
  method = 'given' if settings.path else settings.method
  items: dict[str, np.ndarray] = {}
  metrics, test_ranks = {}, {}
  if method == 'sasrec' or settings.baseline:
    from letter_jax.collaborative.sasrec_training import train_sasrec

    params, metrics['sasrec'], test_ranks['sasrec'] = train_sasrec(
      settings,
      data,
      workdir.collaborative,
      history_length=config.data.history_length,
      seed=config.seed,
      mesh=config.mesh,
      checkpoints=config.checkpoints,
    )
    items['sasrec'] = sharding.fetch(params['item_embeddings'])
  if method == 'lightgcn':
    from letter_jax.collaborative.lightgcn_training import train_lightgcn

    whole = store.load_interactions(workdir.dataset)  # the graph is on the device
    (_, final_items), metrics['lightgcn'], test_ranks['lightgcn'] = train_lightgcn(
      settings.lightgcn,
      whole,
      workdir.collaborative / 'lightgcn',
      seed=config.seed,
      mesh=config.mesh,
      checkpoints=config.checkpoints,
    )
    items['lightgcn'] = sharding.fetch(final_items)
  if method == 'given':
    rows, matched = _given_rows(settings.path, workdir, 'collaborative embeddings')
    _say_matching('collaborative', settings.path, matched, workdir)
  else:
    from letter_jax.collaborative.embeddings import collaborative_rows

    rows = collaborative_rows(items[method], config.tokenizer.model.latent_dim)
  workdir.write_rows(workdir.collaborative, rows, workdir.read_raw_ids())
  ranks.write(workdir.collaborative / RANKS, test_ranks)
  artifacts.write_json(workdir.collaborative / METRICS, metrics)


def tokenizer(config: Config, root: pathlib.Path) -> None:
  """Trains the tokenizer."""
  from letter_jax.tokenizer.training import train_tokenizer

  workdir = Workdir(root)
  _, progress = train_tokenizer(
    config.tokenizer,
    workdir.read_rows(workdir.text_embeddings),
    workdir.read_rows(workdir.collaborative),
    workdir.tokenizer,
    seed=config.seed,
    mesh=config.mesh,
    checkpoints=config.checkpoints,
  )
  artifacts.write_json(workdir.tokenizer / BEST_VALIDATION, progress.best_metrics)


def semantic_ids(config: Config, root: pathlib.Path) -> None:
  """Gives every item its semantic ID, or takes given ones."""
  from letter_jax.semantic_ids.ids import SemanticIds
  from letter_jax.tokenizer import diagnostics

  workdir = Workdir(root)
  if config.semantic_ids.path:
    ids, matched = _given_semantic_ids(config, workdir)
    _say_matching('semantic_ids', config.semantic_ids.path, matched, workdir)
    report = {'source': 'given'}
  else:
    from letter_jax.tokenizer.assignment import assign_semantic_ids
    from letter_jax.tokenizer.training import encode_items

    settings, text = config.tokenizer.model, workdir.read_rows(workdir.text_embeddings)
    latent, codebooks = encode_items(
      config.tokenizer, text, workdir.tokenizer, mesh=config.mesh, checkpoints=config.checkpoints
    )
    codes, report = assign_semantic_ids(latent, codebooks, settings, config.semantic_ids.collisions)
    ids = SemanticIds(codes, settings.codebook_size)
    # For the report, which a single process makes and which restores nothing.
    artifacts.write_npy(workdir.semantic_ids / LATENTS, latent)
    artifacts.write_npy(workdir.semantic_ids / CODEBOOKS, codebooks)
  report = {**report, **diagnostics.diagnose(ids.codes_NxL, ids.codebook_size)}
  workdir.write_semantic_ids(ids, report)
  summary = (
    'as given'
    if 'moved' not in report
    else f'{report["collided"]:,} shared their nearest ID, {report["moved"]:,} moved, {report["colliding_after"]:,} '
    'still share theirs'
  )
  print(
    f'semantic_ids: {len(ids):,} items: {summary}; codes used by level '
    f'{", ".join(map(str, report["codes_used"]))} of {ids.codebook_size}'
  )


def generator(config: Config, root: pathlib.Path) -> None:
  """Trains the generator."""
  from letter_jax import sharding
  from letter_jax.generators.generator import kind, train_generator

  workdir, generator_kind = Workdir(root), kind(config.generator)
  data, directory = _read_interactions(config, workdir), workdir.generator
  try:
    texts = workdir.read_items()[1] if generator_kind.reads_texts else None
    ids = workdir.read_semantic_ids().place(sharding.make_mesh(config.mesh))
    model = generator_kind.for_training(config.generator, ids, config.mesh.fully_sharded, directory, texts)
    # Written before the training: its best checkpoint can be used while it runs.
    artifacts.write_json(directory / DESCRIPTION, {'config': dataclasses.asdict(config)})
    train_generator(
      model,
      data,
      directory,
      history_length=config.data.history_length,
      seed=config.seed,
      batch_size=config.evaluation.batch_size,
      checkpoints=config.checkpoints,
    )
  except InputError:
    if not (directory / TRAINING_LOG).exists():  # nothing was trained, so the next attempt may have other settings
      artifacts.remove([directory / DESCRIPTION, directory / 'tokenizer'])
    raise


def evaluate(config: Config, root: pathlib.Path) -> None:
  """Evaluates the best generator on validation and test, and the baselines next to it."""
  from letter_jax.evaluation import metrics, popularity, ranks
  from letter_jax.evaluation.evaluator import GeneratorEvaluator
  from letter_jax.generators.generator import user_search
  from letter_jax.serving.loaded_generator import LoadedGenerator

  workdir = Workdir(root)
  data = _read_interactions(config, workdir)
  loaded = LoadedGenerator.of_workdir(workdir, config)
  evaluator = GeneratorEvaluator(user_search(loaded.generator, config.evaluation.beam, config.evaluation.batch_size))
  counts, recent = popularity.training_counts(data), data.recent()
  examples = {
    'validation': splits.validation_examples(recent, config.data.history_length),
    'test': splits.test_examples(recent, config.data.history_length),
  }
  evaluations = {
    split: _evaluate_split(evaluator, loaded.params, of_split, split) for split, of_split in examples.items()
  }
  of_popularity = {
    split: popularity.popularity_metrics(counts, of_split.targets) for split, of_split in examples.items()
  }
  directory = workdir.evaluation
  artifacts.write(
    directory / PREDICTIONS, lambda path: _write_predictions(path, recent, examples['test'], evaluations['test'])
  )
  ranks.write(
    directory / RANKS,
    {
      ranks.GENERATOR: evaluations['test'].ranks_3xU,
      **ranks.read(workdir.collaborative / RANKS),
      'popularity': of_popularity['test'][1],
    },
  )
  string_match = {
    f'{split}_string_match': evaluation.string_match
    for split, evaluation in evaluations.items()
    if evaluator.has_collisions
  }
  popularity_metrics = {split: metrics.summarize(sums) for split, (sums, _) in of_popularity.items()}
  artifacts.write_json(
    directory / METRICS,
    {
      **{split: evaluation.metrics for split, evaluation in evaluations.items()},
      **string_match,
      'baselines': {'popularity': popularity_metrics, **workdir.read_collaborative_metrics()},
      'users': len(recent.lengths),
      'beam': config.evaluation.beam,
      'generator_step': loaded.step,
    },
  )


def _evaluate_split(evaluator, params, examples: splits.Examples, split: str) -> 'Evaluation':
  shortened = evaluator.shortened(examples)
  if shortened:
    print(
      f'evaluate: {shortened:,} of {len(examples):,} histories lose their oldest items: they do not fit in the context '
      'of the model',
      flush=True,
    )
  return evaluator.evaluate(params, examples, label=f'evaluate {split}')


def report(config: Config, root: pathlib.Path) -> None:
  """Writes the report page."""
  from letter_jax.reporting.report import write_report

  write_report(config, root)


def print_results(config: Config, root: pathlib.Path) -> None:
  """Prints the final table and where each result is."""
  from letter_jax.generators.generator import NAMES
  from letter_jax.reporting.results_table import results_table

  metrics = Workdir(root).read_metrics()
  labels = {
    'sasrec': f'SASRec ({config.collaborative.model.loss.replace("_", " ")})',
    'lightgcn': 'LightGCN',
    'popularity': 'popularity',
  }
  rows = {NAMES[config.generator.architecture]: metrics['test']}
  rows.update(
    {label: metrics['baselines'][name]['test'] for name, label in labels.items() if name in metrics['baselines']}
  )
  print(f'\n{results_table(rows)}\n{metrics["users"]:,} users, full ranking, beam {metrics["beam"]}\n')
  for meaning, place in (
    ('report', 'report.html'),
    ('all metrics', 'evaluation/metrics.json'),
    ('recommendations', 'evaluation/predictions.jsonl'),
    ('semantic IDs', 'semantic_ids/semantic_ids.csv'),
    ('generator', 'generator/checkpoints'),
    ('training curves', '**/tensorboard and **/metrics.jsonl'),
  ):
    print(f'{meaning:<16} {root / place}')


def _write_predictions(
  path: pathlib.Path, data: Interactions, examples: splits.Examples, evaluation: 'Evaluation'
) -> None:
  with path.open('w', encoding='utf-8') as file:
    for user in range(len(examples)):
      kept = evaluation.items_UxK[user] >= 0
      line = {
        'user': data.users[examples.user[user]],
        'history': examples.items[examples.start[user] : examples.end[user]].tolist(),
        'target': int(examples.targets[user]),
        'items': evaluation.items_UxK[user][kept].tolist(),
        'scores': [round(score, 6) for score in evaluation.scores_UxK[user][kept].tolist()],
      }
      file.write(json.dumps(line) + '\n')
