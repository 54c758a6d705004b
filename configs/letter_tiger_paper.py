"""LETTER-TIGER with the paper's generator, on data in LETTER's format; meant for an accelerator.

    python -m letter_jax.main --config=letter_tiger_paper:instruments --config.data.path=FOLDER \
        --config.semantic_ids.path=FOLDER/Instruments.index.json --workdir=DIR

T5 of 4,590,976 parameters, softmax over the vocabulary, tau 0.7, AdamW 5e-4 with a cosine schedule, 1,024 examples per
step, up to 200 epochs with patience 20. The paper has test Recall@10 / NDCG@10 .1122 / .0831 on Instruments and
.0672 / .0364 on Beauty. Not measured here at full length (two CPU cores would need days). The first 7 epochs on Beauty
with its official semantic IDs (batch 256, rate 2e-3) gave .0351 / .0171, 26 epochs on Scientific .0700 / .0416.
"""

from letter_jax.configuration import default_config
from letter_jax.system.errors import InputError

NAMES = ('instruments', 'beauty', 'yelp')


def get_config(name: str = ''):
  if name not in NAMES:
    raise InputError(f'--config=letter_tiger_paper:{name} is not valid; expected {", ".join(NAMES)} after the colon')
  config = default_config()
  config.data.source = 'letter'
  config.data.name = name.capitalize()
  config.generator.temperature = 0.7
  if name == 'beauty':
    config.collaborative.model.dropout = 0.5
  return config
