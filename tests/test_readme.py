"""The Python examples of the README and of docs/ are run as they are written, in a folder with a small workdir."""

import pathlib
import re
import shutil

import numpy as np
import pytest

from tests.paths import ROOT

pytestmark = pytest.mark.slow

PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]


def _examples(page: pathlib.Path) -> list[str]:
  return re.findall(r'^```python\n(.*?)^```$', page.read_text(encoding='utf-8'), re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(small_run, tmp_path, monkeypatch) -> pathlib.Path:
  """The current folder, with a finished run where the examples expect that of the quickstart."""
  shutil.copytree(small_run, tmp_path / 'workdirs' / 'quickstart')
  monkeypatch.chdir(tmp_path)
  return tmp_path


def _check_readme(variables: dict) -> None:
  result = variables['result']
  assert result.items_UxK.shape == result.scores_UxK.shape == (3, 10)
  assert all(len(set(row)) == 10 for row in result.items_UxK.tolist())


def _check_data(variables: dict) -> None:
  users = variables['users']
  assert len(users) == 120 and users[0]['items'].dtype == np.int32


def _check_recommend(variables: dict) -> None:
  assert variables['restored'].step > 0


CHECKS = {'README.md': _check_readme, 'data.md': _check_data, 'recommend.md': _check_recommend}


@pytest.mark.parametrize('page', [page for page in PAGES if _examples(page)], ids=lambda page: page.name)
def test_the_examples_of_a_page_run(page, folder):
  """In the order of the page, each with the variables of those before it."""
  variables: dict = {'__name__': 'example'}
  for number, example in enumerate(_examples(page), start=1):
    exec(compile(example, f'{page.name}, example {number}', 'exec'), variables)
  CHECKS.get(page.name, lambda variables: None)(variables)
  assert [path.name for path in folder.iterdir()] == ['workdirs'], 'git ignores workdirs/ in a clone, and nothing else'


def test_what_the_commands_of_a_page_write_is_ignored_by_git():
  assert '/workdirs/' in (ROOT / '.gitignore').read_text(encoding='utf-8').splitlines()
  written = []
  for page in PAGES:
    for block in re.findall(r'^```(?:sh|bash)\n(.*?)^```$', page.read_text(encoding='utf-8'), re.DOTALL | re.MULTILINE):
      written += re.findall(r'(?:\s>+\s*|--output=|--workdir=|--json=)(\S+)', block)
  written = [path for path in written if not path.isupper()]  # FILE, DIR: the reader's
  assert len(written) > 10 and [path for path in written if not path.startswith('workdirs/')] == []


def test_every_check_is_of_a_page_with_examples():
  assert set(CHECKS) <= {page.name for page in PAGES if _examples(page)}


def test_links_between_pages_lead_to_files():
  for page in [*PAGES, ROOT / 'CONTRIBUTING.md', ROOT / 'launch' / 'README.md']:
    prose = re.sub(r'^```.*?^```$', '', page.read_text(encoding='utf-8'), flags=re.DOTALL | re.MULTILINE)
    links = re.findall(r'\]\((?!https?:)([^)#]+)', prose)
    assert [link for link in links if not (page.parent / link).exists()] == []
