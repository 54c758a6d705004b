"""What each stage does: reads its artifacts, calls the package that knows how, writes its results.

Packages are imported by the stage that uses them, so that a run loads no more than it needs.
"""

import dataclasses
import json
import pathlib

import numpy as np

from letter_jax.configuration import RAW_SOURCES, Config
from letter_jax.data import letter_format, sources, splits, store
from letter_jax.data.dataset import Interactions, Windows
from letter_jax.evaluation import ranks
from letter_jax.reporting.results_table import GENERATORS
from letter_jax.system import artifacts, machine, processes
from letter_jax.system.errors import InputError


def text_embeddings_files(config: Config) -> dict[str, pathlib.Path]:
  """The given rows, or the files of the language model's folder."""
  if config.text_embeddings.path:
    return {'text_embeddings.path': pathlib.Path(config.text_embeddings.path)}
  if not config.text_embeddings.model:
    return {}
  from letter_jax.text_embeddings.language_models import model_files

  folder = pathlib.Path(config.text_embeddings.model)
  return {f'text_embeddings.model/{path.relative_to(folder).as_posix()}': path for path in model_files(str(folder))}


def generator_files(config: Config) -> dict[str, pathlib.Path]:
  """The weights and texts that the generator starts from."""
  if config.generator.architecture == 't5':
    weights = config.generator.initial_weights
    return {'generator.initial_weights': pathlib.Path(weights)} if weights else {}
  from letter_jax.generators.lc_rec.base_model import files

  return files(config.generator)


def _interactions(config: Config, workdir: pathlib.Path) -> Windows:
  """All in memory, or a window of users at a time, of which this process reads its share."""
  if not config.data.window_users:
    return store.load_interactions(workdir / 'dataset')
  from letter_jax import sharding

  part = sharding.data_part(sharding.make_mesh(config.mesh))
  return store.StreamedInteractions(
    workdir / 'dataset', config.data.window_users, config.data.history_length + 2, *part
  )


def check_devices(config: Config) -> None:
  """Raises InputError where `config.mesh` does not fit the devices that are here."""
  from letter_jax import sharding

  sharding.data_part(sharding.make_mesh(config.mesh))


def header(config: Config, workdir: pathlib.Path) -> str:
  """What a run begins with; of a mesh that fits."""
  from letter_jax import sharding

  mesh = sharding.make_mesh(config.mesh)
  over = f' of {processes.count()} processes' if processes.count() > 1 else ''
  data, generator = f'{config.data.source} {config.data.name}'.strip(), GENERATORS[config.generator.architecture]
  return (
    f'letter_jax: {generator}, data {data}, seed {config.seed}; {machine.devices()}{over}, '
    f'mesh data {mesh.shape["data"]} x model {mesh.shape["model"]}; {workdir}'
  )


def check_inputs(config: Config, workdir: pathlib.Path) -> None:
  """Raises InputError for what is given from outside and cannot fit the data set."""
  summary = store.load_summary(workdir / 'dataset')
  items = summary['items']
  model, beam = config.tokenizer.model, config.evaluation.beam
  if beam > items:
    raise InputError(f'config.evaluation.beam is {beam}; expected at most the number of items, {items}')
  if beam < min(20, items):
    raise InputError(f'config.evaluation.beam is {beam}; expected at least {min(20, items)}, as metrics go to rank 20')
  levels, codebook_size = model.levels, model.codebook_size
  if config.semantic_ids.path:
    given = letter_format.read_index(pathlib.Path(config.semantic_ids.path), items)
    levels, codebook_size = given.shape[1], int(given.max()) + 1
  else:
    if config.semantic_ids.collisions == 'resolve' and items > model.codebook_size**model.levels:
      raise InputError(
        f'{items} items cannot have semantic IDs of their own: {model.levels} levels of '
        f'{model.codebook_size} codes; expected larger config.tokenizer.model.codebook_size or levels'
      )
    if config.text_embeddings.path:
      letter_format.read_embeddings(pathlib.Path(config.text_embeddings.path), items, 'text embeddings')
    if config.collaborative.path:
      dim = _given_collaborative(config, items).shape[1]
      if dim != model.latent_dim:
        raise InputError(
          f'{config.collaborative.path} has {dim} columns; expected config.tokenizer.model.latent_dim, '
          f'{model.latent_dim}'
        )
  if config.generator.architecture == 'llama':
    from letter_jax.generators.lc_rec import base_model

    base_model.check(config.generator, summary['items_without_text'] is not None, levels, codebook_size)


def _given_collaborative(config: Config, items: int) -> np.ndarray:
  return letter_format.read_embeddings(pathlib.Path(config.collaborative.path), items, 'collaborative embeddings')


def dataset(config: Config, workdir: pathlib.Path) -> None:
  directory = workdir / 'dataset'
  if config.data.source == 'prepared':
    store.adopt(sources.prepared_folder(config.data), directory)
  else:
    store.save(sources.read_dataset(config.data, config.seed, _download_manager(config)), directory)
  summary = store.load_summary(directory)
  print(
    f'dataset: {summary["name"]}: {summary["users"]:,} users, {summary["items"]:,} items, '
    f'{summary["interactions"]:,} interactions, {summary["training_examples"]:,} training examples'
  )


def _download_manager(config: Config):
  """TFDS's, where raw files are to be downloaded."""
  if config.data.source not in RAW_SOURCES or config.data.path:
    return None
  import tensorflow_datasets as tfds

  folder = pathlib.Path(config.data.downloads or '~/.cache/letter_jax/downloads').expanduser()
  return tfds.download.DownloadManager(download_dir=folder)


def text_embeddings(config: Config, workdir: pathlib.Path) -> None:
  directory = workdir / 'text_embeddings'
  if config.text_embeddings.path:
    num_items = store.load_summary(workdir / 'dataset')['items']
    rows = letter_format.read_embeddings(pathlib.Path(config.text_embeddings.path), num_items, 'text embeddings')
  else:
    from letter_jax.text_embeddings.tf_idf import PROJECTION, embed_texts

    rows, projection = embed_texts(store.load_texts(workdir / 'dataset'), config.text_embeddings, config.seed)
    if projection:  # for items that come after the training
      projection.write(directory / PROJECTION)
  artifacts.write_npy(directory / 'embeddings.npy', rows)


def collaborative(config: Config, workdir: pathlib.Path) -> None:
  from letter_jax import sharding

  data = _interactions(config, workdir)
  directory = workdir / 'collaborative'
  wanted = 'given' if config.collaborative.path else config.collaborative.method
  items, metrics, of_test = {}, {}, {}
  if wanted == 'sasrec' or config.collaborative.baseline:
    from letter_jax.collaborative.sasrec_training import train_sasrec

    params, metrics['sasrec'], of_test['sasrec'] = train_sasrec(
      config.collaborative,
      data,
      directory,
      history_length=config.data.history_length,
      seed=config.seed,
      mesh=config.mesh,
      checkpoints=config.checkpoints,
    )
    items['sasrec'] = sharding.fetch(params['item_embeddings'])
  if wanted == 'lightgcn':
    from letter_jax.collaborative.lightgcn_training import train_lightgcn

    whole = store.load_interactions(workdir / 'dataset')  # the graph is on the device
    (_, rows), metrics['lightgcn'], of_test['lightgcn'] = train_lightgcn(
      config.collaborative.lightgcn,
      whole,
      directory / 'lightgcn',
      seed=config.seed,
      mesh=config.mesh,
      checkpoints=config.checkpoints,
    )
    items['lightgcn'] = sharding.fetch(rows)
  if wanted == 'given':
    rows = _given_collaborative(config, data.num_items)
  else:
    from letter_jax.collaborative.embeddings import collaborative_rows

    rows = collaborative_rows(items[wanted], config.tokenizer.model.latent_dim)
  artifacts.write_npy(directory / 'embeddings.npy', rows)
  ranks.write(directory / ranks.FILE, of_test)
  artifacts.write_json(directory / 'metrics.json', metrics)


def tokenizer(config: Config, workdir: pathlib.Path) -> None:
  from letter_jax.tokenizer.training import train_tokenizer

  directory = workdir / 'tokenizer'
  text, rows = (np.load(workdir / name / 'embeddings.npy') for name in ('text_embeddings', 'collaborative'))
  _, progress = train_tokenizer(
    config.tokenizer, text, rows, directory, seed=config.seed, mesh=config.mesh, checkpoints=config.checkpoints
  )
  artifacts.write_json(
    directory / 'tokenizer.json',
    {
      'config': dataclasses.asdict(config),
      'text_dim': text.shape[1],
      'best_step': progress.best_step,
      'best_metrics': progress.best_metrics,
    },
  )


def semantic_ids(config: Config, workdir: pathlib.Path) -> None:
  directory = workdir / 'semantic_ids'
  if config.semantic_ids.path:
    num_items = store.load_summary(workdir / 'dataset')['items']
    codes = letter_format.read_index(pathlib.Path(config.semantic_ids.path), num_items)
    codebook_size, report = int(codes.max()) + 1, {'source': 'given'}
  else:
    from letter_jax.tokenizer.assignment import assign_semantic_ids
    from letter_jax.tokenizer.training import encode_items

    latent, codebooks = encode_items(
      config.tokenizer,
      np.load(workdir / 'text_embeddings' / 'embeddings.npy'),
      workdir / 'tokenizer',
      mesh=config.mesh,
      checkpoints=config.checkpoints,
    )
    codes, report = assign_semantic_ids(latent, codebooks, config.tokenizer.model, config.semantic_ids.collisions)
    codebook_size = config.tokenizer.model.codebook_size
    # For the report, which one process makes and which thus restores nothing.
    artifacts.write_npy(directory / 'latents.npy', latent)
    artifacts.write_npy(directory / 'codebooks.npy', codebooks)
  from letter_jax.tokenizer import diagnostics

  report = {**report, 'codebook_size': codebook_size, **diagnostics.diagnose(codes, codebook_size)}
  artifacts.write_npy(directory / 'semantic_ids.npy', codes)
  artifacts.write_json(directory / 'report.json', report)
  artifacts.write(directory / 'index.json', lambda path: letter_format.write_index(path, codes))
  said = (
    'as given'
    if 'moved' not in report
    else (
      f'{report["collided"]:,} shared their nearest ID, {report["moved"]:,} moved, {report["colliding_after"]:,} still '
      'share theirs'
    )
  )
  print(
    f'semantic_ids: {len(codes):,} items: {said}; codes used by level '
    f'{", ".join(map(str, report["codes_used"]))} of {codebook_size}'
  )


def generator(config: Config, workdir: pathlib.Path) -> None:
  from letter_jax.generators.generator import train_generator

  data = _interactions(config, workdir)
  codes, codebook_size = _semantic_ids(workdir)
  directory = workdir / 'generator'
  base = None
  description = {'config': dataclasses.asdict(config), 'codebook_size': codebook_size}
  try:
    if config.generator.architecture == 'llama':
      from letter_jax.generators.lc_rec import base_model

      texts = store.load_texts(workdir / 'dataset')
      base = base_model.begin(config.generator, texts, codes.shape[1] * codebook_size, directory)
    # Written before the training too: its best checkpoint can be used while it runs.
    artifacts.write_json(directory / 'generator.json', description)
    _, progress = train_generator(config, data, codes, codebook_size, directory, base)
  except InputError:
    if not (directory / 'metrics.jsonl').exists():  # nothing was trained: what was prepared for it binds nobody
      artifacts.remove([directory / 'generator.json', directory / 'tokenizer'])
    raise
  artifacts.write_json(
    directory / 'generator.json',
    {**description, 'best_step': progress.best_step, 'steps': progress.step, 'best_metrics': progress.best_metrics},
  )


def evaluate(config: Config, workdir: pathlib.Path) -> None:
  from letter_jax import sharding
  from letter_jax.evaluation import metrics, popularity
  from letter_jax.generators.generator import generator_evaluator, generator_layout, whole_params
  from letter_jax.generators.lc_rec import base_model
  from letter_jax.training import checkpoints

  data = _interactions(config, workdir)
  mesh = sharding.make_mesh(config.mesh)
  restored = checkpoints.restore_generator(workdir, generator_layout(config, mesh))
  base = base_model.of_workdir(config.generator, workdir, restored.semantic_ids.shape[1] * restored.codebook_size)
  params = whole_params(config, restored.params, mesh, base)
  evaluator = generator_evaluator(
    config, restored.semantic_ids, restored.codebook_size, config.evaluation.beam, mesh, base
  )
  directory = workdir / 'evaluation'
  result, baselines = {}, {'popularity': {}}
  counts = popularity.training_counts(data)
  data = data.recent()
  for split, of_split in (('validation', splits.validation_examples), ('test', splits.test_examples)):
    examples = of_split(data, config.data.history_length)
    shortened = evaluator.shortened(examples)
    if shortened:
      print(
        f'evaluate: {shortened:,} of {len(examples):,} histories lose their oldest items: the context of the model '
        'has no room for them',
        flush=True,
      )
    found = evaluator.evaluate(params, examples, label=f'evaluate {split}')
    result[split] = found.metrics
    if evaluator.has_collisions:
      result[f'{split}_string_match'] = found.string_match
    of_popularity, popularity_ranks = popularity.popularity_metrics(counts, examples.targets)
    baselines['popularity'][split] = metrics.summarize(of_popularity)
  artifacts.write(directory / 'predictions.jsonl', lambda path: _write_predictions(path, data, examples, found))
  baselines.update(_collaborative_metrics(workdir))
  of_collaborative = workdir / 'collaborative' / ranks.FILE  # workdirs of the first versions have none
  ranks.write(
    directory / ranks.FILE,
    {
      ranks.GENERATOR: found.ranks_3xU,
      **(ranks.read(of_collaborative) if of_collaborative.exists() else {}),
      'popularity': popularity_ranks,
    },
  )
  artifacts.write_json(
    directory / 'metrics.json',
    {
      **result,
      'baselines': baselines,
      'users': len(data.lengths),
      'beam': config.evaluation.beam,
      'generator_step': restored.step,
    },
  )


def report(config: Config, workdir: pathlib.Path) -> None:
  from letter_jax.reporting.report import write_report

  write_report(config, workdir)


def print_results(config: Config, workdir: pathlib.Path) -> None:
  """The final table and where each result lies."""
  from letter_jax.reporting.results_table import results_table

  metrics = json.loads((workdir / 'evaluation' / 'metrics.json').read_text(encoding='utf-8'))
  labels = {
    'sasrec': f'SASRec ({config.collaborative.model.loss.replace("_", " ")})',
    'lightgcn': 'LightGCN',
    'popularity': 'popularity',
  }
  rows = {GENERATORS[config.generator.architecture]: metrics['test']}
  rows.update(
    {label: metrics['baselines'][name]['test'] for name, label in labels.items() if name in metrics['baselines']}
  )
  print(f'\n{results_table(rows)}\n{metrics["users"]:,} users, full ranking, beam {metrics["beam"]}\n')
  for meaning, place in (
    ('report', 'report.html'),
    ('all metrics', 'evaluation/metrics.json'),
    ('recommendations', 'evaluation/predictions.jsonl'),
    ('semantic IDs', 'semantic_ids/index.json'),
    ('generator', 'generator/checkpoints'),
    ('training curves', '**/tensorboard and **/metrics.jsonl'),
  ):
    print(f'{meaning:<16} {workdir / place}')


def _collaborative_metrics(workdir: pathlib.Path) -> dict[str, dict]:
  """{'sasrec': {'validation': ..., 'test': ...}, 'lightgcn': ...}, of what was trained."""
  found = json.loads((workdir / 'collaborative' / 'metrics.json').read_text(encoding='utf-8'))
  if found is None or 'test' in found:  # a workdir from before LightGCN: of SASRec alone, or null
    return {'sasrec': found} if found else {}
  return found


def _semantic_ids(workdir: pathlib.Path) -> tuple[np.ndarray, int]:
  report = json.loads((workdir / 'semantic_ids' / 'report.json').read_text(encoding='utf-8'))
  return np.load(workdir / 'semantic_ids' / 'semantic_ids.npy', allow_pickle=False), report['codebook_size']


def _write_predictions(path: pathlib.Path, data: Interactions, examples: splits.Examples, found) -> None:
  with path.open('w', encoding='utf-8') as file:
    for user in range(len(examples)):
      kept = found.items_UxK[user] >= 0
      file.write(
        json.dumps(
          {
            'user': data.users[examples.user[user]],
            'history': examples.items[examples.start[user] : examples.end[user]].tolist(),
            'target': int(examples.targets[user]),
            'items': found.items_UxK[user][kept].tolist(),
            'scores': [round(score, 6) for score in found.scores_UxK[user][kept].tolist()],
          }
        )
        + '\n'
      )
