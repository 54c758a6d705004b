r"""Amazon's metadata of 2014: Python literals with escapes that Python does not know, such as \/."""

import ast
import json
import subprocess
import sys
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from letter_jax.configuration import DataConfig, PreparationConfig
from letter_jax.data.raw.python_literals import parse_literal
from letter_jax.data.raw.read import read_raw_dataset
from tests.paths import ROOT

CODES = [*'/d\n\'"abfnrtvqzé0', 'x41', '101', '777', '08', 'u00e9', 'U0001f600', 'N{BULLET}']
ESCAPES = [f'\\{code}' for code in CODES]


@given(st.lists(st.sampled_from([*ESCAPES, r'\\', 'T', ' w', 'é']), max_size=8).map(''.join))
def test_the_value_is_that_of_python_without_its_warning(text):
  literal = f"{{'asin': '{text}', 'title': \"{text}\"}}"
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    expected = ast.literal_eval(literal)
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    assert parse_literal(literal) == expected


@pytest.mark.parametrize('text', ["{'asin': 'B\\x4'}", "{'asin': 'B\\", "{'asin': B}", "{'asin': 'B\\u12'}"])
def test_what_is_no_literal_is_refused(text):
  with pytest.raises((ValueError, SyntaxError)):
    parse_literal(text)


def test_metadata_are_read_without_a_warning(tmp_path):
  events = [{'reviewerID': 'A', 'asin': f'B{item}', 'unixReviewTime': item} for item in range(4)]
  (tmp_path / 'reviews_X_5.json').write_text('\n'.join(map(json.dumps, events)))
  (tmp_path / 'meta_X.json').write_text("{'asin': 'B0', 'title': 'T\\d w\\/ cable', 'imUrl': 'http:\\/\\/x'}\n")
  config = DataConfig(source='amazon2014', name='X', path=str(tmp_path), preparation=PreparationConfig(core=1))
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    data = read_raw_dataset(config)
  assert data.texts[0]['title'] == r'T\d w\/ cable' and not data.preparation['problems']


def test_text_that_is_refused_is_refused_without_a_warning():
  """As the program runs, where no test decides about warnings."""
  lines = ["{'title': 'is' if 1is 1 else 0}", "{'title': 1if 1else 2}", "{'title': 0xfor 1}"]
  program = (
    f'from letter_jax.data.raw.python_literals import parse_literal\nfor line in {lines!r}:\n'
    '  try:\n    parse_literal(line)\n  except (ValueError, SyntaxError):\n    print("refused")\n'
  )
  ended = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=True, cwd=ROOT)
  assert ended.stdout.split() == ['refused'] * 3 and ended.stderr == ''
