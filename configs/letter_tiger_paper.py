"""LETTER-TIGER with the paper's generator, on data in LETTER's format; for an accelerator.

    python -m letter_jax.main --config=configs/letter_tiger_paper.py:instruments --config.data.path=FOLDER \
        --config.semantic_ids.path=FOLDER/Instruments.index.json --workdir=DIR

T5 of 4,590,976 parameters, softmax over the vocabulary, tau 0.7, AdamW 5e-4 with a cosine, 1,024 examples a step, up to
200 epochs with patience 20. The paper has test Recall@10 / NDCG@10 .1122 / .0831 on Instruments and .0672 / .0364 on
Beauty. Not measured here at full length (on two CPU cores it would take days). The first 7 epochs on Beauty with its
official semantic IDs (batch 256, rate 2e-3) gave .0351 / .0171, 26 epochs on Scientific .0700 / .0416.
"""

from letter_jax.configuration import default_config
from letter_jax.system.errors import InputError

NAMES = ('instruments', 'beauty', 'yelp')


def get_config(name: str = ''):
  if name not in NAMES:
    raise InputError(
      f'configs/letter_tiger_paper.py:{name} is no data set of the paper; expected {", ".join(NAMES)} after the colon'
    )
  config = default_config()
  config.data.source = 'letter'
  config.data.name = name.capitalize()
  config.generator.temperature = 0.7
  if name == 'beauty':
    config.collaborative.model.dropout = 0.5
  return config
