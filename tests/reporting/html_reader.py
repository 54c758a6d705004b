"""Reads a page for a test: its text by section, its tags, and whether the tags are closed in order."""

import base64
import html.parser

SVG = 'data:image/svg+xml;base64,'


class Reader(html.parser.HTMLParser):
  """Parses a page and checks that its tags are closed in order.

  Attributes:
    ids: all ids, in order.
    tags: the names of all tags, in order.
    attributes: (name, value) of all attributes, in order.
    words: section id -> its text, escapes resolved; '' for the text outside of all sections.
    pictures: (light SVG, dark SVG) of each plot.
  """

  VOID = ('meta', 'wbr', 'img', 'source')

  def __init__(self, content: str):
    super().__init__()
    self.open, self.ids, self.tags, self.attributes = [], [], [], []
    self.words: dict[str, str] = {}
    self.pictures: list[tuple[bytes, bytes]] = []
    self._section = ''
    self._dark = b''
    self.feed(str(content))  # a concatenation with Markup would be escaped
    self.close()
    assert not self.open, f'{self.open} is not closed'

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes += attrs
    self.ids += [value for key, value in attrs if key == 'id']
    values = dict(attrs)
    if tag == 'section':
      self._section = values['id']
    if tag == 'source':
      assert values['media'] == '(prefers-color-scheme: dark)' and self.open[-1] == 'picture'
      self._dark = _svg(values['srcset'])
    if tag == 'img':
      assert values['alt'] and self.open[-1] == 'picture'
      self.pictures.append((_svg(values['src']), self._dark))
    if tag not in self.VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.handle_starttag(tag, attrs)
    self.open.pop()

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.words[self._section] = self.words.get(self._section, '') + data


def _svg(uri: str) -> bytes:
  assert uri.startswith(SVG)
  return base64.b64decode(uri.removeprefix(SVG), validate=True)
