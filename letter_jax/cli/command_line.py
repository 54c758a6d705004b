"""What the commands share: absl's flags and a recipe, and one line on stderr for a wrong input."""

import contextlib
import dataclasses
import errno
import glob
import os
import pathlib
import re
import signal
import sys
import threading
from collections.abc import Iterator
from typing import NoReturn

from absl import flags

from letter_jax.cli.commands import COMMANDS, PLAN, Options
from letter_jax.pipeline import run as pipeline
from letter_jax.system import processes
from letter_jax.system.errors import InputError, Preempted


def define_flags() -> None:
  """All but --config and those of several processes."""
  flags.DEFINE_string('workdir', None, 'folder for every result; the same folder resumes')
  flags.DEFINE_enum(
    'stage',
    'all',
    ('all', *pipeline.STAGES, *COMMANDS),
    'one stage, or all in order; or something to do with their results: recommend, export, compare '
    '(which need no --config); or plan: what they would need on --topology',
  )
  flags.DEFINE_bool('overwrite', False, 'do a stage whose settings or input changed once more, and those after it')
  defaults = Options()
  flags.DEFINE_string('topology', defaults.topology, 'plan: the TPU, such as v5e:2x4')
  flags.DEFINE_string('input', defaults.input, 'recommend: users, {"user": ..., "history": [items]} a line; -: stdin')
  flags.DEFINE_string('output', defaults.output, 'recommend: file for the recommendations, a line a user; -: stdout')
  flags.DEFINE_integer('k', defaults.k, 'recommend: items for each user; 0: the smaller of 10 and --beam')
  flags.DEFINE_integer('beam', defaults.beam, 'recommend, export: beams of the search')
  flags.DEFINE_bool('exclude_history', defaults.exclude_history, 'recommend: no item that the history has')
  flags.DEFINE_string('allow', defaults.allow, 'recommend: file of the only items that may come out, a raw id a line')
  flags.DEFINE_string('deny', defaults.deny, 'recommend: file of items that may not, a raw id a line')
  flags.DEFINE_bool('skip_unknown', defaults.skip_unknown, 'recommend: pass over items of --allow that are unknown')
  flags.DEFINE_string(
    'cold_items',
    defaults.cold_items,
    'recommend: file of items that came after the training, a {"id": ..., "title": ...} a line',
  )
  flags.DEFINE_list('platforms', ['cpu', 'cuda', 'tpu'], 'export: what the search is lowered for')
  flags.DEFINE_list('workdirs', [], 'compare: the runs, the first is the one that the others are compared with')


def options() -> Options:
  """The flags of the commands."""
  values = {field.name: flags.FLAGS[field.name].value for field in dataclasses.fields(Options)}
  return Options(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def parse(arguments: list[str]) -> list[str]:
  """absl's flags, with a recipe that is missing or does not fit told in one line."""
  recipe = next(
    (
      a.partition('=')[2] or after
      for a, after in zip(arguments, [*arguments[1:], ''])
      if re.fullmatch(r'--?config(=.*)?', a, re.DOTALL)
    ),
    '',
  )
  if recipe and not pathlib.Path(recipe.partition(':')[0]).is_file():
    fail(f'--config={recipe} is not there; expected a recipe such as configs/letter_tiger.py:beauty')
  try:
    return flags.FLAGS(arguments)
  except InputError as error:
    fail(str(error))
  except flags.Error as error:
    # Of what a recipe raises absl makes a traceback; its last line says what.
    said = str(error).strip().splitlines()
    if 'takes 0 positional arguments' in said[-1]:
      fail(f'--config={recipe}: the recipe takes no argument; expected {recipe.partition(":")[0]}')
    input_error = f'{InputError.__module__}.{InputError.__name__}: '
    if said[-1].startswith(input_error):
      fail(said[-1].removeprefix(input_error))
    fail(f'--config={recipe} raised {said[-1]}' if 'Traceback (most recent call last):' in str(error) else str(error))
  except (AttributeError, KeyError) as error:
    # "'tempreature'\nDid you mean ...": the first word is the key, somewhere in the override.
    unknown = re.search(r'\w+', str(error.args[0]))
    override = next(
      (
        a.partition('=')[0]
        for a in arguments
        if a.startswith('--config.') and unknown and unknown[0] in re.split(r'[.=]', a)
      ),
      None,
    )
    close = re.search(r'Did you mean "(\w+)"', str(error.args[0]))
    if override is None:
      fail(f'--config={recipe} and its overrides: {error.args[0]}')
    fail(
      f'{override} does not exist; '
      + (f'did you mean {close[1]}?' if close else 'expected a key of letter_jax/configuration/schema.py')
    )
  except Exception as error:  # a recipe is code: whatever it raises is a wrong input
    fail(f'--config={recipe} raised {type(error).__name__}: {error}')


def require_flags() -> None:
  """Ends the program where a flag is missing that what it is asked to do needs."""
  needs_config = flags.FLAGS.stage not in COMMANDS or flags.FLAGS.stage == PLAN
  if needs_config and not flags.FLAGS['config'].value:
    fail('--config is missing; expected a recipe such as configs/letter_tiger.py:beauty')
  if not flags.FLAGS.workdir:
    fail('--workdir is missing; expected a folder for every result')


@contextlib.contextmanager
def told() -> Iterator[None]:
  """What a user can act on ends the program with one line and a status of its own."""
  import jax

  from letter_jax.training.loop import TrainingDiverged

  try:
    yield
  except (InputError, TrainingDiverged) as error:
    fail(str(error))
  except Preempted as error:
    fail(f'{error}; the same command resumes', status=128 + signal.SIGTERM)
  except jax.errors.JaxRuntimeError as error:
    if processes.count() == 1:
      raise
    fail(f'{" ".join(str(error).split())[:300]} (another process may have ended; its output says why)', status=1)
  except OSError as error:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES):
      raise
    fail(f'{error}; what is complete is kept, and the same command goes on from it')
  except KeyboardInterrupt:
    fail('interrupted; the same command resumes')


def drop_noise() -> None:
  """Silences what a user cannot act on; before JAX is imported.

  No traceback for each of the writes that were under way when one of them failed; the failure itself is raised. And
  where libtpu is installed, to plan with it, but there is no TPU, not the many lines of its search for one.
  """
  if not any(glob.glob(place) for place in ('/dev/accel*', '/dev/vfio/[0-9]*')):
    for name, value in (
      ('TPU_SKIP_MDS_QUERY', '1'),
      ('TPU_WORKER_HOSTNAMES', 'localhost'),
      ('TPU_ACCELERATOR_TYPE', 'v5e-1'),
    ):
      os.environ.setdefault(name, value)

  def tell(unraisable):
    if str(unraisable.exc_value) != 'Event loop is closed':
      sys.__unraisablehook__(unraisable)

  sys.unraisablehook = tell


def fail(message: str, status: int = 2) -> NoReturn:
  """Says what is wrong in one line and exits."""
  print('letter_jax: error:', ' '.join(message.replace('\\n', ' ').split()), file=sys.stderr)
  if threading.active_count() > 1:
    # Half-done writes would complain, and JAX's runtime wait for processes that have ended.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
  sys.exit(status)
