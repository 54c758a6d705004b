"""Where recommendations go, and what is left when they end early."""

import os
import pathlib
import shlex
import signal
import subprocess
import threading

import pytest

from letter_jax.cli.output import Output
from letter_jax.system.errors import InputError


class Ended(Exception):
  pass


class InterruptedFile:
  """A file at whose flush Ctrl-C is pressed."""

  def __init__(self, file):
    self.write, self.close, self._flush = file.write, file.close, file.flush

  def flush(self):
    self._flush()
    signal.raise_signal(signal.SIGINT)


def test_a_file_appears_when_it_is_complete(tmp_path):
  final, partial = tmp_path / 'recs', tmp_path / 'recs.partial'
  final.write_text('of an earlier run\n')
  output = Output(str(final), '-')
  output.require_writable()
  with output:
    assert output.write(['a', 'ä\ud800']) and output.lines == 2
    assert final.read_text() == 'of an earlier run\n' and partial.read_text() == 'a\nä\\ud800\n'
  assert final.read_text() == 'a\nä\\ud800\n' and list(tmp_path.iterdir()) == [final]


def test_what_was_written_before_an_error_stays(tmp_path):
  final, partial = tmp_path / 'recs', tmp_path / 'recs.partial'
  for lines in ([], ['a', 'b']):
    output = Output(str(final), '-')
    output.require_writable()
    with pytest.raises(Ended), output:
      if lines:
        output.write(lines)
      raise Ended
    assert not final.exists() and partial.exists() == bool(lines)
  # The next one does not write over what is left.
  with pytest.raises(InputError, match='recs.partial holds the answers of a run that was ended'):
    Output(str(final), '-').require_writable()
  assert partial.read_text() == 'a\nb\n'


def test_an_interrupted_write_is_counted(tmp_path):
  """Nothing is lost that was written, and nothing is twice in the answers of a run that goes on."""
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  with pytest.raises(KeyboardInterrupt), Output(str(tmp_path / 'recs'), '-') as output:
    counted = []
    output._file = InterruptedFile(output._file)
    with output.uninterrupted():
      output.write(['a', 'b'])
      counted.append('a line after the write')
  signal.signal(signal.SIGINT, before)
  assert output.lines == 2 and counted and (tmp_path / 'recs.partial').read_text() == 'a\nb\n'


def test_a_link_stays_a_link(tmp_path):
  (tmp_path / 'there').mkdir()
  (tmp_path / 'link').symlink_to(tmp_path / 'there/recs')
  with Output(str(tmp_path / 'link'), '-') as output:
    output.write(['a'])
  assert (tmp_path / 'link').is_symlink() and (tmp_path / 'there/recs').read_text() == 'a\n'


def test_a_pipe_is_written_directly(tmp_path):
  os.mkfifo(tmp_path / 'pipe')
  read = []
  reader = threading.Thread(target=lambda: read.append((tmp_path / 'pipe').read_text()))
  reader.start()
  output = Output(str(tmp_path / 'pipe'), '-')
  output.require_writable()
  with output:
    output.write(['a'])
  reader.join()
  assert read == ['a\n'] and [path.name for path in tmp_path.iterdir()] == ['pipe']
  assert 'recs.partial' not in output.how_to_go_on(1)


def test_outputs_that_cannot_be(tmp_path):
  (tmp_path / 'users').write_text('{}\n')
  (tmp_path / 'recs.partial').write_text('{}\n')
  for output, read in (('users', 'users'), ('recs', 'recs.partial')):
    with pytest.raises(InputError, match=f'--output={tmp_path / output} is the input'):
      Output(str(tmp_path / output), str(tmp_path / read))
  for path in (tmp_path / 'nowhere/recs', tmp_path):
    with pytest.raises(InputError, match='cannot be written .* expected a file in a folder that can be written'):
      Output(str(path), '-').__enter__()


def test_a_full_disk_says_where_the_rest_is():
  said = '--output=/dev/full cannot be written .*No space left'
  with pytest.raises(InputError, match=said), Output('/dev/full', '-') as output:
    output.write(['a'])


@pytest.mark.parametrize('of_a_file', [True, False])
def test_how_to_go_on(tmp_path, of_a_file):
  """The command that is named gives the lines that are not answered."""
  users = tmp_path / 'the users'
  users.write_text('first\n\nsecond\nthird\n')
  output = Output(str(tmp_path / 'recs'), str(users) if of_a_file else '-')
  with pytest.raises(Ended), output:
    output.write(['a', 'b'])
    raise Ended
  said = output.how_to_go_on(3)
  assert said.startswith(f'{tmp_path / "recs.partial"} has 2 lines, the answers up to line 3 of ')
  if of_a_file:
    command = said.partition('(')[2].partition(')')[0]
    assert subprocess.run(shlex.split(command), capture_output=True, text=True, check=True).stdout == 'third\n'
  else:
    assert 'up to line 3 of the input' in said and 'recommend from line 4 on' in said
  assert pathlib.Path(said.partition(' ')[0]).read_text() == 'a\nb\n'
  assert output.how_to_go_on(0) == 'no line is answered; the same command starts again'
