"""A user's own CSV files, from their bytes to the data set."""

from letter_jax.configuration import DataConfig, PreparationConfig
from letter_jax.data.raw.read import read_raw_dataset

ITEMS = 'item_id,title\n' + ''.join(f'{item},Title {item}\n' for item in 'abcdef')


def events(times, users=('u0', 'u1')):
  """Each user has the items a, b, ... at these times."""
  rows = [f'{user},{item},{time}' for user in users for item, time in zip('abcdef', times)]
  return '\n'.join(['user_id,item_id,timestamp', *rows, ''])


def read(folder, interactions, items=ITEMS):
  for name, content in (('interactions.csv', interactions), ('items.csv', items)):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
  return read_raw_dataset(DataConfig(source='csv', path=str(folder), preparation=PreparationConfig(core=1)))


def test_the_first_row_with_a_title_counts(tmp_path):
  rows = ['a,,first', 'a,Real title,second', 'a,Another,third', 'b,nan,first', 'b,None,second', 'c,C,']
  data = read(tmp_path, events(range(6)), '\n'.join(['item_id,title,description', *rows]))
  assert [(texts['title'], texts['description']) for texts in data.texts[:3]] == [
    ('Real title', 'second'),
    ('', 'first'),
    ('C', ''),
  ]
  assert data.preparation['items_without_title'] == 4 and data.preparation['metadata_of_an_item_again'] == 3


def test_what_says_that_it_is_missing_is_missing(tmp_path):
  titles = dict(zip('abcdef', ['nan', 'NaN', 'None', 'NULL', 'N/A', 'Nan Madol']))
  data = read(tmp_path, events(range(6)), 'item_id,title\n' + ''.join(f'{i},{title}\n' for i, title in titles.items()))
  assert [texts['title'] for texts in data.texts] == ['', '', '', '', '', 'Nan Madol']
  assert data.preparation['items_without_title'] == 5


def test_categories_are_a_path(tmp_path):
  rows = ['a,A,<b>Tops</b> > Size <M>', 'b,B,x|y > nan', 'c,C,', 'd,D,All']
  data = read(tmp_path, events(range(6)), '\n'.join(['item_id,title,categories', *rows]))
  assert [texts['categories'] for texts in data.texts[:4]] == ['Tops > Size <M>', 'x > y', '', 'All']
