"""Kills one of two processes at random moments and resumes, again and again: is the result still bit for bit the same?

    python -m tests.kill_test --kills=10 --folder=FOLDER

Each kill is a `kill -9` during training, evaluation or saving, after which the same command resumes. At the end the
generator's parameters and every recommendation are compared with those of an uninterrupted run.
"""

import argparse
import pathlib
import random
import time

from tests import multi_process
from tests.small_data import run_settings, write_recipe
from tests.system.test_processes import assert_same_generator

# Frequent validations and checkpoints, so that a random moment often falls into one of them.
SETTINGS = run_settings(
  data__synthetic__num_users=400,
  collaborative__training__epochs=6,
  generator__training__epochs=16,
  generator__training__checkpoint_every_steps=2,
  generator__training__evaluate_every_epochs=1,
)
# Seconds between the first line of a training or evaluation and the latest kill.
LATEST = 12.0


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--kills', type=int, default=10)
  parser.add_argument('--folder', type=pathlib.Path, required=True)
  parser.add_argument('--seed', type=int, default=0)
  arguments = parser.parse_args()
  folder, moments = arguments.folder, random.Random(arguments.seed)
  folder.mkdir(parents=True)
  write_recipe(folder / 'recipe.py', SETTINGS)

  def start(name: str):
    return multi_process.start(
      folder / name, [f'--config={folder / "recipe.py"}', f'--workdir={folder / name / "workdir"}']
    )

  begun = time.monotonic()
  assert multi_process.wait(start('whole')) == [0, 0], multi_process.output_of(folder / 'whole', 0)[-500:]
  whole = time.monotonic() - begun
  print(f'an uninterrupted run: {whole:.0f} s')
  for kill in range(1, arguments.kills + 1):
    started = start('killed')
    multi_process.until(
      lambda started=started: (
        any(process.poll() is not None for process in started)
        or any(word in multi_process.output_of(folder / 'killed', 0) for word in ('running', 'resuming'))
      )
    )
    after = moments.uniform(0, LATEST)
    time.sleep(after)
    victim = moments.randrange(2)
    last = multi_process.output_of(folder / 'killed', 0).splitlines()[-1:] or ['(nothing yet)']
    done = started[0].poll() is not None
    started[victim].kill()
    codes = multi_process.wait(started)
    print(
      f'kill {kill}: process {victim}, {after:.1f} s into the attempt, at "{last[0][:70]}", exit codes {codes}'
      + (' (it was finished)' if done else ''),
      flush=True,
    )
  assert multi_process.wait(start('killed')) == [0, 0], multi_process.output_of(folder / 'killed', 0)[-500:]
  assert_same_generator(folder / 'killed/workdir', folder / 'whole/workdir')
  print('bit for bit the same')


if __name__ == '__main__':
  main()
