"""The work of each stage: read its inputs, call the package that does the work, write the results.

Packages are imported by the stage that uses them, so that a run loads no more than it needs.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from letter_jax.configuration import MADE_FEATURES, RAW_SOURCES, Config
from letter_jax.data import left_out, sources, splits, store
from letter_jax.data.dataset import Interactions, Windows, described
from letter_jax.pipeline.inputs import GivenInputs, print_matching
from letter_jax.system import artifacts, home, machine, processes
from letter_jax.system.errors import InputError
from letter_jax.system.wording import counted
from letter_jax.workdir import (
  BEST_VALIDATION,
  BOUGHT_TOGETHER,
  CODEBOOKS,
  DESCRIPTION,
  FEATURES,
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
  import jax

  from letter_jax.evaluation.both_protocols import Evaluated, Split
  from letter_jax.serving.loaded_generator import Partner


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


def dataset(config: Config, root: pathlib.Path, given: GivenInputs) -> None:
  """Prepares interactions and items from their source."""
  workdir = Workdir(root)
  if config.data.source == 'prepared':
    store.adopt(sources.prepared_folder(config.data), workdir.dataset)
    interactions = workdir.read_interactions(config.data)
  else:
    data = sources.read_dataset(config.data, config.seed, _download_manager(config))
    store.save(data, workdir.dataset)
    interactions = data.interactions
  workdir.write_first_purchases(interactions)
  summary = workdir.read_summary()
  print(f'dataset: {described(summary)}')
  for phrase in left_out.in_words(summary):
    print(f'dataset: {phrase}')


def _download_manager(config: Config):
  """The download manager of TFDS, where raw files are to be downloaded."""
  if config.data.source not in RAW_SOURCES or config.data.path:
    return None
  import tensorflow_datasets as tfds

  folder = config.data.downloads or home.cache_folder('downloads')
  if folder is None:
    raise InputError(
      'config.data.downloads is empty and no home folder can be written; expected a folder for downloaded files'
    )
  return tfds.download.DownloadManager(download_dir=folder)


def text_embeddings(config: Config, root: pathlib.Path, given: GivenInputs) -> None:
  """Embeds the text of every item, or takes given rows."""
  workdir = Workdir(root)
  if config.text_embeddings.path:
    rows, matched = given.text_rows()
    print_matching('text_embeddings', config.text_embeddings.path, matched, workdir)
  else:
    from letter_jax.text_embeddings.tf_idf import embed_texts

    rows, projection = embed_texts(workdir.read_texts(), config.text_embeddings, config.seed)
    if projection:  # for items that come after training
      projection.write(workdir.text_embeddings / PROJECTION)
  workdir.write_rows(workdir.text_embeddings, rows)


def collaborative(config: Config, root: pathlib.Path, given: GivenInputs) -> None:
  """Trains SASRec (and LightGCN), or takes given rows; writes the rows that the tokenizer aligns with."""
  from letter_jax import sharding
  from letter_jax.evaluation import ranks

  workdir, settings = Workdir(root), config.collaborative
  data = _read_interactions(config, workdir)
  method = 'given' if settings.path else settings.method
  items: dict[str, np.ndarray] = {}
  metrics: dict[str, dict] = {}
  test_ranks: dict[str, np.ndarray] = {}
  if config.trains_sasrec:
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
      settings.lightgcn, whole, workdir.lightgcn, seed=config.seed, mesh=config.mesh, checkpoints=config.checkpoints
    )
    test_ranks |= lightgcn_ranks
    items['lightgcn'] = sharding.fetch(final_items)
  if method == 'given':
    rows, matched = given.collaborative_rows()
    print_matching('collaborative', settings.path, matched, workdir)
  else:
    from letter_jax.collaborative.embeddings import collaborative_rows

    rows = collaborative_rows(items[method], config.tokenizer.model.latent_dim)
  workdir.write_rows(workdir.collaborative, rows)
  ranks.write(workdir.collaborative / RANKS, test_ranks)
  artifacts.write_json(workdir.collaborative / METRICS, metrics)


def tokenizer(config: Config, root: pathlib.Path, given: GivenInputs) -> None:
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


def semantic_ids(config: Config, root: pathlib.Path, given: GivenInputs) -> None:
  """Gives every item its semantic ID, or takes given ones."""
  from letter_jax.semantic_ids.ids import SemanticIds
  from letter_jax.tokenizer import diagnostics

  workdir = Workdir(root)
  if config.semantic_ids.path:
    ids, matched = given.semantic_ids()
    print_matching('semantic_ids', config.semantic_ids.path, matched, workdir)
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
    else f'nearest ID shared by {report["collided"]:,}, moved {report["moved"]:,}, still shared by '
    f'{report["colliding_after"]:,}'
  )
  print(
    f'semantic_ids: {counted(len(ids), "item")}: {summary}; codes used by level '
    f'{", ".join(map(str, report["codes_used"]))} of {ids.codebook_size}'
  )


def generator(config: Config, root: pathlib.Path, given: GivenInputs) -> None:
  """Trains the generator."""
  from letter_jax import sharding
  from letter_jax.generators.generator import kind, train_generator

  workdir, generator_kind = Workdir(root), kind(config.generator)
  data, directory = _read_interactions(config, workdir), workdir.generator
  try:
    texts = workdir.read_texts() if generator_kind.reads_texts else None
    if config.generator.features:
      processes.on_first_process(lambda: _write_features(config.generator.features, workdir, given))
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
      artifacts.remove([directory / name for name in (DESCRIPTION, FEATURES, *generator_kind.prepares)])
    raise


def _write_features(sources: Sequence[str], workdir: Workdir, given: GivenInputs) -> None:
  """Writes the features of the items, which belong to the generator from then on."""
  from letter_jax.generators.features import ItemFeatures

  files = given.features()
  for source, (_, matched) in files.items():
    print_matching('generator', source, matched, workdir)
  made = dict(zip(MADE_FEATURES, (workdir.text_embeddings, workdir.collaborative)))
  rows = {source: workdir.read_rows(made[source]) if source in made else files[source][0] for source in sources}
  ItemFeatures.of(rows).write(workdir.generator)


def evaluate(config: Config, root: pathlib.Path, given: GivenInputs) -> None:
  """Evaluates the best generator on validation and test, alone and with its partners, and the baselines next to it."""
  from letter_jax.collaborative.bought_together import BoughtTogether
  from letter_jax.evaluation import both_protocols, history, popularity, ranks
  from letter_jax.evaluation.bought_together import neighbours
  from letter_jax.evaluation.short_histories import KEY, evaluate_short_histories
  from letter_jax.evaluation.simple_rules import evaluate_simple_rules
  from letter_jax.generators.generator import user_search
  from letter_jax.serving.loaded_generator import LoadedGenerator

  workdir = Workdir(root)
  whole = workdir.read_interactions(config.data).whole()  # on every process: the baselines count in them
  loaded = LoadedGenerator.of_workdir(workdir, config)
  longest = int(whole.lengths.max())
  users = both_protocols.validation_and_test(whole, config.data.history_length)
  search = user_search(loaded.generator, config.evaluation.beam, config.evaluation.batch_size)
  exclude_history = config.evaluation.exclude_history
  alone = both_protocols.evaluate_generator(search, loaded.params, users, longest, exclude_history)
  counts_N = popularity.training_counts(whole)
  of_popularity, popularity_ranks = both_protocols.evaluate_popularity(counts_N, users, exclude_history)
  neighbours_NxN = neighbours(whole, config.data.history_length, counts_N)
  of_rules, rule_ranks = evaluate_simple_rules(neighbours_NxN, counts_N, users, exclude_history)
  of_collaborative = both_protocols.of_collaborative(
    workdir.read_collaborative_metrics() if config.has_collaborative else {}, exclude_history
  )
  collaborative_ranks = ranks.read(workdir.collaborative / RANKS) if config.has_collaborative else {}
  figures = {**alone.figures, 'baselines': {**of_collaborative, **of_rules, ranks.POPULARITY: of_popularity}}
  test_ranks = {**alone.ranks, **collaborative_ranks, **rule_ranks, **popularity_ranks}
  lists, test, newcomers = {'': alone}, users['test'].examples, workdir.read_first_purchases()
  figures[KEY] = evaluate_short_histories(search, loaded.params, test, longest, alone.ranks[ranks.GENERATOR], newcomers)
  sasrec = loaded.partner('sasrec') if config.trains_sasrec else None
  if config.fusion.partners:
    if 'bought_together' in config.fusion.partners:
      together = BoughtTogether.of(neighbours_NxN, counts_N)
      processes.on_first_process(lambda: together.write(workdir.evaluation / BOUGHT_TOGETHER))
    partners = [sasrec if name == 'sasrec' and sasrec else loaded.partner(name) for name in config.fusion.partners]
    fused_search, models = loaded.fused_search(search, partners, config.fusion.candidates)
    lists['fused_'] = fused = both_protocols.evaluate_fused(fused_search, models, users, longest, exclude_history)
    settings = dataclasses.asdict(config.fusion)
    artifacts.write_json(workdir.evaluation / FUSION, {**settings, 'weights': fused.figures['weights']})
    params = (*models, np.array(fused.figures['weights'], np.float32))
    short = evaluate_short_histories(fused_search, params, test, longest, fused.ranks[ranks.FUSED], newcomers)
    figures['fused'] = {**settings, **fused.figures, KEY: short}
    test_ranks |= fused.ranks
  for of_model in (figures, *([figures['fused']] if 'fused' in figures else [])):
    of_model[history.SERVED] = history.choose(of_model)
  served = figures.get('fused', figures)[history.SERVED]  # `recommend` uses the models together where there are several
  figures |= both_protocols.about_protocols(users, exclude_history)
  print(
    f'evaluate: recommend will {"leave out" if served["exclude_history"] else "keep"} the items of the history by '
    f'default: {history.choice_in_words(served)}',
    flush=True,
  )
  sasrec_UxK = _lists_of(sasrec, config, loaded.generator.ids.mesh, users['test']) if sasrec else None
  artifacts.write(
    workdir.evaluation / PREDICTIONS, lambda path: _write_predictions(path, whole, test, lists, sasrec_UxK)
  )
  ranks.write(workdir.evaluation / RANKS, test_ranks)
  artifacts.write_json(
    workdir.evaluation / METRICS,
    {**figures, 'users': len(whole.lengths), 'beam': config.evaluation.beam, 'generator_step': loaded.step},
  )


def report(config: Config, root: pathlib.Path, given: GivenInputs) -> None:
  """Writes the report page."""
  from letter_jax.reporting.report import write_report

  write_report(config, root)


def _lists_of(partner: 'Partner', config: Config, mesh: 'jax.sharding.Mesh', test: 'Split') -> np.ndarray:
  """int32 [U, K], the lists of a dense model alone in the main protocol; -1 where there are fewer items."""
  from letter_jax.collaborative.full_ranking import full_lists

  scores, params = partner
  settings = config.evaluation
  history_out = test.whole if settings.exclude_history else None
  return full_lists(scores, params, test.examples, history_out, config.data.history_length, settings.beam, mesh)


def _write_predictions(
  path: pathlib.Path,
  data: Interactions,
  examples: splits.Examples,
  lists: Mapping[str, 'Evaluated'],
  sasrec_UxK: np.ndarray | None,
) -> None:
  """Writes a line of JSON per user; `lists` has the results of each generator by the prefix of its keys."""
  with path.open('w', encoding='utf-8') as file:
    for user in range(len(examples)):
      line = {
        'user': data.users[examples.user[user]],
        'history': examples.items[examples.start[user] : examples.end[user]].tolist(),
        'target': int(examples.targets[user]),
      }
      for prefix, evaluated in lists.items():
        kept = evaluated.items_UxK[user] >= 0
        line[f'{prefix}items'] = evaluated.items_UxK[user][kept].tolist()
        line[f'{prefix}scores'] = [round(score, 6) for score in evaluated.scores_UxK[user][kept].tolist()]
      if sasrec_UxK is not None:
        line['sasrec_items'] = sasrec_UxK[user][sasrec_UxK[user] >= 0].tolist()
      file.write(json.dumps(line) + '\n')
