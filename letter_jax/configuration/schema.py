"""The schema: every setting with its default, its meaning and the values that it accepts."""

import dataclasses
from typing import Any, TypeVar

_T = TypeVar('_T')


def setting(
  default: _T,
  meaning: str,
  *,
  minimum: float | None = None,
  above: float | None = None,
  maximum: float | None = None,
  below: float | None = None,
  choices: tuple[str, ...] | None = None,
  date: bool = False,
) -> _T:
  """A dataclass field for one setting; the limits apply to each entry of a tuple.

  Args:
    default: the value where a recipe sets none.
    meaning: one line of documentation.
    minimum, maximum: the smallest and the largest value that is accepted.
    above, below: values have to be larger or smaller than these.
    choices: the only values that are accepted.
    date: values have to be a day as YYYY-MM-DD, or ''.
  """
  limits = dict(meaning=meaning, minimum=minimum, above=above, maximum=maximum, below=below, choices=choices, date=date)
  return dataclasses.field(default=default, metadata=limits)


def section(kind: type[_T], **overrides: Any) -> _T:
  """A dataclass field for a section of settings: `kind`, with other defaults for the settings in `overrides`."""
  return dataclasses.field(default_factory=lambda: kind(**overrides))


# (pattern, axes): a regular expression for the end of a parameter's name, and for each dimension of the parameter the
# mesh axis that it is split over ('data', 'model' or ''); see `letter_jax/sharding.py`.
Partition = tuple[tuple[str, tuple[str, ...]], ...]


# (name, overrides): the name of a run and its (dotted key, value) pairs; see `pipeline/sweep.py`.
Sweep = tuple[tuple[str, tuple[tuple[str, int | float | str | bool], ...]], ...]


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


@dataclasses.dataclass(frozen=True)
class SyntheticConfig:
  """The synthetic store that is built in (`data/synthetic.py`)."""

  num_users: int = setting(6000, 'users of the store', minimum=1)
  num_items: int = setting(2500, 'items of the store', minimum=10)
  mean_length: float = setting(
    9.0, 'mean number of interactions per user; every user has at least 5', minimum=5, maximum=50
  )
  habit: float = setting(0.55, 'fraction of the interactions that depend on the preceding ones', minimum=0, maximum=1)


@dataclasses.dataclass(frozen=True)
class PreparationConfig:
  """The preparation of raw events (`data/preparation.py`)."""

  core: int = setting(5, 'k of the k-core: minimum number of interactions of every user and every item', minimum=1)
  repeats: str = setting(
    'keep',
    "a user's consecutive interactions with the same item: 'keep' all or 'drop' all but the first",
    choices=('keep', 'drop'),
  )
  since: str = setting('', 'first day included, YYYY-MM-DD (UTC)', date=True)
  until: str = setting('', 'first day excluded again, YYYY-MM-DD (UTC)', date=True)


RAW_SOURCES = ('csv', 'amazon2014', 'amazon2018', 'amazon2023', 'movielens', 'yelp')


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """The interactions and item texts that everything is trained on."""

  source: str = setting(
    'letter',
    "'letter': LETTER's folder of JSON files; 'synthetic': the built-in store; 'prepared': the output of "
    'letter_jax.cli.prepare_with_beam; otherwise raw files of that kind',
    choices=('letter', 'synthetic', 'prepared', *RAW_SOURCES),
  )
  path: str = setting('', "folder with the files of the source; '': raw files are downloaded")
  name: str = setting('', "NAME in the file names, or the MovieLens version to download ('ml-1m', 'ml-32m', ...)")
  downloads: str = setting('', "folder for downloaded raw files; '': ~/.cache/letter_jax/downloads")
  history_length: int = setting(20, 'number of latest interactions that a model sees', minimum=1)
  window_users: int = setting(
    0,
    'users in a window: training holds the interactions of two windows in memory, and shuffles and batches each '
    'window separately; 0: all users in one',
    minimum=0,
  )
  preparation: PreparationConfig = section(PreparationConfig)
  synthetic: SyntheticConfig = section(SyntheticConfig)


@dataclasses.dataclass(frozen=True)
class TextEmbeddingsConfig:
  """The text embeddings of the items, which the tokenizer encodes."""

  path: str = setting('', ".npy file with one row per item to use; '': embed the items' texts")
  model: str = setting(
    '',
    'language model, with mean pooling: a sentence-transformers name or folder, or the folder of a Hugging Face '
    "model; '': TF-IDF and a truncated SVD",
  )
  max_tokens: int = setting(
    0, "number of tokens of a text that `model` reads; 0: the limit in the model's files", minimum=0
  )
  batch_size: int = setting(32, 'texts that `model` embeds at once', minimum=1)
  dim: int = setting(384, 'dimensions of the truncated SVD', minimum=2)
  max_features: int = setting(50_000, 'maximum size of the TF-IDF vocabulary (the most frequent terms)', minimum=2)


@dataclasses.dataclass(frozen=True)
class SASRecConfig:
  """Sizes and loss of SASRec."""

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
  """Sizes, regularisation and training of LightGCN."""

  dim: int = setting(64, 'width of the user and item embeddings', minimum=1)
  layers: int = setting(3, 'K: propagations over the graph', minimum=0)
  l2: float = setting(1e-4, 'lambda: weight of the squared norms of the embeddings of a batch', minimum=0)
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
  """The collaborative item embeddings that the tokenizer is aligned with, and the baseline."""

  path: str = setting('', ".npy file with one collaborative row per item to use; '': train `method`")
  method: str = setting(
    'sasrec',
    "the model whose item embeddings the tokenizer is aligned with: 'sasrec' or 'lightgcn'",
    choices=('sasrec', 'lightgcn'),
  )
  baseline: bool = setting(
    True, 'train SASRec as a baseline for the results table even if its embeddings are not needed'
  )
  model: SASRecConfig = section(SASRecConfig)
  partition: Partition = setting(
    (
      ('item_embeddings', ('model', 'data')),
      ('(query|key|value|Dense_0)/kernel', ('data', 'model')),
      ('(query|key|value|Dense_0)/bias', ('model',)),
      ('(out|Dense_1)/kernel', ('model', 'data')),
    ),
    'how the parameters of SASRec are split over the mesh',
  )
  training: TrainingConfig = section(TrainingConfig, epochs=60, batch_size=256, weight_decay=0.0, patience=5)
  lightgcn: LightGCNConfig = section(LightGCNConfig)


@dataclasses.dataclass(frozen=True)
class RQVAEConfig:
  """Sizes of the RQ-VAE and weights of its loss."""

  hidden: tuple[int, ...] = setting(
    (512, 256, 128, 64), 'widths of the hidden layers of the encoder; the decoder mirrors them', minimum=1
  )
  latent_dim: int = setting(32, 'd: width of the latent, the codes and the collaborative rows', minimum=1)
  levels: int = setting(4, 'L: codes per item', minimum=1)
  codebook_size: int = setting(256, 'K: codes per level', minimum=2)
  commitment: float = setting(0.25, 'mu: weight of the commitment term', minimum=0)
  alpha: float = setting(0.02, 'weight of the collaborative (contrastive) alignment', minimum=0)
  beta: float = setting(1e-4, 'weight of the diversity term', minimum=0)
  clusters: int = setting(10, 'clusters of each codebook, recomputed every epoch', minimum=1)
  sinkhorn_epsilon: float = setting(0.003, 'temperature of the optimal transport at the last level', above=0)
  sinkhorn_iterations: int = setting(50, 'Sinkhorn iterations', minimum=1)


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
  """The tokenizer: an RQ-VAE and its training."""

  model: RQVAEConfig = section(RQVAEConfig)
  partition: Partition = setting(
    (
      (r'layer_\d*[02468]/kernel', ('data', 'model')),
      (r'layer_\d*[02468]/bias', ('model',)),
      (r'layer_\d*[13579]/kernel', ('model', 'data')),
    ),
    'how the parameters of the RQ-VAE are split over the mesh',
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
  """The semantic IDs of the items."""

  path: str = setting('', "LETTER's index.json to use; '': the codes of the tokenizer")
  collisions: str = setting(
    'resolve',
    "'resolve': no two items share an ID; 'reference': up to 20 rounds of Sinkhorn, remaining collisions are kept",
    choices=('resolve', 'reference'),
  )


@dataclasses.dataclass(frozen=True)
class T5Config:
  """Sizes of the T5 encoder-decoder (Hugging Face T5 v1.0 numerics), and what a position of its encoder is."""

  encoder: str = setting(
    'tokens',
    "'tokens': the encoder has one position per code and attends in both directions, so that each prefix of a user is "
    "an example of its own (paper); 'items': one position per item, the sum of its codes' embeddings, and causal "
    'attention, so that one pass trains all prefixes of a user',
    choices=('tokens', 'items'),
  )
  d_model: int = setting(128, 'width of the residual stream', minimum=1)
  d_kv: int = setting(64, 'width of an attention head', minimum=1)
  d_ff: int = setting(1024, 'width of the feed-forward layers', minimum=1)
  layers: int = setting(4, 'number of encoder layers and of decoder layers', minimum=1)
  heads: int = setting(6, 'attention heads', minimum=1)
  dropout: float = setting(0.1, 'dropout rate', minimum=0, below=1)
  relative_buckets: int = setting(32, 'buckets of the relative position bias', minimum=4)
  relative_distance: int = setting(128, 'distance from which all positions are in the last bucket', minimum=2)


@dataclasses.dataclass(frozen=True)
class LlamaConfig:
  """Sizes of a LLaMA trained from scratch; with `generator.base`, those of the base model are used instead."""

  text_vocabulary: int = setting(
    4096, "maximum number of tokens of the BPE that is trained on the items' texts", minimum=259
  )
  d_model: int = setting(128, 'width of the residual stream', minimum=2)
  d_ff: int = setting(384, 'width of the feed-forward layers', minimum=1)
  layers: int = setting(4, 'layers', minimum=1)
  heads: int = setting(4, 'attention heads', minimum=1)
  kv_heads: int = setting(4, 'heads of keys and values, a divisor of `heads`', minimum=1)
  d_head: int = setting(32, 'width of an attention head, even', minimum=2)


LORA_TARGETS = ('query', 'key', 'value', 'out', 'gate', 'up', 'down')


@dataclasses.dataclass(frozen=True)
class LoRAConfig:
  """LoRA: low-rank adapters on the linear layers of a base model."""

  rank: int = setting(8, 'rank of the update a @ b; 0: no adapters, all parameters are trained', minimum=0)
  alpha: float = setting(32.0, 'the update is multiplied by alpha / rank', above=0)
  dropout: float = setting(0.05, 'dropout rate on the input of the adapters', minimum=0, below=1)
  targets: tuple[str, ...] = setting(LORA_TARGETS, 'linear layers that get an adapter', choices=LORA_TARGETS)

  @property
  def factor(self) -> float:
    """The scale of the update."""
    return self.alpha / self.rank


@dataclasses.dataclass(frozen=True)
class MixtureConfig:
  """Examples of each task in an epoch, relative to the number of examples of the task; 0 omits it.

  The tasks are defined in `generators/lc_rec/prompts.py`. Search and preference need `generator.user_texts`. Histories
  of titles are long: on Scientific (Amazon 2018) a quarter of the fused examples have half as many tokens as all
  sequential ones.
  """

  sequential: float = setting(1.0, 'history of semantic IDs -> semantic ID of the next item', minimum=0)
  item_to_id: float = setting(1.0, 'title, description -> semantic ID', minimum=0)
  id_to_item: float = setting(1.0, 'semantic ID -> title', minimum=0)
  fused: float = setting(0.25, 'history of titles -> semantic ID, and history of semantic IDs -> title', minimum=0)
  search: float = setting(0.0, 'description of what a user is looking for -> semantic ID', minimum=0)
  preference: float = setting(0.0, 'history of semantic IDs -> description of what the user likes', minimum=0)


@dataclasses.dataclass(frozen=True)
class GeneratorConfig:
  """The generator, which predicts semantic IDs from histories: LETTER-TIGER or LETTER-LC-Rec."""

  architecture: str = setting(
    't5',
    "'t5': LETTER-TIGER, an encoder-decoder with the sizes `model`; 'llama': LETTER-LC-Rec, a language model",
    choices=('t5', 'llama'),
  )
  base: str = setting(
    '', "folder of a Hugging Face language model to start from; '': train one with the sizes `llama` from scratch"
  )
  llama: LlamaConfig = section(LlamaConfig)
  lora: LoRAConfig = section(LoRAConfig)
  mixture: MixtureConfig = section(MixtureConfig)
  user_texts: str = setting(
    '',
    "LC-Rec's NAME.user.json: texts about what users look for and what they like; the latter must be written from the "
    'training interactions only, or held-out items leak',
  )
  base_dtype: str = setting(
    'auto',
    "dtype of the base's weights that are not trained; 'auto': `compute_dtype`",
    choices=('auto', 'float32', 'bfloat16', 'int8'),
  )
  remat: bool = setting(False, "recompute a language model's activations in the backward pass to save memory")
  row_tokens: int = setting(512, 'length of a packed row of a language model, in tokens', minimum=16)
  model: T5Config = section(T5Config)
  partition: Partition = setting(
    (('embedding', ('model', 'data')), ('(query|key|value|wi)', ('data', 'model')), ('(out|wo)', ('model', 'data'))),
    'how the parameters of the generator are split over the mesh',
  )
  initial_weights: str = setting(
    '', '.safetensors file of a Hugging Face T5 with the same sizes and vocabulary to start from'
  )
  temperature: float = setting(
    1.0, 'tau of the ranking-guided loss (the search does not use it); 1: plain TIGER', above=0
  )
  softmax: str = setting(
    'vocabulary',
    "'vocabulary': over all tokens (paper); 'catalogue': over the codes that continue the semantic ID of an existing "
    'item, in training and search',
    choices=('vocabulary', 'catalogue'),
  )
  compute_dtype: str = setting(
    'auto',
    "dtype of activations; 'auto': bfloat16 on GPU and TPU, float32 on CPU",
    choices=('auto', 'float32', 'bfloat16'),
  )
  row_items: int = setting(24, 'length of a packed row of a T5, in history items', minimum=1)
  validation_beam: int = setting(20, 'beams of the constrained search in validation', minimum=10)
  validation_users: int = setting(2000, 'users in the fixed validation sample (all, if there are fewer)', minimum=1)
  training: TrainingConfig = section(TrainingConfig, epochs=200, batch_size=1024, learning_rate=5e-4, patience=20)


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
  """The evaluation of the generator by constrained beam search."""

  beam: int = setting(20, 'beams of the constrained search; metrics are computed up to rank 20', minimum=1)
  batch_size: int = setting(64, 'users decoded at once, over all devices', minimum=1)


@dataclasses.dataclass(frozen=True)
class FusionConfig:
  """The generator and a dense model as one recommender (`decoding/fusion.py`)."""

  partner: str = setting(
    '',
    "the model whose candidates and scores are joined with the generator's: 'sasrec', that of the stage "
    "collaborative; '': none",
    choices=('', 'sasrec'),
  )
  candidates: int = setting(50, 'candidates of each of the two models', minimum=20)


@dataclasses.dataclass(frozen=True)
class Config:
  """All settings of a run."""

  seed: int = setting(42, 'seed of everything random', minimum=0, maximum=2**32 - 1)
  mesh: MeshConfig = section(MeshConfig)
  checkpoints: str = setting('', "folder for this run's checkpoints, also gs://...; '': next to the other results")
  data: DataConfig = section(DataConfig)
  text_embeddings: TextEmbeddingsConfig = section(TextEmbeddingsConfig)
  collaborative: CollaborativeConfig = section(CollaborativeConfig)
  tokenizer: TokenizerConfig = section(TokenizerConfig)
  semantic_ids: SemanticIdsConfig = section(SemanticIdsConfig)
  generator: GeneratorConfig = section(GeneratorConfig)
  fusion: FusionConfig = section(FusionConfig)
  evaluation: EvaluationConfig = section(EvaluationConfig)
  sweep: Sweep = setting(
    (), '(name, ((key, value), ...)) of each of several runs with these settings changed; none: one run'
  )
