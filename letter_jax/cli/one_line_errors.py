"""Errors that a user can act on: one line on stderr and an exit status; and silence about the rest."""

import contextlib
import errno
import glob
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import NoReturn

from letter_jax.system import processes
from letter_jax.system.errors import InputError, Preempted


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
  """Ends the program with one line and its own exit status for every error that a user can act on."""
  import jax

  from letter_jax.training.loop import TrainingDiverged

  try:
    yield
  except (InputError, TrainingDiverged) as error:
    fail(str(error))
  except Preempted as error:
    fail(str(error), status=128 + signal.SIGTERM)
  except (jax.errors.JaxRuntimeError, MemoryError) as error:
    reason = ' '.join(str(error).split())[:300]
    if isinstance(error, MemoryError) or 'RESOURCE_EXHAUSTED' in reason:
      fail(
        f'not enough memory ({reason or "no more is given"}); expected more of it, or a smaller batch or model; '
        'what is complete is kept, and the same command goes on from it'
      )
    if processes.count() == 1:
      raise
    fail(f'{reason} (another process may have ended; its output says why)', status=1)
  except OSError as error:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES):
      raise
    forbidden = error.errno in (errno.EROFS, errno.EACCES)
    expected = 'a file or folder that this user may read and write' if forbidden else 'a disk with room'
    fail(f'{error}; expected {expected}; what is complete is kept, and the same command goes on from it')
  except KeyboardInterrupt as error:
    fail(str(error) or 'interrupted; the same command resumes')


def fail(message: str, status: int = 2) -> NoReturn:
  """Prints a message on one line of stderr and exits."""
  print('letter_jax: error:', ' '.join(message.replace('\\n', ' ').split()), file=sys.stderr)
  if threading.active_count() > 1:
    # Half-done writes would complain, and JAX's runtime would wait for processes that have ended.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
  sys.exit(status)


def silence_tpu_search() -> None:
  """Where libtpu is installed (to plan with it) but there is no TPU, prevents its messages; before JAX is imported."""
  if any(glob.glob(place) for place in ('/dev/accel*', '/dev/vfio/[0-9]*')):
    return
  for name, value in (
    ('TPU_SKIP_MDS_QUERY', '1'),
    ('TPU_WORKER_HOSTNAMES', 'localhost'),
    ('TPU_ACCELERATOR_TYPE', 'v5e-1'),
  ):
    os.environ.setdefault(name, value)


def handle_unraisable_errors() -> None:
  """Decides on errors in callbacks, which Python only prints.

  Ctrl-C may come while one runs, as JAX's own do in every collection of garbage: it is delivered again. The write that
  was under way when another failed says nothing, as the failure itself is raised.
  """
  main = threading.main_thread().ident
  assert main is not None  # it has been started

  def handle(unraisable) -> None:
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
      # Not at once: the callback has not returned yet, and would have it again.
      again = threading.Timer(0.05, lambda: signal.pthread_kill(main, signal.SIGINT))
      again.daemon = True
      again.start()
    elif str(unraisable.exc_value) != 'Event loop is closed':
      sys.__unraisablehook__(unraisable)

  sys.unraisablehook = handle
