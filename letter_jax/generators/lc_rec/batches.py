"""Instructions of all tasks, side by side in rows of T tokens: the batch of a step is a pure function of (seed, step).

All words and codes stand in one flat pool of tokens; a piece is a stretch of it, an example is a list of pieces, a
batch is one gather. Where pieces lie and how long examples are is known without looking at tokens.

Shapes: B rows, T tokens of a row, S item responses of a row, Q text response tokens of a row, L levels, M examples, P
parts of a template (a fragment and a slot each), G templates, I interactions, R rows of an epoch.
"""

import dataclasses
import threading
from collections.abc import Sequence

import grain
import numpy as np

from letter_jax.configuration import MixtureConfig
from letter_jax.data import ragged
from letter_jax.data.dataset import Interactions
from letter_jax.data.input_pipeline import share
from letter_jax.generators.lc_rec import prompts
from letter_jax.generators.lc_rec.prompts import KINDS, Instructions, UserTexts
from letter_jax.generators.lc_rec.text_tokenizer import TextTokenizer
from letter_jax.ops.rounding import ceil_div, round_up
from letter_jax.system.errors import InputError

DENSEST = 0.985  # share of a row that the packing tries to fill


@dataclasses.dataclass(frozen=True)
class Task:
  """One of the mixture: examples[first:first + count] of the pool, of which an epoch has `drawn`.

  Attributes:
    templates: int64 [templates of the task], numbers.
    suits: bool [count, templates of the task], where an example has something for every slot.
  """

  first: int
  count: int
  drawn: int
  templates: np.ndarray
  suits: np.ndarray


@dataclasses.dataclass(frozen=True)
class Told:
  """How M examples are told by a template each; all int64 but `shortened_M`.

  Attributes:
    pieces_Mx2P: fragment, slot, fragment, slot, ...; the slot of a history has the empty piece.
    start_M: oldest interaction of the history that has room.
    shortened_M: bool, whether older ones had none.
    length_M: tokens of the example in its row: the prompt, and the response but for what is only predicted.
    prompt_M: tokens of the prompt.
    words_M: tokens to predict of a text response and its end; 0 for an item.
    needed_M: the least T that the example fits in, with the newest item alone for a history.
  """

  pieces_Mx2P: np.ndarray
  start_M: np.ndarray
  shortened_M: np.ndarray
  length_M: np.ndarray
  prompt_M: np.ndarray
  words_M: np.ndarray
  needed_M: np.ndarray


class InstructionPool:
  """All examples of the mixture and the pieces that they are made of.

  Attributes:
    examples: of all tasks, one task after the other.
    tasks: those of the mixture that have a weight.
  """

  def __init__(
    self,
    interactions: Interactions,
    texts: Sequence[dict[str, str]] | None,
    semantic_ids: np.ndarray,
    codebook_size: int,
    tokenizer: TextTokenizer,
    mixture: MixtureConfig,
    user_texts: UserTexts | None,
    history_length: int,
    row_tokens: int,
  ):
    """See `InstructionEpochs`."""
    self._items, self._row_tokens, self._levels = interactions.items, row_tokens, semantic_ids.shape[1]
    self._eos = tokenizer.eos
    weights = {task: weight for task, weight in dataclasses.asdict(mixture).items() if weight}
    prompts.check_texts(weights, texts, user_texts)
    said = prompts.texts_by_slot(interactions, user_texts)
    templates = [template for task in weights for template in prompts.templates_of(task)]
    self._pieces = prompts.gather_pieces(
      texts or [], semantic_ids, codebook_size, tokenizer, templates, {slot: words for slot, (_, words) in said.items()}
    )
    self._table = prompts.tabulate(templates, self._pieces)
    self._length = self._pieces.length
    titled = self._length[self._pieces.first['title'] : self._pieces.first['description']]
    title_I = titled[self._items] if len(titled) else np.zeros(len(self._items), np.int64)
    self._untitled_I = ragged.offsets(title_I == 0)
    ids, titles = (KINDS.index(slot) for slot in ('history_ids', 'history_titles'))
    # Tokens of all interactions before each, in histories of either kind.
    self._costs = {
      ids: np.arange(len(self._items) + 1) * (self._levels + self._table.separator_K[ids]),
      titles: ragged.offsets(title_I + self._table.separator_K[titles]),
    }
    self.tasks, parts = [], []
    for task, weight in weights.items():
      numbers = np.array([number for number, template in enumerate(templates) if template.task == task])
      slot = 'intention' if task == 'search' else 'preference'
      examples = prompts.instructions_of(task, interactions, history_length, said[slot][0])
      suits = np.stack([self._suits(examples, template) for template in numbers], axis=1)
      able = np.flatnonzero(suits.any(axis=1))
      if not len(able):
        raise InputError(
          f'config.generator.mixture.{task} is {weight} and the data has no example of it; expected 0, '
          'or longer histories and texts that are not empty'
        )
      self.tasks.append(Task(sum(map(len, parts)), len(able), round(weight * len(able)), numbers, suits[able]))
      parts.append(examples.take(able))
    self.examples = Instructions(
      *(np.concatenate([getattr(part, field.name) for part in parts]) for field in dataclasses.fields(Instructions))
    )
    self._check_room(list(weights))

  def lay_out(self, examples: Instructions, template_M: np.ndarray) -> Told:
    """Where the pieces of examples lie and how long they are; no token is looked at."""
    kind_MxP = self._table.kind_GxP[template_M]
    slot_MxP = self._slot_pieces(kind_MxP, examples)
    fed_M = self._length[slot_MxP[:, -1]]
    is_item_M = kind_MxP[:, -1] == KINDS.index('id')
    words_M = np.where(is_item_M, 0, fed_M + 1)
    fed_M = fed_M - is_item_M
    prompt_M = self._table.fixed_G[template_M] + self._length[slot_MxP[:, :-1]].sum(axis=1)
    start_M, needed_M = examples.start.copy(), prompt_M + fed_M
    shortened_M = np.zeros(len(start_M), bool)
    history_M = self._table.history_G[template_M]
    for kind, cost_I in self._costs.items():
      separator = self._table.separator_K[kind]
      chosen = np.flatnonzero(history_M == kind)
      end, start = examples.end[chosen], start_M[chosen]
      # From item s on a history has cost_I[end] - cost_I[s] tokens, and one separator less.
      lowest = cost_I[end] - separator - (self._row_tokens - needed_M[chosen])
      long = np.flatnonzero(cost_I[start] < lowest)
      start[long] = np.minimum(np.searchsorted(cost_I, lowest[long]), end[long] - 1)
      start_M[chosen] = start
      shortened_M[chosen[long]] = True
      prompt_M[chosen] += cost_I[end] - cost_I[start] - separator
      needed_M[chosen] += cost_I[end] - cost_I[end - 1] - separator
    pieces_MxPx2 = np.stack([self._table.fragment_GxP[template_M], slot_MxP], axis=2)
    pieces_Mx2P = pieces_MxPx2.reshape(len(slot_MxP), 2 * slot_MxP.shape[1])
    return Told(pieces_Mx2P, start_M, shortened_M, prompt_M + fed_M, prompt_M, words_M, needed_M)

  def tokens_of(self, examples: Instructions, template_M: np.ndarray, layout: Told) -> np.ndarray:
    """int32 [sum of length_M], one example after the other."""
    length_Mx2P = self._length[layout.pieces_Mx2P]
    length_Mx2P[:, -1] -= layout.words_M == 0
    # A history takes the place of its slot's one piece.
    history_M, column_M = self._table.history_G[template_M], self._table.column_G[template_M]
    row_H = np.flatnonzero(history_M)
    number_H = (examples.end - layout.start_M)[row_H]
    counts = np.ones_like(length_Mx2P)
    counts[row_H, column_M[row_H]] = number_H
    start = np.repeat(self._pieces.start[layout.pieces_Mx2P].ravel(), counts.ravel())
    length = np.repeat(length_Mx2P.ravel(), counts.ravel())
    first = ragged.starts(counts.ravel()).reshape(counts.shape)[row_H, column_M[row_H]]
    places = ragged.ranges(first, number_H)
    items = self._items[ragged.ranges(layout.start_M[row_H], number_H)]
    piece = items + np.repeat(self._table.first_K[history_M[row_H]], number_H)
    separator_H = self._table.separator_K[history_M[row_H]]
    start[places], length[places] = self._pieces.start[piece], self._length[piece] + np.repeat(separator_H, number_H)
    length[first + number_H - 1] -= separator_H
    return self._pieces.tokens[ragged.ranges(start, length)]

  def words_of(self, layout: Told, chosen: np.ndarray) -> np.ndarray:
    """int32 [sum of words_M[chosen]], text responses with their ends."""
    words = layout.words_M[chosen]
    # What stands behind a text in the pool, at least a fragment, gives way to the end.
    tokens = self._pieces.tokens[ragged.ranges(self._pieces.start[layout.pieces_Mx2P[chosen, -1]], words)]
    tokens[np.cumsum(words) - 1] = self._eos
    return tokens

  def _slot_pieces(self, kind_MxP: np.ndarray, examples: Instructions) -> np.ndarray:
    """int64 [M, P], the empty piece for histories."""
    of_item, of_text = (
      np.isin(np.array(KINDS), names)[kind_MxP]
      for names in (('id', 'title', 'description'), ('intention', 'preference'))
    )
    key_MxP = np.where(of_item, examples.item[:, None], examples.text[:, None])
    return np.where(of_item | of_text, self._table.first_K[kind_MxP] + key_MxP, 0)

  def _suits(self, examples: Instructions, template: int) -> np.ndarray:
    """bool [M], whether an example has something for every slot of the template."""
    kind_MxP = np.broadcast_to(self._table.kind_GxP[template], (len(examples), self._table.kind_GxP.shape[1]))
    history = KINDS[self._table.history_G[template]]
    empty_MxP = (kind_MxP > 0) & (kind_MxP != self._table.history_G[template])
    empty_MxP &= self._length[self._slot_pieces(kind_MxP, examples)] == 0
    suits_M = ~empty_MxP.any(axis=1)
    if history != 'nothing':
      suits_M &= examples.end > examples.start
    if history == 'history_titles':
      suits_M &= self._untitled_I[examples.end] == self._untitled_I[examples.start]
    return suits_M

  def _check_room(self, names: list[str]) -> None:
    needed = []
    for name, task in zip(names, self.tasks):
      for template, suits_M in zip(task.templates, task.suits.T):
        examples = self.examples.take(task.first + np.flatnonzero(suits_M))
        layout = self.lay_out(examples, np.full(len(examples), template))
        needed.append((int(layout.needed_M.max(initial=0)), name))
    most, name = max(needed)
    if most > self._row_tokens:
      raise InputError(
        f'config.generator.row_tokens is {self._row_tokens}; expected at least {most}, which an example '
        f'of {name} needs with the newest item alone for a history; or mixture.{name} 0'
      )


class InstructionEpochs:
  """The batches of all epochs; a random-access source for `grain.MapDataset.source`.

  Attributes:
    per_epoch: batches of an epoch, as many in every epoch.
    examples: of all processes in an epoch.
    shortened: examples of the first epoch whose history lost its oldest items, for want of room.
    row_tokens, responses, words: T, S and Q, the shape of a row; S or Q is 0 where no task has such a response.
    rows: rows of a batch, over all processes, without those that only fill up.
    density: share of the tokens of the first epoch's rows that are not padding.
    parts: 1, what is in a batch does not depend on the processes.
  """

  parts = 1

  def __init__(
    self,
    interactions: Interactions,
    texts: Sequence[dict[str, str]] | None,
    semantic_ids: np.ndarray,
    codebook_size: int,
    tokenizer: TextTokenizer,
    mixture: MixtureConfig,
    user_texts: UserTexts | None,
    history_length: int,
    row_tokens: int,
    batch_size: int,
    seed: int,
    epochs: int,
    micro_batches: int = 1,
    devices: int = 1,
    process: int = 0,
    processes: int = 1,
  ):
    """Draws and packs every epoch once, so that all get the same shape: some 0.1 s for 100,000 examples of each epoch.

    Args:
      texts: a mapping of dataset.TEXT_FIELDS to strings for every item; None if the data set has none.
      semantic_ids: int [items, L].
      tokenizer: without codes, lest a title that spells one became it.
      history_length: items of a history at most.
      row_tokens: T; histories are cut to it.
      batch_size: examples of a batch, about, over all micro-batches.
      devices: how many the rows of a micro-batch are split over; they are filled up with empty rows to a multiple.
      process, processes: which part of each micro-batch is assembled here.

    Raises:
      InputError: a task of the mixture that the data has no example or no texts of; T that an example has no room in.
    """
    self._pool = InstructionPool(
      interactions, texts, semantic_ids, codebook_size, tokenizer, mixture, user_texts, history_length, row_tokens
    )
    self._seed, self._epochs, self.row_tokens = seed, epochs, row_tokens
    self.examples = sum(task.drawn for task in self._pool.tasks)
    if not self.examples:
      raise InputError('the weights of config.generator.mixture leave no example in an epoch; expected larger ones')
    self._lock, self._kept = threading.Lock(), {}
    self._plan()
    rows = max(round(batch_size * self._all_rows / self.examples), 1)
    self.rows = round_up(min(rows, self._all_rows), micro_batches)
    self.per_epoch = ceil_div(self._all_rows, self.rows)
    self._wanted_AxB = share(self.rows, micro_batches, devices, process, processes)

  def __len__(self) -> int:
    return self._epochs * self.per_epoch

  def __getitem__(self, step: int) -> dict[str, np.ndarray]:
    """This process' rows of the batch of an optimizer step, int32; only responses are predicted.

    With several micro-batches the leaves are [micro-batches, rows of each, ...].

    Returns:
      tokens_BxT: prompts and responses; of an item all codes but the last, of a text all but its end.
      segments_BxT: 1 + slot of the example that a token belongs to, 0 on padding.
      positions_BxT: place within the example.
      items_BxS: the item of each item response, -1 in unused slots.
      item_places_BxS: where in the row its prompt ends: the place p + l predicts code l. 0 in unused slots.
      text_targets_BxQ: tokens of text responses and their ends, -1 in unused slots.
      text_places_BxQ: where in the row each is predicted, the place before it. 0 in unused slots.
    """
    epoch, index = divmod(int(step), self.per_epoch)
    example_M, template_M, first_R = self._dealt(epoch)
    wanted_B = self._wanted_AxB.ravel()
    number_B = wanted_B + index * self.rows
    there = np.flatnonzero((wanted_B >= 0) & (number_B < self._all_rows))
    first, counts = first_R[number_B[there]], np.diff(first_R)[number_B[there]]
    chosen = ragged.ranges(first, counts)
    row_M, slot_M = np.repeat(there, counts), ragged.positions(counts)
    examples, template_M = self._pool.examples.take(example_M[chosen]), template_M[chosen]
    layout = self._pool.lay_out(examples, template_M)
    begin_M = _before_in_row(row_M, layout.length_M)
    within = ragged.positions(layout.length_M)
    cells = np.repeat(row_M * self.row_tokens + begin_M, layout.length_M) + within
    last_M = begin_M + layout.prompt_M - 1
    is_item_M = layout.words_M == 0
    item_cells = (row_M * self.responses + _before_in_row(row_M, is_item_M.astype(np.int64)))[is_item_M]
    told = np.flatnonzero(~is_item_M)
    words = layout.words_M[told]
    word_cells = ragged.ranges((row_M * self.words + _before_in_row(row_M, layout.words_M))[told], words)

    def filled(width: int, filling: int, cells: np.ndarray, values: np.ndarray) -> np.ndarray:
      leaf = np.full(len(wanted_B) * width, filling, np.int32)
      leaf[cells] = values
      shape = self._wanted_AxB.shape if len(self._wanted_AxB) > 1 else self._wanted_AxB.shape[1:]
      return leaf.reshape(*shape, width)

    return {
      'tokens_BxT': filled(self.row_tokens, 0, cells, self._pool.tokens_of(examples, template_M, layout)),
      'segments_BxT': filled(self.row_tokens, 0, cells, np.repeat(slot_M + 1, layout.length_M)),
      'positions_BxT': filled(self.row_tokens, 0, cells, within),
      'items_BxS': filled(self.responses, -1, item_cells, examples.item[is_item_M]),
      'item_places_BxS': filled(self.responses, 0, item_cells, last_M[is_item_M]),
      'text_targets_BxQ': filled(self.words, -1, word_cells, self._pool.words_of(layout, told)),
      'text_places_BxQ': filled(self.words, 0, word_cells, ragged.ranges(last_M[told], words)),
    }

  def dataset(self) -> grain.MapDataset:
    """The batches as Grain knows them."""
    return grain.MapDataset.source(self)

  def _plan(self) -> None:
    """The fewest rows that every epoch fits in, and what a row has to hold then."""
    rows, epoch, responses, words = 0, 0, [], []
    while epoch < self._epochs:
      layout = self._drawn(epoch)[2]
      if not rows:
        used = int(layout.length_M.sum())
        # Two examples that are longer than half a row never share one.
        rows = max(int(ceil_div(used, self.row_tokens * DENSEST)), int((layout.length_M > self.row_tokens // 2).sum()))
        self.shortened = int(layout.shortened_M.sum())
      row_M = deal(layout.length_M, layout.words_M, rows, self.row_tokens)
      if row_M is None:  # all epochs again, with more rows
        rows, epoch, responses, words = rows + max(rows // 200, 1), 0, [], []
        continue
      responses.append(np.bincount(row_M, layout.words_M == 0).max())
      words.append(np.bincount(row_M, layout.words_M).max())
      epoch += 1
    self._all_rows, self.responses, self.words = rows, int(max(responses)), int(max(words))
    self.density = used / (rows * self.row_tokens)

  def _drawn(self, epoch: int) -> tuple[np.ndarray, np.ndarray, Told]:
    """int64 [M], the examples of an epoch, and their templates. A task's come all before one comes again."""
    examples, templates = [], []
    for number, task in enumerate(self._pool.tasks):
      begin, end = epoch * task.drawn, (epoch + 1) * task.drawn
      first_pass = begin // task.count
      passes = [
        np.random.default_rng((self._seed, number, 0, time)).permutation(task.count)
        for time in range(first_pass, ceil_div(end, task.count))
      ]
      chosen = np.concatenate([np.zeros(0, np.int64), *passes])[begin - first_pass * task.count :][: task.drawn]
      suits = task.suits[chosen]
      wish = np.random.default_rng((self._seed, number, 1, epoch)).random(len(chosen)) * suits.sum(axis=1)
      template = (suits.cumsum(axis=1) > wish[:, None]).argmax(axis=1)
      examples.append(task.first + chosen)
      templates.append(task.templates[template])
    # In random order, so that examples of one length and of different tasks meet by chance.
    order = np.random.default_rng((self._seed, 0, 2, epoch)).permutation(self.examples)
    example_M, template_M = np.concatenate(examples)[order], np.concatenate(templates)[order]
    return example_M, template_M, self._pool.lay_out(self._pool.examples.take(example_M), template_M)

  def _dealt(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Examples and templates of an epoch, row r those from first_R[r] to first_R[r + 1]; the latest two are kept."""
    with self._lock:
      if epoch not in self._kept:
        example_M, template_M, layout = self._drawn(epoch)
        row_M = deal(layout.length_M, layout.words_M, self._all_rows, self.row_tokens)
        row_M = np.random.default_rng((self._seed, 0, 3, epoch)).permutation(self._all_rows)[row_M]
        order, counts_R = np.argsort(row_M, kind='stable'), np.bincount(row_M, minlength=self._all_rows)
        dealt = example_M[order], template_M[order], ragged.offsets(counts_R)
        self._kept = {**{other: kept for other, kept in self._kept.items() if abs(other - epoch) == 1}, epoch: dealt}
      return self._kept[epoch]


def deal(length_M: np.ndarray, words_M: np.ndarray, rows: int, row_tokens: int) -> np.ndarray | None:
  """int64 [M], a row for each example: rows get about the same number of tokens, of examples, and of words to predict.

  The examples are in random order. They are dealt from the longest on, one to a row in every round, to the emptiest
  rows; those with words go to such of these rows as have fewest, if all of them have room.

  Returns:
    None where they do not fit.
  """
  row_M = np.empty(len(length_M), np.int64)
  left = np.argsort(-length_M, kind='stable')
  free_R, words_R = np.full(rows, row_tokens), np.zeros(rows, np.int64)
  while len(left):
    turn = left[:rows]
    into = np.argsort(-free_R, kind='stable')[: len(turn)]
    told = turn[words_M[turn] > 0]
    roomy = into[free_R[into] >= length_M[told].max(initial=0)]
    if len(roomy) >= len(told):
      told_into = roomy[np.argsort(words_R[roomy], kind='stable')[: len(told)]]
      told = told[np.argsort(-words_M[told], kind='stable')]
      turn = np.concatenate([told, turn[words_M[turn] == 0]])
      into = np.concatenate([told_into, into[~np.isin(into, told_into)]])
    fits = free_R[into] >= length_M[turn]
    if 100 * fits.sum() < len(turn):  # the rows are as good as full
      return None
    turn, into = turn[fits], into[fits]
    row_M[turn] = into
    free_R[into] -= length_M[turn]
    words_R[into] += words_M[turn]
    done_M = np.zeros(len(length_M), bool)
    done_M[turn] = True
    left = left[~done_M[left]]
  return row_M


def _before_in_row(row_M: np.ndarray, size_M: np.ndarray) -> np.ndarray:
  """The sum of the sizes that come before in the same row; `row_M` ascends."""
  before_M = ragged.starts(size_M)
  return before_M - before_M[np.searchsorted(row_M, row_M)]
