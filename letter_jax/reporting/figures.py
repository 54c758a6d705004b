"""The plots of a page, each for readers who prefer light pages and for those who prefer dark ones.

A plot is about as wide as a phone; a page puts several side by side where there is room. Equal input gives equal bytes
with the same version of matplotlib: nothing is read from the user's matplotlibrc, and nothing is dated.

Shapes: L levels, K codes per level, R rows, P points.
"""

import dataclasses
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from letter_jax.system.wording import counted

# Contrast of at least 3 to the background of either scheme (WCAG's bound for graphics).
COLOURS = ('#2f7fe0', '#d9622b', '#1f9a6b', '#a66ad9', '#b58200', '#d64a87', '#1593ac', '#7a8c1c')
OTHER = '#8a8a8a'
LIGHT_INK, DARK_INK = '#1b1d21', '#e7e8ea'  # --ink of page.css in the light and the dark scheme
_MARKERS = 'osD^vPX*'
_STYLE = {
  'svg.fonttype': 'none',
  'svg.hashsalt': 'letter_jax',
  'font.sans-serif': ['DejaVu Sans'],
  'font.size': 9,
  'axes.spines.top': False,
  'axes.spines.right': False,
  'legend.frameon': False,
  'legend.fontsize': 8,
  'axes.linewidth': 0.7,
  'text.parse_math': False,
}
_INK_KEYS = ('text.color', 'axes.edgecolor', 'axes.labelcolor', 'xtick.color', 'ytick.color')
_UNDATED = {key: None for key in ('Date', 'Creator', 'Format', 'Type')}
_MOST_POINTS = 300
_POINTS_DPI = 150  # of a map, whose thousands of points are pixels
_PIXELS_PER_INCH = 105  # the size of a plot where the page is wide enough

# label -> (x, y), float [P] each
Series = Mapping[str, tuple[np.ndarray, np.ndarray]]
# (value, low, high)
Estimate = tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Picture:
  """A plot for the two colour schemes, with a transparent background.

  Attributes:
    description: what the plot shows, for readers who cannot see it.
    light_svg: an SVG document with dark text, for a light page.
    dark_svg: the same plot with light text, for a dark page.
    width: the largest width to show it at, in CSS pixels.
    height: the height at that width, in CSS pixels.
  """

  description: str
  light_svg: bytes
  dark_svg: bytes
  width: int
  height: int


def lines(
  series: Series, x_label: str, best: float | None = None, dots: frozenset[str] = frozenset(), logarithmic: bool = False
) -> Picture:
  """Curves over a common x.

  Args:
    series: at most a few hundred points of each curve are drawn, evenly chosen.
    x_label: label of the x axis.
    best: an x to mark with a vertical line.
    dots: labels of the curves whose points are marked.
    logarithmic: whether the y axis is logarithmic.
  """

  def draw(figure: Figure) -> None:
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
      axes.axvline(best, color=LIGHT_INK, alpha=0.5, linewidth=0.8, linestyle=(0, (4, 3)))
    if logarithmic:
      axes.set_yscale('log')
      _plain(axes.yaxis)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel(x_label)
    _legend(figure, series)

  return _picture(f'curves of {", ".join(series)} over {x_label}', (4.0, 2.4), draw)


def intervals(
  rows: Sequence[str], series: Mapping[str, Sequence[Estimate]], x_label: str, zero: bool = False
) -> Picture:
  """A point and its interval for each row and series.

  Args:
    rows: labels of the y axis, from top to bottom.
    series: label -> one estimate per row.
    x_label: label of the x axis.
    zero: whether values may be negative, with a line at 0; otherwise the x axis starts at 0.
  """

  def draw(figure: Figure) -> None:
    axes = _axes(figure, 'x')
    for number, (label, estimates) in enumerate(series.items()):
      y = np.arange(len(rows)) + (number - (len(series) - 1) / 2) * 0.6 / len(series)
      colour = COLOURS[number % len(COLOURS)]
      for at, (_, low, high) in zip(y, estimates):
        axes.plot([low, high], [at, at], color=colour, linewidth=1.6, alpha=0.75, clip_on=False)
      axes.plot(
        [value for value, _, _ in estimates],
        y,
        _MARKERS[number % len(_MARKERS)],
        color=colour,
        markersize=4.5,
        label=label,
        clip_on=False,  # a marker at 0 is not cut in half
      )
    if zero:
      axes.axvline(0, color=LIGHT_INK, linewidth=0.8)
    else:
      axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis='y', length=0, pad=6)
    axes.set_xlabel(x_label)
    _legend(figure, series)

  height = 1.0 + len(rows) * max(0.3, 0.14 * len(series))
  return _picture(f'{x_label} of {", ".join(series)} in {", ".join(rows)}', (4.0, height), draw)


def heat_map(counts_LxK: np.ndarray) -> Picture:
  """The number of items on each code, int [L, K]: a row per level, most used codes first, dead codes left empty."""

  def draw(figure: Figure) -> None:
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

  title = f'items of each code in {counted(len(counts_LxK), "level")}'
  return _picture(title, (4.8, 0.9 + 0.3 * len(counts_LxK)), draw)


def scatter(
  places: Mapping[str, np.ndarray], colours: Mapping[str, str], crosses_Kx2: np.ndarray, faint_Kx2: np.ndarray
) -> Picture:
  """A map of points, with crosses on top.

  Args:
    places: category -> float [P, 2]; later categories are drawn over earlier ones.
    colours: category -> colour.
    crosses_Kx2: float, where crosses are drawn.
    faint_Kx2: float, where faint crosses are drawn.
  """

  def draw(figure: Figure) -> None:
    figure.set_layout_engine('none')
    axes = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    for category, points_Px2 in places.items():
      axes.plot(
        *points_Px2.T, 'o', color=colours[category], markersize=2.6, markeredgewidth=0, alpha=0.8, rasterized=True
      )
    for crosses, alpha in ((faint_Kx2, 0.35), (crosses_Kx2, 1)):
      axes.plot(*crosses.T, 'x', color=LIGHT_INK, markersize=4.5, markeredgewidth=0.9, alpha=alpha)
    axes.set_axis_off()
    axes.set_aspect('equal', 'datalim')

  return _picture(f'map of items of {", ".join(places)}', (6.0, 5.0), draw)


def category_colours(names: Sequence[str]) -> list[str]:
  """The colours of categories, in order; 'other' is grey."""
  return [OTHER if name == 'other' else COLOURS[number % len(COLOURS)] for number, name in enumerate(names)]


def _legend(figure: Figure, series: Mapping[str, object]) -> None:
  """A legend above the axes, in as many columns as fit; none for a single series."""
  if len(series) > 1:
    fits = sum(len(label) + 6 for label in series) <= 60
    columns = len(series) if fits else max(60 // (max(map(len, series)) + 6), 1)
    figure.legend(
      ncols=columns, loc='outside upper left', handlelength=1.2, handletextpad=0.5, columnspacing=1.0, borderaxespad=0.2
    )


def _plain(axis: Axis) -> None:
  """Plain numbers on a logarithmic axis: powers of ten would need math text, which labels from the data must not be."""
  axis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
  axis.set_minor_formatter(NullFormatter())


def _axes(figure: Figure, grid: Literal['x', 'y'] = 'y') -> Axes:
  axes = figure.add_subplot()
  axes.grid(axis=grid, color=LIGHT_INK, alpha=0.15, linewidth=0.6)
  axes.set_axisbelow(True)
  return axes


def _picture(description: str, inches: tuple[float, float], draw: Callable[[Figure], None]) -> Picture:
  """Calls `draw` with an empty figure, once: the dark scheme is the same drawing in its own text colour."""
  buffer = io.BytesIO()
  with matplotlib.style.context({**_STYLE, **dict.fromkeys(_INK_KEYS, LIGHT_INK)}, after_reset=True):
    figure = Figure(figsize=inches, layout='constrained')
    FigureCanvasSVG(figure)  # the layout measures texts as this format draws them
    draw(figure)
    # `savefig` would draw everything once more for the layout.
    if layout := figure.get_layout_engine():
      layout.execute(figure)
    figure.set_layout_engine(None)
    figure.savefig(buffer, format='svg', dpi=_POINTS_DPI, transparent=True, metadata=_UNDATED)
  light_svg = buffer.getvalue()
  dark_svg = re.sub(rf'(fill|stroke): {LIGHT_INK}'.encode(), rf'\1: {DARK_INK}'.encode(), light_svg)
  width, height = (round(side * _PIXELS_PER_INCH) for side in inches)
  return Picture(description, light_svg, dark_svg, width, height)
