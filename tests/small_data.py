"""Small catalogues, interactions and settings that several tests share."""

import numpy as np

from letter_jax.configuration import Config, T5Config, default_config, from_config_dict
from letter_jax.data.dataset import Interactions

TINY_T5 = T5Config(d_model=16, d_kv=8, d_ff=32, layers=1, heads=2, dropout=0.0)


def interactions(sequences, num_items: int | None = None) -> Interactions:
  """The given users' items; `num_items` is one more than the largest where not given."""
  items = np.concatenate([np.asarray(sequence, np.int32) for sequence in sequences])
  offsets = np.cumsum([0] + [len(sequence) for sequence in sequences])
  users = tuple(f'user {user}' for user in range(len(sequences)))
  return Interactions(items, offsets, int(items.max()) + 1 if num_items is None else num_items, users)


def numbered_interactions(lengths_U) -> Interactions:
  """Every interaction is an item of its own, in order: an item tells whose it is and when."""
  first_U = np.cumsum(lengths_U) - lengths_U
  return interactions([np.arange(first, first + length) for first, length in zip(first_U, lengths_U)])


def cyclic_interactions(users: int, num_items: int, longest: int, seed: int = 0) -> Interactions:
  """Users who buy item i + 1 after item i, from a random start, 4 to `longest` items: easily learned."""
  random = np.random.default_rng(seed)
  return interactions([(random.integers(num_items) + np.arange(random.integers(4, longest + 1))) % num_items
                       for _ in range(users)], num_items)


def distinct_codes(num_items: int, levels: int, codebook_size: int, seed: int = 0) -> np.ndarray:
  """int32 [num_items, levels], random semantic IDs, no two alike."""
  numbers = np.random.default_rng(seed).choice(codebook_size ** levels, num_items, replace=False)
  return np.stack(np.unravel_index(numbers, (codebook_size,) * levels), axis=1).astype(np.int32)


def config_with(settings: dict) -> Config:
  """The default configuration with some keys changed, such as {'generator.training.epochs': 2}."""
  config = default_config()
  config.update_from_flattened_dict(settings)
  return from_config_dict(config)


def tiny_generator_config(settings: dict | None = None) -> Config:
  """A generator that trains in seconds: no dropout, histories of 2 items (a single bucket to compile)."""
  model = {f'generator.model.{name}': getattr(TINY_T5, name)
           for name in ('d_model', 'd_kv', 'd_ff', 'layers', 'heads', 'dropout')}
  training = {f'generator.training.{name}': value for name, value in dict(
    epochs=2, batch_size=24, learning_rate=1e-2, log_every_steps=1, checkpoint_every_steps=1000).items()}
  return config_with({'seed': 7, 'data.history_length': 2, 'generator.row_items': 5, 'evaluation.beam': 5,
                      'evaluation.batch_size': 32, **model, **training, **(settings or {})})


def relative_error(ours, expected) -> float:
  """Largest absolute difference relative to the largest expected value."""
  ours, expected = np.asarray(ours, np.float64), np.asarray(expected, np.float64)
  assert ours.shape == expected.shape
  return float(np.abs(ours - expected).max() / max(np.abs(expected).max(), 1e-30))
