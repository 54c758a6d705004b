"""One compilation cache for a run of the tests and the programs they start: what two tests compile alike, one compiles.

A new folder each time, so that nothing is left from another version or machine. Set before JAX is imported.
"""

import os
import tempfile

if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:  # pytest-xdist's workers inherit the folder of their controller
  _folder = tempfile.TemporaryDirectory(prefix='letter_jax_tests_')
  os.environ['JAX_COMPILATION_CACHE_DIR'] = _folder.name
os.environ.setdefault('JAX_PLATFORMS', 'cpu')  # with libtpu installed, JAX would look for a TPU first
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.1')
