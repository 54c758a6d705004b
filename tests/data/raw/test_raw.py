"""Readers on small files in the original formats, with the invalid lines that real ones have."""

import gzip
import json

import numpy as np
import pytest

from letter_jax.configuration import DataConfig, PreparationConfig
from letter_jax.data import store
from letter_jax.data.raw.read import read_raw_dataset
from letter_jax.pipeline import run as pipeline
from letter_jax.system.errors import InputError
from tests.small_data import config_with, run_settings

DAY = 86400
IN_2022 = 19_000 * DAY  # what is so many milliseconds after 1970 that it cannot be seconds
MICROSECONDS = 10**6
# user, item, day: two users with histories, and a third that the 3-core drops
EVENTS = [
  ('A2', 'B1', 3),
  ('A2', 'B2', 1),
  ('A1', 'B1', 1),
  ('A1', 'B2', 2),
  ('A2', 'B3', 2),
  ('A1', 'B3', 3),
  ('A1', 'B2', 4),
  ('A2', 'B1', 4),
  ('A2', 'B3', 5),
  ('A9', 'B9', 1),
]


def write(path, lines):
  """Writes lines of text or bytes; gzip, if the name ends with .gz."""
  content = b''.join((line if isinstance(line, bytes) else line.encode()) + b'\n' for line in lines)
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(gzip.compress(content) if path.suffix == '.gz' else content)


def write_amazon2014(folder):
  reviews = [
    json.dumps(
      {
        'reviewerID': user,
        'asin': item,
        'reviewerName': 'J',
        'helpful': [0, 0],
        'reviewText': 'ok',
        'overall': 5.0,
        'unixReviewTime': day * DAY,
        'reviewTime': '09 1, 2013',
      }
    )
    for user, item, day in EVENTS
  ]
  dirt = [
    reviews[0],  # twice
    reviews[1][:40],
    '',
    b'{"reviewerID": "A1", "asin": "B1", "reviewerName": "\xff\xfe", "unixReviewTime": 432000}',
    '{"reviewerID": "A1", "asin": "B1", "unixReviewTime": "1, 2013"}',
    '{"reviewerID": "A1", "unixReviewTime": 1}',
    '{"reviewerID": null, "asin": "B1", "unixReviewTime": 1}',
    '[1]',
  ]
  write(folder / 'reviews_Beauty_5.json.gz', reviews + dirt)
  write(
    folder / 'meta_Beauty.json.gz',
    [
      # Python literals, not JSON
      "{'asin': 'B1', 'title': 'Soap &amp;amp; Water <b>Set</b>', 'price': 3.5, 'brand': 'Acme', 'description': "
      "'It\\'s  soap', 'categories': [['Beauty', 'Bath &amp; Body'], ['Other']], 'salesRank': {'Beauty': 3}}",
      "{'asin': 'B2', 'categories': [['Beauty']]}",
      "{'asin': 'B2', 'title': 'the first entry with a title counts'}",
      "{'asin': 'B3', 'title': ",
      "{'title': 'no asin'}",
      "{'asin': 5, 'title': 'a number'}",
    ],
  )


def write_amazon2018(folder):
  write(
    folder / 'Beauty_5.json.gz',
    [
      json.dumps(
        {
          'overall': 5.0,
          'verified': True,
          'reviewTime': '09 1, 2013',
          'reviewerID': user,
          'asin': item,
          'style': {'Size:': ' 4'},
          'reviewText': 'ok',
          'unixReviewTime': day * DAY,
        }
      )
      for user, item, day in EVENTS
    ],
  )
  write(
    folder / 'meta_Beauty.json.gz',
    [
      json.dumps(
        {
          'category': ['Beauty', 'Bath &amp; Body'],
          'description': ['It&#39;s', 'soap'],
          'brand': 'Acme',
          'title': 'Soap &amp; Water Set',
          'price': '$3.50',
          'asin': 'B1',
          'also_buy': [],
        }
      ),
      json.dumps(
        {
          'category': [],
          'description': [],
          'title': 'var aPageStart = (new Date()).getTime();',
          'price': '.a-box-inner{background-color:#fff}',
          'asin': 'B2',
        }
      ),
    ],
  )


def write_amazon2023(folder):
  write(
    folder / 'Beauty.jsonl.gz',
    [
      json.dumps(
        {
          'rating': 5.0,
          'title': 'ok',
          'text': 'ok',
          'images': [],
          'asin': f'{item}-red',
          'parent_asin': item,
          'user_id': user,
          'timestamp': (IN_2022 + day * DAY) * 1000 + 123,
          'helpful_vote': 0,
        }
      )
      for user, item, day in EVENTS
    ],
  )
  write(
    folder / 'meta_Beauty.jsonl.gz',
    [
      json.dumps(
        {
          'main_category': 'All Beauty',
          'title': 'Soap & Water Set',
          'description': ["It's soap"],
          'price': 'None',
          'store': 'Acme',
          'categories': ['Beauty', 'Bath & Body'],
          'details': {},
          'parent_asin': 'B1',
        }
      ),
      json.dumps({'title': '', 'description': [], 'store': None, 'categories': [], 'parent_asin': 'B2'}),
    ],
  )


def write_movielens1m(folder):
  write(
    folder / 'ratings.dat',
    [f'{user}::{item}::5::{day * DAY}' for user, item, day in EVENTS] + ['1::2::3', 'A1::B1::4::yesterday'],
  )
  write(
    folder / 'movies.dat',
    ['B1::Soap & Water Set (1995)::Beauty|Bath & Body', 'B2::Les Misérables::Drama'.encode('latin-1')],
  )


def write_movielens32m(folder):
  write(
    folder / 'ratings.csv',
    ['userId,movieId,rating,timestamp']
    + [f'{user},{item},3.5,{day * DAY}' for user, item, day in EVENTS]
    + ['1,2\r3,4,5', f'1,2,3.5,{"9" * 5000}'],
  )
  write(
    folder / 'movies.csv',
    ['movieId,title,genres', 'B1,"Soap, Water (1995)",Beauty|Bath & Body', 'B2,Nothing,(no genres listed)'],
  )


def write_yelp(folder):
  write(
    folder / 'yelp_academic_dataset_review.json',
    [
      json.dumps(
        {
          'review_id': 'r',
          'user_id': user,
          'business_id': item,
          'stars': 4.0,
          'text': 'ok',
          'date': f'1970-01-{1 + day:02} 00:00:00',
        }
      )
      for user, item, day in EVENTS
    ]
    + ['{"user_id": "A1", "business_id": "B1", "date": "soon"}', '{"user_id": "A1"}', '{'],
  )
  write(
    folder / 'yelp_academic_dataset_business.json',
    [
      json.dumps(
        {
          'business_id': 'B1',
          'name': 'Soap &amp; Water',
          'city': 'Tampa',
          'state': 'FL',
          'categories': 'Beauty, Bath & Body',
        }
      ),
      json.dumps({'business_id': 'B2', 'name': 'B', 'categories': None}),
      '{',
    ],
  )


def write_csv(folder):
  write(
    folder / 'interactions.csv',
    ['stars,item_id,"user_id",timestamp']
    + [f'5,{item},{user},{day * DAY}' for user, item, day in EVENTS[:5]]
    + [f'5,{item},{user},1970-01-{1 + day:02}T00:00:00' for user, item, day in EVENTS[5:]]
    + ['5,B1,A1', '5,B1,A1,soon', '5,B1,A1,nan', '5,,A1,3'],
  )
  write(
    folder / 'items.csv',
    [
      'title,categories,description,item_id,brand',
      # A quoted field of several lines, one of them blank.
      'Soap & Water Set,Beauty > Bath &amp; Body,"It\'s',
      '',
      'soap",B1,Acme',
      'Nothing,,,B2,',
    ],
  )


WRITERS = {
  'csv': write_csv,
  'amazon2014': write_amazon2014,
  'amazon2018': write_amazon2018,
  'amazon2023': write_amazon2023,
  'movielens 1m': write_movielens1m,
  'movielens 32m': write_movielens32m,
  'yelp': write_yelp,
}


def settings(source, folder, core=3):
  name = 'Beauty' if source.startswith('amazon') else ''
  return DataConfig(source=source.split()[0], path=str(folder), name=name, preparation=PreparationConfig(core=core))


@pytest.mark.parametrize('source', WRITERS)
def test_events_become_histories(tmp_path, source):
  WRITERS[source](tmp_path)
  data = read_raw_dataset(settings(source, tmp_path))
  interactions = data.interactions
  assert interactions.users == ('A1', 'A2') and data.item_names == ('B1', 'B2', 'B3')
  assert interactions.items.tolist()[:4] == [0, 1, 2, 1] and interactions.offsets.tolist()[0] == 0
  last = interactions.items.tolist()[interactions.offsets[1] :]
  assert last == [1, 2, 0, 0, 2]
  first = IN_2022 * MICROSECONDS + 123_000 if source == 'amazon2023' else 0
  np.testing.assert_array_equal(data.timestamps[-5:], first + np.array([1, 2, 3, 4, 5]) * DAY * MICROSECONDS)
  assert data.preparation['dropped']['outside the 3-core'] == 1
  assert [sorted(text) for text in data.texts] == [['brand', 'categories', 'description', 'title']] * 3
  assert data.texts[2] == dict.fromkeys(data.texts[2], '')  # B3 has no metadata, which is counted
  assert data.preparation['items_without_metadata'] == 1


@pytest.mark.parametrize(
  'source, expected',
  [
    (
      'amazon2014',
      {'title': 'Soap & Water Set', 'brand': 'Acme', 'categories': 'Beauty > Bath & Body', 'description': "It's soap"},
    ),
    (
      'amazon2018',
      {'title': 'Soap & Water Set', 'brand': 'Acme', 'categories': 'Beauty > Bath & Body', 'description': "It's soap"},
    ),
    (
      'amazon2023',
      {'title': 'Soap & Water Set', 'brand': 'Acme', 'categories': 'Beauty > Bath & Body', 'description': "It's soap"},
    ),
    (
      'csv',
      {'title': 'Soap & Water Set', 'brand': 'Acme', 'categories': 'Beauty > Bath & Body', 'description': "It's soap"},
    ),
    (
      'movielens 1m',
      {'title': 'Soap & Water Set (1995)', 'brand': '', 'categories': 'Beauty > Bath & Body', 'description': ''},
    ),
    (
      'movielens 32m',
      {'title': 'Soap, Water (1995)', 'brand': '', 'categories': 'Beauty > Bath & Body', 'description': ''},
    ),
    ('yelp', {'title': 'Soap & Water', 'brand': '', 'categories': 'Beauty > Bath & Body', 'description': 'Tampa, FL'}),
  ],
)
def test_texts_are_clean(tmp_path, source, expected):
  WRITERS[source](tmp_path)
  texts = read_raw_dataset(settings(source, tmp_path)).texts
  assert texts[0] == expected
  assert texts[1]['title'] in ('', 'Les Misérables', 'Nothing', 'B', 'the first entry with a title counts')


def test_invalid_lines_are_counted_by_kind_with_the_position_of_the_first(tmp_path, capsys):
  write_amazon2014(tmp_path)
  data = read_raw_dataset(settings('amazon2014', tmp_path))
  review, meta = 'reviews_Beauty_5.json.gz', 'meta_Beauty.json.gz'
  assert data.preparation['problems'] == {
    'not JSON': {'lines': 1, 'first': f'{review}:12'},
    'invalid UTF-8 (replaced)': {'lines': 1, 'first': f'{review}:14'},
    'unixReviewTime is not an integer': {'lines': 1, 'first': f'{review}:15', 'value': '"1, 2013"'},
    'without reviewerID, asin or unixReviewTime': {'lines': 2, 'first': f'{review}:16'},
    'empty or non-string id': {'lines': 1, 'first': f'{review}:17'},
    'metadata that cannot be parsed': {'lines': 1, 'first': f'{meta}:4'},
    'metadata without asin': {'lines': 1, 'first': f'{meta}:5'},
    'metadata with an empty or non-string id': {'lines': 1, 'first': f'{meta}:6'},
  }
  assert data.preparation['raw_events'] == len(EVENTS) + 2  # a duplicate, and one with replaced bytes
  assert data.preparation['dropped']['duplicate'] == 1
  assert f'not JSON: 1 line, first {review}:12' in capsys.readouterr().out
  write_yelp(tmp_path)
  assert data.summary()['preparation']['problems']['not JSON']['lines'] == 1
  problems = read_raw_dataset(settings('yelp', tmp_path)).preparation['problems']
  assert {kind: problem['lines'] for kind, problem in problems.items()} == {
    'invalid date': 1,
    'without user_id, business_id or date': 1,
    'not JSON': 1,
    'business that cannot be parsed': 1,
  }
  write_amazon2018(tmp_path)
  assert read_raw_dataset(settings('amazon2018', tmp_path)).preparation['problems'] == {
    'title is page JavaScript': {'lines': 1, 'first': 'meta_Beauty.json.gz:2'}
  }
  write_movielens1m(tmp_path)
  problems = read_raw_dataset(settings('movielens 1m', tmp_path)).preparation['problems']
  assert {kind: problem['lines'] for kind, problem in problems.items()} == {
    'not 4 fields': 1,
    'timestamp is not an integer': 1,
  }
  write_csv(tmp_path)
  assert read_raw_dataset(settings('csv', tmp_path)).preparation['problems'] == {
    'not 4 fields': {'lines': 1, 'first': 'interactions.csv:12'},
    'timestamp in no known format: seconds, milliseconds or microseconds since 1970, or ISO 8601': {
      'lines': 2,
      'first': 'interactions.csv:13',
      'value': '"soon"',
    },
    'empty or non-string id': {'lines': 1, 'first': 'interactions.csv:15'},
  }


def test_every_file_may_be_gzip_or_begin_with_a_byte_order_mark(tmp_path):
  for source in ('csv', 'movielens 1m', 'movielens 32m', 'yelp'):
    plain, packed = tmp_path / source / 'plain', tmp_path / source / 'packed'
    WRITERS[source](plain)
    expected = read_raw_dataset(settings(source, plain))
    packed.mkdir()
    for path in plain.iterdir():
      content = path.read_bytes()
      (packed / f'{path.name}.gz').write_bytes(gzip.compress(content))
      if path.suffix != '.dat':
        path.write_bytes(b'\xef\xbb\xbf' + content)
    for folder in (plain, packed):
      data = read_raw_dataset(settings(source, folder))
      assert data.texts == expected.texts and data.interactions.users == expected.interactions.users


def test_the_folder_may_be_the_parent_of_the_extracted_archive(tmp_path):
  write_movielens32m(tmp_path / 'ml-32m')
  config = DataConfig(source='movielens', name='ml-32m', path=str(tmp_path), preparation=PreparationConfig(core=3))
  assert read_raw_dataset(config).interactions.users == ('A1', 'A2')


def test_a_truncated_gzip_file_is_refused(tmp_path):
  write_amazon2014(tmp_path)
  reviews = tmp_path / 'reviews_Beauty_5.json.gz'
  reviews.write_bytes(reviews.read_bytes()[:-20])
  with pytest.raises(InputError, match='reviews_Beauty_5.json.gz is damaged or was not downloaded completely'):
    read_raw_dataset(settings('amazon2014', tmp_path))
  reviews.write_bytes(b'<html>404</html>')
  with pytest.raises(InputError, match='reviews_Beauty_5.json.gz is damaged'):
    read_raw_dataset(settings('amazon2014', tmp_path))
  assert reviews.exists()  # a file of the user is not removed


@pytest.mark.parametrize('name, message', [('../Beauty', 'without a /'), ('', 'config.data.name is empty')])
def test_an_invalid_category_is_refused(tmp_path, name, message):
  for path in ('', str(tmp_path)):
    with pytest.raises(InputError, match=message):
      pipeline.run(
        config_with(run_settings(data__source='amazon2014', data__name=name, data__path=path)),
        tmp_path / 'workdir',
        'dataset',
      )


@pytest.mark.parametrize(
  'source, message',
  [
    ('amazon2014', 'has no reviews_Beauty_5.json.gz and no reviews_Beauty_5.json and no reviews_Beauty.json.gz'),
    ('amazon2018', 'has no Beauty_5.json.gz'),
    ('amazon2023', 'has no Beauty.jsonl.gz'),
    ('csv', 'interactions.csv does not exist; expected a CSV file with the columns user_id, item_id, timestamp'),
    ('movielens', 'neither ratings.dat and movies.dat nor ratings.csv and movies.csv'),
    ('yelp', 'yelp_academic_dataset_review.json does not exist; .* yelp.com/dataset'),
  ],
)
def test_a_missing_file_is_named(tmp_path, source, message):
  with pytest.raises(InputError, match=message):
    read_raw_dataset(settings(source, tmp_path))
  with pytest.raises(InputError, match='expected the folder with the raw files'):
    read_raw_dataset(settings(source, tmp_path / 'nowhere'))


def test_a_category_and_headers_are_required(tmp_path):
  with pytest.raises(InputError, match='config.data.name is empty; expected the category'):
    read_raw_dataset(DataConfig(source='amazon2014', path=str(tmp_path)))
  write(tmp_path / 'ratings.csv', ['user,movie', '1,2'])
  write(tmp_path / 'movies.csv', ['movieId,title,genres'])
  with pytest.raises(InputError, match='expected the header "userId,movieId,rating,timestamp"'):
    read_raw_dataset(settings('movielens', tmp_path))
  write(tmp_path / 'interactions.csv', ['user_id,item_id', '1,2'])
  write(tmp_path / 'items.csv', [])
  with pytest.raises(InputError, match='begins with "user_id,item_id", without timestamp; expected a header with user'):
    read_raw_dataset(settings('csv', tmp_path))


def test_the_dataset_stage_prepares_raw_files_and_notices_changes(tmp_path, capsys):
  write_amazon2014(tmp_path / 'raw')
  changes = {
    'data.source': 'amazon2014',
    'data.path': str(tmp_path / 'raw'),
    'data.name': 'Beauty',
    'data.preparation.core': 3,
    'evaluation.beam': 3,
  }
  settings = {**run_settings(), **changes}
  pipeline.run(config_with(settings), tmp_path / 'workdir', 'dataset')
  data = store.load(tmp_path / 'workdir/dataset')
  assert data.item_names == ('B1', 'B2', 'B3') and data.preparation['k_core_rounds'] == 2
  with pytest.raises(InputError, match=r'config.data.preparation.core \(3 then, 2 now\)'):
    pipeline.run(config_with({**settings, 'data.preparation.core': 2}), tmp_path / 'workdir', 'dataset')
  (tmp_path / 'raw/meta_Beauty.json.gz').write_bytes(gzip.compress(b''))
  with pytest.raises(InputError, match=r'content of config.data.path/meta_Beauty.json.gz'):
    pipeline.run(config_with(settings), tmp_path / 'workdir', 'dataset')


@pytest.mark.parametrize(
  'line',
  [
    '{"reviewerID": "A1", "asin": "B1", "unixReviewTime": 1' + '0' * 30 + '}',
    '[' * 200_000,
    '{"reviewerID": "A\\ud800", "asin": "B1", "unixReviewTime": 1}',
  ],
)
def test_an_invalid_line_does_not_affect_the_others(tmp_path, line):
  write_amazon2014(tmp_path)
  reviews = tmp_path / 'reviews_Beauty_5.json.gz'
  reviews.write_bytes(reviews.read_bytes() + gzip.compress(line.encode() + b'\n'))
  assert read_raw_dataset(settings('amazon2014', tmp_path)).item_names == ('B1', 'B2', 'B3')


def test_a_file_without_a_usable_event_is_refused_with_the_reason(tmp_path):
  write_amazon2014(tmp_path)
  write(tmp_path / 'reviews_Beauty_5.json.gz', ['a', 'b'])
  with pytest.raises(InputError, match=r'no usable event \(not JSON: 2 lines, first reviews_Beauty_5.json.gz:1\)'):
    read_raw_dataset(settings('amazon2014', tmp_path))
