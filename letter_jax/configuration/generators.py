"""The schema of the section `generator`: sizes, loss and training of LETTER-TIGER and LETTER-LC-Rec."""

import dataclasses

from letter_jax.configuration.fields import section, setting
from letter_jax.configuration.training import Partition, TrainingConfig


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


MADE_FEATURES = ('text', 'collaborative')  # sources of features that a run makes itself; any other is a file


@dataclasses.dataclass(frozen=True)
class GeneratorConfig:
  """The generator, which predicts semantic IDs from histories: LETTER-TIGER or LETTER-LC-Rec."""

  architecture: str = setting(
    't5',
    "'t5': LETTER-TIGER, an encoder-decoder with the sizes `model`; 'llama': LETTER-LC-Rec, a language model",
    choices=('t5', 'llama'),
  )
  base: str = setting(
    '',
    "folder of a Hugging Face language model to start from; '': train one with the sizes `llama` from scratch",
    path=True,
  )
  llama: LlamaConfig = section(LlamaConfig)
  lora: LoRAConfig = section(LoRAConfig)
  mixture: MixtureConfig = section(MixtureConfig)
  user_texts: str = setting(
    '',
    "LC-Rec's NAME.user.json: texts about what users look for and what they like; the latter must be written from the "
    'training interactions only, or held-out items leak',
    path=True,
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
    '', '.safetensors file of a Hugging Face T5 with the same sizes and vocabulary to start from', path=True
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
  features: tuple[str, ...] = setting(
    (),
    "what a T5 with model.encoder='items' knows of an item besides its codes: 'text', 'collaborative' (the embeddings "
    'of those stages), or .npy files with a row of numbers for every item',
    path=True,
  )
  crops: float = setting(
    0.0,
    "how often, in training, a T5 with model.encoder='items' sees nothing of what a user had before an item: the "
    'probability of a cut before each item, drawn anew in every step',
    minimum=0,
    below=1,
  )
  validation_beam: int = setting(20, 'beams of the constrained search in validation', minimum=10)
  validation_users: int = setting(2000, 'users in the fixed validation sample (all, if there are fewer)', minimum=1)
  training: TrainingConfig = section(TrainingConfig, epochs=200, batch_size=1024, learning_rate=5e-4, patience=20)
