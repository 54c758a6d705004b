"""A user's own CSV files, from their bytes to the data set."""

import pytest

from letter_jax.configuration import DataConfig, PreparationConfig
from letter_jax.data.raw import tables
from letter_jax.data.raw.read import read_raw_dataset
from letter_jax.system.errors import InputError

SECOND = 10**6
ITEMS = 'item_id,title\n' + ''.join(f'{item},Title {item}\n' for item in 'abcdef')


def events(times, users=('u0', 'u1')):
  """Each user has the items a, b, ... at these times."""
  rows = [f'{user},{item},{time}' for user in users for item, time in zip('abcdef', times)]
  return '\n'.join(['user_id,item_id,timestamp', *rows, ''])


def read(folder, interactions, items=ITEMS):
  for name, content in (('interactions.csv', interactions), ('items.csv', items)):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
  return read_raw_dataset(DataConfig(source='csv', path=str(folder), preparation=PreparationConfig(core=1)))


def history(data, user=0):
  """The raw ids of a user's items, and the times."""
  part = slice(*data.interactions.offsets[user : user + 2])
  return ''.join(data.item_names[item] for item in data.interactions.items[part]), data.timestamps[part].tolist()


def problems(data):
  return {kind: (problem['lines'], problem['first']) for kind, problem in data.preparation['problems'].items()}


def test_inch_marks_and_long_texts_leave_every_item_whole(tmp_path):
  long = '\n'.join(f'line {number}' for number in range(150))
  rows = ['a,24" tv,short', *[f'{item},Title {item},"{long} of {item}"' for item in 'bcde'], f'f,F,{"x" * 150_000}']
  data = read(tmp_path, events(range(6)), '\n'.join(['item_id,title,description', *rows]))
  assert [texts['title'] for texts in data.texts] == ['24" tv', 'Title b', 'Title c', 'Title d', 'Title e', 'F']
  assert (
    data.texts[4]['description'] == ' '.join(long.split()) + ' of e' and len(data.texts[5]['description']) == 150_000
  )
  assert not data.preparation['problems'] and data.preparation['metadata_of_an_item_again'] == 0


def test_a_bad_record_costs_itself(tmp_path):
  rows = [f'u1,{item},{"5 in" if number % 2 else "fine"},{number}' for number, item in enumerate('abcdefabcdef')]
  rows[1], rows[5] = 'u1,b,5" too small,1', 'u1,f,6" too big,5'  # read
  rows[3], rows[7], rows[9] = 'u1,d,two\rlines,3', 'u1,b,"open,7', 'u1,d,9'
  data = read(tmp_path, '\n'.join(['user_id,item_id,note,timestamp', *rows]))
  assert history(data) == ('abcdefacef', [SECOND * number for number in (0, 1, 2, 3, 4, 5, 6, 8, 10, 11)])
  assert problems(data) == {
    'quote that is not closed in its record': (1, 'interactions.csv:9'),
    'not 4 fields': (1, 'interactions.csv:11'),
  }


def test_a_quote_that_is_not_closed_loses_no_other_record(tmp_path):
  rows = [f'i{number},thing {number}' for number in range(300)]
  rows[3], rows[250] = 'i3,"thing 3', 'i250,5" pipe'
  events = [f'u,i{number},{number}' for number in range(300)]
  data = read(tmp_path, '\n'.join(['user_id,item_id,timestamp', *events]), '\n'.join(['item_id,title', *rows]))
  titles = dict(zip(data.item_names, (texts['title'] for texts in data.texts)))
  expected = {f'i{number}': f'thing {number}' for number in range(300)}
  assert titles == {**expected, 'i3': '', 'i250': '5" pipe'}
  assert problems(data) == {'quote that is not closed in its record': (1, 'items.csv:5')}


@pytest.mark.parametrize(
  'form, unit, scale',
  [
    ('2024-05-01T10:30:{:06.3f}', 'ISO 8601', None),
    ('17000000{:06.3f}', 'seconds', 10**6),
    ('17000000{:06.3f}', 'milliseconds', 10**3),
    ('17000000{:06.3f}', 'microseconds', 1),
  ],
)
def test_events_a_tenth_of_a_second_apart_are_in_order_and_distinct(tmp_path, capsys, form, unit, scale):
  shifts = [0.1, 0.3, 0.5, 0.7, 0.9, 0.95]
  times = [form.format(shift) for shift in shifts]
  if unit in ('milliseconds', 'microseconds'):
    times = [f'{round(float(time) * 10**6 / scale)}' for time in times]
  lines = events(times).splitlines()
  again = lines[1].replace(times[0], times[2])  # the same item, two tenths later
  content = '\n'.join([lines[0], *lines[:0:-1], again, lines[1]])
  data = read(tmp_path, content)
  items, read_times = history(data)
  assert items in ('abcadef', 'abacdef') and [time % SECOND for time in read_times] == [
    round(shift * SECOND) for shift in sorted([*shifts, 0.5])
  ]
  assert data.preparation['dropped']['duplicate'] == 1 and data.preparation['time_unit_of_source'] == unit
  assert f'dataset: interactions.csv: timestamps in {unit}\n' in capsys.readouterr().out


def test_a_number_that_is_no_time_like_the_others_is_refused_and_shown(tmp_path, capsys):
  rows = [1700000000000 + number for number in range(6)]
  data = read(tmp_path, events(rows) + 'u0,a,1700000000\nu1,a,05/01/2024\nu1,b,2023-11-14T22:13:21\n')
  assert history(data, 1) == ('abcdefb', [time * 1000 for time in rows] + [1700000001 * SECOND])
  assert data.preparation['problems'] == {
    'timestamp not in milliseconds, unlike most': {'lines': 1, 'first': 'interactions.csv:14', 'value': '"1700000000"'},
    'timestamp in no known format: seconds, milliseconds or microseconds since 1970, or ISO 8601': {
      'lines': 1,
      'first': 'interactions.csv:15',
      'value': '"05/01/2024"',
    },
  }
  assert 'unlike most: 1 line, first interactions.csv:14: "1700000000"\n' in capsys.readouterr().out
  message = r'\(timestamp in no known format: .*: 12 lines, first interactions.csv:2: "05/01/2024"\); expected'
  with pytest.raises(InputError, match=message):
    read(tmp_path, events(['05/01/2024'] * 6))


EVENTS = events(range(6))


@pytest.mark.parametrize(
  'interactions, items, message',
  [
    (EVENTS.replace('timestamp', 'timestamp,item_id', 1), ITEMS, 'interactions.csv has the column "item_id" twice'),
    (EVENTS, 'item_id,title,note,note\n', 'items.csv has the column "note" twice; expected a header with item_id'),
    (EVENTS.replace(',', ';'), ITEMS, 'interactions.csv begins with .*semicolons between the columns; expected commas'),
    (EVENTS, ITEMS.replace(',', '\t'), 'items.csv begins with .*tabs between the columns; expected commas'),
    (EVENTS.replace(',', '|').replace('\n', '\r'), ITEMS, 'interactions.csv .*vertical bars'),
    (EVENTS.replace('\n', '\r'), ITEMS, 'interactions.csv has lines that end in CR alone; expected LF or CR LF'),
    (EVENTS, 'item_id,title,note\ra,A,x\r', 'items.csv has lines that end in CR alone'),
    (EVENTS.encode('utf-16'), ITEMS, 'interactions.csv begins with zero bytes, as in UTF-16; expected UTF-8'),
    (EVENTS, ITEMS.encode('utf-16-le'), 'items.csv begins with zero bytes, as in UTF-16; expected UTF-8'),
    ('user_id,item_id\n', ITEMS, 'begins with "user_id,item_id", without timestamp; expected a header with user_id'),
    ('x' * 200_000, ITEMS, 'without user_id, item_id, timestamp; expected a header'),
    ('', ITEMS, r'begins with "\(empty\)", without user_id'),
  ],
)
def test_a_header_is_refused_with_what_is_wrong_with_it(tmp_path, interactions, items, message):
  with pytest.raises(InputError, match=message) as caught:
    read(tmp_path, interactions, items)
  assert '\n' not in str(caught.value) and len(str(caught.value)) < 500


def test_the_first_row_with_a_title_counts(tmp_path):
  rows = ['a,,first', 'a,Real title,second', 'a,Another,third', 'b,nan,first', 'b,None,second', 'c,C,']
  data = read(tmp_path, events(range(6)), '\n'.join(['item_id,title,description', *rows]))
  assert [(texts['title'], texts['description']) for texts in data.texts[:3]] == [
    ('Real title', 'second'),
    ('', 'first'),
    ('C', ''),
  ]
  assert data.preparation['items_without_title'] == 4 and data.preparation['metadata_of_an_item_again'] == 3


def test_the_files_are_read_whole(tmp_path):
  """A record may span several lines, and Beam would divide the file between two of them."""
  read(tmp_path, EVENTS)
  assert tables.csv_source(tmp_path).whole


def test_what_says_that_it_is_missing_is_missing(tmp_path):
  titles = dict(zip('abcdef', ['nan', 'NaN', 'None', 'NULL', 'N/A', 'Nan Madol']))
  data = read(tmp_path, events(range(6)), 'item_id,title\n' + ''.join(f'{i},{title}\n' for i, title in titles.items()))
  assert [texts['title'] for texts in data.texts] == ['', '', '', '', '', 'Nan Madol']
  assert data.preparation['items_without_title'] == 5


def test_categories_are_a_path(tmp_path):
  rows = ['a,A,<b>Tops</b> > Size <M>', 'b,B,x|y > nan', 'c,C,', 'd,D,All']
  data = read(tmp_path, events(range(6)), '\n'.join(['item_id,title,categories', *rows]))
  assert [texts['categories'] for texts in data.texts[:4]] == ['Tops > Size <M>', 'x > y', '', 'All']
