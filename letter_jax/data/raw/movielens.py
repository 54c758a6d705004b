"""MovieLens (GroupLens, grouplens.org/datasets/movielens): the folder in the zip file.

ml-1m    ratings.dat and movies.dat, fields separated by '::', Latin-1
ml-32m   ratings.csv and movies.csv with a header, UTF-8; also ml-20m, ml-25m and the -latest sets
"""

import csv
import pathlib
from collections.abc import Iterable, Iterator

from letter_jax.data import times
from letter_jax.data.dataset import CATEGORY_SEPARATOR
from letter_jax.data.json_files import shown
from letter_jax.data.raw.cleaning import clean
from letter_jax.data.raw.reader import Event, RawSource, Texts
from letter_jax.data.raw.reading import Problems, Span, read_lines
from letter_jax.system.errors import InputError

HEADERS = {'ratings': ['userId', 'movieId', 'rating', 'timestamp'], 'movies': ['movieId', 'title', 'genres']}


def movielens_source(folder: pathlib.Path) -> RawSource:
  """The ratings and movies in `folder`; InputError if a file does not exist."""
  pairs = [
    (folder / f'ratings{ending}', folder / f'movies{ending}') for ending in ('.dat', '.csv', '.dat.gz', '.csv.gz')
  ]
  complete = [pair for pair in pairs if all(path.is_file() for path in pair)]
  if not complete:
    raise InputError(
      f'{folder} has neither ratings.dat and movies.dat nor ratings.csv and movies.csv; expected the '
      'unpacked folder of a MovieLens zip file'
    )
  return RawSource(complete[0], _events, _texts, 'seconds')


def _rows(span: Span, problems: Problems) -> Iterator[tuple[int, list[str]]]:
  """Yields (line number, fields) of the lines with the right number of fields."""
  path = span.path
  name, extension = path.name.split('.')[:2]
  header = HEADERS[name]
  if extension == 'dat':
    parsed = ((number, line.rstrip('\r\n').split('::')) for number, line in read_lines(span, problems, 'latin-1'))
  else:
    parsed = ((number, _csv_fields(line)) for number, line in read_lines(span, problems))
  if extension == 'csv' and not span.start:
    _, first = next(parsed, (0, []))
    if first != header:
      raise InputError(f'{path} begins with {shown(",".join(first))}; expected the header "{",".join(header)}"')
  for number, fields in parsed:
    if len(fields) != len(header):
      problems.add(f'not {len(header)} fields', path, number)
    else:
      yield number, fields


def _csv_fields(line: str) -> list[str]:
  try:
    return next(csv.reader([line]))
  except csv.Error:
    return []


def _events(span: Span, problems: Problems) -> Iterable[tuple[int, Event]]:
  for number, (user, movie, _, time) in _rows(span, problems):
    if not (time.isascii() and time.isdigit() and len(time) < 20):
      problems.add('timestamp is not an integer', span.path, number, time)
    elif (microseconds := times.of_number(int(time), 'seconds')) is None:
      problems.add('timestamp out of range', span.path, number, time)
    else:
      yield number, (user, movie, microseconds)


def _texts(span: Span, problems: Problems) -> Iterable[tuple[int, tuple[str, Texts]]]:
  for number, (movie, title, genres) in _rows(span, problems):
    yield (
      number,
      (
        movie,
        {
          'title': clean(title),
          'brand': '',
          'description': '',
          'categories': ''
          if genres.startswith('(no genres')
          else CATEGORY_SEPARATOR.join(map(clean, genres.split('|'))),
        },
      ),
    )
