import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from letter_jax.reporting import figures

CURVE = (np.arange(5.0), np.arange(5.0) ** 2 + 1)


PLACES = np.random.default_rng(0).normal(size=(20, 2))
DRAWINGS = {
  'lines': lambda name: figures.lines(
    name, {'train': CURVE, 'validation': CURVE}, 'epoch', 3.0, frozenset({'validation'})
  ),
  'logarithmic': lambda name: figures.lines(name, {'share': CURVE}, 'codes', logarithmic=True),
  'intervals': lambda name: figures.intervals(name, ['a', 'b'], {'ours': [(0.5, 0.4, 0.6), (0.2, None, None)]}, 'x'),
  'heat_map': lambda name: figures.heat_map(name, np.array([[0, 3, 100], [1, 0, 5]])),
  'scatter': lambda name: figures.scatter(
    name, {'x': PLACES, 'other': PLACES + 1}, {'x': '#123456', 'other': '#654321'}, PLACES[:3], PLACES[3:5]
  ),
}


@pytest.mark.parametrize('kind', DRAWINGS)
def test_a_drawing_is_self_contained_and_takes_the_colour_of_the_page(kind):
  svg = DRAWINGS[kind]('plot')
  ElementTree.fromstring(svg)
  assert 'http' not in svg and '<style' not in svg and '<!--' not in svg and '<metadata' not in svg
  assert 'currentColor' in svg and '#010203' not in svg and '#000000' not in svg and 'mathdefault' not in svg
  assert 'font-family' not in svg


@pytest.mark.parametrize('kind', DRAWINGS)
def test_the_same_input_gives_the_same_bytes(kind):
  assert DRAWINGS[kind]('plot') == DRAWINGS[kind]('plot')


@pytest.mark.parametrize('kind', DRAWINGS)
def test_ids_are_those_of_the_drawing_and_what_is_referred_to_is_there(kind):
  mine, others = DRAWINGS[kind]('plot'), DRAWINGS[kind]('another')
  ids = re.findall(r' id="([^"]+)"', mine)
  assert len(ids) == len(set(ids)) and all(name.startswith('plot-') for name in ids)
  assert not set(ids) & set(re.findall(r' id="([^"]+)"', others))
  referred = re.findall(r'(?:href="|url\()#([^")]+)', mine)
  assert referred and set(referred) <= set(ids)


def test_labels_are_text_and_nothing_else():
  svg = figures.lines('plot', {'<script>$x^2$</script>': CURVE, '$\\frac{': CURVE}, '<b>')
  texts = [element.text for element in ElementTree.fromstring(svg).iter('text')]
  assert {'<script>$x^2$</script>', '$\\frac{', '<b>'} <= set(texts)


def test_an_interval_is_drawn_where_there_is_one():
  with_bounds, without = (
    figures.intervals('plot', ['a'], {'ours': [estimate]}, 'x') for estimate in ((0.5, 0.4, 0.6), (0.5, None, None))
  )
  colour = f'stroke: {figures.COLOURS[0]}'
  assert with_bounds.count(colour) == without.count(colour) + 1


def test_dead_codes_are_left_empty():
  """The picture of the codes is transparent where nothing lies on a code."""
  import base64
  import io

  from matplotlib.image import imread

  svg = figures.heat_map('plot', np.array([[0, 3, 100, 0]]))
  picture = min(
    (imread(io.BytesIO(base64.b64decode(data))) for data in re.findall(r'base64,([^"]+)"', svg)),
    key=lambda image: image.shape[0],
  )
  assert picture.shape[:2] == (1, 4)
  assert (picture[0, :, 3] > 0).tolist() == [True, True, False, False]


def luminance(colour: str) -> float:
  channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
  linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
  return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


@pytest.mark.parametrize('colour', (*figures.COLOURS, figures.OTHER))
@pytest.mark.parametrize('page', ('#fcfcfb', '#14161a'))
def test_colours_stand_out_by_day_and_by_night(colour, page):
  light, dark = sorted((luminance(colour), luminance(page)), reverse=True)
  assert (light + 0.05) / (dark + 0.05) >= 3
