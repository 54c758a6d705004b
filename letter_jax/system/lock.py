"""The lock of a folder that one run at a time may write to.

    FOLDER/run.lock    {"host", "machine", "boot", "namespace", "pid", "started", "since", "flock"}

The file exists while the lock is held and says by whom. A holder that was killed leaves it behind. On the machine of
the holder that is recognised: by the kernel's own lock on the file (flock), where the file system has them, and
otherwise by the boot of the machine, the process id and the start of that process. What runs on other machines that
share the folder cannot be known, so their locks are never taken over.
"""

import contextlib
import dataclasses
import datetime
import errno
import fcntl
import json
import os
import pathlib
import socket
import time
import uuid

from letter_jax.system.errors import InputError

FILE = 'run.lock'

_CANNOT_WRITE = (errno.EACCES, errno.EPERM, errno.EROFS)
_WRITING_SECONDS = 2.0  # in which the file of a lock that was just made gets its content


@dataclasses.dataclass(frozen=True)
class Holder:
  """Who holds a lock.

  Attributes:
    host, machine: name and id of the machine; '' where it has no id.
    boot: of the machine's kernel, a different one after each start; '' where that is unknown.
    namespace: of the process ids, one for each container.
    pid: process id.
    started: when that process started, as the kernel counts it; '' where that is unknown.
    since: when the lock was taken, with the time zone.
    flock: whether the process holds the kernel's lock on the file, too.
  """

  host: str
  machine: str
  boot: str
  namespace: str
  pid: int
  started: str
  since: str
  flock: bool = False

  @classmethod
  def this_process(cls) -> 'Holder':
    """This process, from now on."""
    namespace = ''
    with contextlib.suppress(OSError):
      namespace = os.readlink('/proc/self/ns/pid')
    return cls(
      socket.gethostname(),
      _read('/etc/machine-id'),
      _read('/proc/sys/kernel/random/boot_id'),
      namespace,
      os.getpid(),
      _start_of(os.getpid()) or '',
      datetime.datetime.now().astimezone().isoformat(' ', 'seconds'),
    )

  def __str__(self) -> str:
    return f'process {self.pid} on {self.host}, since {self.since}'

  def is_alive(self, flock: bool | None) -> bool | None:
    """Whether the process still runs; None where that cannot be known.

    Args:
      flock: whether this process could take the kernel's lock on the file; None where there are no such locks.
    """
    if flock is False:
      return True
    here = Holder.this_process()
    if (self.host, self.machine) != (here.host, here.machine):
      return None
    if self.boot != here.boot:  # without a machine's id, two containers of one name may be on different machines
      return False if self.machine else None
    if self.flock and flock:
      return False
    if self.namespace != here.namespace:
      return None
    start = _start_of(self.pid)
    return start is not None and (not start or not self.started or start == self.started)


class Lock:
  """The lock of one folder, which this process may hold."""

  def __init__(self, folder: pathlib.Path) -> None:
    """Takes nothing yet."""
    self._folder, self._path = folder, folder / FILE
    self._content = b''
    self._made: list[pathlib.Path] = []  # folders, the lock's own first
    self._descriptor: int | None = None

  def acquire(self) -> None:
    """Takes the lock, which must be released. In a folder that cannot be written there is none, and none is needed.

    The folder is made, if it does not exist. A lock that a killed process of this machine has left is taken over, with
    a message.

    Raises:
      InputError: another process holds the lock, or the file cannot be written.
    """
    killed: Holder | None = None
    try:
      self._make_folder()
      while not self._create():
        killed = self._clear()
    except OSError as error:
      if error.errno in _CANNOT_WRITE and self._folder.is_dir():
        return
      raise InputError(
        f'--workdir={self._folder} cannot be used ({error}); expected a folder that can be written'
      ) from error
    if killed:
      print(f'letter_jax: the lock of {killed}, which was killed, is taken over', flush=True)

  def release(self) -> None:
    """Gives the lock back, if this process holds it; a folder that it made goes where nothing was written."""
    if self._descriptor is None:
      return
    with contextlib.suppress(OSError):
      if self._path.read_bytes() == self._content:
        self._path.unlink()
      for folder in self._made:
        folder.rmdir()  # fails where it is not empty
    os.close(self._descriptor)
    self._descriptor = None
    _held.remove(self)

  def _make_folder(self) -> None:
    self._made = [folder for folder in (self._folder, *self._folder.parents) if not folder.exists()]
    self._folder.mkdir(parents=True, exist_ok=True)

  def _create(self) -> bool:
    """Makes the file, unless it exists."""
    try:
      descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    except FileNotFoundError:  # another process has just removed the folder that it had made
      self._make_folder()
      return False
    except OSError:
      if os.path.lexists(self._path):
        return False
      raise
    try:
      holder = dataclasses.replace(Holder.this_process(), flock=_flock(descriptor) is True)
      self._content = json.dumps(dataclasses.asdict(holder)).encode()
      if os.write(descriptor, self._content) < len(self._content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
    except BaseException:
      self._path.unlink()
      os.close(descriptor)
      raise
    self._descriptor = descriptor
    _held.append(self)
    return True

  def _clear(self) -> Holder | None:
    """Removes the file of a holder that has ended, and returns it; None where the file is gone by itself.

    Raises:
      InputError: the holder has not ended, or may not have.
    """
    deadline = time.monotonic() + _WRITING_SECONDS
    while True:
      try:
        with self._path.open('rb') as file:
          content = file.read()
          holder = _parse(content)
          if holder is None and time.monotonic() < deadline:
            time.sleep(0.05)
            continue
          self._require_ended(holder, _flock(file.fileno()))
          self._take_away(content)
          return holder
      except FileNotFoundError:
        return None
      except PermissionError as error:
        raise InputError(
          f'{self._folder} is in use by another user ({error}); expected one run at a time: if none uses it, remove '
          f'{self._path}'
        ) from error

  def _require_ended(self, holder: Holder | None, flock: bool | None) -> None:
    if holder is None:
      raise InputError(
        f'{self._path} does not say who holds it; expected the lock of a run: remove it if none uses {self._folder}'
      )
    alive = holder.is_alive(flock)
    if alive or alive is None:
      advice = '' if alive else f'; if that run has ended, remove {self._path}'
      raise InputError(
        f'{self._folder} is in use by {holder}; expected one run at a time: wait for its end, or take a different '
        f'--workdir{advice}'
      )

  def _take_away(self, content: bytes) -> None:
    """Removes the file, if it still has this content: of several processes that want to, one may have been faster."""
    aside = self._path.with_name(f'.{FILE}.{uuid.uuid4().hex}')
    self._path.rename(aside)
    if aside.read_bytes() != content and not self._path.exists():
      aside.rename(self._path)
    else:
      aside.unlink()


_held: list[Lock] = []


def release_all() -> None:
  """Releases all locks of this process, which is about to end without leaving its contexts."""
  for lock in list(_held):
    lock.release()


def _parse(content: bytes) -> Holder | None:
  """The holder that a file names; None where it names none."""
  try:
    return Holder(**json.loads(content))
  except (ValueError, TypeError):
    return None


def _flock(descriptor: int) -> bool | None:
  """Takes the kernel's lock on a file; False where another process holds it, None where there are no such locks."""
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return True
  except BlockingIOError:
    return False
  except OSError:
    return None


def _start_of(pid: int) -> str | None:
  """When a process started, '' where that is unknown; None where there is no such process, or it has ended."""
  try:
    # The name of the program, in parentheses, may have blanks and parentheses; the state and the start are behind it.
    fields = pathlib.Path(f'/proc/{pid}/stat').read_bytes().rpartition(b')')[2].split()
    return None if fields[0] in b'ZX' else fields[19].decode()
  except (OSError, IndexError):
    pass  # another operating system, or a process that is hidden
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return None
  except OSError:
    pass  # of another user
  return ''


def _read(path: str) -> str:
  try:
    return pathlib.Path(path).read_text(encoding='utf-8').strip()
  except (OSError, UnicodeDecodeError):
    return ''
