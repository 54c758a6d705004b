"""What a config would need on a TPU that is not here: its jitted steps, compiled for the topology by libtpu.

Memory, flops and bytes are the compiler's own. It counts the body of a loop once; so flops are multiplied by what the
loops of the traced program add to its matrix products, and bytes by what those of the compiled one add to the results
of its instructions. Times are a roofline of the chip's published rates: matrix unit or
memory, whichever is longer, and then the network, as if nothing of it were hidden.
"""

import collections
import contextlib
import dataclasses
import json
import math
import os
import pathlib
import re
from collections.abc import Iterator

import numpy as np

from letter_jax import artifacts
from letter_jax.configuration import Config
from letter_jax.data import splits, store
from letter_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Chip:
  """Published rates of a TPU chip (cloud.google.com/tpu/docs/v5e and the like; read in 2026).

  Attributes:
    memory: bytes of HBM.
    flops: bfloat16, a second.
    bandwidth: bytes of HBM a second.
    network: bytes a second between chips, all links together, in one direction.
    axes: of its topologies: a plane or a torus of three.
  """

  memory: float
  flops: float
  bandwidth: float
  network: float
  axes: int


CHIPS = {
  'v4': Chip(32 * 2**30, 275e12, 1.228e12, 2.4e12 / 16, 3),
  'v5e': Chip(16 * 2**30, 197e12, 0.819e12, 1.6e12 / 16, 2),
  'v5p': Chip(95 * 2**30, 459e12, 2.765e12, 4.8e12 / 16, 3),
  'v6e': Chip(32 * 2**30, 918e12, 1.64e12, 3.584e12 / 16, 2),
}
# Of the size of its result (of the operand, for reduce-scatter), what a ring of n chips sends: 2 (n-1)/n and (n-1)/n.
COLLECTIVES = {'all-reduce': 2.0, 'all-gather': 1.0, 'reduce-scatter': 1.0, 'all-to-all': 1.0,
               'collective-permute': 1.0}


@dataclasses.dataclass(frozen=True)
class Cost:
  """Of one call on one chip.

  Attributes:
    arguments, temporaries, memory: bytes; `memory` is all that it occupies, the results included.
    flops, bytes: done, and moved between the chip and its memory.
    collectives: kind -> bytes of the results.
  """

  arguments: int
  temporaries: int
  memory: int
  flops: float
  bytes: float
  collectives: dict[str, float]

  def seconds(self, chip: Chip) -> float:
    network = sum(size * COLLECTIVES[kind] for kind, size in self.collectives.items()) / chip.network
    return max(self.flops / chip.flops, self.bytes / chip.bandwidth) + network


def plan(config: Config, workdir: pathlib.Path, topology: str) -> None:
  """Prints the plan and writes WORKDIR/plan.json.

  Args:
    topology: such as 'v5e:2x4'.

  Raises:
    InputError: no such topology, a mesh that does not fit it, or no libtpu.
  """
  import jax
  chip, mesh = CHIPS[topology.partition(':')[0]], plan_mesh(config, topology)
  chips = mesh.size
  rows = []
  for name, examples, calls_an_epoch, epochs, traced in steps(config, workdir, mesh):
    try:
      cost = cost_of(traced)
    except jax.errors.JaxRuntimeError as error:
      if 'RESOURCE_EXHAUSTED' not in str(error):
        raise InputError(f'{name} cannot be compiled for {topology} ({" ".join(str(error).split())[:200]}); expected '
                         'the libtpu that this JAX was made with (pip install "jax[tpu]")') from error
      rows.append({'step': name, 'fits': False, 'reason': ' '.join(str(error).split())[:300]})
      continue
    seconds = cost.seconds(chip)
    rows.append({
      'step': name, **dataclasses.asdict(cost), 'fits': cost.memory < chip.memory, 'seconds': seconds,
      'examples_per_second': examples / seconds, 'hours': seconds * calls_an_epoch * epochs / 3600})
  artifacts.write_json(workdir / 'plan.json', {'topology': topology, 'chips': chips, 'steps': rows})
  print(table(rows, topology, chips, chip, mesh, config))


def topology_devices(topology: str) -> list:
  """The devices of a topology; InputError where there is none, or no libtpu."""
  kind, _, shape = topology.partition(':')
  # A shape of other axes than the chip has is not refused by libtpu: it ends the process.
  axes = re.fullmatch(r'[1-9]\d*(x[1-9]\d*)*', shape) and shape.count('x') + 1
  if kind not in CHIPS or axes != CHIPS[kind].axes:
    raise InputError(f'--topology={topology}; expected {", ".join(CHIPS)}, a colon and a shape, such as v5e:2x4 '
                     '(v4 and v5p have three axes, such as v5p:2x2x1)')
  # Any other process with libtpu installed holds its lock, and there is no metadata server to ask.
  for name, value in (('TPU_SKIP_MDS_QUERY', '1'), ('ALLOW_MULTIPLE_LIBTPU_LOAD', '1'), ('TPU_MIN_LOG_LEVEL', '3'),
                      ('TPU_STDERR_LOG_LEVEL', '3'), ('TPU_WORKER_HOSTNAMES', 'localhost'),
                      ('TPU_ACCELERATOR_TYPE', f'{kind}-1')):
    os.environ.setdefault(name, value)
  from jax.experimental import topologies
  try:
    options = {'chip_config_name': 'megacore'} if kind == 'v4' else {}  # two cores, one device, as JAX runs on it
    if not set(shape) - set('1x'):
      options['chips_per_host_bounds'] = [1, 1, 1]
    return list(topologies.get_topology_desc(platform='tpu', topology_name=topology, **options).devices)
  except Exception as error:  # no libtpu, or a shape that it does not know
    said = ' '.join(str(error).split())[:200]
    raise InputError(f'--topology={topology} cannot be compiled for ({said}); expected libtpu (pip install '
                     f'"jax[tpu]") and a shape of {kind}') from error


def plan_mesh(config: Config, topology: str):
  """The mesh of the config on the topology; InputError where there is none, or it does not fit."""
  devices = topology_devices(topology)
  from letter_jax.training import sharding
  return sharding.make_mesh(config.mesh, devices)


def steps(config: Config, workdir: pathlib.Path, mesh) -> list[tuple]:
  """(name, examples of a call, calls of an epoch, epochs, `jax.stages.Traced`) of each jitted step.

  The data set of the workdir gives the shapes; semantic IDs and text embeddings those of the workdir, or else of the
  config.
  """
  from letter_jax.collaborative.sasrec_training import sasrec_program
  from letter_jax.generators.training import generator_evaluator, generator_program
  from letter_jax.tokenizer.training import tokenizer_program
  from letter_jax.training import loop
  data = store.load_interactions(workdir / 'dataset')
  codes, codebook_size = _semantic_ids(config, workdir, data.num_items)
  programs = []
  if not config.collaborative.path:
    programs.append(('sasrec', config.collaborative.training, sasrec_program(config, data, data, mesh)))
  if not config.semantic_ids.path:
    text = np.zeros((data.num_items, _text_dim(config, workdir)), np.float32)
    rows = np.zeros((data.num_items, config.tokenizer.model.latent_dim), np.float32)
    programs.append(('tokenizer', config.tokenizer.training, tokenizer_program(
      config.tokenizer, text, rows, config.seed, mesh, config.mesh.fully_sharded)))
  generator = generator_program(config, data, codes, codebook_size, mesh)
  programs.append(('generator', config.generator.training, generator))
  found = []
  for name, training, program in programs:
    state = loop.abstract_state(program)
    batch = program.batches[0] if program.batches is not None else 0
    calls = program.steps_per_epoch // program.steps_per_call
    unit = 'epoch' if program.steps_per_call > 1 else 'step'
    found.append((f'{name} {unit}', program.examples_per_epoch / calls, calls, training.epochs,
                  program.step.trace(state, *program.arguments(batch))))
  evaluator = generator_evaluator(config, codes, codebook_size, config.evaluation.beam, mesh)
  # As a validation: from the parameters as the training has them.
  users, traced = evaluator.trace(loop.abstract_state(generator).params, config.data.history_length)
  found.append(('decoding', users, -(-len(splits.test_examples(data, 1)) // users), 1, traced))
  return found


def _semantic_ids(config: Config, workdir: pathlib.Path, items: int) -> tuple[np.ndarray, int]:
  path = workdir / 'semantic_ids' / 'semantic_ids.npy'
  if path.exists():
    report = json.loads((workdir / 'semantic_ids' / 'report.json').read_text(encoding='utf-8'))
    return np.load(path, allow_pickle=False), report['codebook_size']
  model = config.tokenizer.model
  numbers = np.random.default_rng(0).permutation(min(model.codebook_size ** model.levels, 8 * items))[:items]
  codes = numbers[:, None] // model.codebook_size ** np.arange(model.levels)[::-1] % model.codebook_size
  return codes.astype(np.int32), model.codebook_size


def _text_dim(config: Config, workdir: pathlib.Path) -> int:
  for path in (config.text_embeddings.path, workdir / 'text_embeddings' / 'embeddings.npy'):
    if path and pathlib.Path(path).exists():
      return np.load(path, mmap_mode='r').shape[1]
  return config.text_embeddings.dim


def cost_of(traced) -> Cost:
  """Cost on one chip of a program (`jax.stages.Traced`) that is compiled for the devices of its arguments."""
  with _uncached():
    compiled = traced.lower().compile()
  memory, analysis = compiled.memory_analysis(), compiled.cost_analysis()
  program = _Program(compiled.as_text())
  in_all, once = matrix_flops(traced.jaxpr.jaxpr)
  occupied = (memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
              + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes)
  return Cost(memory.argument_size_in_bytes, memory.temp_size_in_bytes, occupied,
              analysis['flops'] * (in_all / once if once else 1.0), analysis['bytes accessed'] * program.loop_factor,
              program.collectives)


@contextlib.contextmanager
def _uncached() -> Iterator[None]:
  """Without the compilation cache: what is not for this machine cannot be read back from it."""
  import jax
  from jax.experimental.compilation_cache import compilation_cache
  before = jax.config.jax_enable_compilation_cache
  try:
    jax.config.update('jax_enable_compilation_cache', False)
    compilation_cache.reset_cache()  # it remembers whether it is used
    yield
  finally:
    jax.config.update('jax_enable_compilation_cache', before)
    compilation_cache.reset_cache()


def matrix_flops(jaxpr) -> tuple[float, float]:
  """Of the matrix products of a jaxpr: with its scans as often as they run, and with each once."""
  in_all = once = 0.0
  for equation in jaxpr.eqns:
    if equation.primitive.name == 'dot_general':
      (contracted, _), _ = equation.params['dimension_numbers']
      size = equation.invars[0].aval.shape
      flops = 2.0 * equation.outvars[0].aval.size * math.prod(size[axis] for axis in contracted)
      parts = [(flops, flops)]
    else:
      times = equation.params['length'] if equation.primitive.name == 'scan' else 1
      inner = [matrix_flops(getattr(value, 'jaxpr', value)) for value in _jaxprs(equation.params)]
      parts = [(times * flops, flops_once) for flops, flops_once in inner]
    for part in parts:
      in_all, once = in_all + part[0], once + part[1]
  return in_all, once


def _jaxprs(params: dict) -> list:
  values = [each for value in params.values() for each in (value if isinstance(value, (tuple, list)) else (value,))]
  return [value for value in values if hasattr(getattr(value, 'jaxpr', value), 'eqns')]


_SIZES = {'pred': 1, 's8': 1, 'u8': 1, 'bf16': 2, 'f16': 2, 's16': 2, 'u16': 2, 'f32': 4, 's32': 4, 'u32': 4, 'f64': 8,
          's64': 8, 'u64': 8}
_INSTRUCTION = re.compile(r'\s+(?:ROOT )?%?([\w.-]+) = (.*?) ([\w-]+)\((.*)$')


class _Program:
  """The text of a compiled program.

  Attributes:
    collectives: kind -> bytes of its results in one call, loops counted as often as they run.
    loop_factor: what all instructions move, over what they would if every loop ran once.
  """

  def __init__(self, text: str):
    self._bodies: dict[str, list[tuple[str, str, str]]] = {}
    name = entry = None
    for line in text.splitlines():
      opened = re.match(r'(ENTRY )?%?([\w.-]+) .*\{$', line)
      if opened:
        name = opened[2]
        entry = name if opened[1] else entry
        self._bodies[name] = []
      elif name and (found := _INSTRUCTION.match(line)):
        self._bodies[name].append((found[2], found[3], found[4]))
    self.collectives: dict[str, float] = collections.defaultdict(float)
    self._channels: set[str] = set()
    moved, once = self._walk(entry, 1)
    self.collectives = dict(self.collectives)
    self.loop_factor = moved / once if once else 1.0

  def _walk(self, name: str, times: int) -> tuple[float, float]:
    moved = once = 0.0
    for shape, kind, rest in self._bodies.get(name, ()):
      size = _bytes(shape)
      called = re.findall(r'(?:body|to_apply|true_computation|false_computation)=%?([\w.-]+)', rest)
      if kind == 'while':
        inner = [self._walk(body, times * self._trips(rest)) for body in called]
      elif kind in ('call', 'conditional'):
        inner = [self._walk(body, times) for body in called]
      else:
        inner = [(times * size, size)] if kind not in ('parameter', 'constant', 'tuple', 'get-tuple-element',
                                                       'bitcast') else []
        for family, sent in self._sent(shape, kind, rest):
          self.collectives[family] += times * sent
      for part in inner:
        moved, once = moved + part[0], once + part[1]
    return moved, once


  def _sent(self, shape: str, kind: str, rest: str) -> list[tuple[str, float]]:
    """(collective, bytes) of an instruction; a TPU has them in fusions, too."""
    family = kind.removesuffix('-start')
    if family in COLLECTIVES:
      channel = re.search(r'channel_id=(\d+)', rest)
      if channel and channel[1] in self._channels:
        return []  # its asynchronous parts stand in several fusions
      self._channels.update(channel.groups() if channel else ())
      # What starts a gather or a permutation has its operand before its result.
      pair = re.findall(r'\w+\[[\d,]*\]', shape) if kind.endswith('-start') and family != 'all-reduce' else []
      size = _bytes(pair[1] if len(pair) > 1 else shape)
      return [(family, size * (_group_size(rest) if family == 'reduce-scatter' else 1))]
    called = re.search(r'calls=%?([\w.-]+)', rest)
    if not called:
      return []
    inner = [found for instruction in self._bodies.get(called[1], ()) for found in self._sent(*instruction)]
    return [('reduce-scatter', size) for _, size in inner] if called[1].startswith('all-reduce-scatter') else inner

  def _trips(self, rest: str) -> int:
    """How often a loop runs: what its condition compares the counter with, or 1 where only the data know."""
    condition = re.search(r'condition=%?([\w.-]+)', rest)
    bounds = [int(found[1]) for shape, kind, of in self._bodies.get(condition[1], ()) if kind == 'constant'
              and shape.startswith('s32[]') and (found := re.match(r'(\d+)\)', of))]
    return bounds[0] if len(bounds) == 1 else 1


def _group_size(rest: str) -> int:
  """Devices of a group of a collective, in each of the forms that XLA writes."""
  if listed := re.search(r'replica_groups=\{\{([\d,]+)\}', rest):
    return len(listed[1].split(','))
  if counted := re.search(r'replica_groups=\[\d+,(\d+)\]<=', rest):
    return int(counted[1])
  if named := re.search(r'replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}', rest):
    sizes = dict(re.findall(r"('\w+')=(\d+)", named[1]))
    return math.prod(int(sizes[axis]) for axis in re.findall(r"'\w+'", named[2]))
  return 1


def _bytes(shape: str) -> int:
  """Of a shape such as 'bf16[8,128]{1,0:T(8,128)}', or of all of a tuple's."""
  return sum(_SIZES.get(kind, 4) * int(np.prod([int(size) for size in sizes.split(',') if size]))
             for kind, sizes in re.findall(r'(\w+)\[([\d,]*)\]', shape))


def table(rows: list[dict], topology: str, chips: int, chip: Chip, mesh, config: Config) -> str:
  """The plan as text."""
  lines = [
    f'plan for {topology}: {chips} chips of {chip.memory / 2**30:.0f} GB, mesh data {mesh.shape["data"]} x model '
    f'{mesh.shape["model"]}'
    + (', fully sharded' if config.mesh.fully_sharded else ''),
    f'{"":<16}{"memory":>10}{"arguments":>11}{"temporary":>11}{"fits":>6}{"Gflop":>10}{"GB moved":>10}'
    f'{"time":>11}{"examples/s":>12}{"schedule":>10}']
  for row in rows:
    if 'reason' in row:
      lines.append(f'{row["step"]:<16}does not fit: {row["reason"]}')
      continue
    lines.append(
      f'{row["step"]:<16}{_size(row["memory"]):>10}{_size(row["arguments"]):>11}{_size(row["temporaries"]):>11}'
      f'{"yes" if row["fits"] else "NO":>6}{row["flops"] / 1e9:>10.3g}{row["bytes"] / 1e9:>10.3g}'
      f'{_time(row["seconds"]):>11}{row["examples_per_second"]:>12,.0f}{_time(row["hours"] * 3600):>10}')
    if row['collectives']:
      lines.append(' ' * 16 + ', '.join(f'{kind} {_size(size)}' for kind, size in sorted(row['collectives'].items())))
  lines += ['Per call and chip, as compiled; times from published rates (bfloat16), nothing of the network hidden.',
            'Decoding is without the optimizer state that lies beside it in a validation.']
  return '\n'.join(lines)


def _time(seconds: float) -> str:
  for unit, size in (('h', 3600), ('min', 60), ('s', 1), ('ms', 1e-3)):
    if seconds >= size:
      return f'{seconds / size:.3g} {unit}'
  return f'{seconds * 1e6:.3g} us'


def _size(count: float) -> str:
  for unit in ('B', 'kB', 'MB', 'GB'):
    if count < 1024 or unit == 'GB':
      return f'{count:.3g} {unit}'
    count /= 1024
