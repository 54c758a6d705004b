"""Recommends from the files beside it: python recommend.py < users.jsonl > recs.jsonl

pip install jax flatbuffers safetensors"""

import json
import pathlib
import sys

import jax
import numpy as np
from jax import export
from safetensors.flax import load_file

FOLDER = pathlib.Path(__file__).parent


class Recommender:
  def __init__(self):
    platform = {'gpu': 'cuda'}.get(jax.default_backend(), jax.default_backend())
    self.search = jax.jit(export.deserialize((FOLDER / f'search_{platform}.stablehlo').read_bytes()).call)
    self.arrays, table = load_file(FOLDER / 'arrays.safetensors'), json.loads((FOLDER / 'items.json').read_text())
    self.items, self.length = table['items'], table['history_length']
    self.number = {item['id']: number for number, item in enumerate(self.items)}

  def __call__(self, histories, k=10, exclude_history=True, allowed=None):
    """Lists of items (numbers or ids) -> (items, scores) [users, k]; `allowed`: bool [items]. -1: there are fewer."""
    known = [[n for n in (self.number.get(i, -1) if isinstance(i, str) else i for i in h) if 0 <= n < len(self.items)]
             for h in histories]
    had = [sorted(set(h)) if exclude_history else [] for h in known]
    pad = lambda rows, width: np.array([r + [-1] * (width - len(r)) for r in rows], np.int32)
    allowed = np.ones(len(self.items), bool) if allowed is None else np.asarray(allowed, bool)
    # A power of two: every width is compiled for itself.
    widest = 1 << (max(map(len, had)) - 1).bit_length() if any(had) else 1
    found = self.search(self.arrays, pad([h[-self.length:] for h in known], self.length), pad(had, widest), allowed)
    return tuple(np.asarray(part)[:, :k] for part in found)


if __name__ == '__main__':
  recommender, users = Recommender(), [json.loads(line) for line in sys.stdin if line.strip()]
  for user, items, scores in zip(users, *map(np.ndarray.tolist, recommender([user['history'] for user in users]))):
    print(json.dumps({'user': user.get('user'), 'recommendations': [
      {'item': i, **recommender.items[i], 'score': round(s, 6)} for i, s in zip(items, scores) if i >= 0]}))
