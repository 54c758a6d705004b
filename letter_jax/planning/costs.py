"""What a compiled program costs on one chip: memory, flops, bytes moved, bytes of each kind of collective.

Memory, flops and bytes are the compiler's own. It counts the body of a loop once; so flops are multiplied by what the
loops of the traced program add to its matrix products, and bytes by what those of the compiled one add to the results
of its instructions.
"""

import collections
import contextlib
import dataclasses
import math
import re
from collections.abc import Iterator

import numpy as np


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
COLLECTIVES = {
  'all-reduce': 2.0,
  'all-gather': 1.0,
  'reduce-scatter': 1.0,
  'all-to-all': 1.0,
  'collective-permute': 1.0,
}


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


def cost_of(traced) -> Cost:
  """Cost on one chip of a program (`jax.stages.Traced`) that is compiled for the devices of its arguments."""
  with _uncached():
    compiled = traced.lower().compile()
  memory, analysis = compiled.memory_analysis(), compiled.cost_analysis()
  program = _Program(compiled.as_text())
  in_all, once = matrix_flops(traced.jaxpr.jaxpr)
  occupied = (
    memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    - memory.alias_size_in_bytes
    + memory.temp_size_in_bytes
    + memory.generated_code_size_in_bytes
  )
  return Cost(
    memory.argument_size_in_bytes,
    memory.temp_size_in_bytes,
    occupied,
    analysis['flops'] * (in_all / once if once else 1.0),
    analysis['bytes accessed'] * program.loop_factor,
    program.collectives,
  )


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


_SIZES = {
  'pred': 1,
  's8': 1,
  'u8': 1,
  'bf16': 2,
  'f16': 2,
  's16': 2,
  'u16': 2,
  'f32': 4,
  's32': 4,
  'u32': 4,
  'f64': 8,
  's64': 8,
  'u64': 8,
}
_INSTRUCTION = re.compile(r'\s+(ROOT )?%?([\w.-]+) = (.*?) ([\w-]+)\((.*)$')


class _Program:
  """The text of a compiled program.

  Attributes:
    collectives: kind -> bytes of its results in one call, loops counted as often as they run.
    loop_factor: what all instructions move, over what they would if every loop ran once.
  """

  def __init__(self, text: str):
    # Instructions of each computation, name -> (shape, kind, text after the opening parenthesis), and its root.
    self._bodies: dict[str, dict[str, tuple[str, str, str]]] = {}
    self._roots: dict[str, str] = {}
    name = entry = None
    for line in text.splitlines():
      opened = re.match(r'(ENTRY )?%?([\w.-]+) .*\{$', line)
      if opened:
        name = opened[2]
        entry = name if opened[1] else entry
        self._bodies[name] = {}
      elif name and (instruction := _INSTRUCTION.match(line)):
        self._bodies[name][instruction[2]] = (instruction[3], instruction[4], instruction[5])
        if instruction[1]:
          self._roots[name] = instruction[2]
    self.collectives: dict[str, float] = collections.defaultdict(float)
    self._channels: set[str] = set()
    moved, once = self._walk(entry, 1)
    self.collectives = dict(self.collectives)
    self.loop_factor = moved / once if once else 1.0

  def _walk(self, name: str, times: int) -> tuple[float, float]:
    moved = once = 0.0
    for shape, kind, rest in self._bodies.get(name, {}).values():
      size = _bytes(shape)
      called = re.findall(r'(?:body|to_apply|true_computation|false_computation)=%?([\w.-]+)', rest)
      if kind == 'while':
        inner = [self._walk(body, times * self._trips(rest)) for body in called]
      elif kind in ('call', 'conditional'):
        inner = [self._walk(body, times) for body in called]
      else:
        inner = (
          [(times * size, size)]
          if kind not in ('parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast')
          else []
        )
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
    inner = [found for instruction in self._bodies.get(called[1], {}).values() for found in self._sent(*instruction)]
    return [('reduce-scatter', size) for _, size in inner] if called[1].startswith('all-reduce-scatter') else inner

  def _trips(self, rest: str) -> int:
    """How often a loop runs: the bound of its counter, also where it may end before; 1 where only the data know.

    A counter that the body advances by anything but a constant (as the loop around another one that counts for both)
    says nothing of the number of rounds.
    """
    condition, body = (re.search(rf'{role}=%?([\w.-]+)', rest)[1] for role in ('condition', 'body'))
    scalars = [
      (kind, inside) for shape, kind, inside in self._bodies.get(condition, {}).values() if shape.startswith('s32[]')
    ]
    bounds = [
      int(number[1]) for kind, inside in scalars if kind == 'constant' and (number := re.match(r'(\d+)\)', inside))
    ]
    counters = {_index(inside) for kind, inside in scalars if kind == 'get-tuple-element'}
    is_known = len(bounds) == 1 and all(self._advances_by_itself(body, counter) for counter in counters)
    return bounds[0] if is_known else 1

  def _advances_by_itself(self, body: str, counter: int) -> bool:
    """Whether this entry of a loop's state follows from constants and its own last value."""
    instructions = self._bodies.get(body, {})
    _, kind, rest = instructions.get(self._roots.get(body, ''), ('', '', ''))
    if kind != 'tuple':
      return True
    pending = [_operands(rest)[counter]]
    while pending:
      _, kind, rest = instructions[pending.pop()]
      operands = _operands(rest)
      if kind == 'get-tuple-element' and instructions[operands[0]][1] == 'parameter':
        if _index(rest) != counter:
          return False
      elif kind != 'constant':
        pending += operands
    return True


def _operands(rest: str) -> list[str]:
  """Names of an instruction's operands."""
  return re.findall(r'%([\w.-]+)', rest.partition(')')[0])


def _index(rest: str) -> int:
  """Which entry a get-tuple-element takes."""
  return int(re.search(r'\), index=(\d+)', rest)[1])


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
  return sum(
    _SIZES.get(kind, 4) * int(np.prod([int(size) for size in sizes.split(',') if size]))
    for kind, sizes in re.findall(r'(\w+)\[([\d,]*)\]', shape)
  )
