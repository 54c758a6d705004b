"""--stage=recommend: users from a file or stdin, recommendations to a file or stdout."""

import collections
import contextlib
import itertools
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import BinaryIO

from tqdm import tqdm

from letter_jax.cli.log_lines import time_stamp
from letter_jax.cli.options import STANDARD, Options
from letter_jax.cli.output import Output
from letter_jax.configuration import MeshConfig
from letter_jax.data.raw_ids import as_raw_id
from letter_jax.evaluation import history
from letter_jax.serving import jsonl
from letter_jax.serving.catalogue import SHOWN, Item
from letter_jax.serving.cold_items import read_cold_items
from letter_jax.serving.recommender import Choice, Recommender
from letter_jax.system import machine
from letter_jax.system.errors import InputError, Preempted
from letter_jax.system.wording import counted
from letter_jax.training.preemption import PreemptionWatch


def recommend(workdir: pathlib.Path, options: Options, mesh: MeshConfig) -> None:
  """Answers every line of `options.input`.

  A file is written next to `options.output`, with `.partial` after its name, and renamed when it is complete.

  Raises:
    InputError: a wrong option, a file that cannot be read or written, an item of --allow that is unknown.
    Preempted: the process received SIGTERM; the message says which lines are answered.
  """
  if options.beam < 1:
    raise InputError(f'--beam={options.beam}; expected at least 1')
  k = min(10, options.beam) if options.k is None else options.k
  if not 1 <= k <= options.beam:
    raise InputError(f'--k={k}; expected 1 to {options.beam}, the value of --beam')
  if options.repeat and options.exclude_history is False:
    raise InputError(
      f'--repeat={options.repeat} names items that may repeat, and --exclude_history=false lets all; expected one of '
      'the two'
    )
  allow, deny, repeat = map(_read_item_list, (options.allow, options.deny, options.repeat))
  cold_items = read_cold_items(pathlib.Path(options.cold_items)) if options.cold_items else ()
  output = Output(options.output, options.input)
  with _reading(options.input) as (lines, count):
    output.require_writable()
    recommender = Recommender.from_workdir(workdir, options.beam, cold_items, mesh)
    choice = _choose(recommender, allow, deny, repeat, options)
    cold = f', {len(cold_items):,} of them cold' if cold_items else ''
    _print(f'{counted(len(recommender.catalogue), "item")}{cold}, beam {options.beam}, {machine.devices()}')
    _print(_about_history(recommender, options))
    chunks = jsonl.ready_chunks(lines) if count is None else jsonl.whole_chunks(lines)
    quiet = True if options.output == STANDARD and sys.stdout.isatty() else None  # the answers are on the terminal
    bar = tqdm(total=count, desc='recommend', unit='user', disable=quiet, dynamic_ncols=True)
    with PreemptionWatch() as watch, bar, output:
      asked = _Asked(chunks, count, watch)
      answers = jsonl.recommend_lines(recommender, iter(asked), k, options.exclude_history, choice)
      try:
        totals, strange, seconds = _answer(answers, asked, output, bar)
      except KeyboardInterrupt:
        raise KeyboardInterrupt(f'recommend: interrupted; {output.how_to_go_on(asked.last)}') from None
      if asked.ended_early:
        raise Preempted(f'recommend: terminated; {output.how_to_go_on(asked.last)}')
  _print('; '.join(_summary(totals, recommender.catalogue.apart(strange), seconds)))


class _Asked:
  """Chunks of lines until SIGTERM; what was passed on before is still answered.

  Attributes:
    last: number of the last line that is answered; 0 where none is.
    ended_early: whether there are, or may be, lines that were not passed on.
  """

  def __init__(self, chunks: Iterator[list[jsonl.NumberedLine]], count: int | None, watch: PreemptionWatch) -> None:
    """`count` is the number of lines, None where it is unknown."""
    self._chunks, self._left, self._watch = chunks, count, watch
    self._waiting: collections.deque[int] = collections.deque()
    self.last, self.ended_early = 0, False

  def __iter__(self) -> Iterator[list[jsonl.NumberedLine]]:
    for chunk in self._chunks:
      self._waiting.extend(number for number, _ in chunk)
      self._left = None if self._left is None else self._left - len(chunk)
      yield chunk
      if self._watch.requested():
        self.ended_early = self._left != 0
        return

  def answered(self, lines: int) -> None:
    """Notes that so many more lines are answered."""
    for _ in range(lines):
      self.last = self._waiting.popleft()


def _answer(
  chunks: Iterator[list[jsonl.Answer]], asked: _Asked, output: Output, bar: tqdm
) -> tuple[collections.Counter[str], list[Item], float]:
  """Writes the answers; counts lines by outcome, and the seconds since the first chunk, which compiles.

  Returns:
    The counts, the first few unknown items of the histories, and the seconds.
  """
  totals: collections.Counter[str] = collections.Counter()
  strange: list[Item] = []
  started: float | None = None
  for answers in chunks:
    with output.uninterrupted():
      if not output.write([answer.line for answer in answers]):
        break
      asked.answered(len(answers))
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


def _about_history(recommender: Recommender, options: Options) -> str:
  """Whether the items of a history are recommended, and why."""
  if options.repeat:
    return f'items of the history are left out, except those of --repeat={options.repeat}'
  excluded = recommender.exclude_history if options.exclude_history is None else options.exclude_history
  if options.exclude_history is not None:
    why = f'as --exclude_history={str(excluded).lower()} says'
  elif recommender.chosen is None:
    why = 'as no evaluation has chosen; --exclude_history=false keeps them'
  else:
    why = f'{history.choice_in_words(recommender.chosen)}; --exclude_history={str(not excluded).lower()} says otherwise'
  return f'items of the history are {"left out" if excluded else "kept"}: {why}'


def _choose(
  recommender: Recommender, allow: list[str] | None, deny: list[str] | None, repeat: list[str] | None, options: Options
) -> Choice:
  try:
    choice = recommender.among(allow, deny or (), options.skip_unknown, repeat)
  except InputError as error:
    where = f'--allow={options.allow}' if options.allow else f'--deny={options.deny}'
    raise InputError(f'{where}: {error}') from error
  catalogue = recommender.catalogue
  for flag, items in (('--allow', allow or ()), ('--deny', deny or ()), ('--repeat', repeat or ())):
    unknown = [item for item in items if catalogue.index_of(item) is None]
    if unknown:
      about = catalogue.about_unknown(unknown, len(items))
      _print(f'unknown: {len(unknown):,} of the {counted(len(items), "item")} of {flag}{about}')
  return choice


def _print(message: str) -> None:
  """Prints on stderr: stdout may be the recommendations."""
  tqdm.write(f'{time_stamp(sys.stderr)}recommend: {message}', file=sys.stderr)


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
    if sys.stdin is None:
      raise InputError('stdin is closed; expected users on it, or --input=FILE')
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
