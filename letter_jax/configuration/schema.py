"""The schema: every setting with its default, its meaning and the values it accepts.

Workdirs outlive versions: the default of a new setting reproduces what the program did before it, and a default that
workdirs have recorded does not change; recipes do.
"""

import dataclasses


def setting(default, meaning: str, *, minimum=None, above=None, maximum=None, below=None, choices=None, date=False):
  """A dataclass field with its meaning and the range of values it accepts; `date`: a day, or ''."""
  limits = dict(meaning=meaning, minimum=minimum, above=above, maximum=maximum, below=below, choices=choices, date=date)
  return dataclasses.field(default=default, metadata=limits)


def section(kind, **overrides):
  return dataclasses.field(default_factory=lambda: kind(**overrides))


# (pattern, axes): what the end of a parameter's name looks like, and the mesh axis that each of its dimensions is split
# over ('data', 'model' or ''); see `letter_jax/sharding.py`.
Partition = tuple[tuple[str, tuple[str, ...]], ...]


# (name, overrides): a run and its (dotted key, value) pairs; see `pipeline/sweep.py`.
Sweep = tuple[tuple[str, tuple[tuple[str, int | float | str | bool], ...]], ...]


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  """How the devices are arranged; what comes out does not depend on it, up to rounding."""

  data: int = setting(-1, 'parts that a batch is split into; -1: as many as devices are left', minimum=-1)
  model: int = setting(1, 'devices that share each layer (tensor parallelism)', minimum=1)
  fully_sharded: bool = setting(False, "parameters and optimizer state lie in pieces over 'data', too (FSDP)")


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
  """One optimisation run: shared by SASRec, LightGCN, the tokenizer and the generator."""

  epochs: int = setting(100, 'passes over the training examples', minimum=1)
  batch_size: int = setting(256, 'examples per optimizer step, over all devices', minimum=1)
  accumulation_steps: int = setting(1, 'micro-batches that one optimizer step is computed in', minimum=1)
  learning_rate: float = setting(1e-3, 'peak learning rate of AdamW', above=0)
  relative_updates: bool = setting(False, "learning rate relative to each array's root mean square, as Adafactor's")
  schedule: str = setting('cosine', 'learning rate after the warm-up', choices=('cosine', 'constant'))
  warmup_fraction: float = setting(0.01, 'share of the steps with a rising learning rate', minimum=0, below=1)
  weight_decay: float = setting(0.01, 'decoupled weight decay (none on norms)', minimum=0)
  gradient_clip: float = setting(0.0, 'largest global gradient norm; 0 switches clipping off', minimum=0)
  evaluate_every_epochs: int = setting(1, 'epochs between two validations', minimum=1)
  patience: int = setting(20, 'validations without a better one before training stops', minimum=1)
  log_every_steps: int = setting(50, 'steps between two lines of metrics', minimum=1)
  checkpoint_every_steps: int = setting(500, 'steps between two checkpoints', minimum=1)
  keep_checkpoints: int = setting(2, 'latest checkpoints that are kept beside the best', minimum=1)


@dataclasses.dataclass(frozen=True)
class SyntheticConfig:
  """The built-in store (`data/synthetic.py`)."""

  num_users: int = setting(6000, 'users of the store', minimum=1)
  num_items: int = setting(2500, 'items of the store', minimum=10)
  mean_length: float = setting(9.0, 'interactions of a user on average; none has fewer than 5', minimum=5, maximum=50)
  habit: float = setting(0.55, 'share of the interactions that follow from the ones before', minimum=0, maximum=1)


@dataclasses.dataclass(frozen=True)
class PreparationConfig:
  """What becomes of raw events (`data/preparation.py`)."""

  core: int = setting(5, 'k of the k-core: interactions that every user and every item has at least', minimum=1)
  repeats: str = setting(
    'keep',
    "an item twice in a row with one user: 'keep' both interactions or 'drop' the second",
    choices=('keep', 'drop'),
  )
  since: str = setting('', 'first day that counts, YYYY-MM-DD (UTC)', date=True)
  until: str = setting('', 'first day that no longer counts, YYYY-MM-DD (UTC)', date=True)


RAW_SOURCES = ('csv', 'amazon2014', 'amazon2018', 'amazon2023', 'movielens', 'yelp')


@dataclasses.dataclass(frozen=True)
class DataConfig:
  source: str = setting(
    'letter',
    "'letter': LETTER's json folder; 'synthetic': the built-in store; 'prepared': what "
    'letter_jax.cli.prepare_with_beam wrote; else raw files',
    choices=('letter', 'synthetic', 'prepared', *RAW_SOURCES),
  )
  path: str = setting('', 'folder with the files of the source; raw files are downloaded where it is empty')
  name: str = setting('', "NAME in the names of the files; which MovieLens to download ('ml-1m', 'ml-32m', ...)")
  downloads: str = setting('', "folder that keeps downloaded raw files; '' is ~/.cache/letter_jax/downloads")
  history_length: int = setting(20, 'latest interactions that a model sees', minimum=1)
  window_users: int = setting(
    0,
    'users whose interactions training holds in memory at a time, with the next as many; '
    'each such window is shuffled and batched by itself; 0: all',
    minimum=0,
  )
  preparation: PreparationConfig = section(PreparationConfig)
  synthetic: SyntheticConfig = section(SyntheticConfig)


@dataclasses.dataclass(frozen=True)
class TextEmbeddingsConfig:
  path: str = setting('', '.npy with one row per item, instead of embedding the text here')
  model: str = setting(
    '',
    "language model: a sentence-transformers name or folder, or a Hugging Face model's folder, "
    "mean-pooled; '': TF-IDF and a truncated SVD",
  )
  max_tokens: int = setting(0, "tokens of a text that `model` reads; 0: the limit in the model's files", minimum=0)
  batch_size: int = setting(32, 'texts that `model` embeds at once', minimum=1)
  dim: int = setting(384, 'dimensions kept by the truncated SVD', minimum=2)
  max_features: int = setting(50_000, 'largest TF-IDF vocabulary (most frequent terms)', minimum=2)


@dataclasses.dataclass(frozen=True)
class SASRecConfig:
  dim: int = setting(64, 'width of the item embeddings and of the blocks', minimum=1)
  layers: int = setting(2, 'transformer blocks', minimum=1)
  heads: int = setting(2, 'attention heads', minimum=1)
  dropout: float = setting(0.2, 'dropout rate', minimum=0, below=1)
  loss: str = setting(
    'cross_entropy',
    "'cross_entropy': softmax over all items; 'bce': one sampled negative (paper)",
    choices=('cross_entropy', 'bce'),
  )


@dataclasses.dataclass(frozen=True)
class LightGCNConfig:
  dim: int = setting(64, 'width of the user and item embeddings', minimum=1)
  layers: int = setting(3, 'K: propagations over the graph', minimum=0)
  l2: float = setting(1e-4, 'lambda: weight of the squared embeddings of a batch', minimum=0)
  training: TrainingConfig = section(
    TrainingConfig,
    epochs=200,
    batch_size=8192,
    learning_rate=5e-3,
    schedule='constant',
    warmup_fraction=0.0,
    weight_decay=0.0,
    evaluate_every_epochs=5,
    patience=5,
  )


@dataclasses.dataclass(frozen=True)
class CollaborativeConfig:
  path: str = setting('', '.npy with one collaborative row per item, instead of those of a model trained here')
  method: str = setting(
    'sasrec', "whose item rows the tokenizer aligns with: 'sasrec' or 'lightgcn'", choices=('sasrec', 'lightgcn')
  )
  baseline: bool = setting(True, 'train SASRec as the baseline of the results table even when its rows are not needed')
  model: SASRecConfig = section(SASRecConfig)
  partition: Partition = setting(
    (
      ('item_embeddings', ('model', 'data')),
      ('(query|key|value|Dense_0)/kernel', ('data', 'model')),
      ('(query|key|value|Dense_0)/bias', ('model',)),
      ('(out|Dense_1)/kernel', ('model', 'data')),
    ),
    'how the parameters of SASRec lie on the mesh',
  )
  training: TrainingConfig = section(TrainingConfig, epochs=60, batch_size=256, weight_decay=0.0, patience=5)
  lightgcn: LightGCNConfig = section(LightGCNConfig)


@dataclasses.dataclass(frozen=True)
class RQVAEConfig:
  """Sizes of the RQ-VAE and weights of its loss (DESIGN: quantisation, losses, Sinkhorn)."""

  hidden: tuple[int, ...] = setting((512, 256, 128, 64), 'widths of the encoder between text and latent', minimum=1)
  latent_dim: int = setting(32, 'd: width of the latent, the codes and the collaborative rows', minimum=1)
  levels: int = setting(4, 'L: codes per item', minimum=1)
  codebook_size: int = setting(256, 'K: codes per level', minimum=2)
  commitment: float = setting(0.25, 'mu: weight of the commitment term', minimum=0)
  alpha: float = setting(0.02, 'weight of the collaborative (contrastive) alignment', minimum=0)
  beta: float = setting(1e-4, 'weight of the diversity term', minimum=0)
  clusters: int = setting(10, 'groups that each codebook is clustered into, every epoch', minimum=1)
  sinkhorn_epsilon: float = setting(0.003, 'temperature of the optimal transport at the last level', above=0)
  sinkhorn_iterations: int = setting(50, 'Sinkhorn iterations', minimum=1)


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
  model: RQVAEConfig = section(RQVAEConfig)
  partition: Partition = setting(
    (
      (r'layer_\d*[02468]/kernel', ('data', 'model')),
      (r'layer_\d*[02468]/bias', ('model',)),
      (r'layer_\d*[13579]/kernel', ('model', 'data')),
    ),
    'how the parameters of the RQ-VAE lie on the mesh',
  )
  training: TrainingConfig = section(
    TrainingConfig,
    epochs=1000,
    batch_size=1024,
    schedule='constant',
    warmup_fraction=0.0,
    weight_decay=0.01,
    evaluate_every_epochs=50,
    patience=1000,
    log_every_steps=50,
    checkpoint_every_steps=100,
  )


@dataclasses.dataclass(frozen=True)
class SemanticIdsConfig:
  path: str = setting('', "LETTER's index.json, instead of the tokenizer's codes")
  collisions: str = setting(
    'resolve',
    "'resolve': no two items alike; 'reference': 20 Sinkhorn rounds, rest kept",
    choices=('resolve', 'reference'),
  )


@dataclasses.dataclass(frozen=True)
class T5Config:
  """Sizes of the T5 encoder-decoder (Hugging Face T5 v1.0 numerics)."""

  d_model: int = setting(128, 'width of the residual stream', minimum=1)
  d_kv: int = setting(64, 'width of an attention head', minimum=1)
  d_ff: int = setting(1024, 'width of the feed-forward layers', minimum=1)
  layers: int = setting(4, 'encoder layers, and as many decoder layers', minimum=1)
  heads: int = setting(6, 'attention heads', minimum=1)
  dropout: float = setting(0.1, 'dropout rate', minimum=0, below=1)
  relative_buckets: int = setting(32, 'buckets of the relative position bias', minimum=4)
  relative_distance: int = setting(128, 'distance of the last bucket', minimum=2)


@dataclasses.dataclass(frozen=True)
class LlamaConfig:
  """Sizes of a LLaMA that starts from nothing; with `generator.base` the base's own count."""

  text_vocabulary: int = setting(4096, "tokens of the BPE made of the items' text, at most", minimum=259)
  d_model: int = setting(128, 'width of the residual stream', minimum=2)
  d_ff: int = setting(384, 'width of the feed-forward layers', minimum=1)
  layers: int = setting(4, 'layers', minimum=1)
  heads: int = setting(4, 'attention heads', minimum=1)
  kv_heads: int = setting(4, 'heads of keys and values, a divisor of `heads`', minimum=1)
  d_head: int = setting(32, 'width of an attention head, even', minimum=2)


LORA_TARGETS = ('query', 'key', 'value', 'out', 'gate', 'up', 'down')


@dataclasses.dataclass(frozen=True)
class LoRAConfig:
  """Low-rank adapters on the linear layers of a base model."""

  rank: int = setting(8, 'of the update a @ b; 0: no adapters, everything is trained', minimum=0)
  alpha: float = setting(32.0, 'the update is multiplied by alpha / rank', above=0)
  dropout: float = setting(0.05, 'dropout rate on the input of the adapters', minimum=0, below=1)
  targets: tuple[str, ...] = setting(LORA_TARGETS, 'linear layers that get one', choices=LORA_TARGETS)

  @property
  def factor(self) -> float:
    return self.alpha / self.rank


@dataclasses.dataclass(frozen=True)
class MixtureConfig:
  """Examples of each task in an epoch, relative to how many there are; 0 omits a task.

  The tasks are in `generators/lc_rec/prompts.py`.

  Histories of titles are long: on Scientific (Amazon 2018) a quarter of the fused examples has half as many tokens as
  all sequential ones. Search and preference need `generator.user_texts`.
  """

  sequential: float = setting(1.0, 'history of semantic IDs -> semantic ID of the next item', minimum=0)
  item_to_id: float = setting(1.0, 'title, description -> semantic ID', minimum=0)
  id_to_item: float = setting(1.0, 'semantic ID -> title', minimum=0)
  fused: float = setting(0.25, 'history of titles -> semantic ID, of semantic IDs -> title', minimum=0)
  search: float = setting(0.0, 'what a user looks for -> semantic ID', minimum=0)
  preference: float = setting(0.0, 'history of semantic IDs -> what the user likes', minimum=0)


@dataclasses.dataclass(frozen=True)
class GeneratorConfig:
  architecture: str = setting(
    't5',
    "'t5': LETTER-TIGER, an encoder-decoder of `model`; 'llama': LETTER-LC-Rec, a language model",
    choices=('t5', 'llama'),
  )
  base: str = setting('', "Hugging Face folder of the language model; '': one of the sizes `llama`, from nothing")
  llama: LlamaConfig = section(LlamaConfig)
  lora: LoRAConfig = section(LoRAConfig)
  mixture: MixtureConfig = section(MixtureConfig)
  user_texts: str = setting(
    '',
    "LC-Rec's NAME.user.json: what users look for and what they like; the latter as "
    'of the training interactions, or held-out items leak',
  )
  base_dtype: str = setting(
    'auto',
    "of the base's weights, where they are not trained; 'auto': as `compute_dtype`",
    choices=('auto', 'float32', 'bfloat16', 'int8'),
  )
  remat: bool = setting(False, "compute a language model's activations again in the backward pass: less memory")
  row_tokens: int = setting(512, 'tokens that one packed row of a language model holds', minimum=16)
  model: T5Config = section(T5Config)
  partition: Partition = setting(
    (('embedding', ('model', 'data')), ('(query|key|value|wi)', ('data', 'model')), ('(out|wo)', ('model', 'data'))),
    'how the parameters of the generator lie on the mesh',
  )
  initial_weights: str = setting('', 'Hugging Face T5 .safetensors to start from (same sizes and vocabulary)')
  temperature: float = setting(1.0, 'tau of the ranking-guided loss, not of the search; 1 is plain TIGER', above=0)
  softmax: str = setting(
    'vocabulary',
    "'vocabulary': over all tokens (paper); 'catalogue': over codes that continue a "
    "real item's semantic ID, in training and search",
    choices=('vocabulary', 'catalogue'),
  )
  compute_dtype: str = setting(
    'auto', "of activations; 'auto': bfloat16 on GPU and TPU, float32 on CPU", choices=('auto', 'float32', 'bfloat16')
  )
  row_items: int = setting(24, 'history items that one packed row of a T5 holds', minimum=1)
  validation_beam: int = setting(20, 'beams of the constrained search in validation', minimum=10)
  validation_users: int = setting(2000, 'users of the fixed validation sample (all, if fewer)', minimum=1)
  training: TrainingConfig = section(TrainingConfig, epochs=200, batch_size=1024, learning_rate=5e-4, patience=20)


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
  beam: int = setting(20, 'beams of the constrained search; metrics go to 20', minimum=1)
  batch_size: int = setting(64, 'users decoded at once, over all devices', minimum=1)


@dataclasses.dataclass(frozen=True)
class Config:
  seed: int = setting(42, 'everything random comes from it', minimum=0, maximum=2**32 - 1)
  mesh: MeshConfig = section(MeshConfig)
  checkpoints: str = setting('', "folder of this run's checkpoints, also gs://...; '': beside the other results")
  data: DataConfig = section(DataConfig)
  text_embeddings: TextEmbeddingsConfig = section(TextEmbeddingsConfig)
  collaborative: CollaborativeConfig = section(CollaborativeConfig)
  tokenizer: TokenizerConfig = section(TokenizerConfig)
  semantic_ids: SemanticIdsConfig = section(SemanticIdsConfig)
  generator: GeneratorConfig = section(GeneratorConfig)
  evaluation: EvaluationConfig = section(EvaluationConfig)
  sweep: Sweep = setting((), '(name, ((key, value), ...)) of runs that differ in those settings; none: one run')
