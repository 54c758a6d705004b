import subprocess
import sys

from tests.paths import ROOT


def test_ruff_has_nothing_to_say():
  result = subprocess.run([sys.executable, '-m', 'ruff', 'check', '--quiet', ROOT], capture_output=True, text=True)
  assert result.returncode == 0, result.stdout
