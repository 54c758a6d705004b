"""What a run runs on, in words."""

import contextlib
import os
import pathlib
import platform


def devices() -> str:
  """Such as '8 TPU v5e devices'."""
  import jax

  found = jax.devices()
  kind = 'CPU' if found[0].platform == 'cpu' else found[0].device_kind
  return f'{len(found)} {kind} device' + 's' * (len(found) > 1)


def describe() -> str:
  """Devices, processor and cores of this process' machine."""
  return f'{devices()}; {_processor()}, {os.cpu_count()} cores'


def _processor() -> str:
  with contextlib.suppress(OSError):
    for line in pathlib.Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines():
      if line.startswith('model name'):
        return line.partition(':')[2].strip()
  return platform.processor() or platform.machine()
