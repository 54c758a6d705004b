"""Recommends from the files beside it: python recommend.py < users.jsonl > recs.jsonl

pip install jax flatbuffers safetensors"""

import itertools
import json
import pathlib
import sys

import jax
import numpy as np
from jax import export
from safetensors.flax import load_file

FOLDER, ROWS = pathlib.Path(__file__).parent, 64  # users at once; every number of them is compiled for itself


class Recommender:
  def __init__(self):
    platform = {'gpu': 'cuda'}.get(jax.default_backend(), jax.default_backend())
    self.search = jax.jit(export.deserialize((FOLDER / f'search_{platform}.stablehlo').read_bytes()).call)
    self.arrays, table = load_file(FOLDER / 'arrays.safetensors'), json.loads((FOLDER / 'items.json').read_text())
    self.items, self.length, self.beam = table['items'], table['history_length'], table['beam']
    self.number = {item['id']: number for number, item in enumerate(self.items)}

  def __call__(self, histories, k=10, exclude_history=True, allowed=None):
    """Lists of items (numbers or ids) -> (items, scores) [users, k]; `allowed`: bool [items]. -1: there are fewer."""
    if not 1 <= k <= self.beam:
      raise ValueError(f'k is {k}; expected 1 to {self.beam}')
    allowed = np.ones(len(self.items), bool) if allowed is None else np.asarray(allowed, bool)
    known = [[n for n in (self.number.get(i, -1) if isinstance(i, str) else i for i in h) if 0 <= n < len(self.items)]
             for h in histories]
    pad = lambda rows, width: np.array([r + [-1] * (width - len(r)) for r in rows], np.int32)
    found = [np.zeros((0, k), np.int32)], [np.zeros((0, k), np.float32)]
    for first in range(0, len(known), ROWS):
      rows = known[first:first + ROWS]
      rows += [[]] * (ROWS - len(rows))
      had = [sorted(set(h)) if exclude_history else [] for h in rows]
      widest = max(self.length, 1 << max(max(map(len, had)) - 1, 0).bit_length())
      batch = self.search(self.arrays, pad([h[-self.length:] for h in rows], self.length), pad(had, widest), allowed)
      for parts, part in zip(found, batch):
        parts.append(np.asarray(part)[:len(known) - first, :k])
    return tuple(map(np.concatenate, found))


if __name__ == '__main__':
  recommender, lines = Recommender(), (json.loads(line) for line in sys.stdin if line.strip())
  while users := list(itertools.islice(lines, 16 * ROWS)):
    for user, items, scores in zip(users, *map(np.ndarray.tolist, recommender([user['history'] for user in users]))):
      print(json.dumps({'user': user.get('user'), 'recommendations': [
        {'item': i, **recommender.items[i], 'score': round(s, 6)} for i, s in zip(items, scores) if i >= 0]}))
