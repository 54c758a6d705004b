"""Instructions of all tasks, packed into rows of T tokens: the batch of a step is a pure function of (seed, step).

Shapes: B rows, T tokens of a row, S item responses of a row, Q text response tokens of a row, L levels, M examples, R
rows of an epoch.
"""

import threading

import numpy as np

from letter_jax.configuration import MixtureConfig
from letter_jax.data import ragged
from letter_jax.data.input_pipeline import Batching, TrainingBatches
from letter_jax.generators.lc_rec.instructions import InstructionPool, RenderedExamples
from letter_jax.generators.lc_rec.token_pool import InstructionData
from letter_jax.ops.rounding import ceil_div, round_up
from letter_jax.system.errors import InputError

DENSEST = 0.985  # share of a row that the packing tries to fill


class InstructionEpochs(TrainingBatches):
  """The batches of all epochs; a random-access source for `grain.MapDataset.source`.

  Attributes:
    per_epoch: batches of an epoch, the same number in every epoch.
    examples: examples of an epoch, of all processes.
    shortened: examples of the first epoch whose history lost its oldest items, because the row was too short.
    row_tokens, item_responses, text_tokens: T, S and Q, the shape of a row; S or Q is 0 where no task has such a
      response.
    rows: rows of a batch, over all processes, without padding rows.
    density: share of the tokens of the first epoch's rows that are not padding.
    parts: 1, batches do not depend on the number of processes.
  """

  parts = 1

  def __init__(
    self, data: InstructionData, mixture: MixtureConfig, history_length: int, row_tokens: int, batching: Batching
  ):
    """Draws and packs every epoch once, so that all get the same shape: some 0.1 s for 100,000 examples of each epoch.

    Args:
      data: what the instructions are made of.
      mixture: weights of the tasks.
      history_length: maximal number of items of a history.
      row_tokens: T; histories are shortened to fit.
      batching: how the examples are divided into batches.

    Raises:
      InputError: a task of the mixture that the data has no example or no texts of; an example that does not fit in T.
    """
    self._pool = InstructionPool(data, mixture, history_length, row_tokens)
    self._batching, self.row_tokens = batching, row_tokens
    self.examples = sum(task.drawn for task in self._pool.tasks)
    if not self.examples:
      raise InputError('the weights of config.generator.mixture leave no example in an epoch; expected larger ones')
    self._lock = threading.Lock()
    self._assignments: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    self._plan()
    rows = max(round(batching.batch_size * self._all_rows / self.examples), 1)
    self.rows = round_up(min(rows, self._all_rows), batching.accumulation_steps)
    self.per_epoch = ceil_div(self._all_rows, self.rows)
    self._rows_AxB = batching.local_rows(self.rows)

  def __len__(self) -> int:
    return self._batching.epochs * self.per_epoch

  def __getitem__(self, step: int) -> dict[str, np.ndarray]:
    """This process' rows of the batch of an optimizer step, int32; only responses have targets.

    With several micro-batches the leaves are [micro-batches, rows of each, ...].

    Returns:
      tokens_BxT: prompts and responses; of an item all codes but the last, of a text everything but its end.
      segments_BxT: 1 + slot of the example that a token belongs to, 0 on padding.
      positions_BxT: position within the example.
      items_BxS: the item of each item response, -1 in unused slots.
      item_places_BxS: index in the row of the prompt's last token, p: the output at p + l predicts code l. 0 in unused
        slots.
      text_targets_BxQ: tokens of text responses and their ends, -1 in unused slots.
      text_places_BxQ: index in the row of the output that predicts each of them, one before it. 0 in unused slots.
    """
    epoch, index = divmod(int(step), self.per_epoch)
    example_M, template_M, first_R = self._assignment(epoch)
    local_B = self._rows_AxB.ravel()
    row_B = local_B + index * self.rows
    used = np.flatnonzero((local_B >= 0) & (row_B < self._all_rows))
    first, counts = first_R[row_B[used]], np.diff(first_R)[row_B[used]]
    chosen = ragged.ranges(first, counts)
    row_M, slot_M = np.repeat(used, counts), ragged.positions(counts)
    examples, template_M = self._pool.examples.take(example_M[chosen]), template_M[chosen]
    rendered = self._pool.render(examples, template_M)
    begin_M = _before_in_row(row_M, rendered.length_M)
    within = ragged.positions(rendered.length_M)
    cells = np.repeat(row_M * self.row_tokens + begin_M, rendered.length_M) + within
    last_M = begin_M + rendered.prompt_M - 1
    is_item_M = rendered.text_tokens_M == 0
    item_cells = (row_M * self.item_responses + _before_in_row(row_M, is_item_M.astype(np.int64)))[is_item_M]
    texts = np.flatnonzero(~is_item_M)
    lengths = rendered.text_tokens_M[texts]
    text_cells = ragged.ranges(
      (row_M * self.text_tokens + _before_in_row(row_M, rendered.text_tokens_M))[texts], lengths
    )

    def filled(width: int, filling: int, cells: np.ndarray, values: np.ndarray) -> np.ndarray:
      leaf = np.full(len(local_B) * width, filling, np.int32)
      leaf[cells] = values
      shape = self._rows_AxB.shape if len(self._rows_AxB) > 1 else self._rows_AxB.shape[1:]
      return leaf.reshape(*shape, width)

    return {
      'tokens_BxT': filled(self.row_tokens, 0, cells, self._pool.input_tokens(examples, template_M, rendered)),
      'segments_BxT': filled(self.row_tokens, 0, cells, np.repeat(slot_M + 1, rendered.length_M)),
      'positions_BxT': filled(self.row_tokens, 0, cells, within),
      'items_BxS': filled(self.item_responses, -1, item_cells, examples.item[is_item_M]),
      'item_places_BxS': filled(self.item_responses, 0, item_cells, last_M[is_item_M]),
      'text_targets_BxQ': filled(self.text_tokens, -1, text_cells, self._pool.text_targets(rendered, texts)),
      'text_places_BxQ': filled(self.text_tokens, 0, text_cells, ragged.ranges(last_M[texts], lengths)),
    }

  def _plan(self) -> None:
    """Finds the smallest number of rows that every epoch fits in, and the shape that a row then needs."""
    rows = epoch = tokens = 0
    item_responses: list[int] = []
    text_tokens: list[int] = []
    while epoch < self._batching.epochs:
      rendered = self._draw(epoch)[2]
      if not rows:
        tokens = int(rendered.length_M.sum())
        # Two examples that are longer than half a row never share one.
        longer_than_half = int((rendered.length_M > self.row_tokens // 2).sum())
        rows = max(int(ceil_div(tokens, self.row_tokens * DENSEST)), longer_than_half)
        self.shortened = int(rendered.shortened_M.sum())
      row_M = assign_rows(rendered.length_M, rendered.text_tokens_M, rows, self.row_tokens)
      if row_M is None:  # all epochs again, with more rows
        rows, epoch, item_responses, text_tokens = rows + max(rows // 200, 1), 0, [], []
        continue
      item_responses.append(int(np.bincount(row_M, rendered.text_tokens_M == 0).max()))
      text_tokens.append(int(np.bincount(row_M, rendered.text_tokens_M).max()))
      epoch += 1
    self._all_rows, self.item_responses, self.text_tokens = rows, max(item_responses), max(text_tokens)
    self.density = tokens / (rows * self.row_tokens)

  def _draw(self, epoch: int) -> tuple[np.ndarray, np.ndarray, RenderedExamples]:
    """The examples of an epoch, int64 [M], the template of each, int64 [M], and their layout.

    All examples of a task are drawn before one is drawn again.
    """
    seed, examples, templates = self._batching.seed, [], []
    for number, task in enumerate(self._pool.tasks):
      begin, end = epoch * task.drawn, (epoch + 1) * task.drawn
      first_pass = begin // task.count
      passes = [
        np.random.default_rng((seed, number, 0, time)).permutation(task.count)
        for time in range(first_pass, ceil_div(end, task.count))
      ]
      chosen = np.concatenate([np.zeros(0, np.int64), *passes])[begin - first_pass * task.count :][: task.drawn]
      suits = task.suits[chosen]
      choice = np.random.default_rng((seed, number, 1, epoch)).random(len(chosen)) * suits.sum(axis=1)
      template = (suits.cumsum(axis=1) > choice[:, None]).argmax(axis=1)
      examples.append(task.first + chosen)
      templates.append(task.templates[template])
    # In random order, so that examples of the same length and of different tasks are mixed.
    order = np.random.default_rng((seed, 0, 2, epoch)).permutation(self.examples)
    example_M, template_M = np.concatenate(examples)[order], np.concatenate(templates)[order]
    return example_M, template_M, self._pool.render(self._pool.examples.take(example_M), template_M)

  def _assignment(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Examples and templates of an epoch by row, int64 [M] each; row r has those from first_R[r] to first_R[r + 1].

    Neighbouring epochs are cached.
    """
    with self._lock:
      if epoch not in self._assignments:
        example_M, template_M, rendered = self._draw(epoch)
        row_M = assign_rows(rendered.length_M, rendered.text_tokens_M, self._all_rows, self.row_tokens)
        assert row_M is not None  # as planned
        row_M = np.random.default_rng((self._batching.seed, 0, 3, epoch)).permutation(self._all_rows)[row_M]
        order, counts_R = np.argsort(row_M, kind='stable'), np.bincount(row_M, minlength=self._all_rows)
        neighbours = {other: cached for other, cached in self._assignments.items() if abs(other - epoch) == 1}
        assignment = example_M[order], template_M[order], ragged.offsets(counts_R)
        self._assignments = {**neighbours, epoch: assignment}
      return self._assignments[epoch]


def assign_rows(length_M: np.ndarray, text_tokens_M: np.ndarray, rows: int, row_tokens: int) -> np.ndarray | None:
  """Balances the rows: about the same number of tokens, of examples and of text tokens to predict in each.

  The examples are in random order. They are assigned in rounds, the longest first, at most one to a row in every round,
  to the emptiest rows. Of these rows, examples with a text response get those with the fewest text tokens so far, if
  they all fit there.

  Args:
    length_M: int64 [M], tokens of each example.
    text_tokens_M: int64 [M], text tokens to predict of each example, 0 without a text response.
    rows: number of rows.
    row_tokens: tokens that a row holds.

  Returns:
    int64 [M], the row of each example; None if they do not fit.
  """
  row_M = np.empty(len(length_M), np.int64)
  left = np.argsort(-length_M, kind='stable')
  free_R, text_tokens_R = np.full(rows, row_tokens), np.zeros(rows, np.int64)
  while len(left):
    turn = left[:rows]
    into = np.argsort(-free_R, kind='stable')[: len(turn)]
    texts = turn[text_tokens_M[turn] > 0]
    roomy = into[free_R[into] >= length_M[texts].max(initial=0)]
    if len(roomy) >= len(texts):
      text_into = roomy[np.argsort(text_tokens_R[roomy], kind='stable')[: len(texts)]]
      texts = texts[np.argsort(-text_tokens_M[texts], kind='stable')]
      turn = np.concatenate([texts, turn[text_tokens_M[turn] == 0]])
      into = np.concatenate([text_into, into[~np.isin(into, text_into)]])
    fits = free_R[into] >= length_M[turn]
    if 100 * fits.sum() < len(turn):  # the rows are practically full
      return None
    turn, into = turn[fits], into[fits]
    row_M[turn] = into
    free_R[into] -= length_M[turn]
    text_tokens_R[into] += text_tokens_M[turn]
    assigned_M = np.zeros(len(length_M), bool)
    assigned_M[turn] = True
    left = left[~assigned_M[left]]
  return row_M


def _before_in_row(row_M: np.ndarray, size_M: np.ndarray) -> np.ndarray:
  """int64 [M], the sum of the sizes before each example in the same row; `row_M` is ascending."""
  before_M = ragged.starts(size_M)
  return before_M - before_M[np.searchsorted(row_M, row_M)]
