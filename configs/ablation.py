"""The contribution of each of LETTER's components: the ablation of the paper's section 4.3 in one command.

    python -m letter_jax.main --config=ablation:synthetic --workdir=workdirs/ablation
    python -m letter_jax.main --config=ablation:scientific --config.data.path=FOLDER --workdir=DIR

Five runs that differ in the tokenizer's collaborative alignment (alpha) and diversity (beta) and in the temperature of
the ranking-guided loss (tau). They share every stage that does not depend on these: data, text embeddings and SASRec;
the last two also share the tokenizer. Scientific took 26 minutes on one core of an AMD EPYC (family 26, AVX-512);
Recall@10 is between .0855 and .0903 and NDCG@10 between .0526 and .0542. As docs/results.md shows, these differences
are within noise, except that the sharper loss lowers Recall@10. WORKDIR/compare.html compares the runs, with paired
differences. Write any other sweep in the same way.
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
    # About a third of the recipe's epochs for tokenizer and generator.
    config = _recipe('letter_tiger', name)
    config.tokenizer.training.epochs = 300
    config.generator.training.epochs = 8
    config.generator.training.evaluate_every_epochs = 2
    # One position per code, with which the ablation was measured.
    config.generator.model.encoder = 'tokens'
    config.generator.training.batch_size = 128
    config.generator.training.accumulation_steps = 2
  else:
    raise InputError(f'--config=ablation:{name} is not valid; expected synthetic or scientific after the colon')
  config.fusion.partners = ()
  config.sweep = SWEEP
  return config


def _recipe(name: str, *argument: str):
  return runpy.run_path(str(pathlib.Path(__file__).with_name(f'{name}.py')))['get_config'](*argument)
