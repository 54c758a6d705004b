"""The work of each stage: read its inputs, call the package that does the work, write the results.

Packages are imported by the stage that uses them, so that a run loads no more than it needs.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from letter_jax.configuration import RAW_SOURCES, Config
from letter_jax.data import sources, splits, store
from letter_jax.data.dataset import Interactions, Windows
from letter_jax.pipeline import inputs
from letter_jax.system import artifacts, machine, processes
from letter_jax.system.errors import InputError
from letter_jax.workdir import (
  BEST_VALIDATION,
  CODEBOOKS,
  DESCRIPTION,
  FUSION,
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
    rows, matched = inputs.given_rows(config.text_embeddings.path, workdir, 'text embeddings')
    inputs.print_matching('text_embeddings', config.text_embeddings.path, matched, workdir)
  else:
    from letter_jax.text_embeddings.tf_idf import embed_texts

    rows, projection = embed_texts(workdir.read_items()[1], config.text_embeddings, config.seed)
    if projection:  # for items that come after training
      projection.write(workdir.text_embeddings / PROJECTION)
  workdir.write_rows(workdir.text_embeddings, rows)


def collaborative(config: Config, root: pathlib.Path) -> None:
  """Trains SASRec (and LightGCN), or takes given rows; writes the rows that the tokenizer aligns with."""
  from letter_jax import sharding
  from letter_jax.evaluation import ranks

  workdir, settings = Workdir(root), config.collaborative
  data = _read_interactions(config, workdir)
  method = 'given' if settings.path else settings.method
  items: dict[str, np.ndarray] = {}
  metrics: dict[str, dict] = {}
  test_ranks: dict[str, np.ndarray] = {}
  if method == 'sasrec' or settings.baseline:
    from letter_jax.collaborative.sasrec_training import train_sasrec

    params, metrics['sasrec'], sasrec_ranks = train_sasrec(
      settings,
      data,
      workdir.collaborative,
      history_length=config.data.history_length,
      seed=config.seed,
      mesh=config.mesh,
      checkpoints=config.checkpoints,
    )
    test_ranks |= sasrec_ranks
    items['sasrec'] = sharding.fetch(params['item_embeddings'])
  if method == 'lightgcn':
    from letter_jax.collaborative.lightgcn_training import train_lightgcn

    whole = store.load_interactions(workdir.dataset)  # the graph is on the device
    (_, final_items), metrics['lightgcn'], lightgcn_ranks = train_lightgcn(
      settings.lightgcn,
      whole,
      workdir.collaborative / 'lightgcn',
      seed=config.seed,
      mesh=config.mesh,
      checkpoints=config.checkpoints,
    )
    test_ranks |= lightgcn_ranks
    items['lightgcn'] = sharding.fetch(final_items)
  if method == 'given':
    rows, matched = inputs.given_rows(settings.path, workdir, 'collaborative embeddings')
    inputs.print_matching('collaborative', settings.path, matched, workdir)
  else:
    from letter_jax.collaborative.embeddings import collaborative_rows

    rows = collaborative_rows(items[method], config.tokenizer.model.latent_dim)
  workdir.write_rows(workdir.collaborative, rows)
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
    ids, matched = inputs.given_semantic_ids(config, workdir)
    inputs.print_matching('semantic_ids', config.semantic_ids.path, matched, workdir)
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
  """Evaluates the best generator on validation and test, alone and with its partner, and the baselines next to it."""
  from letter_jax.evaluation import metrics, popularity, ranks
  from letter_jax.evaluation.evaluator import GeneratorEvaluator
  from letter_jax.evaluation.history import excluded_items
  from letter_jax.evaluation.list_evaluator import ListEvaluator, choose_weight
  from letter_jax.generators.generator import user_search
  from letter_jax.serving.loaded_generator import LoadedGenerator

  workdir = Workdir(root)
  data = _read_interactions(config, workdir)
  loaded = LoadedGenerator.of_workdir(workdir, config)
  search = user_search(loaded.generator, config.evaluation.beam, config.evaluation.batch_size)
  evaluator = GeneratorEvaluator(search)
  counts, recent = popularity.training_counts(data), data.recent()
  examples = {
    'validation': splits.validation_examples(recent, config.data.history_length),
    'test': splits.test_examples(recent, config.data.history_length),
  }
  whole = {split: of_split.whole_histories(recent) for split, of_split in examples.items()}
  longest = int(recent.lengths.max())
  evaluations = {
    split: _evaluate_split(evaluator, loaded.params, of_split, split) for split, of_split in examples.items()
  }
  test_ranks = {ranks.GENERATOR: evaluations['test'].ranks_3xU, **ranks.read(workdir.collaborative / RANKS)}

  def test_lists(evaluator: ListEvaluator, params, model: str, history_out: bool) -> dict[str, dict[str, float]]:
    """Metrics of the test, whose ranks are kept."""
    label = f'evaluate test, {model}{", history out" if history_out else ""}'
    *_, ranks_3xU = evaluator.lists(params, examples['test'], whole['test'] if history_out else None, label)
    test_ranks[ranks.history_out(model) if history_out else model] = ranks_3xU
    return {'test': ranks.metrics_of(ranks_3xU)}

  results = {
    **{split: evaluation.metrics for split, evaluation in evaluations.items()},
    'history_out': test_lists(ListEvaluator(search, longest), loaded.params, ranks.GENERATOR, history_out=True),
  }
  if config.fusion.partner:
    fused_search, models = loaded.fused_search(config.evaluation.beam, config.fusion.candidates)
    both = ListEvaluator(fused_search, longest)
    weight, by_weight = choose_weight(
      both, models, examples['validation'], whole['validation'], 'evaluate validation, fused'
    )
    validation, validation_out = by_weight[weight]
    params = (*models, np.float32(weight))
    fusion = {**dataclasses.asdict(config.fusion), 'weight': weight}
    artifacts.write_json(workdir.evaluation / FUSION, fusion)
    results['fused'] = {
      **fusion,
      'ndcg@10_by_weight': {
        str(each): [of_protocol['ndcg@10'] for of_protocol in found] for each, found in by_weight.items()
      },
      'validation': validation,
      **test_lists(both, params, ranks.FUSED, history_out=False),
      'history_out': {'validation': validation_out, **test_lists(both, params, ranks.FUSED, history_out=True)},
    }

  def popularity_metrics(had: Mapping[str, np.ndarray | None], key: str) -> dict[str, dict[str, float]]:
    found = {}
    for split, of_split in examples.items():
      sums, ranks_3xU = popularity.popularity_metrics(counts, of_split.targets, had[split])
      found[split] = metrics.summarize(sums)
      if split == 'test':
        test_ranks[key] = ranks_3xU
    return found

  excluded = {split: excluded_items(of_split) for split, of_split in whole.items()}
  of_popularity = {
    **popularity_metrics(dict.fromkeys(examples), 'popularity'),
    'history_out': popularity_metrics(excluded, ranks.history_out('popularity')),
  }
  directory = workdir.evaluation
  artifacts.write(
    directory / PREDICTIONS, lambda path: _write_predictions(path, recent, examples['test'], evaluations['test'])
  )
  ranks.write(directory / RANKS, test_ranks)
  string_match = {
    f'{split}_string_match': evaluation.string_match
    for split, evaluation in evaluations.items()
    if evaluator.has_collisions
  }
  artifacts.write_json(
    directory / METRICS,
    {
      **results,
      **string_match,
      'baselines': {'popularity': of_popularity, **workdir.read_collaborative_metrics()},
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
  name = NAMES[config.generator.architecture]
  sasrec = f'SASRec ({config.collaborative.model.loss.replace("_", " ")})'
  labels = {'sasrec': sasrec, 'lightgcn': 'LightGCN', 'popularity': 'popularity'}
  models = {
    **({f'{name} + SASRec': metrics['fused']} if 'fused' in metrics else {}),
    name: metrics,
    **{label: metrics['baselines'][key] for key, label in labels.items() if key in metrics['baselines']},
  }
  print(f'\n{results_table({label: found["test"] for label, found in models.items()})}\n')
  of_history_out = {label: found['history_out']['test'] for label, found in models.items()}
  print(f'{results_table(of_history_out, "test, history out")}\n')
  print(
    f'{metrics["users"]:,} users, full ranking, beam {metrics["beam"]}; history out: without the items that the user '
    'had\n'
  )
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
