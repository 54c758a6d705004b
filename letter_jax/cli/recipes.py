"""Recipes: Python files with `get_config([argument])`, found by path or by the name of one that is included."""

import inspect
import pathlib
import runpy

import ml_collections

import letter_jax
from letter_jax.system import home
from letter_jax.system.errors import InputError

_PACKAGE = pathlib.Path(letter_jax.__file__).parent
# In an installed package the recipes are its data; in a clone they are next to it.
FOLDERS = (_PACKAGE / 'configs', _PACKAGE.parent / 'configs')
EXPECTED = 'expected a recipe such as quickstart, letter_tiger:beauty, or a file'


def included() -> dict[str, pathlib.Path]:
  """Name -> file of the recipes that come with the program."""
  folder = next((folder for folder in FOLDERS if (folder / 'quickstart.py').is_file()), None)
  return {path.stem: path for path in sorted(folder.glob('[!_]*.py'))} if folder else {}


def load(recipe: str) -> ml_collections.ConfigDict:
  """The configuration of a recipe.

  Args:
    recipe: NAME or FILE, and :ARGUMENT where the recipe takes one.

  Raises:
    InputError: no such recipe; one that does not take this argument, or that fails.
  """
  place, colon, argument = recipe.partition(':')
  path = pathlib.Path(home.expanded(place, '--config'))
  if not path.is_file():
    known = included()
    if place not in known:
      raise InputError(f'--config={recipe} does not exist; {EXPECTED} ({", ".join(known)})')
    path = known[place]
  arguments = (argument,) if colon else ()
  try:
    get_config = runpy.run_path(str(path))['get_config']
    try:
      inspect.signature(get_config).bind(*arguments)
    except TypeError:
      takes = 'no argument' if arguments else 'an argument after a colon'
      raise InputError(f'--config={recipe}: the recipe takes {takes}') from None
    config = get_config(*arguments)
  except InputError:
    raise
  except KeyError as error:
    if error.args == ('get_config',):
      raise InputError(f'--config={recipe} has no function get_config; {EXPECTED}') from error
    raise InputError(f'--config={recipe} raised KeyError: {error}') from error
  except Exception as error:  # a recipe is code: it can raise anything
    raise InputError(f'--config={recipe} raised {type(error).__name__}: {error}') from error
  if not isinstance(config, ml_collections.ConfigDict):
    raise InputError(f'--config={recipe} returns a {type(config).__name__}; expected a ConfigDict (default_config())')
  return config
