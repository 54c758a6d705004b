"""The schema of what all trainings share: the arrangement of the devices, partition rules, an optimisation run."""

import dataclasses

from letter_jax.configuration.fields import setting

# (pattern, axes): a regular expression for the end of a parameter's name, and for each dimension of the parameter the
# mesh axis that it is split over ('data', 'model' or ''); see `letter_jax/sharding.py`.
Partition = tuple[tuple[str, tuple[str, ...]], ...]


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  """The arrangement of the devices; results do not depend on it, up to rounding."""

  data: int = setting(-1, 'number of parts that each batch is split into; -1: as many as the devices allow', minimum=-1)
  model: int = setting(1, 'devices that share each layer (tensor parallelism)', minimum=1)
  fully_sharded: bool = setting(False, "shard parameters and optimizer state over 'data' as well (FSDP)")


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
  """One optimisation run: shared by SASRec, LightGCN, the tokenizer and the generator."""

  epochs: int = setting(100, 'passes over the training examples', minimum=1)
  max_steps: int = setting(
    0,
    'optimizer steps after which training ends, even within an epoch (tokenizer and LightGCN: at its end); 0: no limit',
    minimum=0,
  )
  batch_size: int = setting(
    256, 'examples (of models that predict at every position: users) per optimizer step, over all devices', minimum=1
  )
  accumulation_steps: int = setting(1, 'micro-batches that each optimizer step is split into', minimum=1)
  learning_rate: float = setting(1e-3, 'peak learning rate of AdamW', above=0)
  relative_updates: bool = setting(False, "scale the learning rate by each array's root mean square, as Adafactor does")
  schedule: str = setting('cosine', 'learning rate after the warm-up', choices=('cosine', 'constant'))
  warmup_fraction: float = setting(
    0.01, 'fraction of the steps during which the learning rate rises', minimum=0, below=1
  )
  weight_decay: float = setting(0.01, 'decoupled weight decay (of matrices only)', minimum=0)
  gradient_clip: float = setting(
    0.0, 'global gradient norm above which gradients are scaled down; 0: no clipping', minimum=0
  )
  evaluate_every_epochs: int = setting(1, 'epochs between validations', minimum=1)
  patience: int = setting(20, 'validations without improvement after which training stops', minimum=1)
  log_every_steps: int = setting(50, 'steps between lines of metrics', minimum=1)
  checkpoint_every_steps: int = setting(500, 'steps between checkpoints', minimum=1)
  keep_checkpoints: int = setting(2, 'latest checkpoints that are kept in addition to the best', minimum=1)

  def total_steps(self, per_epoch: int, per_call: int = 1) -> int:
    """The number of optimizer steps, with `per_epoch` in an epoch and `per_call` in each call of a program."""
    steps = self.epochs * per_epoch
    return min(steps, -(-self.max_steps // per_call) * per_call) if self.max_steps else steps
