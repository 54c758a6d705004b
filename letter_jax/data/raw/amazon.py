"""Amazon reviews of 2014, 2018 and 2023 (McAuley Lab), one category at a time.

    2014  reviews_NAME_5.json.gz, meta_NAME.json.gz   snap.stanford.edu/data/amazon/productGraph/categoryFiles
    2018  NAME_5.json.gz, meta_NAME.json.gz           nijianmo.github.io/amazon
    2023  NAME.jsonl.gz, meta_NAME.jsonl.gz           amazon-reviews-2023.github.io

The reviews may also be the files without the 5-core filter (reviews_NAME.json.gz, NAME.json.gz). The metadata of 2014
are Python literals, not JSON. The items of 2023 are products (`parent_asin`), not their variants.
"""

import functools
import json
import pathlib
from collections.abc import Iterable

from letter_jax.data import times
from letter_jax.data.raw.cleaning import category_path, clean
from letter_jax.data.raw.python_literals import parse_literal
from letter_jax.data.raw.reader import Event, RawSource, Texts
from letter_jax.data.raw.reading import Problems, Span, read_records
from letter_jax.system.errors import InputError

REVIEWS = {2014: ('reviews_{}_5.json', 'reviews_{}.json'), 2018: ('{}_5.json', '{}.json'), 2023: ('{}.jsonl',)}
METADATA = {2014: ('meta_{}.json',), 2018: ('meta_{}.json',), 2023: ('meta_{}.jsonl',)}
# Keys of user, item and timestamp, and the unit of the timestamp.
KEYS = {
  2014: ('reviewerID', 'asin', 'unixReviewTime', 'seconds'),
  2018: ('reviewerID', 'asin', 'unixReviewTime', 'seconds'),
  2023: ('user_id', 'parent_asin', 'timestamp', 'milliseconds'),
}
ITEM_KEY = {2014: 'asin', 2018: 'asin', 2023: 'parent_asin'}


def amazon_source(folder: pathlib.Path, year: int, name: str) -> RawSource:
  """The reviews and metadata of the category `name` in `folder`.

  Args:
    folder: holds both files, gzip or not.
    year: 2014, 2018 or 2023.
    name: the category as in the names of the files.

  Raises:
    InputError: a file does not exist.
  """
  reviews, metadata = (
    _find(folder, [pattern.format(name) for pattern in patterns[year]]) for patterns in (REVIEWS, METADATA)
  )
  return RawSource(
    (reviews, metadata), functools.partial(_events, year), functools.partial(_texts, year), KEYS[year][3]
  )


def _find(folder: pathlib.Path, names: list[str]) -> pathlib.Path:
  candidates = [folder / (name + suffix) for name in names for suffix in ('.gz', '')]
  for path in candidates:
    if path.is_file():
      return path
  raise InputError(
    f'{folder} has no {" and no ".join(path.name for path in candidates)}; expected one of them '
    '(config.data.name is the category in their names; the README says where they are published)'
  )


def _events(year: int, span: Span, problems: Problems) -> Iterable[tuple[int, Event]]:
  user_key, item_key, time_key, unit = KEYS[year]
  for number, _, (user, item, time) in read_records(
    span, problems, (user_key, item_key, time_key), 'not JSON', f'without {user_key}, {item_key} or {time_key}'
  ):
    if isinstance(time, bool) or not isinstance(time, int):
      problems.add(f'{time_key} is not an integer', span.path, number, time)
    elif (microseconds := times.of_number(time, unit)) is None:
      problems.add('timestamp out of range', span.path, number, time)
    else:
      yield number, (user, item, microseconds)


def _texts(year: int, span: Span, problems: Problems) -> Iterable[tuple[int, tuple[str, Texts]]]:
  for number, record, (item,) in read_records(
    span,
    problems,
    (ITEM_KEY[year],),
    'metadata that cannot be parsed',
    f'metadata without {ITEM_KEY[year]}',
    parse_literal if year == 2014 else json.loads,
  ):
    title = clean(record.get('title'))
    if 'getTime' in title:  # a crawler's mistake, frequent in 2018
      problems.add('title is page JavaScript', span.path, number)
      title = ''
    categories = record.get({2014: 'categories', 2018: 'category', 2023: 'categories'}[year])
    yield (
      number,
      (
        item,
        {
          'title': title,
          'brand': clean(record.get('store' if year == 2023 else 'brand')),
          'categories': category_path(categories),
          'description': clean(record.get('description')),
        },
      ),
    )
