"""Small catalogues, interactions and settings that several tests share."""

import json

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
  return interactions(
    [(random.integers(num_items) + np.arange(random.integers(4, longest + 1))) % num_items for _ in range(users)],
    num_items,
  )


def distinct_codes(num_items: int, levels: int, codebook_size: int, seed: int = 0) -> np.ndarray:
  """int32 [num_items, levels], random semantic IDs, no two alike."""
  numbers = np.random.default_rng(seed).choice(codebook_size**levels, num_items, replace=False)
  return np.stack(np.unravel_index(numbers, (codebook_size,) * levels), axis=1).astype(np.int32)


def config_with(settings: dict) -> Config:
  """The default configuration with some keys changed, such as {'generator.training.epochs': 2}."""
  config = default_config()
  config.update_from_flattened_dict(settings)
  return from_config_dict(config)


def tiny_generator_config(settings: dict | None = None) -> Config:
  """A generator that trains in seconds: no dropout, histories of 2 items (a single bucket to compile)."""
  model = {
    f'generator.model.{name}': getattr(TINY_T5, name)
    for name in ('d_model', 'd_kv', 'd_ff', 'layers', 'heads', 'dropout')
  }
  training = {
    f'generator.training.{name}': value
    for name, value in dict(
      epochs=2, batch_size=24, learning_rate=1e-2, log_every_steps=1, checkpoint_every_steps=1000
    ).items()
  }
  return config_with(
    {
      'seed': 7,
      'data.history_length': 2,
      'generator.row_items': 5,
      'generator.validation_beam': 10,
      'evaluation.batch_size': 32,
      **model,
      **training,
      **(settings or {}),
    }
  )


def relative_error(ours, expected) -> float:
  """Largest absolute difference relative to the largest expected value."""
  ours, expected = np.asarray(ours, np.float64), np.asarray(expected, np.float64)
  assert ours.shape == expected.shape
  return float(np.abs(ours - expected).max() / max(np.abs(expected).max(), 1e-30))


# Most of the time is compilation, so histories are short: the search compiles a program for each of two lengths.
TINY_RUN = {
  'data.source': 'synthetic',
  'data.history_length': 5,
  'data.synthetic.num_users': 120,
  'data.synthetic.num_items': 60,
  'text_embeddings.dim': 16,
  'collaborative.model.dim': 16,
  'collaborative.model.layers': 1,
  'collaborative.training.epochs': 1,
  'tokenizer.model.hidden': (16,),
  'tokenizer.model.latent_dim': 8,
  'tokenizer.model.levels': 3,
  'tokenizer.model.codebook_size': 8,
  'tokenizer.training.epochs': 6,
  'tokenizer.training.batch_size': 32,
  # Few checkpoints: a test that resumes between validations sets `checkpoint_every_steps`.
  'tokenizer.training.evaluate_every_epochs': 3,
  'tokenizer.training.log_every_steps': 2,
  'generator.softmax': 'catalogue',
  'generator.model.d_model': 16,
  'generator.model.d_kv': 8,
  'generator.model.d_ff': 32,
  'generator.model.layers': 1,
  'generator.model.heads': 2,
  'generator.validation_users': 50,
  'generator.training.epochs': 2,
  'generator.training.batch_size': 64,
  'generator.training.log_every_steps': 2,
  'evaluation.beam': 20,
}


def run_settings(**changes) -> dict:
  """A whole pipeline that runs in seconds; keys of `changes` have '__' for '.'."""
  return {**TINY_RUN, **{key.replace('__', '.'): value for key, value in changes.items()}}


def write_recipe(path, settings: dict) -> None:
  """A recipe file for --config with these settings."""
  path.write_text(
    'from letter_jax.configuration import default_config\n\n\n'
    f'def get_config():\n  config = default_config()\n  config.update_from_flattened_dict({settings!r})\n'
    '  return config\n',
    encoding='utf-8',
  )


def write_letter_folder(folder, users: int = 40, items: int = 30, seed: int = 0) -> None:
  """A small data set named Small in LETTER's format, with texts."""
  random = np.random.default_rng(seed)
  folder.mkdir(parents=True, exist_ok=True)
  sequences = {str(user): random.integers(0, items, random.integers(4, 9)).tolist() for user in range(users)}
  sequences['0'][0] = items - 1
  texts = {
    str(item): {
      'title': f'thing {item % 7} of kind {item % 3}',
      'brand': f'maker {item % 5}',
      'categories': ['All', f'Kind {item % 3}'],
      'description': '',
    }
    for item in range(items)
  }
  (folder / 'Small.inter.json').write_text(json.dumps(sequences), encoding='utf-8')
  (folder / 'Small.item.json').write_text(json.dumps(texts), encoding='utf-8')
