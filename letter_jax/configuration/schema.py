"""The schema: every setting with its default, its meaning and the values that it accepts.

The sections of the generators and what all trainings share are in `generators.py` and `training.py`.
"""

import dataclasses

from letter_jax.configuration.fields import section, setting
from letter_jax.configuration.generators import GeneratorConfig
from letter_jax.configuration.training import MeshConfig, Partition, TrainingConfig

# (name, overrides): the name of a run and its (dotted key, value) pairs; see `pipeline/sweep.py`.
Sweep = tuple[tuple[str, tuple[tuple[str, int | float | str | bool], ...]], ...]


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
  path: str = setting('', "folder with the files of the source; '': raw files are downloaded", path=True)
  name: str = setting('', "NAME in the file names, or the MovieLens version to download ('ml-1m', 'ml-32m', ...)")
  title: str = setting('', "what the report calls the data; '': its name, or that of its folder")
  downloads: str = setting('', "folder for downloaded raw files; '': ~/.cache/letter_jax/downloads", path=True)
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

  path: str = setting('', ".npy file with one row per item to use; '': embed the items' texts", path=True)
  model: str = setting(
    '',
    'language model, with mean pooling: a sentence-transformers name or folder, or the folder of a Hugging Face '
    "model; '': TF-IDF and a truncated SVD",
    path=True,
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
    "'cross_entropy': softmax over all items; 'sampled_softmax': its estimate from `negatives` items, for large "
    "catalogues; 'bce': one sampled negative (paper)",
    choices=('cross_entropy', 'sampled_softmax', 'bce'),
  )
  negatives: int = setting(512, "items that loss='sampled_softmax' draws for each row of a batch", minimum=1)


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

  path: str = setting('', ".npy file with one collaborative row per item to use; '': train `method`", path=True)
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

  path: str = setting('', "LETTER's index.json to use; '': the codes of the tokenizer", path=True)
  collisions: str = setting(
    'resolve',
    "'resolve': no two items share an ID; 'reference': up to 20 rounds of Sinkhorn, remaining collisions are kept",
    choices=('resolve', 'reference'),
  )


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
  """The evaluation of the generator by constrained beam search."""

  beam: int = setting(20, 'beams of the constrained search; metrics are computed up to rank 20', minimum=1)
  exclude_history: bool = setting(
    False,
    "rank without the items of the user's history in the main figures and the lists of predictions; the "
    'metrics and the results table have both protocols in any case, and checkpoints are chosen with the history in',
  )
  batch_size: int = setting(64, 'users decoded at once, over all devices', minimum=1)
  users: int = setting(
    0,
    'how many users every model is validated and tested on, evenly spaced in the order of the data set; 0: all. A '
    'generator in training is validated on `generator.validation_users`',
    minimum=0,
  )


PARTNERS = ('sasrec', 'bought_together')


@dataclasses.dataclass(frozen=True)
class FusionConfig:
  """The generator and dense models as one recommender (`decoding/fusion.py`)."""

  partners: tuple[str, ...] = setting(
    (),
    "the models whose candidates and scores are joined with the generator's: 'sasrec', that of the stage "
    "collaborative; 'bought_together', the counts of the baseline",
    choices=PARTNERS,
  )
  candidates: int = setting(25, "candidates of the partners, besides the items of the generator's beams", minimum=1)


@dataclasses.dataclass(frozen=True)
class RefreshConfig:
  """A run on newer data that begins where an earlier one ended (`pipeline/refresh.py`)."""

  previous: str = setting(
    '', "workdir of the earlier run, as --from=WORKDIR; '': everything is trained from nothing", path=True
  )
  retokenize: bool = setting(
    False, 'train a new tokenizer, and the generator of its semantic IDs from nothing; SASRec begins as it ended'
  )
  epochs: int = setting(2, 'epochs of SASRec and of the generator, instead of those of their trainings', minimum=1)
  learning_rate: float = setting(0.3, 'their learning rates, as a fraction of those of their trainings', above=0)
  since: str = setting(
    '', "first day (YYYY-MM-DD, UTC) of what is new: only users who came back since are trained on; '': all", date=True
  )


@dataclasses.dataclass(frozen=True)
class Config:
  """All settings of a run."""

  seed: int = setting(42, 'seed of everything random', minimum=0, maximum=2**32 - 1)
  mesh: MeshConfig = section(MeshConfig)
  checkpoints: str = setting(
    '', "folder for this run's checkpoints, also gs://...; '': next to the other results", path=True
  )
  data: DataConfig = section(DataConfig)
  text_embeddings: TextEmbeddingsConfig = section(TextEmbeddingsConfig)
  collaborative: CollaborativeConfig = section(CollaborativeConfig)
  tokenizer: TokenizerConfig = section(TokenizerConfig)
  semantic_ids: SemanticIdsConfig = section(SemanticIdsConfig)
  generator: GeneratorConfig = section(GeneratorConfig)
  fusion: FusionConfig = section(FusionConfig)
  evaluation: EvaluationConfig = section(EvaluationConfig)
  refresh: RefreshConfig = section(RefreshConfig)
  tracker: str = setting(
    '',
    "experiment tracker that gets the metrics and the report, too: 'wandb' or 'mlflow'; '': none",
    choices=('', 'wandb', 'mlflow'),
  )
  sweep: Sweep = setting(
    (), '(name, ((key, value), ...)) of each of several runs with these settings changed; none: one run'
  )

  @property
  def trains_sasrec(self) -> bool:
    """Whether SASRec is trained: as a baseline or a partner, or where the tokenizer or the generator reads its rows."""
    rows = not self.collaborative.path and self.collaborative.method == 'sasrec'
    readers = not self.semantic_ids.path, 'collaborative' in self.generator.features, 'sasrec' in self.fusion.partners
    return self.collaborative.baseline or rows and any(readers)

  @property
  def has_collaborative(self) -> bool:
    """Whether the stage collaborative has anything to do: a model to train, or rows that are given."""
    return self.trains_sasrec or self.collaborative.method == 'lightgcn' or bool(self.collaborative.path)
