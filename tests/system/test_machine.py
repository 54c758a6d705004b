"""The description of a machine, for devices and processors that this one does not have."""

import os
import platform
import types

import jax
import pytest

from letter_jax.system import machine

CPU_INFO = """processor\t: 0
vendor_id\t: GenuineIntel
model\t\t: 85
model name\t: Intel(R) Xeon(R) CPU @ 2.00GHz
cache size\t: 39424 KB
"""


@pytest.mark.parametrize(
  'devices, expected',
  [
    ([('tpu', 'TPU v5e')] * 8, '8 TPU v5e devices'),
    ([('gpu', 'NVIDIA H100')], '1 NVIDIA H100 device'),
    ([('cpu', 'cpu')], '1 CPU device'),
    ([('cpu', 'cpu')] * 2, '2 CPU devices'),
  ],
)
def test_devices_are_counted_and_named(monkeypatch, devices, expected):
  described = [types.SimpleNamespace(platform=platform, device_kind=kind) for platform, kind in devices]
  monkeypatch.setattr(jax, 'devices', lambda: described)
  assert machine.devices() == expected


def test_devices_processor_and_cores(monkeypatch, tmp_path):
  (tmp_path / 'cpuinfo').write_text(CPU_INFO)
  monkeypatch.setattr(machine, '_CPU_INFO', tmp_path / 'cpuinfo')
  monkeypatch.setattr(machine, 'devices', lambda: '1 CPU device')
  monkeypatch.setattr(os, 'cpu_count', lambda: 12)
  assert machine.describe() == '1 CPU device; Intel(R) Xeon(R) CPU @ 2.00GHz, 12 cores'


@pytest.mark.parametrize('processor, expected', [('i386', 'i386'), ('', 'arm64')])
def test_without_cpu_info_the_platform_names_the_processor(monkeypatch, tmp_path, processor, expected):
  monkeypatch.setattr(machine, '_CPU_INFO', tmp_path / 'missing')
  monkeypatch.setattr(machine, 'devices', lambda: '1 CPU device')
  monkeypatch.setattr(os, 'cpu_count', lambda: 8)
  monkeypatch.setattr(platform, 'processor', lambda: processor)
  monkeypatch.setattr(platform, 'machine', lambda: 'arm64')
  assert machine.describe() == f'1 CPU device; {expected}, 8 cores'
