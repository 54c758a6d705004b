"""Every setting of the program, as frozen dataclasses with a validating constructor.

Recipes in `configs/` start from `default_config()`, a `ConfigDict` that mirrors the dataclasses, and change values.
`from_config_dict` turns the result into a `Config`; an unknown key or an invalid type or value raises an `InputError`
that names the key. Nothing here imports JAX, so `--help` stays fast.
"""

from letter_jax.configuration.building import default_config, expected_value, flattened, from_config_dict
from letter_jax.configuration.generators import (
  LORA_TARGETS,
  MADE_FEATURES,
  GeneratorConfig,
  LlamaConfig,
  LoRAConfig,
  MixtureConfig,
  T5Config,
)
from letter_jax.configuration.schema import (
  RAW_SOURCES,
  CollaborativeConfig,
  Config,
  DataConfig,
  EvaluationConfig,
  FusionConfig,
  LightGCNConfig,
  PreparationConfig,
  RefreshConfig,
  RQVAEConfig,
  SASRecConfig,
  SemanticIdsConfig,
  Sweep,
  SyntheticConfig,
  TextEmbeddingsConfig,
  TokenizerConfig,
)
from letter_jax.configuration.training import MeshConfig, Partition, TrainingConfig

__all__ = [
  'CollaborativeConfig',
  'Config',
  'DataConfig',
  'default_config',
  'EvaluationConfig',
  'expected_value',
  'FusionConfig',
  'flattened',
  'from_config_dict',
  'GeneratorConfig',
  'LightGCNConfig',
  'LlamaConfig',
  'LORA_TARGETS',
  'LoRAConfig',
  'MADE_FEATURES',
  'MeshConfig',
  'MixtureConfig',
  'Partition',
  'PreparationConfig',
  'RAW_SOURCES',
  'RefreshConfig',
  'RQVAEConfig',
  'SASRecConfig',
  'SemanticIdsConfig',
  'Sweep',
  'SyntheticConfig',
  'T5Config',
  'TextEmbeddingsConfig',
  'TokenizerConfig',
  'TrainingConfig',
]
