"""Damaged files of every source are read or refused in one line, and every record is read or counted."""

import gzip
import json
import random

import pytest

from letter_jax.configuration import DataConfig, PreparationConfig
from letter_jax.data import sources
from letter_jax.data.raw.csv_records import csv_records
from letter_jax.data.raw.read import find_raw_source
from letter_jax.data.raw.reader import NORMALISED
from letter_jax.data.raw.reading import Span
from letter_jax.system.errors import InputError
from tests.data.raw.test_csv_records import Noted, assert_every_line_belongs_to_one_record
from tests.data.raw.test_raw import WRITERS
from tests.small_data import write_letter_folder

RUNS = 500
# What has a meaning in some format, or is known to be trouble.
CHARACTERS = b'"\'\n\r\t\0,;:|\\{}[]()<>&-.0'
WORDS = rb'''
  "" """ ," ", \ud800 \u0000 \d \N{X} 1e9 1e999 -1 NaN nan null true None 9999999999999 1700000000123 20240501
  <b> </b> <M> &amp;amp; &#0; [[ {} : // # asin title item_id
'''.split()
BYTES = [b'\r\n', b'\xff', b'\xfe', b'\xef\xbb\xbf', b'\xed\xa0\x80', b'\xe2\x80\xa8']
LONG = [b'9' * 25, b'9' * 5000, b'[' * 3000, b'{"a":' * 3000, b'x' * 200_000, b'("' * 500, b'-' * 3000]
# Problems of records that are read in spite of them; those of parts of a record name the part in parentheses.
READ = (NORMALISED, 'title is page JavaScript')
PIECES = [*(bytes([code]) for code in CHARACTERS), *WORDS, *BYTES, *LONG]


def mutated(content, draw):
  """The content with one to four changes."""
  for _ in range(draw.randint(1, 4)):
    start = draw.randint(0, len(content))
    end = min(len(content), start + int(10 ** draw.uniform(0, 2)))
    piece, other = draw.choice(PIECES), draw.randint(0, len(content))
    content = draw.choice(
      [
        content[:start] + piece + content[start:],
        content[:start] + piece + content[end:],
        content[:start] + content[end:],
        content[:start],
        content[start:],
        content[:start] + bytes([draw.randrange(256)]) + content[start + 1 :],
        content[:other] + content[start:end] + content[other:],
        content.replace(piece, draw.choice(PIECES), draw.randint(1, 5)),
      ]
    )
  return content


@pytest.mark.slow
@pytest.mark.filterwarnings('error::SyntaxWarning', 'error::DeprecationWarning:letter_jax')
@pytest.mark.parametrize('source', [*WRITERS, 'letter'])
def test_a_damaged_file_is_read_or_refused(tmp_path, source):
  folder = tmp_path / 'raw'
  {**WRITERS, 'letter': write_letter_folder}[source](folder)
  for path in folder.glob('*.gz'):
    path.with_suffix('').write_bytes(gzip.decompress(path.read_bytes()))
    path.unlink()
  contents = {path: path.read_bytes() for path in sorted(folder.iterdir())}
  config = DataConfig(
    source=source.split()[0],
    path=str(folder),
    name='Beauty' if source.startswith('amazon') else '',
    preparation=PreparationConfig(core=1),
  )
  outcomes = {'read': 0, 'refused': 0}
  for seed in range(RUNS):
    draw = random.Random(f'{source} {seed}')
    path = draw.choice(list(contents))
    content = mutated(contents[path], draw)
    path.write_bytes(content)
    try:
      if source == 'letter':
        check_letter(config, contents)
      else:
        check_raw(config, folder, source)
      outcomes['read'] += 1
    except InputError as error:
      assert 0 < len(str(error)) < 2000 and '\n' not in str(error)
      outcomes['refused'] += 1
    except Exception as error:
      raise AssertionError(f'seed {seed}: {path.name}: {content[:2000]!r}') from error
    finally:
      path.write_bytes(contents[path])
  assert min(outcomes.values()) >= 5, outcomes


def check_letter(config, contents):
  data = sources.read_dataset(config, 0)
  path = next(path for path in contents if path.name.endswith('.inter.json'))
  expected = json.loads(path.read_text(encoding='utf-8-sig'))
  assert len(data.interactions.users) == len(expected)
  assert len(data.interactions.items) == sum(map(len, expected.values()))


def check_raw(config, folder, source):
  raw = find_raw_source(config, folder)
  for path, records in zip(raw.files, (raw.events, raw.texts)):
    problems, content = Noted(), path.read_bytes()
    read = len(list(records(Span(path), problems)))
    if source == 'csv':
      starts = Noted()
      starts.all += [(line, 'read') for line, _ in csv_records(path, starts)]
      assert_every_line_belongs_to_one_record(content, sorted(refused(starts)))
      expected = len(refused(starts))
    else:
      text = content.decode('latin-1' if path.suffix == '.dat' else 'utf-8', 'replace').removeprefix('\ufeff')
      expected = sum(bool(line.strip()) for line in text.split('\n')) - (path.suffix == '.csv')
    assert read + len(refused(problems)) == expected
  data = sources.read_dataset(config, 0)
  assert data.preparation['raw_events'] == sum(data.preparation['dropped'].values()) + len(data.interactions.items)


def refused(problems):
  """The lines of the records that were not read; some others are read in spite of a problem."""
  return [line for line, kind in problems.all if '(' not in kind and kind not in READ]
