"""Plots as SVG for the inside of a page: they take the page's text colour, so that they read by day and by night.

Each is about as wide as a phone; a page lays several side by side where there is room. Shapes: L levels, K codes.
"""

import html
import io
import re
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

# Contrast of at least 3 to white and to near-black (WCAG's bound for graphics).
COLOURS = ('#2f7fe0', '#d9622b', '#1f9a6b', '#a66ad9', '#b58200', '#d64a87', '#1593ac', '#7a8c1c')
OTHER = '#8a8a8a'
_INK = '#010203'  # stands for the page's text colour until the SVG is written
_MARKERS = 'osD^vPX*'
_SETTINGS = {
  'svg.fonttype': 'none',
  'font.size': 9,
  'text.color': _INK,
  'axes.edgecolor': _INK,
  'axes.labelcolor': _INK,
  'xtick.color': _INK,
  'ytick.color': _INK,
  'axes.spines.top': False,
  'axes.spines.right': False,
  'legend.frameon': False,
  'legend.fontsize': 8,
  'axes.linewidth': 0.7,
  'text.parse_math': False,
}
_MOST_POINTS = 300

# label -> (x, y), float [points] each
Series = Mapping[str, tuple[np.ndarray, np.ndarray]]
# (value, low, high); low and high are None where nothing is known of them
Estimate = tuple[float, float | None, float | None]


def lines(
  name: str,
  series: Series,
  x_label: str,
  best: float | None = None,
  dots: frozenset[str] = frozenset(),
  logarithmic: bool = False,
) -> str:
  """Curves over a common x, those in `dots` with their points; `best` is an x that an upright line marks."""

  def draw(figure):
    axes = _axes(figure)
    for number, (label, (x, y)) in enumerate(series.items()):
      keep = np.unique(np.linspace(0, len(x) - 1, min(len(x), _MOST_POINTS)).astype(int))
      axes.plot(
        np.asarray(x)[keep],
        np.asarray(y)[keep],
        color=COLOURS[number % len(COLOURS)],
        linewidth=1.4,
        label=label,
        marker='o' if label in dots else None,
        markersize=2.5,
      )
    if best is not None:
      axes.axvline(best, color=_INK, alpha=0.5, linewidth=0.8, linestyle=(0, (4, 3)))
    if logarithmic:
      axes.set_yscale('log')
      _plain(axes.yaxis)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel(x_label)
    _legend(figure, series)

  return _svg(name, f'curves of {", ".join(series)} over {x_label}', (4.0, 2.4), draw)


def intervals(
  name: str, rows: Sequence[str], series: Mapping[str, Sequence[Estimate]], x_label: str, zero: bool = False
) -> str:
  """A point and its interval for every row and series; rows from top to bottom, `zero` marks 0 on the x axis."""

  def draw(figure):
    axes = _axes(figure, 'x')
    for number, (label, estimates) in enumerate(series.items()):
      y = np.arange(len(rows)) + (number - (len(series) - 1) / 2) * 0.6 / len(series)
      colour = COLOURS[number % len(COLOURS)]
      for at, (_, low, high) in zip(y, estimates):
        if low is not None:
          axes.plot([low, high], [at, at], color=colour, linewidth=1.6, alpha=0.75)
      axes.plot(
        [value for value, _, _ in estimates],
        y,
        _MARKERS[number % len(_MARKERS)],
        color=colour,
        markersize=4.5,
        label=label,
      )
    if zero:
      axes.axvline(0, color=_INK, linewidth=0.8)
    else:
      axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis='y', length=0)
    axes.set_xlabel(x_label)
    _legend(figure, series)

  height = 1.0 + len(rows) * max(0.3, 0.14 * len(series))
  return _svg(name, f'{x_label} of {", ".join(series)} in {", ".join(rows)}', (4.0, height), draw)


def heat_map(name: str, counts_LxK: np.ndarray) -> str:
  """Items of every code; a row for each level, its codes from the most to the least used, dead codes left empty."""

  def draw(figure):
    axes = figure.add_subplot()
    sorted_LxK = np.sort(counts_LxK, axis=1)[:, ::-1]
    levels, codes = sorted_LxK.shape
    image = axes.imshow(
      np.ma.masked_equal(sorted_LxK, 0),
      aspect='auto',
      cmap='viridis',
      interpolation='none',
      norm=LogNorm(1, max(int(counts_LxK.max()), 2)),
      extent=(0, codes, levels + 0.5, 0.5),
    )
    axes.set_yticks(range(1, levels + 1), [f'level {level}' for level in range(1, levels + 1)])
    axes.tick_params(axis='y', length=0)
    axes.set_xlabel('codes, most used first')
    axes.spines[:].set_visible(True)
    bar = figure.colorbar(image, ax=axes, label='items', pad=0.02)
    _plain(bar.ax.yaxis)
    bar.outline.set_linewidth(0.5)

  return _svg(name, f'items of each code in {len(counts_LxK)} levels', (4.8, 0.9 + 0.3 * len(counts_LxK)), draw)


def scatter(
  name: str,
  places: Mapping[str, np.ndarray],
  colours: Mapping[str, str],
  crosses_Kx2: np.ndarray,
  faint_Kx2: np.ndarray,
) -> str:
  """A map: float [n, 2] places of each category in its colour, later ones over earlier ones; crosses over all."""

  def draw(figure):
    figure.set_layout_engine('none')
    axes = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    for category, points_Nx2 in places.items():
      axes.plot(*points_Nx2.T, 'o', color=colours[category], markersize=2.6, markeredgewidth=0, alpha=0.8)
    for crosses, alpha in ((faint_Kx2, 0.35), (crosses_Kx2, 1)):
      axes.plot(*crosses.T, 'x', color=_INK, markersize=4.5, markeredgewidth=0.9, alpha=alpha)
    axes.set_axis_off()
    axes.set_aspect('equal', 'datalim')

  return _svg(name, f'map of items of {", ".join(places)}', (6.0, 5.0), draw)


def category_colours(names: Sequence[str]) -> list[str]:
  """A colour for each category; 'other' is grey."""
  return [OTHER if name == 'other' else COLOURS[number % len(COLOURS)] for number, name in enumerate(names)]


def _legend(figure: Figure, series: Mapping) -> None:
  """Above the axes, in as many columns as there is room for."""
  if len(series) > 1:
    fits = sum(len(label) + 6 for label in series) <= 60
    columns = len(series) if fits else max(60 // (max(map(len, series)) + 6), 1)
    figure.legend(
      ncols=columns, loc='outside upper left', handlelength=1.2, handletextpad=0.5, columnspacing=1.0, borderaxespad=0.2
    )


def _plain(axis) -> None:
  """Numbers on a logarithmic axis as they are: powers would need markup that SVG text has not."""
  axis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
  axis.set_minor_formatter(NullFormatter())


def _axes(figure: Figure, grid: str = 'y'):
  axes = figure.add_subplot()
  axes.grid(axis=grid, color=_INK, alpha=0.15, linewidth=0.6)
  axes.set_axisbelow(True)
  return axes


def _svg(name: str, meaning: str, inches: tuple[float, float], draw) -> str:
  """What `draw` puts on a figure, as an <svg> whose ids start with `name`: the same bytes for the same input."""
  buffer = io.StringIO()
  with matplotlib.rc_context({**_SETTINGS, 'svg.hashsalt': name}):
    figure = Figure(figsize=inches, layout='constrained')
    draw(figure)
    figure.savefig(
      buffer, format='svg', transparent=True, metadata={key: None for key in ('Date', 'Creator', 'Format', 'Type')}
    )
  body = buffer.getvalue().replace(_INK, 'currentColor')
  width, height = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', body).groups()
  # Without namespaces, comments, rules for the whole page and fonts: all are the page's.
  body = re.sub(
    r'<!--.*?-->\s*|<style.*?</style>\s*', '', body[body.index('>', body.index('<svg')) + 1 :], flags=re.DOTALL
  )
  body = re.sub(r'font-family: [^;"]*;', '', re.sub(r'font: ([\d.]+px) [^;"]*', r'font-size: \1', body))
  body = body.replace('xlink:href', 'href')
  used = set(re.findall(r'(?:href="|url\()#([^")]+)', body))
  body = re.sub(r' id="([^"]*)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else '', body)
  body = re.sub(r'(href="|url\()#', lambda found: f'{found[0]}{name}-', body)
  body = re.sub(
    r'(?<= )((?:d|x|y|points)=")([^"]*)"', lambda found: found[1] + re.sub(r'(\.\d\d)\d+', r'\1', found[2]) + '"', body
  )
  return (
    f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(meaning)}" '
    f'style="max-width: {float(width) * 1.45:.0f}px">{body.strip()}'
  )
