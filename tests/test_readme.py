"""The Python examples of the README and of docs/ are run as they are written, in a folder with a small workdir."""

import pathlib
import re

import numpy as np
import pytest

from letter_jax.pipeline import run as pipeline
from tests.paths import ROOT
from tests.small_data import config_with, run_settings

pytestmark = pytest.mark.slow

PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]


def _examples(page: pathlib.Path) -> list[str]:
  return re.findall(r'^```python\n(.*?)^```$', page.read_text(encoding='utf-8'), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> pathlib.Path:
  """A folder with a finished run where the examples expect that of the quickstart."""
  folder = tmp_path_factory.mktemp('examples')
  pipeline.run(config_with(run_settings(generator__training__epochs=1)), folder / 'workdirs' / 'quickstart')
  return folder


def _run(page: pathlib.Path, folder: pathlib.Path, monkeypatch) -> dict:
  """The variables that the examples of a page, run in order, leave behind."""
  monkeypatch.chdir(folder)
  variables: dict = {'__name__': 'example'}
  for number, example in enumerate(_examples(page), start=1):
    exec(compile(example, f'{page.name}, example {number}', 'exec'), variables)
  return variables


@pytest.mark.parametrize('page', [page for page in PAGES if _examples(page)], ids=lambda page: page.name)
def test_the_examples_of_a_page_run(page, folder, monkeypatch):
  _run(page, folder, monkeypatch)


def test_the_recommendations_of_the_readme(folder, monkeypatch):
  result = _run(ROOT / 'README.md', folder, monkeypatch)['result']
  assert result.items_UxK.shape == result.scores_UxK.shape == (3, 10)
  assert all(len(set(row)) == 10 for row in result.items_UxK.tolist())


def test_the_prepared_data_set_and_the_restored_generator(folder, monkeypatch):
  users = _run(ROOT / 'docs' / 'data.md', folder, monkeypatch)['users']
  assert len(users) == 120 and users[0]['items'].dtype == np.int32
  assert _run(ROOT / 'docs' / 'recommend.md', folder, monkeypatch)['restored'].step > 0


def test_links_between_pages_lead_to_files():
  for page in [*PAGES, ROOT / 'CONTRIBUTING.md', ROOT / 'launch' / 'README.md']:
    prose = re.sub(r'^```.*?^```$', '', page.read_text(encoding='utf-8'), flags=re.DOTALL | re.MULTILINE)
    links = re.findall(r'\]\((?!https?:)([^)#]+)', prose)
    assert [link for link in links if not (page.parent / link).exists()] == []
