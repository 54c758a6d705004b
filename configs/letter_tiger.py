"""LETTER-TIGER on data in LETTER's format.

    python -m letter_jax.main --config=configs/letter_tiger.py:scientific --config.data.path=FOLDER --workdir=DIR
"""

from letter_jax.configuration import default_config

# Epochs of the generator that about an hour of two CPU cores gives.
EPOCHS = {'scientific': 16, 'beauty': 7, 'instruments': 7}


def get_config(name: str):
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
