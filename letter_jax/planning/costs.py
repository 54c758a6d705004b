"""The cost of a compiled program on one chip: memory, flops, bytes moved, and bytes of each kind of collective.

Memory, flops and bytes are those that the compiler reports, which counts the body of a loop once. Flops are therefore
multiplied by the factor that loops add to the matrix products of the traced program, and bytes by the factor that they
add to the results of the compiled program's instructions. Collectives are parsed from the compiled program's text.
"""

import collections
import contextlib
import dataclasses
import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
  import jax


@dataclasses.dataclass(frozen=True)
class Chip:
  """Published rates of a TPU chip (cloud.google.com/tpu/docs/v5e and the like; read in 2026).

  Attributes:
    memory: bytes of HBM.
    flops: bfloat16 operations per second.
    bandwidth: bytes per second to and from HBM.
    network: bytes per second to other chips, over all links, in one direction.
    axes: dimensions of its topologies, 2 or 3.
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
# Bytes that each chip of a large ring sends, relative to the size of the result (for reduce-scatter, the operand): of n
# chips 2 (n-1)/n for all-reduce and (n-1)/n for the others.
COLLECTIVES = {
  'all-reduce': 2.0,
  'all-gather': 1.0,
  'reduce-scatter': 1.0,
  'all-to-all': 1.0,
  'collective-permute': 1.0,
}


@dataclasses.dataclass(frozen=True)
class Cost:
  """The cost of one call of a program on one chip.

  Attributes:
    arguments, temporaries: bytes of memory.
    memory: bytes of memory in all, including results and code.
    flops: floating-point operations.
    bytes: bytes moved between the chip and its memory.
    collectives: kind -> bytes of the results.
  """

  arguments: int
  temporaries: int
  memory: int
  flops: float
  bytes: float
  collectives: dict[str, float]

  def seconds(self, chip: Chip) -> float:
    """A roofline: the longer of compute and memory traffic, followed by the network without overlap."""
    network = sum(size * COLLECTIVES[kind] for kind, size in self.collectives.items()) / chip.network
    return max(self.flops / chip.flops, self.bytes / chip.bandwidth) + network


def cost_of(traced: 'jax.stages.Traced') -> Cost:
  """The cost on one chip of a traced program, which is compiled for the devices of its arguments."""
  with _uncached():
    compiled = traced.lower().compile()
  memory: Any = compiled.memory_analysis()
  analysis: Any = compiled.cost_analysis()
  program = _Program(compiled.as_text())
  total, once = matrix_flops(traced.jaxpr.jaxpr)
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
    analysis['flops'] * (total / once if once else 1.0),
    analysis['bytes accessed'] * program.loop_factor,
    program.collectives,
  )


@contextlib.contextmanager
def _uncached() -> Iterator[None]:
  """Disables the compilation cache, which cannot load programs compiled for devices that this machine lacks."""
  import jax
  from jax.experimental.compilation_cache import compilation_cache

  config: Any = jax.config  # whose options have no types
  previous = config.jax_enable_compilation_cache
  try:
    config.update('jax_enable_compilation_cache', False)
    compilation_cache.reset_cache()  # otherwise it does not notice the change
    yield
  finally:
    config.update('jax_enable_compilation_cache', previous)
    compilation_cache.reset_cache()


def matrix_flops(jaxpr: Any) -> tuple[float, float]:
  """The flops of a jaxpr's matrix products: with every iteration of its scans, and with one iteration of each scan."""
  total = once = 0.0
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
      total, once = total + part[0], once + part[1]
  return total, once


def _jaxprs(params: dict[str, Any]) -> list[Any]:
  """The jaxprs among the parameters of an equation."""
  lists = [value if isinstance(value, (tuple, list)) else [value] for value in params.values()]
  return [value for values in lists for value in values if hasattr(getattr(value, 'jaxpr', value), 'eqns')]


# Bytes of an element.
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
  """A compiled program, parsed from its text.

  Attributes:
    collectives: kind -> bytes of the results in one call, including every iteration of loops.
    loop_factor: bytes of the results of all instructions, relative to those if every loop ran once.
  """

  def __init__(self, text: str) -> None:
    # Instructions of each computation, name -> (shape, kind, text after the opening parenthesis), and its root.
    self._bodies: dict[str, dict[str, tuple[str, str, str]]] = {}
    self._roots: dict[str, str] = {}
    name = entry = ''
    for line in text.splitlines():
      header = re.match(r'(ENTRY )?%?([\w.-]+) .*\{$', line)
      if header:
        name = header[2]
        entry = name if header[1] else entry
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
    """Bytes of the results of a computation that runs `times` times, and of one run with every loop run once."""
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
    """(collective, bytes) of an instruction; on a TPU fusions contain collectives, too."""
    family = kind.removesuffix('-start')
    if family in COLLECTIVES:
      channel = re.search(r'channel_id=(\d+)', rest)
      if channel and channel[1] in self._channels:
        return []  # its asynchronous parts are spread over several fusions
      self._channels.update(channel.groups() if channel else ())
      # The instruction that starts a gather or a permutation lists its operand before its result.
      pair = re.findall(r'\w+\[[\d,]*\]', shape) if kind.endswith('-start') and family != 'all-reduce' else []
      size = _bytes(pair[1] if len(pair) > 1 else shape)
      return [(family, size * (_group_size(rest) if family == 'reduce-scatter' else 1))]
    called = re.search(r'calls=%?([\w.-]+)', rest)
    if not called:
      return []
    inner = [sent for instruction in self._bodies.get(called[1], {}).values() for sent in self._sent(*instruction)]
    return [('reduce-scatter', size) for _, size in inner] if called[1].startswith('all-reduce-scatter') else inner

  def _trips(self, rest: str) -> int:
    """How often a loop runs: the bound of its counter, also where it may end before; 1 where only the data know.

    A counter that the body advances by anything but a constant (as the loop around another one that counts for both)
    says nothing of the number of rounds.
    """
    condition, body = (re.findall(rf'{role}=%?([\w.-]+)', rest)[0] for role in ('condition', 'body'))
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
  return int(re.findall(r'\), index=(\d+)', rest)[0])


def _group_size(rest: str) -> int:
  """The number of devices in a group of a collective, in any of the three notations of XLA."""
  if listed := re.search(r'replica_groups=\{\{([\d,]+)\}', rest):
    return len(listed[1].split(','))
  if counted := re.search(r'replica_groups=\[\d+,(\d+)\]<=', rest):
    return int(counted[1])
  if named := re.search(r'replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}', rest):
    sizes = dict(re.findall(r"('\w+')=(\d+)", named[1]))
    return math.prod(int(sizes[axis]) for axis in re.findall(r"'\w+'", named[2]))
  return 1


def _bytes(shape: str) -> int:
  """The size of a shape such as 'bf16[8,128]{1,0:T(8,128)}', or of all shapes of a tuple."""
  return sum(
    _SIZES.get(kind, 4) * int(np.prod([int(size) for size in sizes.split(',') if size]))
    for kind, sizes in re.findall(r'(\w+)\[([\d,]*)\]', shape)
  )
