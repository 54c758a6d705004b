"""Start-up: `--help`, and the first training step of a second run, whose programs the compilation cache has.

    python -m tests.benchmarks.startup --data=FOLDER [--json=FILE]

The step is the generator's (4.6 million parameters), from the start of Python through imports, data and packing to the
end of the step. First run: the cache is empty.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time

from tests.benchmarks import inputs, table


def seconds(*arguments: str, cache: str = '') -> float:
  """Of a Python process."""
  start = time.perf_counter()
  ended = subprocess.run(
    [sys.executable, '-m', *arguments],
    check=False,
    stdout=subprocess.DEVNULL,
    env={**os.environ, 'JAX_COMPILATION_CACHE_DIR': cache} if cache else None,
  )
  if ended.returncode != ('--help' in arguments):  # absl's help ends with 1
    raise SystemExit(f'{" ".join(arguments)} ended with {ended.returncode}')
  return time.perf_counter() - start


def first_step(arguments: argparse.Namespace) -> None:
  """What the measured process does."""
  from tests.benchmarks import generator_training

  data = inputs.dataset(arguments).interactions
  codes_NxL = inputs.semantic_ids(arguments, data.num_items)
  generator_training.Ours(generator_training.recipe(256), data, codes_NxL).rate(1)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  inputs.add_arguments(parser, 'Instruments')
  parser.add_argument('--repeats', type=int, default=3)
  parser.add_argument('--first-step', action='store_true', help='do it, and no more')
  table.add_arguments(parser)
  arguments = parser.parse_args()
  if arguments.first_step:
    first_step(arguments)
    return
  step = ('tests.benchmarks.startup', '--first-step', f'--data={arguments.data}', f'--name={arguments.name}')
  helped = ('letter_jax.main', '--config=configs/quickstart.py', '--help')
  with tempfile.TemporaryDirectory() as cache:
    rows = [
      table.compare('--help', 's', lambda: seconds(*helped), None, arguments.repeats),
      table.compare('first training step, first run', 's', lambda: seconds(*step, cache=cache), None, 1),
      table.compare(
        'first training step, second run', 's', lambda: seconds(*step, cache=cache), None, arguments.repeats
      ),
    ]
  table.report(rows, arguments)


if __name__ == '__main__':
  main()
