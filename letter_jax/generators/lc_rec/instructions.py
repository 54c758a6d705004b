"""Instructions for a language model: the examples of each task, and the tokens of an example in a given template.

An example is a list of pieces of the token pool. Where its pieces are and how long it is follows without looking at
tokens, so the tokens of a batch are one gather.

Shapes: M examples, P parts of a template (a fragment and a slot each), I interactions, H examples with a history.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from letter_jax.configuration import MixtureConfig
from letter_jax.data import ragged
from letter_jax.data.dataset import Interactions
from letter_jax.data.splits import training_examples
from letter_jax.generators.lc_rec import prompts
from letter_jax.generators.lc_rec.prompts import KINDS
from letter_jax.generators.lc_rec.token_pool import InstructionData, gather_pieces, tabulate
from letter_jax.generators.lc_rec.user_texts import UserTexts, texts_by_slot
from letter_jax.system.errors import InputError


def check_texts(
  weights: Mapping[str, float], texts: Sequence[Mapping[str, str]] | bool | None, user_texts: UserTexts | None
) -> None:
  """Checks that there are texts for every task of the mixture.

  Args:
    weights: task -> weight, of the tasks with a weight above 0.
    texts: of the items; None if there are none. Only whether it is None matters.
    user_texts: texts about users, or None.

  Raises:
    InputError: there is no task, or none of the texts that a task needs.
  """
  for task, weight in weights.items():
    about_users = task in ('search', 'preference')
    if task != 'sequential' and (user_texts if about_users else texts) is None:
      raise InputError(
        f'config.generator.mixture.{task} is {weight} and there are no texts of '
        f'{"users; expected config.generator.user_texts" if about_users else "items; expected them"}, or 0'
      )
  if not weights:
    raise InputError('config.generator.mixture has only zeros; expected a task with a weight above 0')


@dataclasses.dataclass(frozen=True)
class Instructions:
  """M examples of a task, before a template is chosen for each.

  Attributes:
    start, end: int64 [M], the history items[start:end] of the interactions; may be empty.
    item: int64 [M], the item that all slots but the history are about; -1 if there is none.
    text: int64 [M], index of the user's text; -1 if there is none.
  """

  start: np.ndarray
  end: np.ndarray
  item: np.ndarray
  text: np.ndarray

  def __len__(self) -> int:
    return len(self.end)

  def take(self, indices: np.ndarray | slice) -> 'Instructions':
    """The examples at these indices, in this order."""
    return Instructions(self.start[indices], self.end[indices], self.item[indices], self.text[indices])


def instructions_of(task: str, interactions: Interactions, history_length: int, text_users: np.ndarray) -> Instructions:
  """All examples of a task, including examples that no template suits. No example has a user's last two items.

  Args:
    task: a key of `prompts.TEMPLATES`.
    interactions: of all users.
    history_length: maximal number of items of a history.
    text_users: int64, the user of each text of the task; ignored for tasks without texts about users.
  """
  if task in ('sequential', 'fused'):
    examples = training_examples(interactions, history_length)
    return Instructions(examples.start, examples.end, examples.targets.astype(np.int64), np.full(len(examples), -1))
  if task in ('item_to_id', 'id_to_item'):
    items = np.arange(interactions.num_items)
    empty = np.zeros(len(items), np.int64)
    return Instructions(empty, empty, items, np.full(len(items), -1))
  first, last = interactions.offsets[text_users], interactions.offsets[text_users + 1] - 3  # last training item
  end, item = (
    (last, interactions.items[last].astype(np.int64)) if task == 'search' else (last + 1, np.full(len(last), -1))
  )
  return Instructions(np.maximum(first, end - history_length), end, item, np.arange(len(end)))


@dataclasses.dataclass(frozen=True)
class Task:
  """A task of the mixture: examples[first:first + count] of the pool, of which an epoch has `drawn`.

  Attributes:
    templates: int64 [templates of the task], indices into the table.
    suits: bool [count, templates of the task], whether an example has a value for every slot.
  """

  first: int
  count: int
  drawn: int
  templates: np.ndarray
  suits: np.ndarray


@dataclasses.dataclass(frozen=True)
class RenderedExamples:
  """M examples laid out with one template each; all int64 but `shortened_M`.

  Attributes:
    pieces_Mx2P: fragment, slot, fragment, slot, ...; the slot of a history has the empty piece.
    start_M: oldest interaction of the history that fits.
    shortened_M: bool, whether older interactions were dropped.
    length_M: tokens of the example in its row: the prompt, and the response without its last code or its end, which
      are only predicted.
    prompt_M: tokens of the prompt.
    text_tokens_M: tokens to predict of a text response, its end included; 0 for an item response.
    needed_M: the smallest row that the example fits in, with only the newest item as history.
  """

  pieces_Mx2P: np.ndarray
  start_M: np.ndarray
  shortened_M: np.ndarray
  length_M: np.ndarray
  prompt_M: np.ndarray
  text_tokens_M: np.ndarray
  needed_M: np.ndarray


class InstructionPool:
  """All examples of a mixture and the pieces that they are made of.

  Attributes:
    examples: of all tasks, one task after the other.
    tasks: the tasks of the mixture that have a weight above 0.
  """

  examples: Instructions
  tasks: list[Task]

  def __init__(self, data: InstructionData, mixture: MixtureConfig, history_length: int, row_tokens: int):
    """Tokenises the data and lists the examples of each task.

    Args:
      data: see there.
      mixture: weights of the tasks.
      history_length: maximal number of items of a history.
      row_tokens: T, tokens of a row; histories are shortened to fit.

    Raises:
      InputError: a task that the data has no example or no texts of; an example that does not fit in a row.
    """
    self._items, self._row_tokens = data.interactions.items, row_tokens
    self._eos = data.tokenizer.eos
    weights = {task: weight for task, weight in dataclasses.asdict(mixture).items() if weight}
    check_texts(weights, data.texts, data.user_texts)
    by_slot = texts_by_slot(data.interactions, data.user_texts)
    templates = [template for task in weights for template in prompts.templates_of(task)]
    self._pieces = gather_pieces(data, templates, {slot: texts for slot, (_, texts) in by_slot.items()})
    self._table = tabulate(templates, self._pieces)
    self._length = self._pieces.length
    title_N = self._length[self._pieces.first['title'] : self._pieces.first['description']]
    title_I = title_N[self._items] if len(title_N) else np.zeros(len(self._items), np.int64)
    self._untitled_I = ragged.offsets(title_I == 0)
    ids, titles = (KINDS.index(slot) for slot in ('history_ids', 'history_titles'))
    # Tokens of all interactions before each one, in histories of either kind.
    self._costs = {
      ids: np.arange(len(self._items) + 1) * (data.semantic_ids.shape[1] + self._table.separator_K[ids]),
      titles: ragged.offsets(title_I + self._table.separator_K[titles]),
    }
    self.tasks = []
    parts: list[Instructions] = []
    for task, weight in weights.items():
      of_task = np.array([index for index, template in enumerate(templates) if template.task == task])
      slot = 'intention' if task == 'search' else 'preference'
      examples = instructions_of(task, data.interactions, history_length, by_slot[slot][0])
      suits = np.stack([self._suits(examples, template) for template in of_task], axis=1)
      usable = np.flatnonzero(suits.any(axis=1))
      if not len(usable):
        raise InputError(
          f'config.generator.mixture.{task} is {weight} and the data has no example of it; expected 0, '
          'or longer histories and texts that are not empty'
        )
      drawn = round(weight * len(usable))
      self.tasks.append(Task(sum(map(len, parts)), len(usable), drawn, of_task, suits[usable]))
      parts.append(examples.take(usable))
    self.examples = Instructions(
      *(np.concatenate([getattr(part, field.name) for part in parts]) for field in dataclasses.fields(Instructions))
    )
    self._check_room(list(weights))

  def render(self, examples: Instructions, template_M: np.ndarray) -> RenderedExamples:
    """Where the pieces of examples are and how long the examples get; looks at no token."""
    kind_MxP = self._table.kind_GxP[template_M]
    slot_MxP = self._slot_pieces(kind_MxP, examples)
    response_M = self._length[slot_MxP[:, -1]]
    is_item_M = kind_MxP[:, -1] == KINDS.index('id')
    text_tokens_M = np.where(is_item_M, 0, response_M + 1)
    response_M = response_M - is_item_M
    prompt_M = self._table.fixed_G[template_M] + self._length[slot_MxP[:, :-1]].sum(axis=1)
    start_M, needed_M = examples.start.copy(), prompt_M + response_M
    shortened_M = np.zeros(len(start_M), bool)
    history_M = self._table.history_G[template_M]
    for kind, cost_I in self._costs.items():
      separator = self._table.separator_K[kind]
      chosen = np.flatnonzero(history_M == kind)
      end, start = examples.end[chosen], start_M[chosen]
      # From item s on a history has cost_I[end] - cost_I[s] tokens, minus one separator.
      lowest = cost_I[end] - separator - (self._row_tokens - needed_M[chosen])
      long = np.flatnonzero(cost_I[start] < lowest)
      start[long] = np.minimum(np.searchsorted(cost_I, lowest[long]), end[long] - 1)
      start_M[chosen] = start
      shortened_M[chosen[long]] = True
      prompt_M[chosen] += cost_I[end] - cost_I[start] - separator
      needed_M[chosen] += cost_I[end] - cost_I[end - 1] - separator
    pieces_MxPx2 = np.stack([self._table.fragment_GxP[template_M], slot_MxP], axis=2)
    pieces_Mx2P = pieces_MxPx2.reshape(len(slot_MxP), 2 * slot_MxP.shape[1])
    return RenderedExamples(pieces_Mx2P, start_M, shortened_M, prompt_M + response_M, prompt_M, text_tokens_M, needed_M)

  def input_tokens(self, examples: Instructions, template_M: np.ndarray, rendered: RenderedExamples) -> np.ndarray:
    """int32 [sum of length_M], the tokens of the examples in their rows, one example after the other."""
    length_Mx2P = self._length[rendered.pieces_Mx2P]
    length_Mx2P[:, -1] -= rendered.text_tokens_M == 0
    # A history replaces its slot's one piece.
    history_M, column_M = self._table.history_G[template_M], self._table.column_G[template_M]
    row_H = np.flatnonzero(history_M)
    items_H = (examples.end - rendered.start_M)[row_H]
    counts = np.ones_like(length_Mx2P)
    counts[row_H, column_M[row_H]] = items_H
    start = np.repeat(self._pieces.start[rendered.pieces_Mx2P].ravel(), counts.ravel())
    length = np.repeat(length_Mx2P.ravel(), counts.ravel())
    first = ragged.starts(counts.ravel()).reshape(counts.shape)[row_H, column_M[row_H]]
    places = ragged.ranges(first, items_H)
    items = self._items[ragged.ranges(rendered.start_M[row_H], items_H)]
    piece = items + np.repeat(self._table.first_K[history_M[row_H]], items_H)
    separator_H = self._table.separator_K[history_M[row_H]]
    start[places], length[places] = self._pieces.start[piece], self._length[piece] + np.repeat(separator_H, items_H)
    length[first + items_H - 1] -= separator_H
    return self._pieces.tokens[ragged.ranges(start, length)]

  def text_targets(self, rendered: RenderedExamples, chosen: np.ndarray) -> np.ndarray:
    """int32 [sum of text_tokens_M[chosen]], text responses with their ends."""
    lengths = rendered.text_tokens_M[chosen]
    # The token after a text in the pool (there is at least a fragment) is replaced by the end.
    tokens = self._pieces.tokens[ragged.ranges(self._pieces.start[rendered.pieces_Mx2P[chosen, -1]], lengths)]
    tokens[ragged.offsets(lengths)[1:] - 1] = self._eos
    return tokens

  def _slot_pieces(self, kind_MxP: np.ndarray, examples: Instructions) -> np.ndarray:
    """int64 [M, P], the empty piece for histories."""
    of_item, of_text = (
      np.isin(np.array(KINDS), names)[kind_MxP]
      for names in (('id', 'title', 'description'), ('intention', 'preference'))
    )
    index_MxP = np.where(of_item, examples.item[:, None], examples.text[:, None])
    return np.where(of_item | of_text, self._table.first_K[kind_MxP] + index_MxP, 0)

  def _suits(self, examples: Instructions, template: int) -> np.ndarray:
    """bool [M], whether an example has a value for every slot of the template."""
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

  def _check_room(self, names: Sequence[str]) -> None:
    needed = []
    for name, task in zip(names, self.tasks):
      for template, suits_M in zip(task.templates, task.suits.T):
        examples = self.examples.take(task.first + np.flatnonzero(suits_M))
        rendered = self.render(examples, np.full(len(examples), template))
        needed.append((int(rendered.needed_M.max(initial=0)), name))
    largest, name = max(needed)
    if largest > self._row_tokens:
      raise InputError(
        f'config.generator.row_tokens is {self._row_tokens}; expected at least {largest}, which an example '
        f'of {name} needs with only the newest item as history; or mixture.{name} 0'
      )
