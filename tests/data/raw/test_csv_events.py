"""Events of CSV files by columns, against the same files record by record."""

import gzip
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from letter_jax.data.raw import csv_events, tables
from letter_jax.data.raw.reader import EVENT_SCHEMA, event_table
from letter_jax.data.raw.reading import DamagedFile, Problems, Span

GOOD = 'u,i,1700000000\n'
LINES = st.sampled_from(
  [
    GOOD,
    'v,j,1700000001\n',
    'u,k k,1700000002\n',
    ' u,i,1700000000\n',
    'u,i ,1700000000\n',
    ',i,1700000000\n',
    'u,i,1700000000,5\n',
    'u,i,1700000000,5,6\n',
    'u,i\n',
    'u,i,1700000000000\n',
    'u,i,2024-05-01\n',
    'u,i,\n',
    'u,i, 1700000000\n',
    'u,"i",1700000000\n',
    'u,"i\nj",1700000000\n',
    'u,i",1700000000\n',
    'u,"i,1700000000\n',
    'u,i,1700000000\r\n',
    'u,i\r,1700000000\n',
    'ü,i,1700000000\n',
    'u,i\u0301,1700000000\n',
    'NA,null,1700000000\n',
    '\n',
    '  \n',
  ]
)

SIZES = st.sampled_from([10, 40, 1000])  # bytes of a stretch
MORE = st.sampled_from(['', '', ',rating', ',,'])  # columns after the three


def read(source):
  """The events, and the problems that were counted."""
  problems = Problems()
  table = event_table(source.event_tables(problems))
  assert dict(table.schema) == EVENT_SCHEMA
  return table.rows(), problems


def read_by_record(source):
  problems = Problems()
  return [event for _, event in source.events(Span(source.files[0]), problems)], problems


def source_of(folder, content, name='interactions.csv'):
  for path in folder.iterdir():
    path.unlink()
  content = content.encode() if isinstance(content, str) else content
  (folder / name).write_bytes(gzip.compress(content) if name.endswith('.gz') else content)
  (folder / 'items.csv').write_text('item_id,title\n')
  return tables.csv_source(folder)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('csv')


@pytest.fixture
def small_chunks(monkeypatch):
  monkeypatch.setattr(csv_events, 'FIRST_BYTES', 10)
  monkeypatch.setattr(csv_events, 'CHUNK_BYTES', 40)


@given(st.lists(LINES, max_size=30), st.booleans(), st.sampled_from(['', '\ufeff', '\n' * 50, ',,\n' * 9]), MORE, SIZES)
@example([GOOD] * 9 + ['u,i\n', 'u,i,1700000000,5\n'] + [GOOD] * 9, True, '', '', 40)
@example(['v,j,1700000001\n', 'u,i,1700000000,5,6\n'] * 5, True, '', ',rating', 1000)
@example([GOOD] * 9 + ['u,"i,1700000000\n'] + [GOOD] * 9, True, '', '', 40)
@example([GOOD] * 30, True, '', ',,', 40)
def test_columns_are_the_same_events_and_problems_as_records(folder, lines, ends, before, more, size):
  """`more` columns of the header have the value x; without a name there may be several."""
  good = GOOD.replace('\n', re.sub(r'\w+', 'x', more) + '\n')
  lines = [good if line == GOOD else line for line in lines]
  text = f'{before}user_id,item_id,timestamp{more}\n' + good * 2 + ''.join(lines)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(csv_events, 'FIRST_BYTES', 10)
    patch.setattr(csv_events, 'CHUNK_BYTES', size)
    source = source_of(folder, text if ends else text.rstrip('\n'))
    (found, problems), (expected, problems_of_records) = read(source), read_by_record(source)
  assert found == expected and problems == problems_of_records


@pytest.mark.parametrize('name', ['interactions.csv', 'interactions.csv.gz'])
def test_plain_stretches_are_read_by_columns(folder, small_chunks, monkeypatch, name):
  """All but the header."""
  taken = []
  monkeypatch.setattr(
    csv_events, '_plain', lambda *given, plain=csv_events._plain: taken.append(plain(*given)) or taken[-1]
  )
  header = 'timestamp,more,item_id,user_id\n'
  for rows, by_columns in (([f'{1700000000 + row},x y,i{row},u{row}\n' for row in range(30)], 30), ([], 0)):
    taken.clear()
    found, problems = read(source_of(folder, header + ''.join(rows), name))
    assert found == [(f'u{row}', f'i{row}', (1700000000 + row) * 10**6) for row in range(len(rows))]
    assert problems == Problems(lines=1 + len(rows))
    assert sum(len(table) for table in taken) == by_columns


def test_a_truncated_file_is_named(folder, small_chunks):
  source = source_of(folder, 'user_id,item_id,timestamp\n' + GOOD * 100, 'interactions.csv.gz')
  path = folder / 'interactions.csv.gz'
  path.write_bytes(path.read_bytes()[:-10])
  with pytest.raises(DamagedFile, match='interactions.csv.gz is damaged or was not downloaded completely'):
    read(source)
