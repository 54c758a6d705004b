"""Places in the repository that tests refer to."""

import pathlib

ROOT = pathlib.Path(__file__).parents[1]
GOLDEN = ROOT / 'tests' / 'golden'
