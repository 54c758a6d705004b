"""Reads CSV files with Python's csv module, so that a record that it cannot read costs itself and no other.

A file has one separator, the comma, and lines that end in LF or CR LF. A field may be quoted, and then hold commas,
line breaks and doubled quotes; in a field without quotes around it, a quote (24" screen) is a character like any other.

What this grammar does not allow is read as the csv module reads it, with one exception. A quote that is not closed
makes the module take the records that follow for text, up to the next quote. If a line of that text is a record by
itself, or begins one, the quote costs the record that it is in, and the next record starts on the next line.
"""

import csv
import pathlib
from collections.abc import Iterator

from letter_jax.data.raw.reading import Problems, read_blocks

LONGEST = 2**24  # characters of a field; the whole text after a quote that is never closed is one field
csv.field_size_limit(LONGEST)  # of this process

UNCLOSED = 'quote that is not closed in its record'
UNDOUBLED = 'quote inside quotes that is not doubled'
READ_UNDOUBLED = f'{UNDOUBLED} (kept as a character)'
CARRIAGE_RETURN = 'carriage return outside quotes'
TOO_LONG = f'field longer than {LONGEST:,} characters'

_HIDDEN = '\udc0d'  # stands for a carriage return; decoded text never holds it


def csv_header(path: pathlib.Path) -> list[str]:
  """The fields of the first record, [] if the file is empty.

  Raises:
    InputError: as `read_blocks`.
  """
  return _header(Lines(read_blocks(path, Problems())))


def csv_records(path: pathlib.Path, problems: Problems) -> Iterator[tuple[int, list[str]]]:
  """Yields (first line, fields) of the records after the header that have as many fields as the header.

  Args:
    path: the file, gzip or not, in UTF-8.
    problems: counts the other records, once each; and those that are read in spite of a quote.

  Raises:
    InputError: as `read_blocks`.
  """
  yield from records_after_header(Lines(read_blocks(path, problems)), path, problems)


def records_after_header(lines: 'Lines', path: pathlib.Path, problems: Problems) -> Iterator[tuple[int, list[str]]]:
  """`csv_records` of the lines of a file."""
  yield from records(lines, len(_header(lines)), path, problems)


def records(lines: 'Lines', width: int, path: pathlib.Path, problems: Problems) -> Iterator[tuple[int, list[str]]]:
  """`csv_records` of lines that have no header, with `width` fields a record."""
  reader = csv.reader(lines, strict=True)
  while True:
    line = lines.begin_record()
    try:
      fields = next(reader, None)
    except csv.Error as error:
      fields, kind = _malformed(lines, width, error)
    else:
      if fields is None:
        return
      if not fields or len(fields) == 1 and fields[0].isspace() and not lines.later():  # a blank line
        continue
      kind = None if len(fields) == width else f'not {width} fields'
    if len(fields) == width:
      yield line, fields
    elif any(_begins_record(later, width) for later in lines.later()):
      lines.go_behind_first()
      kind = UNCLOSED
    if kind:
      problems.add(kind, path, line)


class Lines:
  """The lines of a file as an iterator that can go back as far as the start of a record."""

  def __init__(self, blocks: Iterator[list[str]], first: int = 1):
    """`first` is the number of the first line."""
    self._blocks = blocks
    self._lines: list[str] = []
    self._start = 0  # of the record, in `_lines`
    self._next = 0  # in `_lines`
    self._before = first  # the number of the first of `_lines`

  def __iter__(self) -> 'Lines':
    return self

  def __next__(self) -> str:
    if self._next == len(self._lines):
      block = next(self._blocks)  # at the end, its StopIteration is this iterator's
      del self._lines[: self._start]
      self._before += self._start
      self._next -= self._start
      self._start = 0
      self._lines += block
    self._next += 1
    return self._lines[self._next - 1]

  def begin_record(self) -> int:
    """Starts a record at the next line, and returns the number of this line."""
    self._start = self._next
    return self._before + self._start

  def go_back(self) -> None:
    """Makes the first line of the record the next one again."""
    self._next = self._start

  def go_behind_first(self) -> None:
    """Makes the second line of the record the next one again."""
    self._next = self._start + 1

  def later(self) -> list[str]:
    """The lines of the record after its first, as far as they were read."""
    return self._lines[self._start + 1 : self._next]


def _header(lines: Lines) -> list[str]:
  fields: list[str] | None = ['']
  while fields is not None and not any(map(str.strip, fields)):
    lines.begin_record()
    try:
      fields = _parse(lines, strict=False)
    except csv.Error:  # too long
      lines.go_back()
      fields = next(lines).split(',')
  return fields or []


def _parse(lines: Lines, strict: bool) -> list[str] | None:
  """The fields of the record, read again, with carriage returns as characters like any other; None at the end."""
  lines.go_back()
  fields = next(csv.reader(map(_hide, lines), strict=strict), None)
  return None if fields is None else [field.replace(_HIDDEN, '\r') for field in fields]


def _hide(line: str) -> str:
  text = line.rstrip('\r\n')
  return text.replace('\r', _HIDDEN) + line[len(text) :]


def _malformed(lines: Lines, width: int, error: csv.Error) -> tuple[list[str], str | None]:
  """Reads a record that the strict reader refused with `error`.

  Returns:
    Its fields, [] if they cannot be told; and the kind of problem, None if there is none after all.
  """
  if 'new-line' in str(error):
    try:
      fields = _parse(lines, strict=True) or []
      return fields, None if len(fields) == width else CARRIAGE_RETURN
    except csv.Error as another:
      error = another
  if 'expected after' not in str(error):
    return [], UNCLOSED if 'end of data' in str(error) else TOO_LONG
  try:
    fields = _parse(lines, strict=False) or []
  except csv.Error:
    return [], TOO_LONG
  if len(fields) != width:
    return fields, UNDOUBLED
  if any(_begins_record(line, width) for line in lines.later()):
    return [], UNCLOSED
  return fields, READ_UNDOUBLED


def _begins_record(line: str, width: int) -> bool:
  """Whether a line is a record by itself, or ends inside quotes that it opens."""
  try:
    return len(next(csv.reader([_hide(line)], strict=True))) == width
  except csv.Error as error:
    return 'end of data' in str(error)
