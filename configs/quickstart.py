"""LETTER-TIGER end to end on the built-in synthetic store: no download, five minutes on two cores.

    python -m letter_jax.main --config=quickstart --workdir=workdirs/quickstart

Measured with seed 42 on two cores of an Intel Xeon (AVX-512), shared with other work; test Recall@10 / NDCG@10 with
the history in the ranking and out of it: LETTER-TIGER + SASRec + bought together .2827 / .1649 and .3005 / .1778,
LETTER-TIGER .1840 / .0984 and .1982 / .1079, SASRec .2368 / .1417 and .2527 / .1539, bought together .2412 / .1314 and
.2610 / .1453, popularity .0365 / .0184 and .0367 / .0186.
"""

from letter_jax.configuration import default_config


def get_config():
  config = default_config()
  config.data.source = 'synthetic'
  config.text_embeddings.dim = 128

  sasrec = config.collaborative
  sasrec.training.epochs = 20
  sasrec.training.learning_rate = 5e-3
  sasrec.training.patience = 3

  tokenizer = config.tokenizer
  tokenizer.model.hidden = (128, 64)
  tokenizer.training.epochs = 200
  tokenizer.training.batch_size = 256

  generator = config.generator
  generator.softmax = 'catalogue'
  generator.temperature = 0.7
  generator.model.d_model = 64
  generator.model.d_kv = 32
  generator.model.d_ff = 256
  generator.model.layers = 2
  generator.model.heads = 4
  generator.validation_users = 1000
  generator.training.epochs = 5
  generator.training.batch_size = 128
  generator.training.accumulation_steps = 2
  generator.training.learning_rate = 2.5e-2
  generator.training.relative_updates = True
  generator.training.weight_decay = 0.0
  generator.training.warmup_fraction = 0.03
  generator.training.gradient_clip = 1.0
  config.fusion.partners = ('sasrec', 'bought_together')
  return config
