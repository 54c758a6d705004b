import base64
import importlib.resources
import io
import re
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread

from letter_jax.reporting import figures

CURVE = (np.arange(5.0), np.arange(5.0) ** 2 + 1)
PLACES = np.random.default_rng(0).normal(size=(20, 2))
PICTURES = {
  'lines': lambda: figures.lines({'train': CURVE, 'validation': CURVE}, 'epoch', 3.0, frozenset({'validation'})),
  'logarithmic': lambda: figures.lines({'share': CURVE}, 'codes', logarithmic=True),
  'intervals': lambda: figures.intervals(['a', 'b'], {'ours': [(0.5, 0.4, 0.6), (0.2, 0.2, 0.2)]}, 'x'),
  'heat_map': lambda: figures.heat_map(np.array([[0, 3, 100], [1, 0, 5]])),
  'scatter': lambda: figures.scatter(
    {'x': PLACES, 'other': PLACES + 1}, {'x': '#123456', 'other': '#654321'}, PLACES[:3], PLACES[3:5]
  ),
}
SVG = '{http://www.w3.org/2000/svg}'


@pytest.mark.parametrize('kind', PICTURES)
def test_a_picture_refers_to_nothing_outside_of_it(kind):
  picture = PICTURES[kind]()
  for svg in (picture.light_svg, picture.dark_svg):
    elements = list(ElementTree.fromstring(svg).iter())
    assert not {'script', 'foreignObject'} & {element.tag.removeprefix(SVG) for element in elements}
    attributes = [(key.rpartition('}')[2], value) for element in elements for key, value in element.attrib.items()]
    ids = {value for key, value in attributes if key == 'id'}
    links = [value for key, value in attributes if key == 'href']
    assert all(link.startswith('data:image/png;') or link.removeprefix('#') in ids for link in links)
    references = re.findall(r'url\(([^)]*)\)', ' '.join(value for _, value in attributes))
    assert all(reference.removeprefix('#') in ids for reference in references)


@pytest.mark.parametrize('kind', PICTURES)
def test_light_and_dark_differ_in_the_text_colour_alone(kind):
  picture = PICTURES[kind]()
  light, dark = picture.light_svg.decode(), picture.dark_svg.decode()
  assert figures.LIGHT_INK in light and figures.DARK_INK in dark
  assert figures.DARK_INK not in light and figures.LIGHT_INK not in dark
  # Neither has a background, nor text in matplotlib's default colour.
  assert '#ffffff' not in light + dark and '#000000' not in light + dark
  assert light == dark.replace(figures.DARK_INK, figures.LIGHT_INK)


def test_a_label_that_reads_like_the_text_colour_is_kept():
  picture = figures.lines({figures.LIGHT_INK: CURVE, 'other': CURVE}, 'epoch')
  assert f'>{figures.LIGHT_INK}</text>'.encode() in picture.dark_svg


def test_text_colours_are_those_of_the_page():
  css = importlib.resources.files('letter_jax.reporting').joinpath('page.css').read_text(encoding='utf-8')
  assert re.findall(r'--ink: (#\w+);', css) == [figures.LIGHT_INK, figures.DARK_INK]


@pytest.mark.parametrize('kind', PICTURES)
def test_equal_input_gives_equal_bytes_whatever_the_matplotlibrc(kind):
  first = PICTURES[kind]()
  with matplotlib.rc_context({'font.size': 20, 'axes.facecolor': 'red', 'svg.fonttype': 'path'}):
    assert PICTURES[kind]() == first


def test_labels_are_plain_text():
  picture = figures.lines({'<script>$x^2$</script>': CURVE, '$\\frac{': CURVE}, '<b>')
  texts = [element.text for element in ElementTree.fromstring(picture.light_svg).iter(f'{SVG}text')]
  assert {'<script>$x^2$</script>', '$\\frac{', '<b>'} <= set(texts)


def test_an_interval_is_drawn_from_its_low_to_its_high_end():
  picture = figures.intervals(['a'], {'ours': [(0.5, 0.4, 0.8)]}, 'x')
  colour = f'stroke: {figures.COLOURS[0]}'
  (path,) = re.findall(rf'<path d="M ([\d.]+) [\d.]+ \nL ([\d.]+) [\d.]+ \n"[^>]*{colour}', picture.light_svg.decode())
  low, high = map(float, path)
  (marker,) = re.findall(rf'<use [^>]*x="([\d.]+)"[^>]*fill: {figures.COLOURS[0]}', picture.light_svg.decode())
  assert (high - float(marker)) / (float(marker) - low) == pytest.approx(3, rel=1e-3)


def test_dead_codes_are_left_empty():
  """The image of the codes is transparent where a code has no items."""
  svg = figures.heat_map(np.array([[0, 3, 100, 0]])).light_svg.decode()
  image = min(
    (imread(io.BytesIO(base64.b64decode(data))) for data in re.findall(r'base64,([^"]+)"', svg)),
    key=lambda image: image.shape[0],
  )
  assert image.shape[:2] == (1, 4)
  assert (image[0, :, 3] > 0).tolist() == [True, True, False, False]


def test_a_map_of_thousands_of_items_stays_small():
  places = np.random.default_rng(0).normal(size=(3000, 2))
  picture = figures.scatter({'x': places}, {'x': figures.COLOURS[0]}, places[:0], places[:0])
  assert len(picture.light_svg) < 150_000


def luminance(colour: str) -> float:
  channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
  linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
  return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


@pytest.mark.parametrize('colour', (*figures.COLOURS, figures.OTHER))
@pytest.mark.parametrize('page', ('#fcfcfb', '#14161a'))
def test_colours_have_enough_contrast_on_light_and_dark_pages(colour, page):
  light, dark = sorted((luminance(colour), luminance(page)), reverse=True)
  assert (light + 0.05) / (dark + 0.05) >= 3
