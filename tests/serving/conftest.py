"""One finished run that the tests of serving share."""

import json

import pytest

from letter_jax.pipeline import run as pipeline
from tests.small_data import config_with, run_settings


@pytest.fixture(scope='session')
def finished(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('serving') / 'workdir'
  pipeline.run(config_with(run_settings(generator__softmax='catalogue')), workdir, 'all')
  return workdir


@pytest.fixture(scope='session')
def predictions(finished):
  """The evaluation's lists, {'history', 'items', 'scores', ...} for each user."""
  return [json.loads(line) for line in (finished / 'evaluation/predictions.jsonl').read_text().splitlines()]
