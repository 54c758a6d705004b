"""Kills one of two processes at random moments, again and again, until the run is finished; is it still the same run?

    python -m tests.faults --kills=10 --folder=FOLDER

Each kill is a `kill -9` in mid-training, -evaluation or -saving, after which the same command resumes. At the end the
generator's parameters and every recommendation are compared, bit for bit, with those of a run that nobody killed.
"""

import argparse
import pathlib
import random
import time

from tests import multi_process as several_processes
from tests.small_data import run_settings, write_recipe
from tests.system.test_processes import assert_same_result, until

# Validations and checkpoints all the time, so that a random moment is often one of them.
SETTINGS = run_settings(
  data__synthetic__num_users=400,
  collaborative__training__epochs=6,
  generator__training__epochs=16,
  generator__training__checkpoint_every_steps=2,
  generator__training__evaluate_every_epochs=1,
)
# Seconds from the first line of a training or evaluation on.
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
    return several_processes.start(
      folder / name, [f'--config={folder / "recipe.py"}', f'--workdir={folder / name / "workdir"}']
    )

  begun = time.monotonic()
  assert several_processes.wait(start('whole')) == [0, 0], several_processes.said(folder / 'whole', 0)[-500:]
  whole = time.monotonic() - begun
  print(f'a run that nobody kills: {whole:.0f} s')
  for kill in range(1, arguments.kills + 1):
    started = start('killed')
    first = started[0]
    until(
      lambda first=first: (
        first.poll() is not None
        or any(word in several_processes.said(folder / 'killed', 0) for word in ('running', 'resuming'))
      )
    )
    after = moments.uniform(0, LATEST)
    time.sleep(after)
    victim = moments.randrange(2)
    last = several_processes.said(folder / 'killed', 0).splitlines()[-1:] or ['(nothing yet)']
    done = started[0].poll() is not None
    started[victim].kill()
    codes = several_processes.wait(started)
    print(
      f'kill {kill}: process {victim}, {after:.1f} s into the attempt, at "{last[0][:70]}", exit codes {codes}'
      + (' (it was finished)' if done else ''),
      flush=True,
    )
  assert several_processes.wait(start('killed')) == [0, 0], several_processes.said(folder / 'killed', 0)[-500:]
  assert_same_result(folder / 'killed/workdir', folder / 'whole/workdir')
  print('the same bits')


if __name__ == '__main__':
  main()
