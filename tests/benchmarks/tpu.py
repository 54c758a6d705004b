"""What each step costs on one TPU chip, by the TPU's own compiler; no TPU is needed, but libtpu.

    python -m tests.benchmarks.tpu --data=FOLDER [--topology=v5e:1x1] [--json=FILE]

Flops, bytes and memory of the compiled programs of `configs/letter_tiger_paper.py`, in bfloat16, and the time that the
chip's published rates imply: the larger of computing and moving. A bound, not a measurement.
"""

import argparse
import dataclasses
import json
import pathlib
import runpy
import tempfile

from letter_jax.configuration import from_config_dict
from letter_jax.pipeline import run as pipeline
from letter_jax.planning.plan import plan
from tests.benchmarks import inputs, table


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  inputs.add_arguments(parser, 'Instruments')
  parser.add_argument('--topology', default='v5e:1x1')
  table.add_arguments(parser)
  arguments = parser.parse_args()
  recipe = runpy.run_path('configs/letter_tiger_paper.py')['get_config']('instruments')
  recipe.generator.compute_dtype = 'bfloat16'
  recipe.evaluation.batch_size = 512
  config = dataclasses.replace(from_config_dict(recipe), data=inputs.data_config(arguments))
  with tempfile.TemporaryDirectory() as workdir:
    folder = pathlib.Path(workdir)
    pipeline.run(config, folder, 'dataset')
    plan(config, folder, arguments.topology)
    planned = json.loads((folder / 'plan.json').read_text())
  rows = []
  for step in planned['steps']:
    for key, unit, scale in (
      ('flops', 'GFLOP', 1e9),
      ('bytes', 'GB', 1e9),
      ('memory', 'GB', 1e9),
      ('seconds', 'ms', 1e-3),
      ('examples_per_second', 'examples/s', 1),
    ):
      rows.append({'name': f'{step["step"]}: {key.replace("_", " ")}', 'unit': unit, 'ours': step[key] / scale})
  table.report(rows, arguments)


if __name__ == '__main__':
  main()
