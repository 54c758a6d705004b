"""--stage=recommend: users from a file or stdin, recommendations to a file or stdout."""

import collections
import contextlib
import functools
import itertools
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO, TextIO

from tqdm import tqdm

from letter_jax.cli.options import STANDARD, Options
from letter_jax.configuration import MeshConfig
from letter_jax.data.raw_ids import as_raw_id
from letter_jax.serving import jsonl
from letter_jax.serving.catalogue import SHOWN, Item
from letter_jax.serving.cold_items import read_cold_items
from letter_jax.serving.recommender import Choice, Recommender
from letter_jax.system import machine
from letter_jax.system.errors import InputError
from letter_jax.system.wording import counted


def recommend(workdir: pathlib.Path, options: Options, mesh: MeshConfig) -> None:
  """Answers every line of `options.input`.

  Raises:
    InputError: a wrong option, a file that cannot be read or written, an item of --allow that is unknown.
  """
  k = options.k or min(10, options.beam)
  if not 1 <= k <= options.beam:
    raise InputError(f'--k={k}; expected 1 to {options.beam}, the value of --beam')
  allow, deny = _read_item_list(options.allow), _read_item_list(options.deny)
  cold_items = read_cold_items(pathlib.Path(options.cold_items)) if options.cold_items else ()
  with _reading(options.input) as (lines, count), _writing(options.output, options.input) as write:
    recommender = Recommender.from_workdir(workdir, options.beam, cold_items, mesh)
    choice = _choose(recommender, allow, deny, options)
    cold = f', {len(cold_items):,} of them cold' if cold_items else ''
    _print(f'{counted(len(recommender.catalogue), "item")}{cold}, beam {options.beam}, {machine.devices()}')
    chunks = jsonl.ready_chunks(lines) if count is None else jsonl.whole_chunks(lines)
    answers = jsonl.recommend_lines(recommender, chunks, k, options.exclude_history, choice)
    quiet = True if options.output == STANDARD and sys.stdout.isatty() else None  # the answers are on the terminal
    with tqdm(total=count, desc='recommend', unit='user', disable=quiet, dynamic_ncols=True) as bar:
      totals, strange, seconds = _answer(answers, write, bar)
  _print('; '.join(_summary(totals, recommender.catalogue.apart(strange), seconds)))


def _answer(
  chunks: Iterator[list[jsonl.Answer]], write: Callable[[str], bool], bar: tqdm
) -> tuple[collections.Counter[str], list[Item], float]:
  """Writes the answers; counts lines by outcome, and the seconds since the first chunk, which compiles.

  Returns:
    The counts, the first few unknown items of the histories, and the seconds.
  """
  totals: collections.Counter[str] = collections.Counter()
  strange: list[Item] = []
  started: float | None = None
  for answers in chunks:
    if not write(''.join(f'{answer.line}\n' for answer in answers)):
      break
    good = sum(answer.good for answer in answers)
    totals.update(
      answered=good,
      failed=len(answers) - good,
      known=sum(answer.known for answer in answers),
      skipped=sum(len(answer.unknown) for answer in answers),
      wholly_unknown=sum(not answer.known and len(answer.unknown) > 0 for answer in answers),
      timed=0 if started is None else good,
    )
    strange += itertools.islice((item for answer in answers for item in answer.unknown), SHOWN - len(strange))
    started = time.perf_counter() if started is None else started
    bar.update(len(answers))
  return totals, strange, 0.0 if started is None else time.perf_counter() - started


def _summary(totals: collections.Counter[str], apart: str, seconds: float) -> Iterator[str]:
  """The parts of the last line; `apart` has examples of unknown items."""
  yield counted(totals['answered'], 'user')
  if totals['timed']:
    yield f'{totals["timed"] / seconds:,.0f} per second'
  if totals['skipped']:
    examples = f' ({apart})' if totals['skipped'] > totals['known'] else ''
    yield f'{counted(totals["skipped"], "unknown item")} of their histories skipped{examples}'
  if totals['wholly_unknown']:
    histories = 'history is' if totals['wholly_unknown'] == 1 else 'histories are'
    yield f'{totals["wholly_unknown"]:,} {histories} wholly unknown, answered with the popularity of first purchases'
  if totals['failed']:
    yield f'{counted(totals["failed"], "invalid line")}, with an "error" in the output'


def _choose(recommender: Recommender, allow: list[str] | None, deny: list[str] | None, options: Options) -> Choice:
  try:
    choice = recommender.among(allow, deny or (), options.skip_unknown)
  except InputError as error:
    where = f'--allow={options.allow}' if options.allow else f'--deny={options.deny}'
    raise InputError(f'{where}: {error}') from error
  catalogue = recommender.catalogue
  for flag, items in (('--allow', allow or ()), ('--deny', deny or ())):
    unknown = [item for item in items if catalogue.index_of(item) is None]
    if unknown:
      about = catalogue.about_unknown(unknown, len(items))
      _print(f'unknown: {len(unknown):,} of the {counted(len(items), "item")} of {flag}{about}')
  return choice


def _print(message: str) -> None:
  """Prints on stderr: stdout may be the recommendations."""
  tqdm.write(f'recommend: {message}', file=sys.stderr)


def _read_item_list(path: str) -> list[str] | None:
  """Raw ids, one per line; None where no file is named."""
  if not path:
    return None
  try:
    text = pathlib.Path(path).read_text(encoding='utf-8-sig')
  except (OSError, UnicodeDecodeError) as error:
    raise InputError(f'{path} cannot be read ({error}); expected the raw id of an item per line') from error
  items = list(filter(None, map(as_raw_id, text.split('\n'))))
  if not items:
    raise InputError(f'{path} names no item; expected the raw id of an item per line')
  return items


@contextlib.contextmanager
def _reading(path: str) -> Iterator[tuple[BinaryIO, int | None]]:
  """The lines, and their number where it can be known."""
  if path == STANDARD:
    yield sys.stdin.buffer, None
    return
  try:
    file = open(path, 'rb')  # noqa: SIM115, closed below
  except OSError as error:
    raise InputError(
      f'--input={path} cannot be read ({error}); expected a file of JSON lines, or - for stdin'
    ) from error
  with file:
    count = None
    if file.seekable():  # for the progress bar
      count = sum(1 for line in file if line.strip())
      file.seek(0)
    yield file, count


@contextlib.contextmanager
def _writing(path: str, read: str) -> Iterator[Callable[[str], bool]]:
  """A function that writes a text and returns whether anybody still reads."""
  if path == STANDARD:
    # JSON can hold half of a surrogate pair; it is written as JSON escapes it.
    sys.stdout.reconfigure(encoding='utf-8', errors='backslashreplace')  # type: ignore[union-attr]
    yield functools.partial(_write, sys.stdout, path)
    return
  if read != STANDARD and pathlib.Path(path).exists() and os.path.samefile(path, read):
    raise InputError(f'--output={path} is the input; expected a different file')
  try:
    file = open(path, 'w', encoding='utf-8', errors='backslashreplace')  # noqa: SIM115, closed below
  except OSError as error:
    raise InputError(f'--output={path} cannot be written ({error}); expected a file in an existing folder') from error
  with file:
    yield functools.partial(_write, file, path)


def _write(file: TextIO, path: str, text: str) -> bool:
  try:
    file.write(text)
    file.flush()
    return True
  except BrokenPipeError:  # the reader has enough
    os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())
    return False
  except OSError as error:
    raise InputError(
      f'--output={path} cannot be written ({error}); expected a disk with room; what was written stays'
    ) from error
