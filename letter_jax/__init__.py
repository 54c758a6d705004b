"""LETTER: learnable item tokenization for generative recommendation, in JAX.

    Recommender            a trained workdir: histories in, items out
    restore_generator      the parameters and configuration of a trained workdir
    LetterTokenizer        the tokenizer alone: two matrices in, semantic IDs out; its settings are a TokenizerConfig,
                           or only the RQVAEConfig of the model, and a TrainingConfig
    SemanticIds, ItemTrie  semantic IDs as values, and as a trie on the devices; nodes_of_items for catalogue_loss
    beam_search            constrained beam search under any model
    ranking_guided_loss, catalogue_loss, tokenizer_losses
    RQVAE, clusters_of_codes, sample_positives
                           the tokenizer's model and the positives of its diversity loss, for tokenizer_losses
    InputError             what a wrong input raises, a ValueError
    TrainingDiverged       what a training raises whose loss is no longer finite

Everything is imported on first use: `import letter_jax` imports neither JAX nor Flax.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = '0.2.0'

_MODULES = {
  'InputError': 'letter_jax.system.errors',
  'ItemTrie': 'letter_jax.semantic_ids.item_trie',
  'LetterTokenizer': 'letter_jax.tokenizer.letter_tokenizer',
  'RQVAE': 'letter_jax.tokenizer.rqvae',
  'RQVAEConfig': 'letter_jax.configuration',
  'Recommender': 'letter_jax.serving.recommender',
  'SemanticIds': 'letter_jax.semantic_ids.ids',
  'TokenizerConfig': 'letter_jax.configuration',
  'TrainingConfig': 'letter_jax.configuration',
  'TrainingDiverged': 'letter_jax.training.loop',
  'beam_search': 'letter_jax.decoding.beam_search',
  'catalogue_loss': 'letter_jax.generators.losses',
  'clusters_of_codes': 'letter_jax.tokenizer.losses',
  'nodes_of_items': 'letter_jax.semantic_ids.item_trie',
  'ranking_guided_loss': 'letter_jax.generators.losses',
  'restore_generator': 'letter_jax.workdir',
  'sample_positives': 'letter_jax.tokenizer.losses',
  'tokenizer_losses': 'letter_jax.tokenizer.losses',
}

__all__ = [
  'InputError',
  'ItemTrie',
  'LetterTokenizer',
  'RQVAE',
  'RQVAEConfig',
  'Recommender',
  'SemanticIds',
  'TokenizerConfig',
  'TrainingConfig',
  'TrainingDiverged',
  '__version__',
  'beam_search',
  'catalogue_loss',
  'clusters_of_codes',
  'nodes_of_items',
  'ranking_guided_loss',
  'restore_generator',
  'sample_positives',
  'tokenizer_losses',
]

if TYPE_CHECKING:
  from letter_jax.configuration import RQVAEConfig, TokenizerConfig, TrainingConfig
  from letter_jax.decoding.beam_search import beam_search
  from letter_jax.generators.losses import catalogue_loss, ranking_guided_loss
  from letter_jax.semantic_ids.ids import SemanticIds
  from letter_jax.semantic_ids.item_trie import ItemTrie, nodes_of_items
  from letter_jax.serving.recommender import Recommender
  from letter_jax.system.errors import InputError
  from letter_jax.tokenizer.letter_tokenizer import LetterTokenizer
  from letter_jax.tokenizer.losses import clusters_of_codes, sample_positives, tokenizer_losses
  from letter_jax.tokenizer.rqvae import RQVAE
  from letter_jax.training.loop import TrainingDiverged
  from letter_jax.workdir import restore_generator


def __getattr__(name: str) -> Any:
  if name not in _MODULES:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  value = getattr(importlib.import_module(_MODULES[name]), name)
  globals()[name] = value  # found without this function from now on
  return value


def __dir__() -> list[str]:
  return sorted({*__all__, *(name for name in globals() if name.startswith('__'))})
