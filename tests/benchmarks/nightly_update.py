"""Four nightly updates of a small shop beside a training from nothing on the last day: quality and time.

    python -m tests.benchmarks.nightly_update [--users=1200] [--items=300] [--json=FILE]

Every day a few items come and go and the habits drift (`tests/shop.py`). The first day is trained from nothing; each
update begins with the run of the day before. Times are of SASRec, tokenizer and generator, with compilation.
"""

import argparse
import contextlib
import io
import json
import pathlib
import tempfile

from letter_jax.configuration import Config
from letter_jax.pipeline import run as pipeline
from letter_jax.workdir import Workdir
from tests.benchmarks import table
from tests.shop import write_day
from tests.small_data import config_with, run_settings

DAYS = 5
TRAININGS = ('collaborative', 'tokenizer', 'generator')


def config_of(data: pathlib.Path, previous: pathlib.Path | None, learning_rate: float) -> Config:
  """A small model of each kind that is trained until its validation falls; updates have a twelfth of the epochs."""
  return config_with(
    run_settings(
      data__source='csv',
      data__path=str(data),
      data__preparation__core=3,
      data__history_length=10,
      text_embeddings__dim=24,
      collaborative__model__dim=32,
      collaborative__training__epochs=40,
      collaborative__training__batch_size=32,
      tokenizer__model__hidden=(64,),
      tokenizer__model__latent_dim=16,
      tokenizer__model__codebook_size=32,
      tokenizer__training__epochs=300,
      tokenizer__training__evaluate_every_epochs=50,
      tokenizer__training__checkpoint_every_steps=5000,
      generator__model__encoder='items',
      generator__model__d_model=32,
      generator__validation_users=1000,
      generator__training__epochs=100,
      generator__training__batch_size=32,
      generator__training__learning_rate=5e-3,
      generator__training__weight_decay=0.0,
      fusion__partners=('sasrec',),
      refresh__previous='' if previous is None else str(previous),
      refresh__epochs=8,
      refresh__learning_rate=learning_rate,
    )
  )


def run(config: Config, workdir: pathlib.Path) -> tuple[dict[str, float], float]:
  """NDCG@10 of the test of each model, history in, and the seconds of the trainings."""
  with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    pipeline.run(config, workdir)
  metrics = Workdir(workdir).read_metrics()
  models = {'generator': metrics, 'with SASRec': metrics['fused'], 'SASRec': metrics['baselines']['sasrec']}
  records = [json.loads((workdir / stage / 'stage.json').read_text())['seconds'] for stage in TRAININGS]
  return {name: figures['test']['ndcg@10'] for name, figures in models.items()}, sum(records)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--users', type=int, default=1200)
  parser.add_argument('--items', type=int, default=300)
  parser.add_argument('--learning_rate', type=float, default=0.3, help='refresh.learning_rate')
  table.add_arguments(parser)
  arguments = parser.parse_args()
  with tempfile.TemporaryDirectory() as directory:
    root = pathlib.Path(directory)
    for day in range(DAYS):
      write_day(root / f'data{day}', day, arguments.users, arguments.items)
      previous = root / f'day{day - 1}' if day else None
      updated, seconds = run(config_of(root / f'data{day}', previous, arguments.learning_rate), root / f'day{day}')
    fresh, seconds_of_fresh = run(config_of(root / f'data{DAYS - 1}', None, 1.0), root / 'fresh')
  print(f'day {DAYS}: "ours" was updated {DAYS - 1} times, "peer" is trained from nothing')
  rows = [(f'{name}, test', 'NDCG@10', updated[name], fresh[name], updated[name] / fresh[name]) for name in fresh]
  rows.append(('trainings', 's', seconds, seconds_of_fresh, seconds_of_fresh / seconds))
  table.report([dict(zip(('name', 'unit', 'ours', 'peer', 'ratio'), row)) for row in rows], arguments)


if __name__ == '__main__':
  main()
