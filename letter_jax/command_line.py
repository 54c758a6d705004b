"""What the commands share: absl's flags and a recipe, and one line on stderr for a wrong input."""

import os
import pathlib
import re
import sys
import threading
from typing import NoReturn

from absl import flags

from letter_jax.errors import InputError


def parse(arguments: list[str]) -> list[str]:
  """absl's flags, with a recipe that is missing or does not fit told in one line."""
  recipe = next((a.partition('=')[2] or after for a, after in zip(arguments, [*arguments[1:], ''])
                 if re.fullmatch(r'--?config(=.*)?', a, re.DOTALL)), '')
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
    fail(f'--config={recipe} raised {said[-1]}' if 'Traceback (most recent call last):' in str(error) else str(error))
  except (AttributeError, KeyError) as error:
    # "'tempreature'\nDid you mean ...": the first word is the key, somewhere in the override.
    unknown = re.search(r'\w+', str(error.args[0]))
    override = next((a.partition('=')[0] for a in arguments
                     if a.startswith('--config.') and unknown and unknown[0] in re.split(r'[.=]', a)), None)
    close = re.search(r'Did you mean "(\w+)"', str(error.args[0]))
    if override is None:
      fail(f'--config={recipe} and its overrides: {error.args[0]}')
    fail(f'{override} does not exist; ' + (f'did you mean {close[1]}?' if close else
                                           'expected a key of letter_jax/configuration.py'))
  except Exception as error:  # a recipe is code: whatever it raises is a wrong input
    fail(f'--config={recipe} raised {type(error).__name__}: {error}')


def drop_noise() -> None:
  """No traceback for each of the writes that were under way when one of them failed; the failure itself is raised."""
  def told(unraisable):
    if str(unraisable.exc_value) != 'Event loop is closed':
      sys.__unraisablehook__(unraisable)
  sys.unraisablehook = told


def fail(message: str, status: int = 2) -> NoReturn:
  """Says what is wrong in one line and exits."""
  print('letter_jax: error:', ' '.join(message.replace('\\n', ' ').split()), file=sys.stderr)
  if threading.active_count() > 1:
    # Half-done writes would complain, and JAX's runtime wait for processes that have ended.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
  sys.exit(status)
