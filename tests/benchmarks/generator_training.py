"""Training of LETTER-TIGER's T5 beside Hugging Face's: examples a second, and the share of the machine's matmul rate.

    python -m tests.benchmarks.generator_training --data=FOLDER [--recipe] [--json=FILE]

Both take as many examples an optimizer step. Ours is what the program runs: packed batches from Grain in two
micro-batches, the ranking-guided loss, AdamW. The peer pads each batch to its longest history, as the reference does,
in float32 and with bfloat16 autocast. The model is the paper's T5; with --recipe, it is the smaller T5 of
`letter_tiger:beauty`, trained by users with one encoder position per item, beside the same with one position per code
and beside Hugging Face. An example is an item to predict.
"""

import argparse
import itertools
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np

from letter_jax import sharding
from letter_jax.cli import recipes
from letter_jax.configuration import Config, MeshConfig, default_config, from_config_dict
from letter_jax.data import splits
from letter_jax.planning.costs import matrix_flops
from letter_jax.semantic_ids.vocabulary import Vocabulary
from letter_jax.system import malloc
from letter_jax.training.loop import PREFETCH
from tests.benchmarks import inputs, table
from tests.benchmarks.in_subprocess import InSubprocess
from tests.generators import building


def matmul_rate(size: int = 3072) -> float:
  """Float32 flops a second of a large matrix product, the best of several."""
  a = jnp.ones((size, size))
  product = jax.jit(jnp.matmul)
  product(a, a).block_until_ready()
  seconds = []
  for _ in range(5):
    start = time.perf_counter()
    product(a, a).block_until_ready()
    seconds.append(time.perf_counter() - start)
  return 2 * size**3 / min(seconds)


def recipe(examples: int) -> Config:
  """The paper's generator, with so many examples an optimizer step."""
  config = default_config()
  config.generator.temperature = 0.7
  config.generator.training.batch_size = examples
  config.generator.training.accumulation_steps = 2
  return from_config_dict(config)


def by_users(items: bool) -> Config:
  """The recipe `letter_tiger:beauty`, with one encoder position per item, or per code."""
  config = recipes.load('letter_tiger:beauty')
  if not items:  # as many items to predict, in two micro-batches
    config.generator.model.encoder = 'tokens'
    config.generator.training.batch_size = 128
    config.generator.training.accumulation_steps = 2
  return from_config_dict(config)


class Ours:
  """The program's own training."""

  def __init__(self, config: Config, data, codes_NxL: np.ndarray):
    ids = building.placed(codes_NxL, inputs.CODES, sharding.make_mesh(MeshConfig()))
    self.program = building.program(config, building.to_train(config, ids, pathlib.Path()), data)
    self._batches = iter(self.program.batches.to_iter_dataset(PREFETCH))
    self._state = jax.jit(self.program.init)(*self.program.init_arguments)
    self.parameters = sum(leaf.size for leaf in jax.tree.leaves(self._state.params))
    self.examples = self.program.examples_per_epoch / self.program.steps_per_epoch
    self.flops = matrix_flops(
      self.program.step.trace(self._state, *self.program.arguments(next(self._batches))).jaxpr.jaxpr
    )[0]

  def rate(self, steps: int) -> float:
    start = time.perf_counter()
    for batch in itertools.islice(self._batches, steps):
      self._state, metrics = self.program.step(self._state, *self.program.arguments(batch))
    jax.block_until_ready(metrics)
    return steps * self.examples / (time.perf_counter() - start)


class Peer:
  """Hugging Face T5 on the same examples, in random order."""

  def __init__(self, config: Config, data, codes_NxL: np.ndarray, examples: int, bfloat16: bool):
    from tests.benchmarks import hugging_face

    vocabulary = Vocabulary(codes_NxL.shape[1], inputs.CODES)
    self._training = hugging_face.Training(
      config.generator.model, vocabulary.size, config.generator.temperature, bfloat16
    )
    self._examples, self._size = splits.training_examples(data, config.data.history_length), examples
    self._item_tokens = hugging_face.item_tokens(vocabulary, codes_NxL)
    self._random = np.random.default_rng(0)
    self.rate(4)  # it gets faster for a few steps

  def parameters(self) -> int:
    return sum(parameter.numel() for parameter in self._training.model.parameters())

  def rate(self, steps: int) -> float:
    seconds = 0.0
    for _ in range(steps):
      chosen = self._examples.take(self._random.choice(len(self._examples), self._size, replace=False))
      tokens = self._item_tokens(chosen.histories(int(chosen.lengths.max())))
      targets = self._item_tokens(chosen.targets[:, None])
      start = time.perf_counter()
      self._training.step(tokens, targets)
      seconds += time.perf_counter() - start
    return steps * self._size / seconds


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  inputs.add_arguments(parser, 'Instruments')
  parser.add_argument('--examples', type=int, default=256, help='an optimizer step')
  parser.add_argument('--recipe', action='store_true', help="the T5 of letter_tiger:beauty instead of the paper's")
  parser.add_argument('--steps', type=int, default=12, help='of ours that are timed together; of the peer, a quarter')
  table.add_peer_arguments(parser)
  arguments = parser.parse_args()
  malloc.reuse_freed_memory()  # as the program does
  data = inputs.dataset(arguments).interactions
  codes_NxL = inputs.semantic_ids(arguments, data.num_items)
  if arguments.recipe:
    table.report(_recipe_rows(arguments, data, codes_NxL), arguments)
    return
  config = recipe(arguments.examples)
  machine = matmul_rate()
  ours = Ours(config, data, codes_NxL)
  ours.rate(2)
  examples = round(ours.examples)
  print(f'{ours.parameters:,} parameters, {examples} examples a step, {jax.devices()[0].device_kind}')
  rows, rates = [], []

  def measure():
    rates.append(ours.rate(arguments.steps))
    return rates[-1]

  if arguments.ours:
    rows.append(table.compare('T5 training', 'examples/s', measure, None, arguments.repeats))
  else:
    for kind, bfloat16 in (('float32', False), ('bfloat16 autocast', True)):
      peer = InSubprocess(Peer, config, data, codes_NxL, examples, bfloat16)
      if peer.call('parameters') != ours.parameters:
        raise SystemExit(f'the peer has {peer.call("parameters"):,} parameters, ours {ours.parameters:,}')
      rows.append(
        table.compare(
          f'T5 training; peer: Hugging Face, {kind}',
          'examples/s',
          measure,
          lambda peer=peer: peer.call('rate', max(arguments.steps // 4, 1)),
          arguments.repeats,
        )
      )
      peer.close()
  achieved = float(np.median(rates)) / ours.examples * ours.flops
  rows += [
    {'name': 'matrix products of the training', 'unit': 'GFLOP/s', 'ours': achieved / 1e9},
    {'name': 'one matrix product of 3072 x 3072 x 3072', 'unit': 'GFLOP/s', 'ours': machine / 1e9},
    {'name': 'share of it', 'unit': '', 'ours': achieved / machine},
  ]
  table.report(rows, arguments)


def _recipe_rows(arguments: argparse.Namespace, data, codes_NxL: np.ndarray) -> list[dict]:
  items, codes = (Ours(by_users(kind), data, codes_NxL) for kind in (True, False))
  for ours in (items, codes):
    ours.rate(2)
  print(f'{items.parameters:,} parameters, {items.examples:.0f} and {codes.examples:.0f} examples a step')

  def measure() -> float:
    return items.rate(4 * arguments.steps)

  name, unit = 'one position per item', 'examples/s'
  rows = [
    table.compare(
      f'{name}; peer: ours, per code', unit, measure, lambda: codes.rate(arguments.steps), arguments.repeats
    )
  ]
  if not arguments.ours:
    peer = InSubprocess(Peer, by_users(True), data, codes_NxL, round(codes.examples), False)
    rows.append(
      table.compare(
        f'{name}; peer: Hugging Face, float32',
        unit,
        measure,
        lambda: peer.call('rate', max(arguments.steps // 4, 1)),
        arguments.repeats,
      )
    )
    peer.close()
  return rows


if __name__ == '__main__':
  main()
