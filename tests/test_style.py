import pathlib
import subprocess
import sys


def test_ruff_has_nothing_to_say():
  root = pathlib.Path(__file__).parent.parent
  result = subprocess.run([sys.executable, '-m', 'ruff', 'check', '--quiet', root], capture_output=True, text=True)
  assert result.returncode == 0, result.stdout
