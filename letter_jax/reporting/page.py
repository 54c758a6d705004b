"""A self-contained HTML page and its pieces: no scripts, nothing to load, light or dark as the reader's system is.

The markup is in `templates/` and the style in `page.css`. Pieces are `Markup`; any other value is text, and is escaped
where a template inserts it.
"""

import dataclasses
import importlib.resources
import pathlib
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jinja2
from markupsafe import Markup

from letter_jax.reporting.figures import Picture
from letter_jax.system import artifacts

_ENVIRONMENT = jinja2.Environment(
  loader=jinja2.PackageLoader('letter_jax.reporting'),
  autoescape=True,
  undefined=jinja2.StrictUndefined,
  trim_blocks=True,
  lstrip_blocks=True,
  keep_trailing_newline=True,
)


def _data_uri(svg: bytes) -> str:
  return f'data:image/svg+xml;base64,{b64encode(svg).decode()}'


def _key_parts(name: str) -> list[str]:
  """'training.batch_size' -> ['training.', 'batch_', 'size']: the places where a long key may be broken."""
  return re.split(r'(?<=[._])(?=\w)', name)


_ENVIRONMENT.filters.update(data_uri=_data_uri, key_parts=_key_parts)
_PIECES: Any = _ENVIRONMENT.get_template('pieces.html').module

# A table cell; everything but `Markup` is escaped.
Content = str | int | Markup


@dataclasses.dataclass(frozen=True)
class Section:
  """A part of a page with an address.

  Attributes:
    name: the address, `#name`.
    contents_title: the title in the page's table of contents.
    title: the heading.
    lead: a sentence or two on what the section shows and what to look for.
    content: the pieces, in order.
  """

  name: str
  contents_title: str
  title: str
  lead: str
  content: Sequence[Markup]


def render(template: str, values: Mapping[str, Any]) -> Markup:
  """A template of `templates/` filled with `values`."""
  return Markup(_ENVIRONMENT.get_template(template).render(values))


def document(title: str, subtitle: str, sections: Sequence[Section]) -> str:
  """The whole page."""
  css = importlib.resources.files('letter_jax.reporting').joinpath('page.css').read_text(encoding='utf-8')
  return str(render('page.html', {'title': title, 'subtitle': subtitle, 'sections': sections, 'css': Markup(css)}))


def write(path: pathlib.Path, content: str) -> None:
  """Writes a document atomically, in UTF-8."""

  def save(temporary: pathlib.Path) -> None:
    temporary.write_text(content, encoding='utf-8')

  artifacts.write(path, save)


def number(value: float) -> str:
  """Four decimals, without the zero before the point as in papers: .0889, 1.0000, −.0123."""
  digits = f'{abs(value):.4f}'
  return ('−' if value < 0 and float(digits) else '') + digits.removeprefix('0')


def interval(low: float, high: float) -> str:
  """Both ends of an interval in brackets."""
  return f'[{number(low)}, {number(high)}]'


def estimate(value: float, low: float, high: float, best: bool = False) -> Markup:
  """A number over its interval; `best` highlights the number."""
  return _PIECES.estimate(number(value), interval(low, high), best)


def difference(value: float, low: float, high: float) -> Markup:
  """A difference over its interval, with an asterisk where the interval excludes 0."""
  return _PIECES.estimate(number(value) + ('' if low <= 0 <= high else '*'), interval(low, high), False)


def heading(text: str) -> Markup:
  """A heading within a section."""
  return _PIECES.heading(text)


def paragraph(text: str) -> Markup:
  """Running text."""
  return _PIECES.paragraph(text)


def note(text: str) -> Markup:
  """A remark in small type."""
  return _PIECES.note(text)


def preformatted(text: str) -> Markup:
  """Text whose line breaks and spaces are kept."""
  return _PIECES.preformatted(text)


def table(
  header: Sequence[Content], rows: Iterable[Sequence[Content]], caption: str = '', words: bool = False
) -> Markup:
  """A table with a caption below it.

  Args:
    header: one cell per column.
    rows: one cell per column; the first names the row.
    caption: none if empty.
    words: whether the cells hold text, which is left-aligned, rather than numbers.
  """
  rows = list(rows)
  return _PIECES.table(header, rows, caption, words, _scrolls(header, rows, words))


def _scrolls(header: Sequence[Content], rows: Sequence[Sequence[Content]], words: bool) -> str:
  """On which screens a table scrolls, for `page.css`: narrower than '25' to '70' rem, 'always', or '' for none.

  The width is an estimate: in the type of a table, letters are about half a rem wide.
  """
  width = 2.0  # the margins of the page
  for place, title in enumerate(header):
    broken = words or place == 0  # between words
    longest = max(_longest(title, broken=False), *(_longest(row[place], broken) for row in rows), 0)
    width += max(6.5 if broken else 0.0, longest / 2) + 0.8
  step = max(int(-(-width // 5) * 5), 20)
  return '' if step == 20 else str(step) if step <= 70 else 'always'


def _longest(cell: Content, broken: bool) -> float:
  """The letters of the longest part of a cell that stays on one line; an interval has one of its own, in small type."""
  parts = re.split(r'<[^>]*>|[\s._]' if broken else r'<[^>]*>|\n', str(cell))
  return max(len(part) * (0.85 if part.startswith('[') else 1.0) for part in parts)


def figure(picture: Picture, title: str, caption: str = '') -> Markup:
  """A plot with a title and a caption below it."""
  return _PIECES.figure(picture, title, caption)


def figures(pieces: Iterable[Markup]) -> Markup:
  """Figures in a grid, as many columns as fit."""
  return _PIECES.grid(list(pieces))


def cards(pieces: Iterable[Markup]) -> Markup:
  """Boxes in a grid, as many columns as fit."""
  return _PIECES.cards(list(pieces))


def side_by_side(table: Markup, figure: Markup) -> Markup:
  """A table and a figure next to each other where the page is wide enough."""
  return _PIECES.side_by_side(table, figure)


def legend(colours: Mapping[str, str]) -> Markup:
  """The legend of a figure: label -> colour."""
  return _PIECES.legend(colours)


def details(summary: str, *content: Markup) -> Markup:
  """Pieces that the reader unfolds."""
  return _PIECES.details(summary, content)
