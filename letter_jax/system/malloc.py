"""How this process asks the operating system for memory."""

import ctypes

# Parameters of glibc's `mallopt`, from its malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -3, -4, -8
_NEVER = 2**31 - 1


def reuse_freed_memory() -> None:
  """Makes glibc's allocator keep freed memory for reuse; to be called before other threads start.

  XLA's CPU programs allocate their temporaries again at every call. By default glibc maps such large blocks and unmaps
  them when they are freed, so that each step touched hundreds of thousands of new pages: 30% of a T5 step on two cores.
  With any other C library this does nothing.
  """
  mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
  if mallopt is not None:
    for parameter, value in ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, _NEVER), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER)):
      mallopt(parameter, value)
