"""What all tests share: one compilation cache, quick compilations, and one small finished run.

Set before JAX is imported; pytest-xdist's workers, and the programs that tests start, inherit the environment.
"""

import fcntl
import gc
import os
import pathlib
import tempfile

import pytest

if 'LETTER_JAX_TEST_FOLDER' not in os.environ:
  _folder = tempfile.TemporaryDirectory(prefix='letter_jax_tests_')
  os.environ['LETTER_JAX_TEST_FOLDER'] = _folder.name
# What two tests compile alike, one compiles. A new folder each time: nothing is left from another version or machine.
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', os.path.join(os.environ['LETTER_JAX_TEST_FOLDER'], 'compiled'))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.1')
os.environ.setdefault('JAX_PLATFORMS', 'cpu')  # with libtpu installed, JAX would look for a TPU first
# Most of the tests' time is compilation. LLVM's optimisations and XLA's fusion emitters take three quarters of it, and
# small arrays do not need them; dividing modules among threads takes more than it gives. AVX has no fused multiply-add:
# without optimisations XLA uses it at some places and not at others, so that equal sums differ in their last bits and
# codes that are as near as others change with the processor.
os.environ.setdefault(
  'XLA_FLAGS',
  '--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1 '
  '--xla_cpu_max_isa=AVX',
)

gc.set_threshold(50_000)  # as the program does

# The same cases in every run, nothing in the working directory, and no limit that a busy machine exceeds.
os.environ.setdefault('HYPOTHESIS_STORAGE_DIRECTORY', os.path.join(os.environ['LETTER_JAX_TEST_FOLDER'], 'hypothesis'))
import hypothesis  # noqa: E402

hypothesis.settings.register_profile('letter_jax', derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile('letter_jax')

# Files that take minutes and start processes of their own. First, so that no worker is left with one at the end.
LONG = ('test_processes', 'test_meshes', 'test_resume', 'test_run', 'test_end_to_end', 'test_sweep', 'test_plan')


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
  """One worker more than cores: checkpoints are written and other processes waited for about a fifth of the time."""
  return len(os.sched_getaffinity(0)) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
  """Long files first; the order within a file stays."""
  items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.fixture(scope='session')
def small_run() -> pathlib.Path:
  """The workdir of one finished run of `small_data.run_settings()`, which all workers share; copy it to change it."""
  from letter_jax.pipeline import run as pipeline
  from tests.small_data import config_with, run_settings

  folder = pathlib.Path(os.environ['LETTER_JAX_TEST_FOLDER'])
  with (folder / 'small_run.lock').open('w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)  # the second worker waits for the first
    if not (folder / 'small_run.done').exists():  # else it is being read: a run, even one with nothing to do, locks it
      pipeline.run(config_with(run_settings()), folder / 'small_run')
      (folder / 'small_run.done').touch()
  return folder / 'small_run'
