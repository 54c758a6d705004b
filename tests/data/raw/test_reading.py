"""Reading a file in spans gives the same lines as reading it whole."""

import pytest

from letter_jax.data.raw.reading import Problems, Span, read_lines


@pytest.mark.parametrize(
  'content', [b'one\ntwo\r\n\nthree\n\n\nfour', b'\n\n', b'a' * 50 + b'\nb', 'é\n日本\n'.encode(), b'x\n' * 20]
)
@pytest.mark.parametrize('step', [1, 2, 3, 7, 100])
def test_spans_divide_the_lines(tmp_path, content, step):
  path = tmp_path / 'lines.txt'
  path.write_bytes(content)
  whole, in_spans = Problems(), Problems()
  expected = list(read_lines(Span(path), whole))
  lines = []
  for start in range(0, len(content), step):
    before = in_spans.lines
    lines += [
      (before + number, line)
      for number, line in read_lines(Span(path, start, min(start + step, len(content))), in_spans)
    ]
  assert lines == expected and in_spans.lines == whole.lines == len(content.splitlines())
  assert not whole.counts and not in_spans.counts
