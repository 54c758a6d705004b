"""Constrained beam search over the catalogue beside Hugging Face's `generate`: users a second, and the same lists.

    python -m tests.benchmarks.constrained_decoding --data=FOLDER [--json=FILE]

Both have the same weights and search the same users' histories, chosen at random. Ours is what the program's evaluation
runs. The peer is `generate` with `prefix_allowed_tokens_fn`, batches of 32, in float32 and with bfloat16 autocast.
Fails where an item of the lists, or a score by more than 1e-4, is another in float32.
"""

import argparse
import pathlib
import time

import jax
import numpy as np

from letter_jax import sharding
from letter_jax.configuration import Config, MeshConfig
from letter_jax.data import splits
from letter_jax.data.splits import Examples
from letter_jax.generators.tiger import weights as t5_weights
from letter_jax.semantic_ids.vocabulary import Vocabulary
from letter_jax.system import malloc
from tests.benchmarks import inputs, table
from tests.benchmarks.in_subprocess import InSubprocess
from tests.generators import building

BEAM, PEER_BATCH, TOLERANCE = 20, 32, 1e-4


class Peer:
  """`generate` for some users' histories."""

  def __init__(self, config: Config, tensors, codes_NxL: np.ndarray, bfloat16: bool):
    from tests.benchmarks import hugging_face

    vocabulary = Vocabulary(codes_NxL.shape[1], inputs.CODES)
    self._item_tokens = hugging_face.item_tokens(vocabulary, codes_NxL)
    model = hugging_face.t5(config.generator.model, vocabulary.size, tensors)
    self._search = hugging_face.Search(model, self._item_tokens(np.arange(len(codes_NxL))[:, None]), BEAM, bfloat16)

  def rate(self, examples: Examples) -> tuple[float, np.ndarray, np.ndarray]:
    """Users a second, and the lists: tokens [users, beam, L] and scores [users, beam]."""
    sequences, scores = [], []
    start = time.perf_counter()
    for first in range(0, len(examples), PEER_BATCH):
      chosen = examples.take(np.arange(first, min(first + PEER_BATCH, len(examples))))
      found = self._search(self._item_tokens(chosen.histories(int(chosen.lengths.max()))))
      for part, of_batch in zip((sequences, scores), found):
        part.append(of_batch)
    return len(examples) / (time.perf_counter() - start), np.concatenate(sequences), np.concatenate(scores)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  inputs.add_arguments(parser, 'Instruments')
  parser.add_argument('--users', type=int, default=4096, help='of ours in a repeat')
  parser.add_argument('--peer-users', type=int, default=64, help='of the peer in a repeat')
  table.add_peer_arguments(parser)
  arguments = parser.parse_args()
  malloc.reuse_freed_memory()  # as the program does
  data = inputs.dataset(arguments).interactions
  codes_NxL = inputs.semantic_ids(arguments, data.num_items)
  config, mesh = Config(), sharding.make_mesh(MeshConfig())
  vocabulary = Vocabulary(codes_NxL.shape[1], inputs.CODES)
  generator = building.to_search(config, building.placed(codes_NxL, inputs.CODES, mesh), pathlib.Path())
  tokens = np.zeros((1, vocabulary.levels), np.int32)
  params = sharding.put(
    generator.model.init(jax.random.key(0), tokens, tokens, tokens[:, None])['params'], sharding.replicated(mesh)
  )
  evaluator = building.evaluator(config, generator, BEAM)
  examples = splits.test_examples(data, config.data.history_length)
  order = np.random.default_rng(0).permutation(len(examples))
  ours_examples, peer_examples = examples.take(order[: arguments.users]), examples.take(order[: arguments.peer_users])

  def rate() -> float:
    start = time.perf_counter()
    evaluator.evaluate(params, ours_examples, '')
    return len(ours_examples) / (time.perf_counter() - start)

  rate()
  if arguments.ours:
    rows = [table.compare(f'{BEAM} beams', 'users/s', rate, None, arguments.repeats)]
  else:
    rows = []
    for kind, bfloat16 in (('float32', False), ('bfloat16 autocast', True)):
      peer = InSubprocess(Peer, config, t5_weights.to_hugging_face(params, config.generator.model), codes_NxL, bfloat16)
      _, sequences, scores = peer.call('rate', peer_examples)
      if not bfloat16:
        item_tokens_NxL = np.asarray(vocabulary.tokens(codes_NxL))
        _check(evaluator.evaluate(params, peer_examples, ''), item_tokens_NxL, sequences, scores)
      rows.append(
        table.compare(
          f'{BEAM} beams; peer: generate, {kind}',
          'users/s',
          rate,
          lambda peer=peer: peer.call('rate', peer_examples)[0],
          arguments.repeats,
        )
      )
      peer.close()
  table.report(rows, arguments)


def _check(found, item_tokens_NxL: np.ndarray, sequences: np.ndarray, scores: np.ndarray) -> None:
  """Ends the program where the lists differ by more than the order of equal scores."""
  worst = float(np.abs(found.scores_UxK - scores).max())
  same = (item_tokens_NxL[found.items_UxK] == sequences).all(axis=-1)
  print(
    f'{len(scores)} users: scores differ by {worst:.1e} at most, {same.mean():.2%} of the items are the same at '
    'the same place'
  )
  # Where an item is another, the two have equal scores but for rounding: their order is open.
  gap = np.abs(np.diff(scores, axis=1, append=-np.inf))
  tied = (gap < TOLERANCE) | (np.roll(gap, 1, axis=1) < TOLERANCE)
  if worst > TOLERANCE or not (same | tied).all():
    raise SystemExit(f'the lists differ: scores by {worst:.1e}, items at {np.argwhere(~(same | tied))[:5].tolist()}')


if __name__ == '__main__':
  main()
