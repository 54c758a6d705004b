"""Memory: the peak of each stage of a run, and what a generator's step needs for small and large catalogues.

    python -m tests.benchmarks.memory --data=FOLDER [--json=FILE]

Each stage is a process of its own, one epoch long, with the paper's generator. What a step needs is what XLA says of
the compiled program: its temporaries, and its arguments, the state and the catalogue among them.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

from letter_jax import sharding
from letter_jax.configuration import MeshConfig
from letter_jax.data.dataset import Interactions
from letter_jax.pipeline.graph import STAGES
from letter_jax.planning.costs import cost_of
from letter_jax.training import loop
from tests.benchmarks import inputs, table
from tests.benchmarks.generator_training import recipe
from tests.generators import building
from tests.paths import ROOT


def stage_rows(arguments: argparse.Namespace, workdir: str) -> list[dict]:
  data = inputs.data_config(arguments)
  settings = [f'--config.data.{key}={getattr(data, key)}' for key in ('source', 'path', 'name')]
  settings += [
    f'--config.data.synthetic.{key}={getattr(data.synthetic, key)}' for key in ('num_users', 'num_items', 'mean_length')
  ]
  settings += [f'--config.{section}.training.epochs=1' for section in ('collaborative', 'tokenizer', 'generator')]
  settings += ['--config.generator.training.accumulation_steps=4']
  rows = []
  for stage in STAGES:
    process = subprocess.Popen(
      [
        sys.executable,
        '-m',
        'letter_jax.main',
        '--config=configs/letter_tiger_paper.py:beauty',
        f'--workdir={workdir}',
        f'--stage={stage}',
        *settings,
      ],
      cwd=ROOT,
      stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
      raise SystemExit(f'{stage} ended with {os.waitstatus_to_exitcode(status)}')
    rows.append({'name': f'peak of {stage}', 'unit': 'GB', 'ours': usage.ru_maxrss * 1024 / 1e9})
  return rows


def step_rows(items: int) -> list[dict]:
  """Of 2,000 users with ten interactions each."""
  random = np.random.default_rng(0)
  data = Interactions(
    random.integers(items, size=20_000, dtype=np.int32),
    np.arange(2001, dtype=np.int64) * 10,
    items,
    tuple(map(str, range(2000))),
  )
  codes_NxL = random.integers(inputs.CODES, size=(items, inputs.LEVELS), dtype=np.int32)
  ids = building.placed(codes_NxL, inputs.CODES, sharding.make_mesh(MeshConfig()))
  program = building.program(recipe(256), building.to_train(recipe(256), ids, pathlib.Path()), data)
  cost = cost_of(program.step.trace(loop.abstract_state(program), *program.arguments(program.batches[0])))
  return [
    {'name': f'temporaries of a step, {items:,} items', 'unit': 'MB', 'ours': cost.temporaries / 1e6},
    {'name': f'arguments of a step, {items:,} items', 'unit': 'MB', 'ours': cost.arguments / 1e6},
  ]


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  inputs.add_arguments(parser, 'Beauty')
  table.add_arguments(parser)
  arguments = parser.parse_args()
  with tempfile.TemporaryDirectory() as workdir:
    rows = stage_rows(arguments, workdir)  # first: what this process has at most counts as a child's
  table.report(rows + step_rows(10**4) + step_rows(10**6), arguments)


if __name__ == '__main__':
  main()
