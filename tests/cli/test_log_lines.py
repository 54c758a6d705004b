"""The time in front of messages, where nobody watches a terminal."""

import io
import re
import sys

from tqdm import tqdm

from letter_jax.cli.log_lines import stamped, time_stamp

STAMP = r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d '


class Terminal(io.StringIO):
  def isatty(self):
    return True


def test_every_message_has_the_time_and_a_table_has_none(capsys):
  with stamped():
    print('generator:', 'running')
    print('two\nlines', end='\n')
    tqdm.write('by tqdm')
    print('in ', end='')
    print('parts')
    print('', end='')
    print('\ntable 1\ntable 2')
    print('the end')
  print('outside')
  expected = ['generator: running', 'two\nlines', 'by tqdm', 'in parts']
  pattern = ''.join(f'{STAMP}{re.escape(message)}\n' for message in expected)
  said = capsys.readouterr().out
  assert re.fullmatch(f'{pattern}\ntable 1\ntable 2\n{STAMP}the end\noutside\n', said), said


def test_the_stream_is_otherwise_the_same(monkeypatch):
  stream = io.StringIO()
  monkeypatch.setattr(sys, 'stdout', stream)
  with stamped():
    assert sys.stdout is not stream and sys.stdout.getvalue() == '' and not sys.stdout.isatty()
  assert sys.stdout is stream


def test_a_terminal_has_no_time(monkeypatch):
  monkeypatch.setattr(sys, 'stdout', Terminal())
  with stamped():
    print('generator: running')
  assert sys.stdout.getvalue() == 'generator: running\n'
  assert time_stamp(sys.stdout) == '' and re.fullmatch(STAMP, time_stamp(io.StringIO()))
