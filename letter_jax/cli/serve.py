"""--stage=serve: recommendations over HTTP."""

import contextlib
import functools
import pathlib

from letter_jax.cli.log_lines import stamped
from letter_jax.cli.options import Options
from letter_jax.configuration import MeshConfig
from letter_jax.serving.catalogue import Catalogue
from letter_jax.serving.cold_items import read_cold_items
from letter_jax.serving.recommender import EXCLUDED, Recommender
from letter_jax.system import machine
from letter_jax.system.errors import InputError


def serve(workdir: pathlib.Path, options: Options, mesh: MeshConfig) -> None:
  """Serves the recommendations of a workdir until SIGTERM.

  Raises:
    InputError: a wrong option, a package that is not installed, a workdir that cannot be loaded, a port that is taken.
  """
  try:
    from letter_jax.server import run
    from letter_jax.server.asked import Limits
  except ImportError as error:
    raise InputError(
      f"--stage=serve needs a package that cannot be imported ({error}); expected pip install 'letter_jax[serve]'"
    ) from error
  for flag, value, least in (
    ('port', options.port, 0),
    ('wait_ms', options.wait_ms, 0),
    ('queue_users', options.queue_users, 1),
    ('searches', options.searches, 1),
    ('max_users', options.max_users, 1),
    ('max_history', options.max_history, 1),
  ):
    if value < least:
      raise InputError(f'--{flag}={value}; expected at least {least}')
  if options.max_history > EXCLUDED[-1]:
    raise InputError(f'--max_history={options.max_history}; expected at most {EXCLUDED[-1]}')
  if options.port > 65535:
    raise InputError(f'--port={options.port}; expected at most 65535')
  settings = run.ServerSettings(
    options.host,
    options.port,
    options.wait_ms / 1000,
    options.queue_users,
    options.searches,
    _token(options.admin_token_file),
    Limits(users=min(options.max_users, options.queue_users), history=options.max_history),
  )
  with stamped():
    run.serve(functools.partial(_load, workdir, options, mesh), settings, _say)


def _load(workdir: pathlib.Path, options: Options, mesh: MeshConfig) -> Recommender:
  """The recommender of a workdir, warm; called again for every reload."""
  from letter_jax.pipeline.run import require_complete
  from letter_jax.server.gathering import BATCH

  workdir = workdir.resolve()  # a link may be moved meanwhile
  require_complete(workdir, 'semantic_ids', 'generator')
  cold_items = read_cold_items(pathlib.Path(options.cold_items)) if options.cold_items else ()
  recommender = Recommender.from_workdir(workdir, options.beam, cold_items, mesh)
  _ready(recommender.catalogue)
  _say(f'loaded {workdir}: beam {options.beam}, {machine.devices()}; compiling what is not compiled yet')
  recommender.warm_up(BATCH, progress=False)
  return recommender


def _ready(catalogue: Catalogue) -> None:
  """Makes now what the catalogue would make on its first use."""
  catalogue.index_of(catalogue.raw_ids[0])
  catalogue.about_unknown([], 1)


def _token(path: str) -> str:
  if not path:
    return ''
  try:
    token = pathlib.Path(path).read_text(encoding='utf-8').strip()
  except (OSError, UnicodeDecodeError) as error:
    raise InputError(f'--admin_token_file={path} cannot be read ({error}); expected a file with a token') from error
  if not token.isascii() or not token.isprintable() or ' ' in token or len(token) < 16:
    raise InputError(f'--admin_token_file={path} has no token of at least 16 ASCII characters without blanks')
  return token


def _say(line: str) -> None:
  with contextlib.suppress(OSError):  # a server outlives whoever reads its lines
    print(f'serve: {line}', flush=True)
