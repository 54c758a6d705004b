"""Plain text from raw texts: markup goes, what only looks like markup stays."""

import time

import pytest

from letter_jax.data.raw.cleaning import category_path, clean


@pytest.mark.parametrize(
  'raw, plain',
  [
    ('Tom &amp;amp; Jerry', 'Tom & Jerry'),
    ('a<br/>b', 'a b'),
    ('3 < 4 and 5 > 2', '3 < 4 and 5 > 2'),
    (None, ''),
    (7, ''),
    (['one', None, ' two\n'], 'one two'),
    (['nan', 'one', ' None '], 'one'),
    ('\ud83d', '?'),
    ('Size <M> shirt & <b>bold</b>', 'Size <M> shirt & bold'),
    ('Size <S>, <Small> or <XL>', 'Size <S>, <Small> or <XL>'),
    ('&lt;M&gt; size', '<M> size'),
    ('&lt;b&gt;bold&lt;/b&gt; &amp;lt;i&amp;gt;italic&amp;lt;/i&amp;gt;', 'bold italic'),
    ('A<B and C>D', 'A<B and C>D'),
    ('x<y, y<b>z', 'x<y, y<b>z'),
    ('List<String> <a_1><b_2> <untitled> </s> <pad>', 'List<String> <a_1><b_2> <untitled> </s> <pad>'),
    ('<P>one<p>two</P><UL><LI>three <P>', 'one two three'),
    ('<p>one<p>two', 'one two'),
    ('<s>old</s> <S>', 'old'),
    ('<a href="x>y" target=_blank>link</a> <img src=\'z\' alt>', 'link'),
    ('<font color=red>red', 'red'),
    ('<td nowrap>cell</td><!-- note --><!DOCTYPE html>', 'cell'),
    ('R&Degree AT&T &copy 5&nbsp;l &#39;x&#x27; &unknown;', "R&Degree AT&T &copy 5 l 'x' &unknown;"),
    ('nan', ''),
    (' NaN\n', ''),
    ('None', ''),
    ('NULL', ''),
    ('<NA>', ''),
    ('Nan Madol', 'Nan Madol'),
    ('Nan', 'Nan'),
    ('<p>N/A</p>', ''),
  ],
)
def test_clean(raw, plain):
  assert clean(raw) == plain


@pytest.mark.parametrize('part', ['<a ', '<a b="', '<!--', '<', '<b a', '&amp', ' b'])
def test_the_time_is_in_proportion_to_the_length(part):
  def seconds(count):
    start = time.process_time()
    clean('<a' + part * count)
    return time.process_time() - start

  assert seconds(40_000) < 100 * max(seconds(4_000), 1e-3)  # 100 times, if it grew with the square


def test_category_path():
  assert category_path([['A', 'B &amp; C'], ['D']]) == 'A > B & C' and category_path([]) == category_path(None) == ''
  assert category_path(['A', '', 'B', 'None']) == 'A > B' and category_path('A') == 'A'
