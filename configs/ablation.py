"""What each of LETTER's forces gives: the ablation of the paper's section 4.3, one command.

    python -m letter_jax.main --config=configs/ablation.py:synthetic --workdir=workdirs/ablation
    python -m letter_jax.main --config=configs/ablation.py:scientific --config.data.path=FOLDER --workdir=DIR

Five runs that differ in the tokenizer's collaborative alignment (alpha) and diversity (beta) and in the temperature of
the ranking-guided loss (tau). They share what does not: data, text embeddings, SASRec; the last two also the tokenizer.
Scientific took 26 minutes of one core of an AMD EPYC (family 26, AVX-512); Recall@10 / NDCG@10 from .0855 to .0903 and
from .0526 to .0542, differences that the README's results show to be those of chance.
WORKDIR/compare.html has them beside each other, with paired differences. Any sweep is written like this one.
"""

import pathlib
import runpy

from letter_jax.system.errors import InputError

ALPHA, BETA, TAU = 'tokenizer.model.alpha', 'tokenizer.model.beta', 'generator.temperature'
SWEEP = (
  ('tiger', ((ALPHA, 0.0), (BETA, 0.0), (TAU, 1.0))),
  ('collaborative', ((ALPHA, 0.02), (BETA, 0.0), (TAU, 1.0))),
  ('diversity', ((ALPHA, 0.0), (BETA, 1e-4), (TAU, 1.0))),
  ('both', ((ALPHA, 0.02), (BETA, 1e-4), (TAU, 1.0))),
  ('letter', ((ALPHA, 0.02), (BETA, 1e-4), (TAU, 0.7))),
)


def get_config(name: str = 'synthetic'):
  if name == 'synthetic':
    config = _recipe('quickstart')
  elif name == 'scientific':
    # A third of the recipe's tokenizer and of its generator.
    config = _recipe('letter_tiger', name)
    config.tokenizer.training.epochs = 300
    config.generator.training.epochs = 8
    config.generator.training.evaluate_every_epochs = 2
  else:
    raise InputError(f'configs/ablation.py:{name} is no data set; expected synthetic or scientific after the colon')
  config.sweep = SWEEP
  return config


def _recipe(name: str, *argument: str):
  return runpy.run_path(str(pathlib.Path(__file__).with_name(f'{name}.py')))['get_config'](*argument)
