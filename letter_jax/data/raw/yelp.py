"""Yelp's open data set (yelp.com/dataset), which must be downloaded by hand after accepting its terms.

    yelp_academic_dataset_review.json, yelp_academic_dataset_business.json: one JSON object per line

The reviews have local times without a time zone, which are taken as UTC.
"""

import pathlib
from collections.abc import Iterable

from letter_jax.data import times
from letter_jax.data.dataset import CATEGORY_SEPARATOR
from letter_jax.data.raw.cleaning import clean
from letter_jax.data.raw.reader import Event, RawSource, Texts
from letter_jax.data.raw.reading import Problems, Span, read_records
from letter_jax.system.errors import InputError

REVIEWS, BUSINESSES = 'yelp_academic_dataset_review.json', 'yelp_academic_dataset_business.json'


def yelp_source(folder: pathlib.Path) -> RawSource:
  """The reviews and businesses in `folder`; InputError if a file does not exist."""
  reviews, businesses = (_find(folder, name) for name in (REVIEWS, BUSINESSES))
  return RawSource((reviews, businesses), _events, _texts, times.DATES)


def _find(folder: pathlib.Path, name: str) -> pathlib.Path:
  for path in (folder / name, folder / f'{name}.gz'):
    if path.is_file():
      return path
  raise InputError(f'{folder / name} does not exist; expected the files of yelp_dataset.tar from yelp.com/dataset')


def _events(span: Span, problems: Problems) -> Iterable[tuple[int, Event]]:
  for number, _, (user, item, date) in read_records(
    span, problems, ('user_id', 'business_id', 'date'), 'not JSON', 'without user_id, business_id or date'
  ):
    microseconds = times.of_date(date) if isinstance(date, str) else None
    if microseconds is None:
      problems.add('invalid date', span.path, number, date)
    else:
      yield number, (user, item, microseconds)


def _texts(span: Span, problems: Problems) -> Iterable[tuple[int, tuple[str, Texts]]]:
  for number, record, (item,) in read_records(
    span, problems, ('business_id',), 'business that cannot be parsed', 'business without business_id'
  ):
    place = ', '.join(filter(None, (clean(record.get('city')), clean(record.get('state')))))
    categories = clean(record.get('categories')).split(', ')
    yield (
      number,
      (
        item,
        {
          'title': clean(record.get('name')),
          'brand': '',
          'description': place,
          'categories': CATEGORY_SEPARATOR.join(filter(None, categories)),
        },
      ),
    )
