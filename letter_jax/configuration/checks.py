"""Cross-field checks: combinations of settings that are invalid together."""

import re

from letter_jax.configuration.schema import Config
from letter_jax.system.errors import InputError


def check(config: Config) -> None:
  """Raises InputError for settings that contradict each other; the message names them."""
  dates = config.data.preparation
  if dates.since and dates.until and dates.since >= dates.until:
    raise InputError(
      f'config.data.preparation.since is {dates.since}; expected a day before '
      f'config.data.preparation.until, {dates.until}'
    )
  if config.text_embeddings.path and config.text_embeddings.model:
    raise InputError(
      f'config.text_embeddings.model is {config.text_embeddings.model!r} and '
      f'config.text_embeddings.path is {config.text_embeddings.path!r}; expected only one of the two'
    )
  _check_generator(config)
  if config.mesh.data == 0:
    raise InputError('config.mesh.data is 0; expected at least 1, or -1 for as many as the devices allow')
  for section_name in ('generator', 'tokenizer', 'collaborative'):
    for pattern, axes in getattr(config, section_name).partition:
      where = f'config.{section_name}.partition has the rule {pattern!r}'
      try:
        re.compile(pattern)
      except re.error as error:
        raise InputError(f'{where}; expected a regular expression ({error})') from error
      named = [axis for axis in axes if axis]
      if not set(named) <= {'data', 'model'} or len(set(named)) < len(named):
        raise InputError(f"{where} with the axes {axes}; expected 'data' and 'model', each at most once, and ''")
  sasrec, history = config.collaborative.model, config.data.history_length
  if sasrec.dim % sasrec.heads:
    raise InputError(
      f'config.collaborative.model.heads is {sasrec.heads}; expected a divisor of '
      f'config.collaborative.model.dim, {sasrec.dim}'
    )
  if config.generator.architecture == 't5' and config.generator.row_items < history:
    raise InputError(
      f'config.generator.row_items is {config.generator.row_items}; expected at least '
      f'config.data.history_length, {history}'
    )
  t5 = config.generator.model
  if t5.relative_distance <= t5.relative_buckets // 2:
    raise InputError(
      f'config.generator.model.relative_distance is {t5.relative_distance}; expected more than half of '
      f'config.generator.model.relative_buckets, {t5.relative_buckets}'
    )
  if config.collaborative.path and config.collaborative.method != 'sasrec':
    raise InputError(
      f'config.collaborative.method is {config.collaborative.method!r}, but config.collaborative.path '
      'gives the rows; expected only one of the two'
    )
  lightgcn = config.collaborative.lightgcn.training
  if lightgcn.accumulation_steps != 1:
    raise InputError(
      f'config.collaborative.lightgcn.training.accumulation_steps is {lightgcn.accumulation_steps}; '
      'expected 1: every micro-batch would propagate over the whole graph again'
    )
  if config.tokenizer.training.accumulation_steps != 1:
    raise InputError(
      f'config.tokenizer.training.accumulation_steps is {config.tokenizer.training.accumulation_steps}; '
      'expected 1: the contrastive and Sinkhorn terms need the whole batch'
    )


def _check_generator(config: Config) -> None:
  generator, llama = config.generator, config.generator.llama
  if generator.architecture == 't5':
    for name in ('base', 'user_texts'):
      if getattr(generator, name):
        raise InputError(
          f"config.generator.{name} is given and config.generator.architecture is 't5'; expected 'llama'"
        )
    return
  if generator.initial_weights:
    raise InputError(
      "config.generator.initial_weights is of a T5 and config.generator.architecture is 'llama'; "
      'expected config.generator.base'
    )
  if llama.heads % llama.kv_heads or llama.d_head % 2:
    raise InputError(
      f'config.generator.llama has {llama.heads} heads, {llama.kv_heads} kv_heads and d_head '
      f'{llama.d_head}; expected kv_heads to divide heads, and an even d_head'
    )
  if not generator.base and generator.lora.rank:
    raise InputError(
      "config.generator.base is ''; expected the folder of a Hugging Face model to adapt, or "
      'config.generator.lora.rank=0 to train one from scratch'
    )
  if generator.base_dtype != 'auto' and not (generator.base and generator.lora.rank):
    raise InputError(
      f'config.generator.base_dtype is {generator.base_dtype!r} and nothing is frozen; expected a '
      "config.generator.base with a config.generator.lora.rank above 0, or 'auto'"
    )
  if generator.user_texts and not generator.mixture.search and not generator.mixture.preference:
    raise InputError(
      'config.generator.user_texts is given and no task reads it; expected '
      'config.generator.mixture.search or config.generator.mixture.preference above 0'
    )
  if config.data.window_users:
    raise InputError(
      f'config.data.window_users is {config.data.window_users} and config.generator.architecture is '
      "'llama'; expected 0: its examples are in memory"
    )
