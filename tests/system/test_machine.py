import os

import jax

from letter_jax.system import machine


def test_devices_processor_and_cores_are_said():
  said = machine.describe()
  assert said.startswith(f'{jax.device_count()} CPU device') and said.endswith(f', {os.cpu_count()} cores')
  assert len(said.partition('; ')[2].rpartition(', ')[0]) > 2
