import pytest

from letter_jax.reporting import figures, page
from tests.reporting.html_reader import Reader

HOSTILE = '<script>alert("1")</script> & \'x\''
PICTURE = figures.Picture(HOSTILE, b'<svg/>', b'<svg />', 4, 3)
PIECES = {
  'heading': lambda: page.heading(HOSTILE),
  'paragraph': lambda: page.paragraph(HOSTILE),
  'note': lambda: page.note(HOSTILE),
  'preformatted': lambda: page.preformatted(HOSTILE),
  'table': lambda: page.table([HOSTILE, HOSTILE], [(HOSTILE, HOSTILE)], HOSTILE),
  'figure': lambda: page.figure(PICTURE, HOSTILE, HOSTILE),
  'legend': lambda: page.legend({HOSTILE: '#123456'}),
  'details': lambda: page.details(HOSTILE, page.note(HOSTILE)),
  'page': lambda: page.document(HOSTILE, HOSTILE, [page.Section('name', HOSTILE, HOSTILE, HOSTILE, [])]),
}


@pytest.mark.parametrize('kind', PIECES)
def test_text_is_escaped_once(kind):
  content = PIECES[kind]()
  read = Reader(content)
  assert '<script' not in content and 'script' not in read.tags
  assert HOSTILE in ''.join(read.words.values()) and '&amp;amp;' not in content


def test_markup_is_inserted_as_it_is():
  cell = page.estimate(0.25, 0.125, 0.5, best=True)
  table = page.table(['model', 'Recall@10'], [('ours', cell)])
  assert f'<td>{cell}</td>' in table and '<span class="best">.2500</span>' in cell and '[.1250, .5000]' in cell
  assert 'class="best"' not in page.estimate(0.25, 0.125, 0.5)
  for piece in (page.details('', table), page.side_by_side(table, table), page.figures([table]), page.cards([table])):
    assert table in piece and Reader(piece)


def test_a_difference_has_an_asterisk_where_its_interval_excludes_zero():
  assert '.1000*' in page.difference(0.1, 0.05, 0.2) and '−.1000*' in page.difference(-0.1, -0.2, -0.05)
  assert '*' not in page.difference(0.1, -0.05, 0.2) and '*' not in page.difference(0.0, 0.0, 0.0)


def test_a_long_key_may_be_broken_after_dots_and_underscores():
  assert '>training.<wbr>batch_<wbr>size</th>' in page.table(['key'], [('training.batch_size',)])


def test_a_page_is_written_as_utf_8(tmp_path):
  page.write(tmp_path / 'page.html', page.document('−.1 · é', '', []))
  assert '<title>−.1 · é</title>' in (tmp_path / 'page.html').read_text(encoding='utf-8')


def scrolls(table) -> str:
  """The class of the hint that a table scrolls, '' without one."""
  (*found,) = (value for key, value in Reader(table).attributes if key == 'class' and value.startswith('note scrolls'))
  return found[0].rpartition('-')[2] if found else ''


def test_a_wide_table_says_that_it_scrolls():
  cell = page.estimate(0.25, 0.125, 0.5)
  widths = [
    scrolls(page.table(['model', *['Recall@10'] * n], [('ours', *[cell] * n)], 'caption')) for n in range(1, 12)
  ]
  assert widths[0] == '' and widths[-1] == 'always'
  numbers = [int(width) for width in widths if width.isdigit()]
  assert len(numbers) > 5 and numbers == sorted(numbers) and set(numbers) <= set(range(25, 75, 5))
  long = page.table(['key', 'value'], [('a', 'x' * 300)])
  assert scrolls(long) == 'always'
  assert scrolls(page.table(['key', 'value'], [('a', 'some words ' * 30)], words=True)) == ''
  assert scrolls(page.table(['run'], [])) == ''


def test_every_class_of_a_hint_has_its_rule():
  style = page.document('', '', [])
  for step in range(25, 75, 5):
    assert f'@media (max-width: {step}rem) {{ .scrolls-{step} {{ display: block }} }}' in style
  assert '.scrolls-always { display: block }' in style and '.scrolls { display: none' in style
