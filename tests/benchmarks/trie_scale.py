"""The trie at catalogue scale: one constrained step, building, memory, and a whole search, for 10^4 to 10^7 items.

    python -m tests.benchmarks.trie_scale [--items=10000,100000,1000000,10000000] [--json=FILE]

The step (64 users, 70 beams) is of the last level in catalogues whose nodes there have K children each, whatever the
number of items: what grows is the catalogue alone. The peer is plain JAX that keeps each beam's range of the sorted IDs
and masks all K codes by binary search in it. Building and memory are of random IDs. The whole search is of a T5 of
4.6 million parameters, 64 users with 10 items, 20 beams.
"""

import argparse
import functools
import math
import time

import jax
import jax.numpy as jnp
import numpy as np

from letter_jax.configuration import Config
from letter_jax.decoding.beam_search import extend
from letter_jax.generators.tiger.search import t5_search
from letter_jax.generators.tiger.t5 import T5
from letter_jax.semantic_ids.item_trie import ItemTrie
from letter_jax.semantic_ids.vocabulary import Vocabulary
from letter_jax.system import malloc as malloc
from tests.benchmarks import table

USERS, BEAM = 64, 70
SHAPES = ((4, 256), (8, 2048))  # levels, codes


def full_last_level(items: int, levels: int, codes: int) -> np.ndarray:
  """int32 [about `items`, levels], sorted: random prefixes, each continued by all codes."""
  random = np.random.default_rng(items)
  wanted = max(items // codes, 1)
  prefix_NxL = np.unique(random.integers(codes, size=(wanted + wanted // 8 + 8, levels - 1)), axis=0)
  prefix_NxL = prefix_NxL[np.sort(random.permutation(len(prefix_NxL))[:wanted])]
  return np.concatenate(
    [np.repeat(prefix_NxL, codes, axis=0), np.tile(np.arange(codes), len(prefix_NxL))[:, None]], axis=1
  ).astype(np.int32)


@functools.partial(jax.jit, static_argnames='codes')
def masked_by_binary_search(last_N, low_BxW, high_BxW, score_BxW, log_probs_BxWxK, codes: int):
  """The peer's step: each beam has the rows low:high of the IDs, sorted by their codes `last_N` of this level."""

  def lower_bound(code):
    def halve(_, bounds):
      low, high = bounds
      middle = (low + high) // 2
      right = (last_N[jnp.minimum(middle, len(last_N) - 1)] < code) & (low < high)
      return jnp.where(right, middle + 1, low), jnp.where(right | (low >= high), high, middle)

    low = jnp.broadcast_to(low_BxW[..., None], (*low_BxW.shape, codes))
    high = jnp.broadcast_to(high_BxW[..., None], low.shape)
    return jax.lax.fori_loop(0, math.ceil(math.log2(len(last_N))) + 1, halve, (low, high))[0]

  code_K = jnp.arange(codes)
  first_BxWxK, end_BxWxK = lower_bound(code_K), lower_bound(code_K + 1)
  total_BxWxK = jnp.where(first_BxWxK < end_BxWxK, score_BxW[..., None] + log_probs_BxWxK, -jnp.inf)
  score_BxV, index_BxV = jax.lax.top_k(total_BxWxK.reshape(len(low_BxW), -1), low_BxW.shape[1])
  first_BxV = jnp.take_along_axis(first_BxWxK.reshape(len(low_BxW), -1), index_BxV, axis=1)
  return first_BxV, index_BxV % codes, score_BxV, index_BxV // codes


def timed(function, calls: int = 1) -> float:
  """Milliseconds of a call."""
  start = time.perf_counter()
  for _ in range(calls):
    result = function()
  jax.block_until_ready(result)
  return (time.perf_counter() - start) / calls * 1e3


def step_row(items: int, levels: int, codes: int, repeats: int, calls: int) -> dict:
  """The step beside the peer's, which must find the same beams."""
  codes_NxL = full_last_level(items, levels, codes)
  trie = ItemTrie.build(codes_NxL)
  random = np.random.default_rng(1)
  parents = trie.nodes[-2]
  node_BxW = jnp.asarray(
    np.stack([random.choice(parents, BEAM, replace=parents < BEAM) for _ in range(USERS)]), jnp.int32
  )
  score_BxW = jnp.asarray(-np.sort(random.random((USERS, BEAM), np.float32)))
  log_probs_BxWxK = jax.nn.log_softmax(jnp.asarray(random.standard_normal((USERS, BEAM, codes), np.float32)))
  ours = jax.jit(functools.partial(extend, level=levels - 1, beam=BEAM))
  step = lambda: ours(trie=trie, node_BxW=node_BxW, score_BxW=score_BxW, log_probs_BxWxK=log_probs_BxWxK)
  last_N = jnp.asarray(codes_NxL[:, -1])
  peer = lambda: masked_by_binary_search(
    last_N, node_BxW * codes, (node_BxW + 1) * codes, score_BxW, log_probs_BxWxK, codes
  )
  (node_BxV, code_BxV, score_BxV, _), (first_BxV, peer_code_BxV, peer_score_BxV, _) = step(), peer()
  for mine, other in ((node_BxV, first_BxV), (code_BxV, peer_code_BxV), (score_BxV, peer_score_BxV)):
    np.testing.assert_allclose(mine, other, rtol=1e-6)
  return table.compare(
    f'step, {len(codes_NxL):,} items, {levels} x {codes:,}; peer: binary search',
    'ms',
    lambda: timed(step, calls=calls),
    lambda: timed(peer),
    repeats,
    lower_is_better=True,
  )


def random_ids(items: int, levels: int, codes: int) -> np.ndarray:
  return np.random.default_rng(0).integers(codes, size=(items, levels), dtype=np.int32)


def building_rows(items: int, levels: int, codes: int) -> list[dict]:
  codes_NxL = random_ids(items, levels, codes)
  start = time.perf_counter()
  trie = jax.block_until_ready(ItemTrie.build(codes_NxL))
  seconds = time.perf_counter() - start
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(trie))
  name = f'{items:,} items, {levels} x {codes:,}'
  return [
    {'name': f'building, {name}', 'unit': 's', 'ours': seconds},
    {'name': f'memory, {name}', 'unit': 'bytes an item', 'ours': size / items},
  ]


def search_row(items: int, repeats: int) -> dict:
  levels, codes = SHAPES[0]
  codes_NxL = random_ids(items, levels, codes)
  vocabulary, trie = Vocabulary(levels, codes), ItemTrie.build(codes_NxL)
  model = T5(Config().generator.model, vocabulary.size)
  tokens = jnp.zeros((1, levels), jnp.int32)
  params = model.init(jax.random.key(0), tokens, tokens, tokens[:, None])['params']
  search = jax.jit(functools.partial(t5_search(model, vocabulary, 'vocabulary').beams, beam=20))
  histories_BxC = jnp.asarray(np.random.default_rng(1).integers(items, size=(USERS, 10)), jnp.int32)
  device_codes_NxL = jnp.asarray(codes_NxL)
  run = lambda: search(params, histories_BxC, device_codes_NxL, trie)
  jax.block_until_ready(run())
  return table.compare(f'whole search, {items:,} items', 'users/s', lambda: USERS / timed(run) * 1e3, None, repeats)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--items', default='10000,100000,1000000,10000000')
  parser.add_argument('--repeats', type=int, default=5)
  parser.add_argument('--calls', type=int, default=20, help='of a step that are timed together')
  table.add_arguments(parser)
  arguments = parser.parse_args()
  malloc.reuse_freed_memory()  # as the program does
  sizes = [int(items) for items in arguments.items.split(',')]
  rows = []
  for levels, codes in SHAPES:
    steps = [step_row(items, levels, codes, arguments.repeats, arguments.calls) for items in sizes]
    slowest = max(row['ours'] for row in steps) / min(row['ours'] for row in steps)
    rows += [*steps, {'name': f'slowest over fastest step, {levels} x {codes:,}', 'unit': '', 'ours': slowest}]
  for levels, codes in SHAPES:
    rows += building_rows(max(sizes), levels, codes)
  rows += [search_row(items, arguments.repeats) for items in (min(sizes), min(max(sizes), 10**6))]
  table.report(rows, arguments)


if __name__ == '__main__':
  main()
