"""The README's examples are run as they stand there."""

import re

import numpy as np

from letter_jax.pipeline import run as pipeline
from tests.paths import ROOT
from tests.small_data import config_with, run_settings

README = ROOT / 'README.md'


def test_the_examples_of_reading_and_restoring(tmp_path):
  pipeline.run(config_with(run_settings(generator__training__epochs=1)), tmp_path)
  scope = {}
  for example in re.findall(r'```python\n(.*?)```', README.read_text(encoding='utf-8'), re.DOTALL):
    assert "'workdirs/quickstart" in example
    exec(example.replace("'workdirs/quickstart", f"'{tmp_path}"), scope)
  assert len(scope['users']) == 120 and scope['users'][0]['items'].dtype == np.int32
  found = scope['found']
  assert found.items_UxK.shape == found.scores_UxK.shape == (3, 10)
  assert all(len(set(row)) == 10 for row in found.items_UxK.tolist())
  assert scope['restored'].step > 0
