"""The work of each stage: read its inputs, call the package that does the work, write the results.

Packages are imported by the stage that uses them, so that a run loads no more than it needs.
"""

import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from letter_jax.configuration import MADE_FEATURES, RAW_SOURCES, Config
from letter_jax.data import left_out, sources, store
from letter_jax.data.dataset import Windows, described
from letter_jax.pipeline import refresh
from letter_jax.pipeline.inputs import GivenInputs, print_matching
from letter_jax.system import home, machine, processes
from letter_jax.system.errors import InputError
from letter_jax.system.wording import counted
from letter_jax.training import trackers
from letter_jax.workdir import Workdir


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

    earlier = refresh.kept(config, workdir)
    projection = earlier.text_projection() if earlier else None
    rows, projection = embed_texts(workdir.read_texts(), config.text_embeddings, config.seed, projection)
    if projection:  # for items that come after training
      projection.write(workdir.tf_idf)
  workdir.write_rows(workdir.text_embeddings, rows)


def collaborative(config: Config, root: pathlib.Path, given: GivenInputs) -> None:
  """Trains SASRec (and LightGCN), or takes given rows; writes the rows that the tokenizer aligns with."""
  from letter_jax import sharding

  workdir, settings = Workdir(root), config.collaborative
  data = _read_interactions(config, workdir)
  method = 'given' if settings.path else settings.method
  items: dict[str, np.ndarray] = {}
  metrics: dict[str, dict] = {}
  test_ranks: dict[str, np.ndarray] = {}
  earlier: refresh.Earlier | None = None
  if config.trains_sasrec:
    from letter_jax.collaborative.sasrec_training import train_sasrec

    earlier = refresh.Earlier(config, workdir) if config.refresh.previous else None
    params, metrics['sasrec'], sasrec_ranks = train_sasrec(
      refresh.continuing(config, settings) if earlier else settings,
      data,
      workdir.collaborative,
      history_length=config.data.history_length,
      seed=config.seed,
      mesh=config.mesh,
      checkpoints=config.checkpoints,
      trained_on=refresh.trained_on(config, workdir, data, 'sasrec'),
      start=earlier.sasrec_start() if earlier else None,
      evaluated_users=config.evaluation.users,
    )
    test_ranks |= sasrec_ranks
    items['sasrec'] = sharding.fetch(params['item_embeddings'])
  if method == 'lightgcn':
    from letter_jax.collaborative.lightgcn_training import train_lightgcn

    whole = store.load_interactions(workdir.dataset)  # the graph is on the device
    (_, final_items), metrics['lightgcn'], lightgcn_ranks = train_lightgcn(
      settings.lightgcn,
      whole,
      workdir.lightgcn,
      seed=config.seed,
      mesh=config.mesh,
      checkpoints=config.checkpoints,
      evaluated_users=config.evaluation.users,
    )
    test_ranks |= lightgcn_ranks
    items['lightgcn'] = sharding.fetch(final_items)
  if method == 'given':
    rows, matched = given.collaborative_rows()
    print_matching('collaborative', settings.path, matched, workdir)
  else:
    from letter_jax.collaborative.embeddings import collaborative_rows

    kept = None
    if method == 'sasrec' and earlier and refresh.keeps_tokenizer(config):
      kept = earlier.collaborative_rows(items[method])
    rows = collaborative_rows(items[method], config.tokenizer.model.latent_dim) if kept is None else kept
  workdir.write_rows(workdir.collaborative, rows)
  workdir.write_collaborative_results(metrics, test_ranks)


def tokenizer(config: Config, root: pathlib.Path, given: GivenInputs) -> None:
  """Trains the tokenizer, or takes over that of an earlier run."""
  from letter_jax.tokenizer.training import train_tokenizer

  workdir = Workdir(root)
  if earlier := refresh.kept(config, workdir):
    workdir.write_tokenizer_validation(earlier.write_tokenizer(workdir))
    print(f'tokenizer: that of {config.refresh.previous}', flush=True)
    return
  _, progress = train_tokenizer(
    config.tokenizer,
    workdir.read_rows(workdir.text_embeddings),
    workdir.read_rows(workdir.collaborative),
    workdir.tokenizer,
    seed=config.seed,
    mesh=config.mesh,
    checkpoints=config.checkpoints,
  )
  workdir.write_tokenizer_validation(progress.best_metrics)


def semantic_ids(config: Config, root: pathlib.Path, given: GivenInputs) -> None:
  """Gives every item its semantic ID, or takes given ones."""
  from letter_jax.semantic_ids.ids import SemanticIds
  from letter_jax.tokenizer import diagnostics, drift

  workdir = Workdir(root)
  earlier = refresh.kept(config, workdir)
  if config.semantic_ids.path:
    ids, matched = given.semantic_ids()
    print_matching('semantic_ids', config.semantic_ids.path, matched, workdir)
    if earlier:
      ids = earlier.continued(ids)
    report: dict[str, Any] = {'source': 'given'}
  else:
    from letter_jax.tokenizer.assignment import assign_semantic_ids, report_of
    from letter_jax.tokenizer.training import encode_items

    settings, text = config.tokenizer.model, workdir.read_rows(workdir.text_embeddings)
    latent, codebooks = encode_items(
      config.tokenizer, text, workdir.tokenizer, mesh=config.mesh, checkpoints=config.checkpoints
    )
    if earlier:
      ids, added = earlier.semantic_ids(latent, codebooks)
      report = report_of(latent, codebooks, ids.codes_NxL)
      workdir.write_added_items(added)
    else:
      codes, report = assign_semantic_ids(latent, codebooks, settings, config.semantic_ids.collisions)
      ids = SemanticIds(codes, settings.codebook_size)
    workdir.write_latents(latent, codebooks)
  report = {**report, **diagnostics.diagnose(ids.codes_NxL, ids.codebook_size)}
  if earlier and not config.semantic_ids.path:
    report[drift.KEY] = earlier.drift(added, report)
    for line in drift.in_words(report[drift.KEY]):
      print(f'semantic_ids: {line}', flush=True)
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
    earlier = refresh.kept(config, workdir)
    if config.generator.features:
      processes.on_first_process(lambda: _write_features(config.generator.features, workdir, given, earlier))
    ids = workdir.read_semantic_ids().place(sharding.make_mesh(config.mesh))
    settings = refresh.continuing(config, config.generator) if earlier else config.generator
    if earlier:
      processes.on_first_process(functools.partial(earlier.write_prepared, generator_kind.prepares, directory))
    model = generator_kind.for_training(settings, ids, config.mesh.fully_sharded, directory, texts)
    workdir.write_generator_config(config)
    train_generator(
      model,
      data,
      directory,
      history_length=config.data.history_length,
      seed=config.seed,
      batch_size=config.evaluation.batch_size,
      checkpoints=config.checkpoints,
      trained_on=refresh.trained_on(config, workdir, data, 'generator') if earlier else data,
      start=earlier.generator_start() if earlier else None,
    )
  except InputError:
    workdir.forget_untrained_generator(generator_kind.prepares)
    raise


def _write_features(
  sources: Sequence[str], workdir: Workdir, given: GivenInputs, earlier: refresh.Earlier | None
) -> None:
  """Writes the features of the items, which belong to the generator from then on."""
  from letter_jax.generators.features import ItemFeatures

  files = given.features()
  for source, (_, matched) in files.items():
    print_matching('generator', source, matched, workdir)
  made = dict(zip(MADE_FEATURES, (workdir.text_embeddings, workdir.collaborative)))
  rows = {source: workdir.read_rows(made[source]) if source in made else files[source][0] for source in sources}
  # A generator that has been trained knows the scales of its training.
  scales = ItemFeatures.read(earlier.workdir.generator).scales if earlier else None
  ItemFeatures.of(rows, scales).write(workdir.generator)


def report(config: Config, root: pathlib.Path, given: GivenInputs) -> None:
  """Writes the report page."""
  from letter_jax.reporting.report import write_report

  write_report(config, root)
  trackers.file(Workdir(root).report)
