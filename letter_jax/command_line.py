"""What the commands share: absl's flags and a recipe, and one line on stderr for a wrong input."""

import pathlib
import sys
from typing import NoReturn

from absl import flags

from letter_jax.errors import InputError


def parse(arguments: list[str]) -> list[str]:
  """absl's flags, with a recipe that is missing or does not fit told in one line."""
  recipe = next((a.partition('=')[2] for a in arguments if a.startswith('--config=')), '')
  if recipe and not pathlib.Path(recipe.partition(':')[0]).is_file():
    fail(f'--config={recipe} is not there; expected a recipe such as configs/letter_tiger.py:beauty')
  try:
    return flags.FLAGS(arguments)
  except (flags.Error, InputError) as error:
    fail(str(error))
  except (AttributeError, KeyError) as error:
    fail(f'--config={recipe} and its overrides: {error.args[0]}')
  except Exception as error:  # a recipe is code: whatever it raises is a wrong input
    fail(f'--config={recipe} raised {type(error).__name__}: {error}')


def fail(message: str) -> NoReturn:
  """Says what is wrong in one line and exits with status 2."""
  print('letter_jax: error:', ' '.join(message.replace('\\n', ' ').split()), file=sys.stderr)
  sys.exit(2)
