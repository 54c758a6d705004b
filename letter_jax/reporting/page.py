"""One self-contained page of HTML, and its pieces: no script, nothing is loaded, light or dark as the reader has it.

Pieces are `Html`; any other value is text and is escaped where it enters.
"""

import html
import re
from collections.abc import Iterable, Sequence
from typing import Any


class Html(str):
  """Markup; what is not of this class is text."""


_STYLE = """
:root { color-scheme: light dark; --page: #fcfcfb; --ink: #1b1d21; --soft: #5d636e; --line: #dcdde0; --box: #f1f2f3;
  --good: #0f7a4d; --accent: #1f66c1 }
@media (prefers-color-scheme: dark) { :root { --page: #14161a; --ink: #e7e8ea; --soft: #a2a8b3; --line: #34383f;
  --box: #1e2127; --good: #52c793; --accent: #7ab2f5 } }
* { box-sizing: border-box }
html { -webkit-text-size-adjust: 100% }
body { margin: 0 auto; max-width: 70rem; padding: 1.5rem 1rem 4rem; background: var(--page); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, 'Segoe UI', Roboto, 'Open Sans', 'DejaVu Sans', sans-serif }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem }
h2 { font-size: 1.3rem; line-height: 1.25; margin: 3rem 0 .4rem; padding-top: .6rem; border-top: 1px solid var(--line) }
h3 { font-size: 1.02rem; margin: 1.6rem 0 .4rem }
p { margin: .4rem 0 .8rem; max-width: 46rem; overflow-wrap: anywhere }
a { color: var(--accent) }
.lead, .note, figcaption { color: var(--soft) }
.note, figcaption, nav { font-size: .88rem }
.wide + .note { margin-top: -.3rem }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1rem; margin: 1rem 0 }
.wide { overflow-x: auto; margin: .8rem 0; -webkit-overflow-scrolling: touch }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
th, td { padding: .38rem .8rem .38rem 0; text-align: right; vertical-align: top; white-space: nowrap;
  border-bottom: 1px solid var(--line) }
thead th { color: var(--soft); font-weight: 600; vertical-align: bottom }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--page); padding-right: 1.1rem }
tbody th { font-weight: 500; white-space: normal; min-width: 6.5rem }
table.words td, table.words th { text-align: left }
table.words td { white-space: normal; overflow-wrap: break-word; min-width: 7rem; max-width: 24rem }
.best { font-weight: 700; color: var(--good) }
.interval { display: block; font-size: .78rem; font-weight: 400; color: var(--soft); white-space: nowrap }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); gap: .4rem 1.8rem }
.beside { display: flex; flex-wrap: wrap; gap: 0 2.5rem; align-items: flex-start }
.beside > div { min-width: 0; max-width: 100% }
.beside .note { max-width: 25rem }
.beside > figure { flex: 1 1 19rem; max-width: 28rem }
figure { margin: .8rem 0 }
svg { width: 100%; height: auto; display: block }
svg text { font-family: inherit }
figcaption b { color: var(--ink) }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; list-style: none; padding: 0; margin: .5rem 0;
  font-size: .88rem }
.legend i { display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .35em }
.cards { display: grid; gap: 1rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 31rem), 1fr)) }
.card { background: var(--box); border-radius: .6rem; padding: .9rem 1rem; font-size: .9rem; min-width: 0 }
.card h3 { margin: 0 0 .3rem }
.card h4 { margin: .7rem 0 .2rem; font-size: .8rem; color: var(--soft); text-transform: uppercase;
  letter-spacing: .04em }
.card ol { margin: 0; padding-left: 1.7rem }
.card li { overflow-wrap: anywhere; padding: .08rem 0 }
.card p { margin: 0 }
.hit { font-weight: 700; color: var(--good) }
code, pre { font: .85em/1.5 ui-monospace, 'Cascadia Mono', Menlo, 'DejaVu Sans Mono', monospace }
.card code { color: var(--soft); font-size: .78em; white-space: nowrap }
pre { overflow-x: auto; background: var(--box); padding: .8rem; border-radius: .4rem }
summary { cursor: pointer; color: var(--accent); padding: .3rem 0 }
"""


def text(value: Any) -> Html:
  """Anything as markup: text escaped, markup as it is."""
  return value if isinstance(value, Html) else Html(html.escape(str(value)))


def join(pieces: Iterable[Any], between: str = '\n') -> Html:
  return Html(between.join(map(text, pieces)))


def tag(name: str, content: Any, **attributes: Any) -> Html:
  """`<name ...>content</name>`; `class_` is the attribute class."""
  said = ''.join(f' {key.rstrip("_")}="{text(value)}"' for key, value in attributes.items())
  return Html(f'<{name}{said}>{text(content)}</{name}>')


def paragraph(*parts: Any) -> Html:
  return tag('p', join(parts, ''))


def note(*parts: Any) -> Html:
  return tag('p', join(parts, ''), class_='note')


def number(value: float | None) -> str:
  """Four digits as in papers: .0889; 1.0000 from 1 on; a dash where there is none."""
  if value is None:
    return '–'
  said = f'{abs(value):.4f}'
  return ('−' if value < 0 and float(said) else '') + said.removeprefix('0' if said.startswith('0') else '')


def estimate(value: float | None, low: float | None = None, high: float | None = None, best: bool = False) -> Html:
  """A number over its interval, where there is one."""
  said = tag('span', number(value), class_='best') if best else text(number(value))
  return said if low is None else _over_interval(said, low, high)


def _over_interval(said: Any, low: float, high: float) -> Html:
  return join([said, tag('span', f'[{number(low)}, {number(high)}]', class_='interval')], '')


def difference(value: float, low: float, high: float) -> Html:
  """Over its interval; marked where that excludes 0."""
  return _over_interval(number(value) + ('' if low <= 0 <= high else '*'), low, high)


def table(header: Sequence[Any], rows: Iterable[Sequence[Any]], caption: Any = '', words: bool = False) -> Html:
  """The first cell of a row names it; `words`: cells are text rather than numbers."""
  head = tag('tr', join((tag('th', cell, scope='col') for cell in header), ''))
  body = join(
    tag('tr', join([tag('th', _breakable(row[0]), scope='row'), *(tag('td', cell) for cell in row[1:])], ''))
    for row in rows
  )
  made = tag('table', join([tag('thead', head), tag('tbody', body)]), **({'class_': 'words'} if words else {}))
  # The caption is outside of what scrolls, or a phone would show the first words of each of its lines.
  return join([tag('div', made, class_='wide'), *([note(caption)] if caption else [])])


def _breakable(name: Any) -> Html:
  """A long key such as 'generator.training.epochs' may go on in the next line, after a dot or an underscore."""
  return Html(re.sub(r'([._])(?=\w)', r'\1<wbr>', text(name)))


def figure(svg: str, title: Any, meaning: Any = '') -> Html:
  said = [tag('b', title), meaning] if meaning else [tag('b', title)]
  return tag('figure', join([Html(svg), tag('figcaption', join(said, ': '))]))


def figures(pieces: Iterable[Html]) -> Html:
  return tag('div', join(pieces), class_='figures')


def beside(*pieces: Any) -> Html:
  """Side by side where there is room; the parts of a table stay together."""
  return tag(
    'div', join(piece if piece.startswith('<figure') else tag('div', piece) for piece in pieces), class_='beside'
  )


def legend(names: Sequence[str], colours: Sequence[str]) -> Html:
  return tag(
    'ul',
    join(
      tag('li', join([tag('i', '', style=f'background: {colour}'), name], '')) for name, colour in zip(names, colours)
    ),
    class_='legend',
  )


def details(summary: Any, *content: Any) -> Html:
  return tag('details', join([tag('summary', summary), *content]))


def section(name: str, title: str, lead: Any, *content: Any) -> Html:
  """A part of the page with its own address, `#name`, and a sentence that says what it shows."""
  return tag('section', join([tag('h2', title), tag('p', lead, class_='lead'), *content]), id=name)


def page(title: str, subtitle: Any, sections: Sequence[tuple[str, str, Html]]) -> str:
  """The whole document; sections are (name, title, what `section` made)."""
  contents = join(tag('a', heading, href=f'#{name}') for name, heading, _ in sections)
  body = join(
    [
      tag('h1', title),
      tag('p', subtitle, class_='lead'),
      tag('nav', contents),
      *(content for _, _, content in sections),
    ]
  )
  return (
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    f'<title>{text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n'
  )
