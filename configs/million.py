"""Every stage on a synthetic store of a million items and two million users, or of another size (`million:30000`).

    python -m letter_jax.main --config=million --workdir=workdirs/million

For measuring time and memory, and as a start for catalogues of that size: SASRec's softmax is estimated from a sample,
models are tested on 20,000 of the users, interactions are read a window of users at a time, and trainings are short.
docs/results.md has what was measured so far; at a million items the stages after the text embeddings were not run yet.
"""

from letter_jax.configuration import default_config
from letter_jax.system.errors import InputError


def get_config(items: str = '1000000'):
  if not items.isdecimal() or int(items) < 1000:
    raise InputError(f'--config=million:{items} is not valid; expected a number of items, at least 1000')
  config = default_config()
  config.data.source = 'synthetic'
  config.data.synthetic.num_items = int(items)
  config.data.synthetic.num_users = 2 * int(items)
  config.data.synthetic.mean_length = 10.0
  config.data.window_users = 200_000
  config.evaluation.users = 20_000
  config.text_embeddings.dim = 128

  sasrec = config.collaborative
  sasrec.model.loss = 'sampled_softmax'
  sasrec.training.epochs = 1
  sasrec.training.batch_size = 1024
  sasrec.training.learning_rate = 5e-3

  tokenizer = config.tokenizer
  tokenizer.model.hidden = (128, 64)
  tokenizer.training.epochs = 5
  tokenizer.training.batch_size = 4096

  generator = config.generator
  generator.softmax = 'catalogue'
  generator.model.encoder = 'items'
  generator.model.d_model = 64
  generator.model.d_kv = 32
  generator.model.d_ff = 256
  generator.model.layers = 2
  generator.model.heads = 4
  generator.training.epochs = 1
  generator.training.max_steps = 200
  generator.training.batch_size = 128
  generator.training.learning_rate = 2.5e-2
  generator.training.relative_updates = True
  generator.training.weight_decay = 0.0
  generator.training.warmup_fraction = 0.03
  generator.training.gradient_clip = 1.0
  return config
