"""CSV records against Python's csv module, and bad records among good ones."""

import csv
import gzip
import io
import itertools
import re

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from letter_jax.data.raw import csv_records, reading
from letter_jax.data.raw.reading import DamagedFile, Problems

HEADER = 'a,b,c'
FEW = 'not 3 fields'


class Noted(Problems):
  """Problems that remember every record."""

  def __init__(self):
    super().__init__()
    self.all = []

  def add(self, kind, path, line, *value):
    super().add(kind, path, line, *value)
    self.all.append((line, kind))


def read(folder, content):
  """The records of a file with this content, and the (line, kind) of every problem."""
  path = folder / 'file.csv'
  path.write_bytes(content if isinstance(content, bytes) else content.encode())
  problems = Noted()
  return list(csv_records.csv_records(path, problems)), problems.all


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('csv')


@pytest.mark.parametrize(
  'lines, records, problems',
  [
    pytest.param(['1,24" tv,x', '2,"a 5""",y'], [(2, ['1', '24" tv', 'x']), (3, ['2', 'a 5"', 'y'])], [], id='inches'),
    pytest.param(
      ['1,"one', '', 'two",x', '2,b,c'], [(2, ['1', 'one\n\ntwo', 'x']), (5, ['2', 'b', 'c'])], [], id='lines'
    ),
    pytest.param(['1,one\rtwo,x\r', '2,b,c'], [(2, ['1', 'one\rtwo', 'x']), (3, ['2', 'b', 'c'])], [], id='CR'),
    pytest.param(
      ['1,"one\rtwo",x\r\r', '2,b,c'], [(2, ['1', 'one\rtwo', 'x']), (3, ['2', 'b', 'c'])], [], id='quoted CR'
    ),
    pytest.param(
      ['1,b,c\r2,b,c', '3,b,c'], [(3, ['3', 'b', 'c'])], [(2, csv_records.CARRIAGE_RETURN)], id='CR between records'
    ),
    pytest.param(['1,b', '', '  ', '2,b,c'], [(5, ['2', 'b', 'c'])], [(2, FEW)], id='short'),
    pytest.param(['1,"b,x', '2,b,c'], [(3, ['2', 'b', 'c'])], [(2, csv_records.UNCLOSED)], id='unclosed'),
    pytest.param(
      ['1,"b,x', '2,b,c', '3,"b",c', '4,b,c'],
      [(3, ['2', 'b', 'c']), (4, ['3', 'b', 'c']), (5, ['4', 'b', 'c'])],
      [(2, csv_records.UNCLOSED)],
      id='unclosed before a quoted field',
    ),
    pytest.param(
      ['1,"b,x', '2,"b,x', '3,b,"x', '4,b,c'],
      [(5, ['4', 'b', 'c'])],
      [(2, csv_records.UNCLOSED), (3, csv_records.UNCLOSED), (4, csv_records.UNCLOSED)],
      id='unclosed, one after the other',
    ),
    pytest.param(['1,b,c', '2,b,"c'], [(2, ['1', 'b', 'c'])], [(3, csv_records.UNCLOSED)], id='unclosed at the end'),
    pytest.param(
      ['1,"a 24" tv",x', '2,b,c'],
      [(2, ['1', 'a 24 tv"', 'x']), (3, ['2', 'b', 'c'])],
      [(2, csv_records.READ_UNDOUBLED)],
      id='undoubled, as the csv module reads it',
    ),
    pytest.param(
      ['1,"one', 'the 24" tv', 'three",x', '2,b,c'],
      [(5, ['2', 'b', 'c'])],
      [(2, csv_records.UNDOUBLED), (4, FEW)],
      id='undoubled in a later line',
    ),
    pytest.param(
      ['1,"one, "two" three', '2,b,c'], [(3, ['2', 'b', 'c'])], [(2, csv_records.UNDOUBLED)], id='undoubled, too few'
    ),
    pytest.param([b'1,\xff,c'], [(2, ['1', '\ufffd', 'c'])], [(2, 'invalid UTF-8 (replaced)')], id='UTF-8'),
    pytest.param(['1,\0,c'], [(2, ['1', '\0', 'c'])], [], id='NUL'),
  ],
)
@pytest.mark.parametrize('block', [1, 10**6])
def test_a_record_that_cannot_be_read_costs_itself(tmp_path, monkeypatch, lines, records, problems, block):
  monkeypatch.setattr(reading, 'BLOCK_BYTES', block)
  content = b'\n'.join(line if isinstance(line, bytes) else line.encode() for line in [HEADER, *lines])
  assert read(tmp_path, content) == (records, problems)
  assert read(tmp_path, content + b'\n') == (records, problems)
  assert read(tmp_path, b'\xef\xbb\xbf\n' + content)[0] == [(line + 1, fields) for line, fields in records]


@pytest.mark.parametrize('lines', [99, 101, 5000])
@pytest.mark.parametrize('length', [1, 200])
def test_a_quoted_field_may_have_any_number_of_lines_and_characters(tmp_path, lines, length):
  text = '\n'.join(['x' * length] * lines)
  records, problems = read(tmp_path, f'{HEADER}\n1,"{text}",x\n2,b,{"y" * 200_000}\n')
  assert records == [(2, ['1', text, 'x']), (2 + lines, ['2', 'b', 'y' * 200_000])] and not problems


@pytest.fixture
def short_fields():
  """Fields of at most 1,000 characters."""
  before = csv.field_size_limit(1000)
  yield
  csv.field_size_limit(before)


def test_a_field_that_is_too_long_is_named(tmp_path, short_fields):
  long, quoted = 'x' * 2000, '\n'.join(['x' * 100] * 30)
  lines = [f'1,{long},c', '2,b,c', '3,"b,c', *['4,b,c'] * 300, f'5,"{long}",c', '6,b,c']
  records, problems = read(tmp_path, '\n'.join([HEADER, *lines]))
  assert [fields[0] for _, fields in records] == ['2', *['4'] * 300, '6']
  assert problems == [(2, csv_records.TOO_LONG), (4, csv_records.UNCLOSED), (305, csv_records.TOO_LONG)]
  records, problems = read(tmp_path, f'{HEADER}\n1,"{quoted}",c\n2,b,c\n')
  assert problems[0] == (2, csv_records.TOO_LONG) and records[-1][1] == ['2', 'b', 'c']


def test_many_unclosed_quotes_take_time_in_proportion(tmp_path):
  lines = ['1,"b,x', '2,b,c'] * 20_000
  records, problems = read(tmp_path, '\n'.join([HEADER, *lines]))
  assert len(records) == len(problems) == 20_000 and {kind for _, kind in problems} == {csv_records.UNCLOSED}


def test_the_header_is_the_first_record_with_a_field(tmp_path, short_fields):
  path = tmp_path / 'file.csv'
  for content, header in [
    ('', []),
    ('\n \n', []),
    ('\n\na,"b\nc"\n', ['a', 'b\nc']),
    ('a,"b\nc', ['a', 'b\nc']),
    ('a\rb,c\n', ['a\rb', 'c']),
    ('a,"' + 'x' * 2000, ['a', '"' + 'x' * 2000]),
  ]:
    path.write_text(content, newline='')
    assert csv_records.csv_header(path) == header


def test_a_damaged_gzip_file_is_named_with_the_line(tmp_path):
  path = tmp_path / 'file.csv.gz'
  path.write_bytes(gzip.compress(b'a,b,c\n' + b'1,2,3\n' * 10**5)[:-20])
  with pytest.raises(DamagedFile, match=r'file.csv.gz is damaged or was not downloaded completely \(line \d+'):
    list(csv_records.csv_records(path, Problems()))


# Texts with everything that has a meaning in CSV, and lines that are like records.
TEXT = st.text(st.sampled_from('ab,"\n\r é24 '), max_size=8) | st.sampled_from(['x,y,z', '\nx,y,z\n', '24" tv', '5"'])
ROW = st.lists(TEXT, min_size=3, max_size=3).filter(lambda row: any(map(str.strip, row)))


def _is_blank(row):
  return not row or len(row) == 1 and row[0].isspace() and '\n' not in row[0]


def written(rows, quoting=csv.QUOTE_MINIMAL, end='\r\n'):
  file = io.StringIO()
  csv.writer(file, quoting=quoting, lineterminator=end).writerows(rows)
  return file.getvalue()


@given(st.lists(ROW, max_size=8), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]), st.sampled_from(['\n', '\r\n']))
def test_what_the_csv_module_writes_is_read_back(folder, rows, quoting, end):
  records, problems = read(folder, written([['a', 'b', 'c'], *rows], quoting, end))
  assert [fields for _, fields in records] == rows and not problems


@given(st.text(st.sampled_from('ab,"\n '), max_size=60))
@example('"x\n1,2,3\n",b,""')
def test_a_file_that_is_proper_csv_is_read_as_by_the_csv_module(folder, text):
  try:
    rows = list(csv.reader(io.StringIO(text, newline=''), strict=True))
  except csv.Error:
    return
  assume(not any(len(row) != 3 and '\n' in ''.join(row) for row in rows))  # else a quote may not be closed
  records, problems = read(folder, f'{HEADER}\n{text}')
  assert [fields for _, fields in records] == [row for row in rows if len(row) == 3]
  assert [kind for _, kind in problems] == [FEW] * sum(len(row) != 3 and not _is_blank(row) for row in rows)


BAD = {
  '1,"b,x': csv_records.UNCLOSED,
  '1,b,"x': csv_records.UNCLOSED,
  '"1,b,x': csv_records.UNCLOSED,
  '1,2': FEW,
  '1,24" tv': FEW,
  '1,2,"3"",4",5': FEW,
  '1,b,x\r2': csv_records.CARRIAGE_RETURN + ' or read',
}


@given(st.lists(ROW, min_size=1, max_size=6), st.integers(0, 6), st.sampled_from(sorted(BAD)))
def test_a_bad_record_is_counted_once_with_its_line(folder, rows, position, bad):
  """Quoted records of one line are around it: what follows a quote that is never closed must be a record by itself."""
  rows = [[re.sub(r'[\r\n]', ' ', field) + 'x' for field in row] for row in rows]
  lines = written(rows, csv.QUOTE_ALL, '\n').splitlines(keepends=True)
  lines.insert(position, f'{bad}\n')
  records, problems = read(folder, f'{HEADER}\n{"".join(lines)}')
  line = 2 + min(position, len(rows))
  if bad.endswith('\r2'):
    assert not problems and records.pop(line - 2) == (line, ['1', 'b', 'x\r2'])
  else:
    assert problems == [(line, BAD[bad])]
  assert [fields for _, fields in records] == rows


def assert_every_line_belongs_to_one_record(content, starts):
  """What lies between the starts of two records, the first of which is the header, is one record for the csv module."""
  lines = [line.decode('utf-8', 'replace') for line in io.BytesIO(content.removeprefix(b'\xef\xbb\xbf'))]
  assert len(set(starts)) == len(starts)
  for start, end in itertools.pairwise([1, *starts, len(lines) + 1]):
    covered = [line.rstrip('\r\n').replace('\r', '.') + '\n' for line in lines[start - 1 : end - 1]]
    assert len([row for row in csv.reader(covered) if not _is_blank(row)]) == 1


@given(st.binary(max_size=80) | st.text(st.sampled_from('ab,"\n\r '), max_size=80).map(str.encode))
@example(b'1,"b\n"x\n')
@example(b'1,"b\nx" 1,"\n\nx,y,z\nx')
def test_every_line_belongs_to_one_record(folder, content):
  content = f'{HEADER}\n'.encode() + content
  records, problems = read(folder, content)
  refused = [line for line, kind in problems if '(' not in kind]
  assert_every_line_belongs_to_one_record(content, sorted([line for line, _ in records] + refused))
