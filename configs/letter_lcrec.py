"""LETTER-LC-Rec: a language model with LoRA that writes semantic IDs.

    python -m letter_jax.main --config=letter_lcrec:beauty --config.data.path=FOLDER \
        --config.generator.base=BASE --workdir=DIR

BASE is the Hugging Face folder of a LLaMA, Qwen2 or Qwen3; everything before the generator is as in letter_tiger.py. It
was not measured with a base, because no weights could be downloaded. `DATASET_tiny` trains a small LLaMA from scratch,
with a tokenizer trained on the items' texts; `tiny` does so on the built-in store. Measured with seed 42 on two cores
of an AMD EPYC (family 26, AVX-512), shared with other work; test Recall@10 / NDCG@10:

    tiny               LETTER-LC-Rec .2107 / .1134   SASRec .2368 / .1417   popularity .0365 / .0184
        8 min, of which 6 for the generator's 4 epochs
    scientific_tiny    LETTER-LC-Rec .0848 / .0539   SASRec .0938 / .0643   popularity .0231 / .0162
        47 min, of which 42 for the generator's 16 epochs (best validation result at the last)
"""

import pathlib
import runpy

from letter_jax.system.errors import InputError

NAMES = ('beauty', 'instruments', 'scientific', 'yelp')
# Stacked over layers; adapters are split like the kernels that they adapt.
PARTITION = (
  ('(embedding|new_embedding|new_head)', ('model', 'data')),
  ('head', ('data', 'model')),
  ('(query|key|value|gate|up)/kernel', ('', 'data', 'model')),
  ('(out|down)/kernel', ('', 'model', 'data')),
  ('(query|key|value|gate|up)/lora_a', ('', 'data', '')),
  ('(query|key|value|gate|up)/lora_b', ('', 'data', 'model')),
  ('(out|down)/lora_a', ('', 'model', 'data')),
  ('(out|down)/lora_b', ('', '', 'data')),
)


def get_config(name: str = ''):
  if name == 'tiny':
    return _from_scratch(_recipe('quickstart'))
  data, tiny = name.removesuffix('_tiny'), name.endswith('_tiny')
  if data not in NAMES:
    raise InputError(
      f'--config=letter_lcrec:{name} is not valid; expected tiny, DATASET or DATASET_tiny after the '
      f'colon, where DATASET is {", ".join(NAMES)}'
    )
  config = _recipe('letter_tiger', data)
  generator, training = config.generator, config.generator.training
  if tiny:
    _from_scratch(config)
    training.epochs = 16
    training.evaluate_every_epochs = 2
    return config
  generator.softmax = 'vocabulary'
  generator.temperature = 0.7
  generator.remat = True
  generator.row_tokens = 1024
  training.evaluate_every_epochs = 1
  training.learning_rate = 1e-4
  return config


def _recipe(name: str, *argument: str):
  """The recipe of LETTER-TIGER for the stages before the generator, and the settings that all language models share."""
  config = runpy.run_path(str(pathlib.Path(__file__).with_name(f'{name}.py')))['get_config'](*argument)
  config.generator.architecture = 'llama'
  config.generator.partition = PARTITION
  config.fusion.partners = ()
  training = config.generator.training
  training.epochs = 4
  training.batch_size = 128
  training.accumulation_steps = 1
  training.relative_updates = False
  return config


def _from_scratch(config):
  generator = config.generator
  generator.softmax = 'catalogue'
  generator.lora.rank = 0
  generator.llama.text_vocabulary = 2048
  generator.llama.d_model = 96
  generator.llama.d_ff = 256
  generator.llama.layers = 3
  generator.llama.heads = 4
  generator.llama.kv_heads = 2
  generator.llama.d_head = 24
  generator.row_tokens = 256
  generator.training.learning_rate = 2e-3
  return config
