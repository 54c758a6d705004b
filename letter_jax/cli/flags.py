"""Parsing of the command line: a recipe, overrides of its values, and flags."""

import argparse
import sys
from collections.abc import Callable
from importlib import metadata

from absl import app, flags
from ml_collections import config_flags

import letter_jax
from letter_jax.cli import options, overrides, recipes
from letter_jax.cli.commands import COMMANDS, PLAN
from letter_jax.cli.one_line_errors import fail
from letter_jax.pipeline.graph import STAGES
from letter_jax.system import home
from letter_jax.system.errors import InputError


def define() -> None:
  """Defines all flags but --config, which `parse` defines."""
  flags.DEFINE_string('workdir', None, 'folder for all results; the same folder resumes')
  flags.DEFINE_enum(
    'stage',
    'all',
    ('all', *STAGES, *COMMANDS),
    'one stage, or all in order; or a command on a finished workdir: recommend, serve, export, compare (no --config); '
    'or plan: the memory and time that a run would need on --topology',
  )
  flags.DEFINE_string('from', None, 'workdir of an earlier run, which this one on newer data begins with')
  flags.DEFINE_bool('retokenize', False, 'with --from: train a new tokenizer, instead of keeping the semantic IDs')
  options.define()
  flags.DEFINE_bool('distributed', False, 'one of several processes, as found in TPU metadata or Slurm')
  flags.DEFINE_string('coordinator', None, 'HOST:PORT of process 0, with --processes and --process')
  flags.DEFINE_integer('processes', None, 'number of processes', lower_bound=1)
  flags.DEFINE_integer('process', None, 'index of this process, from 0', lower_bound=0)
  flags.DEFINE_bool('version', False, 'print the versions of letter_jax and jax, and exit')
  _show_in_help(__name__, options.__name__)


def parse_run(arguments: list[str]) -> list[str]:
  """`parse`, for a stage or command, which needs --workdir and mostly --config."""
  positional = parse(arguments)
  values = flags.FLAGS
  if values.version:
    print(f'letter_jax {letter_jax.__version__}, jax {metadata.version("jax")}')
    sys.exit()
  for word in positional[1:]:
    known = word.partition('=')[0].split('.')[0] in values
    fail(f'{word!r} is no flag; ' + (f'did you mean --{word}?' if known else 'expected flags that begin with --'))
  needs_config = values.stage not in COMMANDS or values.stage == PLAN
  if needs_config and values['config'].value is None:
    fail(f'--config is missing; {recipes.EXPECTED}')
  if not values.workdir:
    fail('--workdir is missing; expected a folder for all results')
  try:
    values['workdir'].value = home.expanded(values.workdir, '--workdir')
    _refresh_from(values['from'].value, values.retokenize)
  except InputError as error:
    fail(str(error))
  return positional


def _refresh_from(previous: str | None, retokenize: bool) -> None:
  """Lets --from and --retokenize set the section `config.refresh`."""
  values = flags.FLAGS
  if previous == '':
    raise InputError('--from is empty; expected the workdir of an earlier run')
  if (previous or retokenize) and values.stage in COMMANDS:
    raise InputError(f'--{"from" if previous else "retokenize"} is not used by --stage={values.stage}; expected none')
  if previous:
    values.config.refresh.previous = home.expanded(previous, '--from')
  if retokenize:
    values.config.refresh.retokenize = True


def run_app(main: Callable[[list[str]], None]) -> None:
  """Parses the flags and calls `main`; after --help the exit code is 0, where absl's is 1."""
  try:
    app.run(main, flags_parser=parse_run)
  except SystemExit as ended:
    asked = {argument.lstrip('-') for argument in sys.argv[1:] if argument.startswith('-')}
    if ended.code == 1 and asked & {'help', 'helpshort', 'helpfull', 'h'}:
      sys.exit(0)
    raise


def parse(arguments: list[str]) -> list[str]:
  """Parses --config and its overrides, and all flags, into `flags.FLAGS`; exits with one line where they are wrong.

  Returns:
    The arguments that are not flags; those after `--` are among them.
  """
  end = arguments.index('--') if '--' in arguments else len(arguments)
  parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
  parser.add_argument('--config', '-config')
  try:
    known, rest = parser.parse_known_args(arguments[1:end])  # the program's name may look like a flag: '-c'
    rest = [arguments[0], *rest]
    if known.config:
      config = recipes.load(known.config)
      overrides.check(rest, config)
      config_flags.DEFINE_config_dict('config', config, sys_argv=rest)
    else:
      flags.DEFINE_string('config', None, 'recipe, as NAME or FILE, with :ARGUMENT; --config.a.b=V changes a value')
      overrides.require_recipe(rest)
    overrides.check_flags(rest)
    _show_in_help(__name__)
    return flags.FLAGS([*rest, *arguments[end:]])
  except InputError as error:
    fail(str(error))
  except argparse.ArgumentError:
    fail(f'--config is given without a value; {recipes.EXPECTED}')
  except (flags.Error, KeyError, AttributeError, ValueError, TypeError) as error:
    fail(str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error))


def _show_in_help(*modules: str) -> None:
  """Lets --help show the flags that these modules define, whichever module the program was started by."""
  by_module = flags.FLAGS.flags_by_module_dict()
  for flag in (flag for module in modules for flag in by_module.get(module, ())):
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
