"""One finished run that the tests of serving share."""

import json
import shutil

import pytest


@pytest.fixture(scope='session')
def finished(small_run, tmp_path_factory):
  return shutil.copytree(small_run, tmp_path_factory.mktemp('serving') / 'workdir')


@pytest.fixture(scope='session')
def predictions(finished):
  """The evaluation's lists, {'history', 'items', 'scores', ...} for each user."""
  return [json.loads(line) for line in (finished / 'evaluation/predictions.jsonl').read_text().splitlines()]
