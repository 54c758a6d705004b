"""glibc's allocator before and after it is told to keep freed memory."""

import ctypes
import json
import platform
import subprocess
import sys
import types

import pytest

from letter_jax.system import malloc
from tests.forked import HANG_SECONDS
from tests.paths import ROOT

# Page faults of allocating, filling and freeing 64 MiB (16,384 pages of 4 kB) ten times, after a first time.
PROGRAM = """
import ctypes, json, resource, sys
from letter_jax.system import malloc
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
library.free.argtypes = [ctypes.c_void_p]
def fill():
  block = library.malloc(ctypes.c_size_t(64 << 20))
  ctypes.memset(block, 1, 64 << 20)
  library.free(block)
def faults():
  return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
if sys.argv[1] == 'reuse':
  malloc.reuse_freed_memory()
fill()
before = faults()
for _ in range(10):
  fill()
print(json.dumps(faults() - before))
"""


def page_faults(mode: str) -> int:
  ended = subprocess.run(
    [sys.executable, '-c', PROGRAM, mode], cwd=ROOT, text=True, capture_output=True, timeout=HANG_SECONDS, check=True
  )
  return json.loads(ended.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='mallopt is of glibc')
def test_a_freed_block_is_reused_without_page_faults():
  default, reused = page_faults('default'), page_faults('reuse')
  # Huge pages make the faults of the default fewer, but each time there are some.
  assert reused < 10 and default >= 10 * 16


def test_the_four_parameters_of_mallopt(monkeypatch):
  calls = []
  monkeypatch.setattr(ctypes, 'CDLL', lambda name: types.SimpleNamespace(mallopt=lambda *call: calls.append(call)))
  malloc.reuse_freed_memory()
  # M_ARENA_MAX, M_MMAP_THRESHOLD, M_MMAP_MAX and M_TRIM_THRESHOLD of malloc.h.
  assert sorted(calls) == [(-8, 1), (-4, 0), (-3, 2**31 - 1), (-1, 2**31 - 1)]


def test_another_c_library_is_left_alone(monkeypatch):
  monkeypatch.setattr(ctypes, 'CDLL', lambda name: types.SimpleNamespace())
  malloc.reuse_freed_memory()
