"""A human-readable description of the machine and its devices."""

import contextlib
import os
import pathlib
import platform

from letter_jax.system.errors import InputError
from letter_jax.system.wording import counted

_CPU_INFO = pathlib.Path('/proc/cpuinfo')


def require_devices() -> None:
  """Raises InputError where JAX cannot use the platform that it is asked for."""
  import jax

  try:
    jax.devices()
  except Exception as error:  # RuntimeError or AssertionError, by the platform
    platforms = jax.config.jax_platforms or ''  # type: ignore[attr-defined]
    # JAX asserts that it knows one of the platforms that it is asked for.
    unknown = 'JAX knows no such platform' if isinstance(error, AssertionError) else type(error).__name__
    reason = ' '.join(str(error).split())[:200] or unknown
    raise InputError(
      f'JAX_PLATFORMS={platforms} cannot be used on this machine ({reason}); expected a platform that it has, such as '
      'JAX_PLATFORMS=cpu'
    ) from error


def devices() -> str:
  """The number and kind of all JAX devices, such as '8 TPU v5e devices'."""
  import jax

  devices = jax.devices()
  kind = 'CPU' if devices[0].platform == 'cpu' else devices[0].device_kind
  return counted(len(devices), f'{kind} device')


def describe() -> str:
  """The devices, and the processor and its cores of the machine that this process runs on."""
  return f'{devices()}; {_processor()}, {counted(os.cpu_count() or 1, "core")}'


def _processor() -> str:
  with contextlib.suppress(OSError):
    for line in _CPU_INFO.read_text(encoding='utf-8').splitlines():
      if line.startswith('model name'):
        return line.partition(':')[2].strip()
  return platform.processor() or platform.machine()
