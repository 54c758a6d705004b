"""LETTER-TIGER on data in LETTER's format.

    python -m letter_jax.main --config=configs/letter_tiger.py:scientific --config.data.path=FOLDER --workdir=DIR
"""

from letter_jax.configuration import default_config
from letter_jax.errors import InputError

# Epochs of the generator that about three quarters of an hour of one CPU core gives.
EPOCHS = {'scientific': 26, 'beauty': 7, 'instruments': 7}


def get_config(name: str = ''):
  if name not in EPOCHS:
    raise InputError(f'configs/letter_tiger.py:{name} is no data set; expected {", ".join(EPOCHS)} after the colon')
  config = default_config()
  config.data.source = 'letter'
  config.data.name = name.capitalize()

  generator = config.generator
  generator.temperature = 0.7
  generator.training.epochs = EPOCHS[name]
  generator.training.batch_size = 256
  generator.training.accumulation_steps = 8
  generator.training.learning_rate = 2e-3
  generator.training.warmup_fraction = 0.03
  generator.training.gradient_clip = 1.0
  return config
