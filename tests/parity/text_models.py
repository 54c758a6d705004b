"""Do language models embed here as they do by themselves?

    python -m tests.parity.text_models

makes small random models (LLaMA, T5, BERT, one of sentence-transformers), embeds items with each and prints
`name  relative_error` per quantity, against the models run on one text at a time without padding and pooled in numpy.
Exits 0 only when all hold to 1e-5. Needs `pip install sentence-transformers`, and no network.
"""

import contextlib
import json
import os
import pathlib
import sys
import tempfile

import numpy as np

from letter_jax.configuration import TextEmbeddingsConfig
from letter_jax.text_embeddings.language_models import embed_items, load_model
from tests.parity.comparison import Comparison

WORDS = [
  'copper',
  'kettle',
  'garden',
  'hose',
  'red',
  'green',
  'blue',
  'large',
  'small',
  'of',
  'the',
  'for',
  'tea',
  'home',
  ',',
  '.',
]
ITEMS = [
  {'title': 'red kettle', 'brand': 'home', 'categories': 'tea > home', 'description': 'large copper kettle for tea'},
  {'title': 'garden hose', 'brand': '', 'categories': 'garden', 'description': ' '.join(WORDS * 2)},
  {'title': '', 'brand': '', 'categories': '', 'description': ''},
  {'title': 'hose', 'brand': 'green', 'categories': '', 'description': ''},
  {'title': '', 'brand': '', 'categories': '', 'description': 'small kettle'},
]
JOINED = [
  'red kettle. home. tea, home. large copper kettle for tea',
  f'garden hose. garden. {" ".join(WORDS * 2)}',
  '',
  'hose. green',
  'small kettle',
]


def main() -> int:
  import torch
  import transformers

  torch.manual_seed(0)
  transformers.utils.logging.disable_progress_bar()
  compare = Comparison()
  with tempfile.TemporaryDirectory() as folder:
    os.environ['HF_HUB_OFFLINE'] = '1'
    llama = transformers.LlamaModel(
      transformers.LlamaConfig(
        vocab_size=len(_tokenizer(True)),
        hidden_size=24,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
      )
    )
    t5 = transformers.T5Model(
      transformers.T5Config(vocab_size=len(_tokenizer(True)), d_model=24, d_kv=6, d_ff=48, num_layers=2, num_heads=4)
    )
    bert = transformers.BertModel(_bert_config(positions=64))
    for name, model, start_token in (
      ('llama', llama, True),
      ('llama_without_start_token', llama, False),
      ('t5_encoder', t5, False),
      ('bert', bert, True),
    ):
      _compare_pooled(compare, name, model, pathlib.Path(folder, name), start_token)
    _compare_sentence_transformer(compare, pathlib.Path(folder, 'sentence_transformer'))
  return compare.exit_code()


def _compare_pooled(compare: Comparison, name: str, model, folder: pathlib.Path, start_token: bool) -> None:
  import torch

  tokenizer = _tokenizer(start_token, padding_side='left')  # of some; it would move the positions of shorter texts
  tokenizer.pad_token = None  # as LLaMA's
  tokenizer.save_pretrained(folder)
  model.save_pretrained(folder)
  encoder = model.eval().get_encoder() if model.config.is_encoder_decoder else model.eval()

  def pooled(text: str, limit: int) -> np.ndarray:
    ids = tokenizer(text)['input_ids'][:limit] or [tokenizer.eos_token_id]
    with torch.no_grad():
      return encoder(torch.tensor([ids])).last_hidden_state[0].numpy().mean(axis=0)

  for max_tokens in (0, 6):
    expected = []
    for item in ITEMS:
      texts = [item[field] for field in ('title', 'description') if item[field]] or ['']
      expected.append(np.mean([pooled(text, max_tokens or 64) for text in texts], axis=0))
    for batch_size in (1, 4):
      rows = _embed(folder, max_tokens, batch_size)
      compare(f'{name}/tokens_{max_tokens or "all"}/batch_{batch_size}', rows, expected, 1e-5)


def _compare_sentence_transformer(compare: Comparison, folder: pathlib.Path) -> None:
  import torch
  from transformers import BertModel

  tokenizer = _tokenizer(start_token=True)
  # Of three limits the smallest counts: 12 in tokenizer.json, 16 of sentence-transformers, 32 positions.
  tokenizer.backend_tokenizer.enable_truncation(12)
  tokenizer.save_pretrained(folder)
  BertModel(_bert_config(positions=32)).save_pretrained(folder)
  files = {
    'sentence_bert_config.json': {'max_seq_length': 16, 'do_lower_case': False},
    '1_Pooling/config.json': {'word_embedding_dimension': 24, 'pooling_mode_mean_tokens': True},
    'modules.json': [
      {'idx': place, 'name': str(place), 'path': path, 'type': f'sentence_transformers.models.{kind}'}
      for place, (path, kind) in enumerate(
        [('', 'Transformer'), ('1_Pooling', 'Pooling'), ('2_Normalize', 'Normalize')]
      )
    ],
  }
  for name, content in files.items():
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(content), encoding='utf-8')
  model = BertModel.from_pretrained(folder).eval()

  def pooled(text: str, limit: int) -> np.ndarray:
    ids = tokenizer(text)['input_ids'][:limit]
    with torch.no_grad():
      mean = model(torch.tensor([ids])).last_hidden_state[0].numpy().mean(axis=0)
    return mean / np.linalg.norm(mean)

  for max_tokens in (0, 20, 6):
    expected = [pooled(text, max_tokens or 12) for text in JOINED]
    compare(f'sentence_transformer/tokens_{max_tokens or "all"}', _embed(folder, max_tokens, 3), expected, 1e-5)
  compare.equal('sentence_transformer/token_limit', load_model(str(folder), 0).identity['max_tokens'], 12)


def _bert_config(positions: int):
  from transformers import BertConfig

  return BertConfig(
    vocab_size=len(_tokenizer(True)),
    hidden_size=24,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=positions,
    initializer_range=0.3,
  )


def _embed(folder: pathlib.Path, max_tokens: int, batch_size: int) -> np.ndarray:
  """The items' rows, computed, not found in the cache; what that prints stays apart from the comparison."""
  with tempfile.TemporaryDirectory() as cache, contextlib.redirect_stdout(sys.stderr):
    os.environ['XDG_CACHE_HOME'] = cache
    return embed_items(ITEMS, TextEmbeddingsConfig(model=str(folder), max_tokens=max_tokens, batch_size=batch_size))


def _tokenizer(start_token: bool, padding_side: str = 'right'):
  """Words are tokens; a start token before them, or nothing, as Qwen does it."""
  from tokenizers import Tokenizer, pre_tokenizers, processors
  from tokenizers.models import WordLevel
  from transformers import PreTrainedTokenizerFast

  vocabulary = {word: place for place, word in enumerate(['<unk>', '<s>', '</s>', '<pad>', *WORDS])}
  tokenizer = Tokenizer(WordLevel(vocabulary, '<unk>'))
  tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
  if start_token:
    tokenizer.post_processor = processors.TemplateProcessing(single='<s> $A', special_tokens=[('<s>', 1)])
  return PreTrainedTokenizerFast(
    tokenizer_object=tokenizer,
    unk_token='<unk>',
    bos_token='<s>',
    eos_token='</s>',
    pad_token='<pad>',
    padding_side=padding_side,
  )


if __name__ == '__main__':
  sys.exit(main())
