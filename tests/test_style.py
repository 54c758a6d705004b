"""The checks of .pre-commit-config.yaml: lint, format and types."""

import subprocess
import sys

import pytest

from tests.paths import ROOT


def _check(*command: str) -> None:
  result = subprocess.run([sys.executable, '-m', *command], cwd=ROOT, capture_output=True, text=True)
  assert result.returncode == 0, result.stdout + result.stderr


def test_lint():
  _check('ruff', 'check', '--quiet', '--no-cache', '.')


def test_format():
  _check('ruff', 'format', '--check', '--quiet', '--no-cache', '--diff', '.')


@pytest.mark.slow
def test_types(tmp_path):
  _check('mypy', '--cache-dir', str(tmp_path))
