"""A page as a test sees it: what is in it, and whether its tags are closed in order."""

import html.parser


class Reader(html.parser.HTMLParser):
  """Checks that tags are closed in order, and keeps what is needed of them."""

  VOID = ('meta', 'wbr')

  def __init__(self, content: str):
    super().__init__()
    self.open, self.ids, self.tags, self.attributes = [], [], [], []
    self.words: dict[str, str] = {}
    self._section = ''
    self.feed(content)
    self.close()
    assert not self.open, f'{self.open} is not closed'

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes += attrs
    self.ids += [value for key, value in attrs if key == 'id']
    if tag == 'section':
      self._section = dict(attrs)['id']
    if tag not in self.VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.handle_starttag(tag, attrs)
    self.open.pop()

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.words[self._section] = self.words.get(self._section, '') + data
