"""What the environment of the program may lack or impose: streams, a home folder, a precision, a window for plots."""

import atexit
import gc
import io
import logging
import os
import sys

from absl import logging as absl_logging

from letter_jax.cli.one_line_errors import fail, handle_unraisable_errors, silence_tpu_search
from letter_jax.system import compilation_cache, malloc


def prepare() -> None:
  """Makes the program independent of its environment; before JAX and matplotlib are imported."""
  _open_closed_streams()
  _require_utf8()
  if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == 'strict':
    # A name that the locale lacks is printed all the same.
    sys.stdout.reconfigure(errors='backslashreplace')
  # Plots go to files. A backend for a window or a notebook need not be installed here.
  os.environ['MPLBACKEND'] = 'agg'
  logging.getLogger('matplotlib').setLevel(logging.ERROR)  # without a home folder it warns of a slower start


def configure_libraries() -> None:
  """Sets JAX's precision and cache of compiled programs, and keeps libraries from saying what no user can act on."""
  absl_logging.set_verbosity(absl_logging.FATAL)  # Orbax logs a lot; what matters it raises
  silence_tpu_search()
  handle_unraisable_errors()
  malloc.reuse_freed_memory()
  # Tracing makes millions of small objects, which live on: looking for garbage every 700 takes a tenth of a start.
  gc.set_threshold(50_000)
  # At exit, too, looking at all of them takes up to two seconds and frees nothing that the end does not. Registered
  # before JAX is imported, this runs after the handlers of JAX.
  atexit.register(gc.freeze)
  import jax

  # Every model is defined in 32 bits, so that results do not depend on JAX_ENABLE_X64.
  jax.config.update('jax_enable_x64', False)
  compilation_cache.use()


def _require_utf8() -> None:
  """Ends the program where a path may have characters whose bytes Python and the libraries would not agree on."""
  if sys.getfilesystemencoding() == 'utf-8':
    return
  for text in (os.getcwd(), *sys.argv):
    if not text.isascii():
      path, encoding = os.fsencode(text).decode('utf-8', 'replace'), sys.getfilesystemencoding()
      fail(f'{path!a} is not ASCII, and paths of this locale are {encoding}; expected a UTF-8 locale, or PYTHONUTF8=1')


def _open_closed_streams() -> None:
  """Opens /dev/null for streams that are closed, so that no file of the program becomes one of them."""
  while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
    os.set_inheritable(descriptor, True)
  os.close(descriptor)
  for name in ('stdout', 'stderr'):
    if getattr(sys, name) is None:
      setattr(sys, name, open(os.devnull, 'w', encoding='utf-8'))  # noqa: SIM115, for the life of the process
