"""Recommends from the files beside it: python recommend.py [K] < users.jsonl > recs.jsonl

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
    known = [[n for n in map(self.known, history) if n >= 0] for history in histories]
    pad = lambda rows, width: np.array([r + [-1] * (width - len(r)) for r in rows], np.int32)
    found = [np.zeros((0, k), np.int32)], [np.zeros((0, k), np.float32)]
    for first in range(0, len(known), ROWS):
      rows = (known[first : first + ROWS] + [[]] * ROWS)[:ROWS]
      had = [sorted(set(h)) if exclude_history else [] for h in rows]
      widest = max(self.length, 1 << max(max(map(len, had)) - 1, 0).bit_length())
      batch = self.search(self.arrays, pad([h[-self.length :] for h in rows], self.length), pad(had, widest), allowed)
      for parts, part in zip(found, batch):
        parts.append(np.asarray(part)[: len(known) - first, :k])
    return tuple(map(np.concatenate, found))

  def known(self, item):
    """The number of an item, -1 of one that is unknown."""
    number = self.number.get(item, -1) if isinstance(item, str) else item
    return number if 0 <= number < len(self.items) else -1

  def answers(self, lines, k):
    """An answer for each line; one with "error" where it cannot be used."""
    users = list(map(self.read, lines))
    for user, items, scores in zip(users, *map(np.ndarray.tolist, self([user['history'] for user in users], k))):
      yield (
        {'error': user['error']}
        if 'error' in user
        else {
          'user': user.get('user'),
          'skipped': sum(self.known(item) < 0 for item in user['history']),
          'recommendations': [
            {'item': i, **self.items[i], 'score': round(score, 6)} for i, score in zip(items, scores) if i >= 0
          ],
        }
      )

  def read(self, line):
    try:
      user = json.loads(line)
      list(map(self.known, user['history']))
      return user
    except (ValueError, KeyError, TypeError) as error:
      return {'history': [], 'error': f'{type(error).__name__}: {error}; expected {{"user": ..., "history": [items]}}'}


if __name__ == '__main__':
  recommender, k = Recommender(), int(sys.argv[1]) if sys.argv[1:] else 10
  lines = (line for line in sys.stdin.buffer if line.strip())
  while chunk := list(itertools.islice(lines, 16 * ROWS)):
    for answer in recommender.answers(chunk, k):
      print(json.dumps(answer), flush=True)
