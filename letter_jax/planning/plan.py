"""The memory and time that a config would need on a TPU: its jitted steps, compiled for a topology by libtpu.

No TPU is needed. Times are a roofline of the chip's published rates: the longer of compute and memory traffic, followed
by the network without overlap.
"""

import dataclasses
import os
import pathlib
import re
import tempfile
from typing import TYPE_CHECKING, Any

import numpy as np

from letter_jax.configuration import MADE_FEATURES, Config
from letter_jax.data import splits, store
from letter_jax.data.dataset import Windows
from letter_jax.generators.features import ItemFeatures
from letter_jax.ops.rounding import ceil_div
from letter_jax.planning.costs import CHIPS, Chip, cost_of
from letter_jax.semantic_ids.ids import SemanticIds
from letter_jax.system import artifacts
from letter_jax.system.errors import InputError
from letter_jax.system.wording import counted
from letter_jax.workdir import Workdir

if TYPE_CHECKING:
  import jax

  from letter_jax.training import loop


def plan(config: Config, workdir: pathlib.Path, topology: str) -> None:
  """Prints the plan and writes WORKDIR/plan.json.

  Args:
    config: the config.
    workdir: a workdir with the stage dataset; results of later stages are used where they exist.
    topology: the chip and its arrangement, such as 'v5e:2x4'.

  Raises:
    InputError: the topology does not exist, the config's mesh does not fit it, or libtpu is not installed.
  """
  import jax

  chip, mesh = CHIPS[topology.partition(':')[0]], plan_mesh(config, topology)
  rows = []
  for name, examples, calls_an_epoch, epochs, traced in steps(config, workdir, mesh):
    try:
      cost = cost_of(traced)
    except jax.errors.JaxRuntimeError as error:
      if 'RESOURCE_EXHAUSTED' not in str(error):
        raise InputError(
          f'{name} cannot be compiled for {topology} ({" ".join(str(error).split())[:200]}); expected '
          'the libtpu that this JAX was made with (pip install "jax[tpu]")'
        ) from error
      rows.append({'step': name, 'fits': False, 'reason': ' '.join(str(error).split())[:300]})
      continue
    seconds = cost.seconds(chip)
    rows.append(
      {
        'step': name,
        **dataclasses.asdict(cost),
        'fits': cost.memory < chip.memory,
        'seconds': seconds,
        'examples_per_second': examples / seconds,
        'hours': seconds * calls_an_epoch * epochs / 3600,
      }
    )
  artifacts.write_json(Workdir(workdir).plan, {'topology': topology, 'chips': mesh.size, 'steps': rows})
  print(table(rows, topology, chip, mesh, config))


def topology_devices(topology: str) -> list['jax.Device']:
  """The devices of a topology such as 'v5e:2x4', for which programs can be compiled but not run.

  Raises:
    InputError: the topology does not exist, or libtpu is not installed.
  """
  kind, _, shape = topology.partition(':')
  # A shape with the wrong number of axes makes libtpu abort the process.
  axes = re.fullmatch(r'[1-9]\d*(x[1-9]\d*)*', shape) and shape.count('x') + 1
  if kind not in CHIPS or axes != CHIPS[kind].axes:
    raise InputError(
      f'--topology={topology}; expected {", ".join(CHIPS)}, a colon and a shape, such as v5e:2x4 '
      '(v4 and v5p have three axes, such as v5p:2x2x1)'
    )
  # Other processes with libtpu installed hold its lock, and there is no metadata server.
  for name, value in (
    ('TPU_SKIP_MDS_QUERY', '1'),
    ('ALLOW_MULTIPLE_LIBTPU_LOAD', '1'),
    ('TPU_MIN_LOG_LEVEL', '3'),
    ('TPU_STDERR_LOG_LEVEL', '3'),
    ('TPU_WORKER_HOSTNAMES', 'localhost'),
    ('TPU_ACCELERATOR_TYPE', f'{kind}-1'),
  ):
    os.environ.setdefault(name, value)
  from jax.experimental import topologies

  try:
    # JAX uses the two cores of a v4 chip as one device.
    options: dict[str, Any] = {'chip_config_name': 'megacore'} if kind == 'v4' else {}
    if not set(shape) - set('1x'):
      options['chips_per_host_bounds'] = [1, 1, 1]
    return list(topologies.get_topology_desc(platform='tpu', topology_name=topology, **options).devices)
  except Exception as error:  # libtpu is not installed, or does not support the shape
    message = ' '.join(str(error).split())[:200]
    raise InputError(
      f'--topology={topology} cannot be compiled for ({message}); expected libtpu (pip install '
      f'"jax[tpu]") and a shape of {kind}'
    ) from error


def plan_mesh(config: Config, topology: str) -> 'jax.sharding.Mesh':
  """The config's mesh on a topology; raises InputError as `topology_devices`, or where the mesh does not fit."""
  devices = topology_devices(topology)
  from letter_jax import sharding

  return sharding.make_mesh(config.mesh, devices)


def steps(
  config: Config, workdir: pathlib.Path, mesh: 'jax.sharding.Mesh'
) -> list[tuple[str, float, int, float, 'jax.stages.Traced']]:
  """(name, examples per call, calls per epoch, epochs, traced program) of each jitted step.

  Shapes are those of the workdir's data set, and of its semantic IDs and text embeddings; where the workdir lacks the
  latter, those of the config.
  """
  from letter_jax.evaluation.evaluator import GeneratorEvaluator
  from letter_jax.generators.generator import generator_program, kind, user_search
  from letter_jax.tokenizer.training import tokenizer_program
  from letter_jax.training import loop

  folder, settings = Workdir(workdir), config.generator
  data = store.load_interactions(folder.dataset)
  ids = _semantic_ids(config, folder, data.num_items).place(mesh)
  programs = []
  if config.trains_sasrec:
    programs.append(('sasrec', config.collaborative.training, _sasrec(config, data, mesh)))
  if not config.semantic_ids.path:
    text = np.zeros((data.num_items, _text_dim(config, folder)), np.float32)
    rows = np.zeros((data.num_items, config.tokenizer.model.latent_dim), np.float32)
    programs.append(
      (
        'tokenizer',
        config.tokenizer.training,
        tokenizer_program(config.tokenizer, text, rows, config.seed, mesh, config.mesh.fully_sharded),
      )
    )
  generator_kind = kind(settings)
  with tempfile.TemporaryDirectory() as scratch:  # for a text tokenizer, and features
    _write_features(config, folder, data.num_items, pathlib.Path(scratch))
    texts = folder.read_texts() if generator_kind.reads_texts else None
    model = generator_kind.for_training(settings, ids, config.mesh.fully_sharded, pathlib.Path(scratch), texts)
  batch_size = config.evaluation.batch_size
  generator = generator_program(
    model, data, history_length=config.data.history_length, seed=config.seed, batch_size=batch_size
  )
  programs.append(('generator', config.generator.training, generator))
  planned = []
  for name, training, program in programs:
    state = loop.abstract_state(program)
    batch = program.batches[0] if program.batches is not None else 0
    calls = program.steps_per_epoch // program.steps_per_call
    unit = 'epoch' if program.steps_per_call > 1 else 'step'
    planned.append(
      (
        f'{name} {unit}',
        program.examples_per_epoch / calls,
        calls,
        training.total_steps(program.steps_per_epoch, program.steps_per_call) / program.steps_per_epoch,
        program.step.trace(state, *program.arguments(batch)),
      )
    )
  evaluator = GeneratorEvaluator(user_search(model, config.evaluation.beam, batch_size))
  # As in a validation: from the parameters as the training holds them.
  params = model.whole_params(loop.abstract_state(generator).params)
  users, traced = evaluator.trace_compiled(params, config.data.history_length)
  planned.append(
    ('decoding', users, ceil_div(len(splits.test_examples(data, 1, config.evaluation.users)), users), 1, traced)
  )
  return planned


def _sasrec(config: Config, data: Windows, mesh: 'jax.sharding.Mesh') -> 'loop.Program':
  from letter_jax.collaborative.sasrec_training import sasrec_program, sasrec_ranking

  settings, length = config.collaborative, config.data.history_length
  rank = sasrec_ranking(settings.model, data.num_items, length, mesh)
  recent = data.recent()
  return sasrec_program(
    settings, data, recent, mesh, rank, history_length=length, seed=config.seed, fully_sharded=config.mesh.fully_sharded
  )


def _semantic_ids(config: Config, workdir: Workdir, items: int) -> SemanticIds:
  """Those of the workdir, or as many different ones as there are items."""
  if workdir.has_semantic_ids():
    return workdir.read_semantic_ids()
  model = config.tokenizer.model
  numbers = np.random.default_rng(0).permutation(min(model.codebook_size**model.levels, 8 * items))[:items]
  codes = numbers[:, None] // model.codebook_size ** np.arange(model.levels)[::-1] % model.codebook_size
  return SemanticIds(codes.astype(np.int32), model.codebook_size)


def _write_features(config: Config, folder: Workdir, num_items: int, directory: pathlib.Path) -> None:
  """Features of zeros, of the widths that the run's will have."""
  made = dict(
    zip(MADE_FEATURES, (lambda: _text_dim(config, folder), lambda: config.tokenizer.model.latent_dim), strict=True)
  )
  widths = {
    source: made[source]() if source in made else np.load(source, mmap_mode='r').shape[1]
    for source in config.generator.features
  }
  if widths:
    ItemFeatures.of({source: np.zeros((num_items, width), np.float32) for source, width in widths.items()}).write(
      directory
    )


def _text_dim(config: Config, workdir: Workdir) -> int:
  settings = config.text_embeddings
  if settings.path and pathlib.Path(settings.path).exists():
    return np.load(settings.path, mmap_mode='r').shape[1]
  if workdir.has_rows(workdir.text_embeddings):
    return workdir.read_rows(workdir.text_embeddings, mmap=True).shape[1]
  return settings.dim


def table(rows: list[dict[str, Any]], topology: str, chip: Chip, mesh: 'jax.sharding.Mesh', config: Config) -> str:
  """The plan as text, one line per step (see `plan` for the rows) and one for its collectives."""
  lines = [
    f'plan for {topology}: {counted(mesh.size, "chip")} of {chip.memory / 2**30:.0f} GB, mesh data '
    f'{mesh.shape["data"]} x model {mesh.shape["model"]}' + (', fully sharded' if config.mesh.fully_sharded else ''),
    f'{"":<16}{"memory":>10}{"arguments":>11}{"temporary":>11}{"fits":>6}{"Gflop":>10}{"GB moved":>10}'
    f'{"time":>11}{"examples/s":>12}{"schedule":>10}',
  ]
  for row in rows:
    if 'reason' in row:
      lines.append(f'{row["step"]:<16}does not fit: {row["reason"]}')
      continue
    lines.append(
      f'{row["step"]:<16}{_size(row["memory"]):>10}{_size(row["arguments"]):>11}{_size(row["temporaries"]):>11}'
      f'{"yes" if row["fits"] else "NO":>6}{row["flops"] / 1e9:>10.3g}{row["bytes"] / 1e9:>10.3g}'
      f'{_time(row["seconds"]):>11}{row["examples_per_second"]:>12,.0f}{_time(row["hours"] * 3600):>10}'
    )
    if row['collectives']:
      lines.append(' ' * 16 + ', '.join(f'{kind} {_size(size)}' for kind, size in sorted(row['collectives'].items())))
  lines += [
    'Per call and chip, as compiled; times from published rates (bfloat16), without overlap of the network.',
    'Decoding excludes the optimizer state that a validation keeps in memory.',
  ]
  return '\n'.join(lines)


def _time(seconds: float) -> str:
  for unit, size in (('h', 3600), ('min', 60), ('s', 1), ('ms', 1e-3)):
    if seconds >= size:
      return f'{seconds / size:.3g} {unit}'
  return f'{seconds * 1e6:.3g} us'


def _size(count: float) -> str:
  for unit in ('B', 'kB', 'MB'):
    if count < 1024:
      return f'{count:.3g} {unit}'
    count /= 1024
  return f'{count:.3g} GB'
