"""Ids in the two raw files: one normal form, and an error where the files do not name their items alike."""

import json

import pytest

from letter_jax.configuration import DataConfig, PreparationConfig
from letter_jax.data.raw.read import read_raw_dataset
from letter_jax.system.errors import InputError
from tests.data.raw.test_raw import write


def csv_folder(folder, interactions, items):
  """The two files of a shop: (user, item) of each interaction, a minute apart, and the ids of items.csv."""
  rows = [f'{user},{item},{1_700_000_000 + 60 * number}' for number, (user, item) in enumerate(interactions)]
  write(folder / 'interactions.csv', ['user_id,item_id,timestamp', *rows])
  write(folder / 'items.csv', ['item_id,title', *(f'{item},thing {place}' for place, item in enumerate(items))])
  return DataConfig(source='csv', path=str(folder), preparation=PreparationConfig(core=1))


def test_an_id_is_the_same_with_blanks_and_in_every_unicode_form(tmp_path):
  interactions = [('ann', ' a1'), ('ann\u00a0', 'a1 '), (' ann', 'cafe\u0301'), ('ann', 'caf\u00e9'), ('bob', 'x y')]
  config = csv_folder(tmp_path, interactions * 3, ['a1\t', 'caf\u00e9 ', 'x y', ' x y'])
  data = read_raw_dataset(config)
  assert data.interactions.users == ('ann', 'bob') and data.item_names == ('a1', 'caf\u00e9', 'x y')
  assert [text['title'] for text in data.texts] == ['thing 0', 'thing 1', 'thing 2']
  ((kind, found),) = data.preparation['problems'].items()
  assert 'surrounding blanks' in kind and 'NFC' in kind
  assert found == {'lines': 3 * 3 + 3, 'first': 'interactions.csv:2'}


def test_amazon_files_get_the_same_form(tmp_path):
  reviews = [('u', item, day) for day, item in enumerate([' B1', 'B1', 'B2 '])]
  write(
    tmp_path / 'Beauty_5.json',
    [json.dumps({'reviewerID': user, 'asin': item, 'unixReviewTime': day}) for user, item, day in reviews],
  )
  write(tmp_path / 'meta_Beauty.json', [json.dumps({'asin': 'B1\n', 'title': 'Soap'})])
  data = read_raw_dataset(
    DataConfig(source='amazon2018', name='Beauty', path=str(tmp_path), preparation=PreparationConfig(core=1))
  )
  assert data.item_names == ('B1', 'B2') and data.texts[0]['title'] == 'Soap'


def bought(*items):
  return [('u', item) for item in items] + [('v', item) for item in items]


@pytest.mark.parametrize(
  'interactions, items, shown',
  [
    (bought('0.0', '1.0', '2.0', '3.0'), '0123', ("'0.0', '1.0', '2.0'", "'0', '1', '2'", 'only 0 are the same')),
    (bought('007', '008', '100'), ['7', '8', '100'], ("has '007', '008'", "has '7', '8'", 'only 1 are the same')),
    (bought('a', 'b', 'c', 'd', 'e'), 'ABCe', ("'a', 'b', 'c'", "'A', 'B', 'C'", 'of the 5 items')),
    (bought('a', 'b', 'c'), 'Z', ("has 'Z'", 'the 1 of items.csv')),
  ],
)
def test_files_that_name_their_items_differently_are_refused_with_examples(tmp_path, interactions, items, shown):
  with pytest.raises(InputError, match='name their items differently') as caught:
    read_raw_dataset(csv_folder(tmp_path, interactions, items))
  message = str(caught.value)
  assert '\n' not in message and 'interactions.csv' in message and 'items.csv' in message
  assert all(part in message for part in shown), message


@pytest.mark.parametrize(
  'interactions, items',
  [
    (bought('a', 'b', 'c', 'd'), 'a'),  # hardly described
    (bought('a', 'b', 'c'), ['a', 'b', 'c', *map(str, range(50))]),  # hardly sold
    (bought('a', 'b', 'c', 'd'), 'abYZ'),  # half
    (bought('a', 'b', 'c'), ''),
  ],
)
def test_half_of_the_smaller_file_is_enough(tmp_path, interactions, items):
  assert len(read_raw_dataset(csv_folder(tmp_path, interactions, items)).texts) == len(interactions) // 2


def test_items_that_the_preparation_leaves_out_count_as_bought(tmp_path):
  interactions = [*bought('a', 'b', 'c'), ('w', 'd'), ('x', 'e'), ('y', 'f')]
  data = read_raw_dataset(csv_folder(tmp_path, interactions, 'defa'))
  assert data.item_names == ('a', 'b', 'c') and data.preparation['items_without_metadata'] == 2
