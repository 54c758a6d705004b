"""Cross-field checks: combinations of settings that are invalid together."""

import re

from letter_jax.configuration.generators import GeneratorConfig
from letter_jax.configuration.schema import CollaborativeConfig, Config
from letter_jax.system.errors import InputError


def check(config: Config) -> None:
  """Raises InputError for settings that are invalid together; the message names their keys."""
  _check_data(config)
  _check_refresh(config)
  _check_mesh(config)
  _check_collaborative(config.collaborative)
  _check_fusion(config)
  if config.tokenizer.training.accumulation_steps != 1:
    raise InputError(
      f'config.tokenizer.training.accumulation_steps is {config.tokenizer.training.accumulation_steps}; '
      'expected 1: the contrastive and Sinkhorn terms need the whole batch'
    )
  _check_crops(config.generator)
  if config.generator.architecture == 't5':
    _check_tiger(config.generator, config.data.history_length)
  elif config.generator.architecture == 'llama':
    _check_lc_rec(config.generator, config.data.window_users)


def _check_data(config: Config) -> None:
  dates = config.data.preparation
  if dates.since and dates.until and dates.since >= dates.until:
    raise InputError(
      f'config.data.preparation.since is {dates.since}; expected a day before '
      f'config.data.preparation.until, {dates.until}'
    )
  if config.text_embeddings.path and config.text_embeddings.model:
    raise InputError(
      f'config.text_embeddings.model is {config.text_embeddings.model!r} and config.text_embeddings.path is '
      f'{config.text_embeddings.path!r}; expected one of the two'
    )


def _check_refresh(config: Config) -> None:
  refresh = config.refresh
  for key in ('since', 'retokenize'):
    if getattr(refresh, key) and not refresh.previous:
      raise InputError(
        f'config.refresh.{key} is {getattr(refresh, key)!r}, but no earlier run is named; expected '
        'config.refresh.previous too (--from=WORKDIR)'
      )
  if refresh.since and config.data.window_users:
    raise InputError(
      f'config.refresh.since is {refresh.since} and config.data.window_users is {config.data.window_users}; expected 0 '
      'windows, or no date: streamed interactions are trained on as a whole'
    )


def _check_mesh(config: Config) -> None:
  if config.mesh.data == 0:
    raise InputError('config.mesh.data is 0; expected at least 1, or -1 for all remaining devices')
  for section_name in ('generator', 'tokenizer', 'collaborative'):
    for pattern, axes in getattr(config, section_name).partition:
      rule = f'config.{section_name}.partition has the rule {pattern!r}'
      try:
        re.compile(pattern)
      except re.error as error:
        raise InputError(f'{rule}; expected a regular expression ({error})') from error
      named_axes = [axis for axis in axes if axis]
      if not set(named_axes) <= {'data', 'model'} or len(set(named_axes)) < len(named_axes):
        raise InputError(f"{rule} with the axes {axes}; expected 'data' and 'model', each at most once, and ''")


def _check_collaborative(collaborative: CollaborativeConfig) -> None:
  sasrec, lightgcn = collaborative.model, collaborative.lightgcn.training
  if sasrec.dim % sasrec.heads:
    raise InputError(
      f'config.collaborative.model.heads is {sasrec.heads}; expected a divisor of '
      f'config.collaborative.model.dim, {sasrec.dim}'
    )
  if collaborative.path and collaborative.method != 'sasrec':
    raise InputError(
      f'config.collaborative.method is {collaborative.method!r}, but config.collaborative.path gives the rows; '
      'expected one of the two'
    )
  if lightgcn.accumulation_steps != 1:
    raise InputError(
      f'config.collaborative.lightgcn.training.accumulation_steps is {lightgcn.accumulation_steps}; expected 1: every '
      'micro-batch would propagate over the whole graph again'
    )


def _check_fusion(config: Config) -> None:
  collaborative, fusion = config.collaborative, config.fusion
  if not fusion.partners:
    return
  if len(set(fusion.partners)) < len(fusion.partners):
    raise InputError(f'config.fusion.partners is {fusion.partners}; expected each model once')
  other_rows = collaborative.path or collaborative.method != 'sasrec'
  if 'sasrec' in fusion.partners and not collaborative.baseline and other_rows:
    raise InputError(
      "config.fusion.partners has 'sasrec', but config.collaborative.baseline=False trains no SASRec; expected True, "
      'or other partners'
    )


def _check_crops(generator: GeneratorConfig) -> None:
  if generator.crops and (generator.architecture != 't5' or generator.model.encoder != 'items'):
    raise InputError(
      f"config.generator.crops is {generator.crops}, but only a T5 with config.generator.model.encoder='items' is "
      'trained on crops; expected 0, or that model'
    )


def _check_tiger(generator: GeneratorConfig, history_length: int) -> None:
  t5 = generator.model
  for name in ('base', 'user_texts'):
    if getattr(generator, name):
      raise InputError(
        f"config.generator.{name} is set, but config.generator.architecture is 't5'; expected 'llama', or no {name}"
      )
  if generator.row_items < history_length:
    raise InputError(
      f'config.generator.row_items is {generator.row_items}; expected at least '
      f'config.data.history_length, {history_length}'
    )
  if generator.features and t5.encoder != 'items':
    raise InputError(
      f"config.generator.features is {generator.features}, but config.generator.model.encoder is '{t5.encoder}'; "
      "expected 'items', where a position is an item, or no features"
    )
  if len(set(generator.features)) < len(generator.features):
    raise InputError(f'config.generator.features is {generator.features}; expected each source once')
  if t5.relative_distance <= t5.relative_buckets // 2:
    raise InputError(
      f'config.generator.model.relative_distance is {t5.relative_distance}; expected more than half of '
      f'config.generator.model.relative_buckets, {t5.relative_buckets}'
    )


def _check_lc_rec(generator: GeneratorConfig, window_users: int) -> None:
  llama = generator.llama
  if generator.features:
    raise InputError(
      f"config.generator.features is {generator.features}, but config.generator.architecture is 'llama'; expected "
      "'t5', or no features"
    )
  if generator.initial_weights:
    raise InputError(
      "config.generator.initial_weights is set, but they are a T5's and config.generator.architecture is 'llama'; "
      'expected config.generator.base'
    )
  if llama.heads % llama.kv_heads or llama.d_head % 2:
    raise InputError(
      f'config.generator.llama has heads {llama.heads}, kv_heads {llama.kv_heads} and d_head {llama.d_head}; expected '
      'kv_heads to divide heads, and an even d_head'
    )
  if not generator.base and generator.lora.rank:
    raise InputError(
      "config.generator.base is ''; expected the folder of a Hugging Face model to adapt, or "
      'config.generator.lora.rank=0 to train a model from scratch'
    )
  if generator.base_dtype != 'auto' and not (generator.base and generator.lora.rank):
    raise InputError(
      f'config.generator.base_dtype is {generator.base_dtype!r}, but no parameters are frozen; expected a '
      "config.generator.base with a config.generator.lora.rank above 0, or 'auto'"
    )
  if generator.user_texts and not generator.mixture.search and not generator.mixture.preference:
    raise InputError(
      'config.generator.user_texts is set, but no task reads them; expected config.generator.mixture.search or '
      'config.generator.mixture.preference above 0'
    )
  if window_users:
    raise InputError(
      f"config.data.window_users is {window_users}, but config.generator.architecture is 'llama'; expected 0: the "
      'examples of a language model are in memory'
    )
