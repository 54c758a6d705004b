"""What a language model is told and asked: six tasks that tie semantic IDs to words, and what each may be asked with.

The tasks are LC-Rec's (Zheng et al. 2024, section 3.3), the wording is our own. A template is one string; its last
slot is the response, all before it is the prompt:

    history_ids      the user's items, oldest first, as semantic IDs with ID_SEPARATOR between them
    history_titles   the same as titles, separated alike
    id, title, description    of one item
    intention, preference     what a user said

Fragments between the slots and the texts in the slots are turned to tokens apart and then put together. Codes are
tokens of their own, so a fragment between codes becomes the same tokens within a whole text. A text takes the space
before it along (' Steel Ruler'), as the words of byte-level BPE do.
"""

import dataclasses
import functools
import json
import pathlib
import string
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from letter_jax.data import ragged
from letter_jax.data.dataset import Interactions
from letter_jax.data.splits import training_examples
from letter_jax.generators.lc_rec.text_tokenizer import TextTokenizer
from letter_jax.system.errors import InputError

ID_SEPARATOR = ', '
TITLE_SEPARATOR = ','  # the space is the next title's
# Longer texts are cut.
TITLE_TOKENS = 32
DESCRIPTION_TOKENS = 96
USER_TEXT_TOKENS = 128
TEXT_SLOTS = ('history_titles', 'title', 'description', 'intention', 'preference')
SLOTS = ('history_ids', 'id', *TEXT_SLOTS)
KINDS = ('nothing', *SLOTS)  # of slots, as numbers

TEMPLATES = {
  'sequential': (
    'A customer bought these items, the oldest first: {history_ids}\nThe next purchase is {id}',
    'Purchases so far, in order of time: {history_ids}\nWhich item follows them? {id}',
    'We recommend one item to each visitor. This one has bought {history_ids}\nOur recommendation: {id}',
    'Read the shopping history and continue it by one item.\nHistory: {history_ids}\nContinuation: {id}',
    'Someone who took home {history_ids} will probably want {id}',
    'Items of one basket after another: {history_ids}\nThe basket after these holds {id}',
  ),
  'item_to_id': (
    'Our catalogue lists an item named {title}\nIts code is {id}',
    'Item name: {title}\nItem code: {id}',
    'Find the code for this product.\nName: {title}\nDetails: {description}\nCode: {id}',
    'The shop sells {title}\nThe maker writes: {description}\nThe shop files it under {id}',
    'What do we file under which code? The label reads {title}\nFiled under {id}',
  ),
  'id_to_item': (
    'The code {id} stands for the item named {title}',
    'Item code: {id}\nItem name: {title}',
    'Somebody ordered {id} from our catalogue. The parcel holds {title}',
    'What is on the label of {id}?\nLabel: {title}',
  ),
  'fused': (
    'A customer bought these items, the oldest first: {history_titles}\nThe code of the next purchase is {id}',
    'Names of the purchases so far: {history_titles}\nWhich code follows them? {id}',
    'A customer bought these items, the oldest first: {history_ids}\nThe name of the next purchase is {title}',
    'Codes of the purchases so far: {history_ids}\nName of the item that follows them: {title}',
  ),
  'search': (
    'A visitor says: {intention}\nThe item that we hand over is {id}',
    'Looked for: {intention}\nFound: {id}',
    'A customer who bought {history_ids} now says: {intention}\nThe item that we hand over is {id}',
    'Purchases so far: {history_ids}\nLooked for: {intention}\nFound: {id}',
  ),
  'preference': (
    "A customer bought these items, the oldest first: {history_ids}\nIn the customer's own words: {preference}",
    'Purchases: {history_ids}\nWhat they say about the taste behind them: {preference}',
    'Describe the customer whose orders were {history_ids}\nDescription: {preference}',
    'Why would somebody choose {history_ids}?\nBecause of this taste: {preference}',
  ),
}


def check_texts(weights: dict[str, float], texts, user_texts) -> None:
  """Raises InputError for a task with a weight that has none of the texts it is about."""
  for task, weight in weights.items():
    of_users = task in ('search', 'preference')
    if task != 'sequential' and (user_texts if of_users else texts) is None:
      raise InputError(
        f'config.generator.mixture.{task} is {weight} and there are no texts of '
        f'{"users; expected config.generator.user_texts" if of_users else "items; expected them"}, or 0'
      )
  if not weights:
    raise InputError('config.generator.mixture has only zeros; expected a task with a weight above 0')


@dataclasses.dataclass(frozen=True)
class Template:
  """A template in parts: fragments[0], slots[0], fragments[1], ..., fragments[-1], slots[-1], the response.

  A fragment before a text has lost its last space, which the text brings.
  """

  task: str
  fragments: tuple[str, ...]
  slots: tuple[str, ...]


@functools.cache
def templates_of(task: str) -> tuple[Template, ...]:
  return tuple(parse(task, text) for text in TEMPLATES[task])


def parse(task: str, text: str) -> Template:
  """Raises ValueError for a template that breaks the rules on top; they are the program's, not a user's."""
  fragments, slots = zip(*((fragment, slot) for fragment, slot, _, _ in string.Formatter().parse(text)))
  for fragment, slot in zip(fragments, slots):
    if slot not in SLOTS or not fragment or slot in TEXT_SLOTS and not fragment.endswith(' '):
      raise ValueError(f'{task}: the slot {slot} after "{fragment}" in "{text}"')
  if sum(slot.startswith('history') for slot in slots) > 1 or slots[-1].startswith('history'):
    raise ValueError(f'{task}: more than one history, or one as the response, in "{text}"')
  return Template(
    task,
    tuple(fragment.removesuffix(' ') if slot in TEXT_SLOTS else fragment for fragment, slot in zip(fragments, slots)),
    slots,
  )


class DecodingPrompt(NamedTuple):
  """A prompt as the search lays it out, all int32 [tokens]: prefix, items' codes with separators between, suffix."""

  prefix: np.ndarray
  separator: np.ndarray
  suffix: np.ndarray


def decoding_prompt(tokenizer: TextTokenizer) -> DecodingPrompt:
  """The first template of the sequential task, which training knows too. The prefix begins with bos if there is one."""
  template = templates_of('sequential')[0]
  prefix, suffix = (tokenizer.encode([fragment])[0] for fragment in template.fragments)
  return DecodingPrompt(np.concatenate([bos_of(tokenizer), prefix]), tokenizer.encode([ID_SEPARATOR])[0], suffix)


def bos_of(tokenizer: TextTokenizer) -> np.ndarray:
  """int32 [1], or [0] if the model has none."""
  return np.array([] if tokenizer.bos is None else [tokenizer.bos], np.int32)


@dataclasses.dataclass(frozen=True)
class UserTexts:
  """What users said, by their names in the interactions.

  Attributes:
    preferences: user -> texts about what the user likes.
    intentions: user -> texts about what the user looks for, in the last training interaction.
  """

  preferences: dict[str, tuple[str, ...]]
  intentions: dict[str, tuple[str, ...]]


def texts_by_slot(interactions: Interactions, texts: UserTexts | None) -> dict[str, tuple[np.ndarray, list[str]]]:
  """slot -> int64 [texts], the user of each, and the texts; those of users without interactions are left out."""
  number = {user: number for number, user in enumerate(interactions.users)}
  if texts is not None and not number.keys() & (texts.intentions.keys() | texts.preferences.keys()):
    raise InputError(
      'config.generator.user_texts names none of the users; expected names like '
      f'{", ".join(map(repr, interactions.users[:3]))}'
    )
  found = {}
  for slot, table in (('intention', texts and texts.intentions), ('preference', texts and texts.preferences)):
    pairs = [(number[user], text) for user, said in (table or {}).items() if user in number for text in said]
    found[slot] = np.array([user for user, _ in pairs], np.int64), [text for _, text in pairs]
  return found


@dataclasses.dataclass(frozen=True)
class Instructions:
  """Examples of a task, N of them, before a template is chosen.

  Attributes:
    start, end: int64 [N], the history items[start:end] of the interactions; may be empty.
    item: int64 [N], the item that all slots but the history are about; -1 if there is none.
    text: int64 [N], number of the user's text; -1 if there is none.
  """

  start: np.ndarray
  end: np.ndarray
  item: np.ndarray
  text: np.ndarray

  def __len__(self) -> int:
    return len(self.end)

  def take(self, indices: np.ndarray | slice) -> 'Instructions':
    return Instructions(self.start[indices], self.end[indices], self.item[indices], self.text[indices])


def instructions_of(task: str, interactions: Interactions, history_length: int, text_users: np.ndarray) -> Instructions:
  """All examples of a task, some of which may have no template that suits them. The users' last two items are in none.

  Args:
    history_length: items of a history, at most.
    text_users: int64, the user of each text of the task; without meaning for tasks that have none.
  """
  if task in ('sequential', 'fused'):
    examples = training_examples(interactions, history_length)
    return Instructions(examples.start, examples.end, examples.targets.astype(np.int64), np.full(len(examples), -1))
  if task in ('item_to_id', 'id_to_item'):
    items = np.arange(interactions.num_items)
    nowhere = np.zeros(len(items), np.int64)
    return Instructions(nowhere, nowhere, items, np.full(len(items), -1))
  first, last = interactions.offsets[text_users], interactions.offsets[text_users + 1] - 3  # last training item
  end, item = (
    (last, interactions.items[last].astype(np.int64)) if task == 'search' else (last + 1, np.full(len(last), -1))
  )
  return Instructions(np.maximum(first, end - history_length), end, item, np.arange(len(end)))


def read_user_texts(path: pathlib.Path) -> UserTexts:
  """LC-Rec's NAME.user.json; of the intentions only those of 'train' are read, the others tell of held-out items.

      {"user_explicit_preference": {user: text or [texts]}, "user_vague_intention": {"train": {user: text or [texts]}}}

  Raises:
    InputError: a file that cannot be read or is not this.
  """
  path = pathlib.Path(path)
  try:
    table = json.loads(path.read_text(encoding='utf-8-sig'))
  except (OSError, ValueError, RecursionError) as error:
    raise InputError(f'{path} cannot be read ({" ".join(str(error).split())}); expected JSON in UTF-8') from error
  return UserTexts(
    _texts_of_users(path, table, 'user_explicit_preference'),
    _texts_of_users(path, table, 'user_vague_intention', 'train'),
  )


def _texts_of_users(path: pathlib.Path, table, *keys: str) -> dict[str, tuple[str, ...]]:
  name = '.'.join(keys)
  for key in keys:
    if not isinstance(table, dict) or key not in table:
      raise InputError(f'{path}: the key {name} is missing; expected {{user: text or [texts]}} there')
    table = table[key]
  if not isinstance(table, dict):
    raise InputError(f'{path}: {name} is a {type(table).__name__}; expected {{user: text or [texts]}}')
  found = {}
  for user, texts in table.items():
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
      raise InputError(
        f'{path}: {name} of user {json.dumps(user)} is {json.dumps(texts)[:80]}; expected a text or a list of texts'
      )
    clean = (' '.join(text.split()).encode('utf-8', 'replace').decode('utf-8') for text in texts)
    found[user] = tuple(text for text in clean if text)
  return found


@dataclasses.dataclass(frozen=True)
class Pieces:
  """All that examples are made of: piece i is tokens[start[i]:start[i] + length[i]].

  Attributes:
    tokens: int32. Behind the pieces of IDs and titles stands their separator, which is no part of the piece.
    start, length: int64.
    first: number of the first piece of 'nothing' (which is empty), 'id', 'title' and 'description' (one per item),
      'intention' and 'preference' (one per text), 'fragment' (of all templates, in order).
    id_separator, title_separator: tokens of each.
  """

  tokens: np.ndarray
  start: np.ndarray
  length: np.ndarray
  first: dict[str, int]
  id_separator: int
  title_separator: int


def gather_pieces(
  texts: Sequence[Mapping[str, str]],
  semantic_ids: np.ndarray,
  codebook_size: int,
  tokenizer: TextTokenizer,
  templates: Sequence[Template],
  said: Mapping[str, list[str]],
) -> Pieces:
  """Turns everything to tokens; `said` has the users' texts by slot."""
  levels = semantic_ids.shape[1]
  id_separator, title_separator = (tokenizer.encode([text])[0] for text in (ID_SEPARATOR, TITLE_SEPARATOR))
  codes_NxL = tokenizer.size + np.arange(levels) * codebook_size + np.asarray(semantic_ids)
  nothing = np.zeros(0, np.int32)
  fragments = [
    np.concatenate([nothing if place else bos_of(tokenizer), tokenizer.encode([fragment])[0]])
    for template in templates
    for place, fragment in enumerate(template.fragments)
  ]

  def words(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    return tokenizer.encode([f' {text}' if text else '' for text in texts])

  families = {  # tokens, offsets, limit, separator
    'nothing': (nothing, np.zeros(2, np.int64), 0, nothing),
    'id': (codes_NxL.ravel(), np.arange(len(codes_NxL) + 1) * levels, levels, id_separator),
    'title': (*words([text['title'] for text in texts]), TITLE_TOKENS, title_separator),
    'description': (*words([text['description'] for text in texts]), DESCRIPTION_TOKENS, nothing),
    **{slot: (*words(of_users), USER_TEXT_TOKENS, nothing) for slot, of_users in said.items()},
    'fragment': (
      np.concatenate(fragments),
      ragged.offsets(np.array([*map(len, fragments)])),
      max(map(len, fragments)),
      nothing,
    ),
  }
  pool, starts, lengths, first = [], [], [], {}
  for name, (tokens, offsets, limit, separator) in families.items():
    first[name] = sum(map(len, lengths))
    length = np.minimum(np.diff(offsets), limit)
    start = ragged.starts(length + len(separator))
    filled = np.empty(int(length.sum() + len(length) * len(separator)), np.int32)
    filled[ragged.ranges(start, length)] = tokens[ragged.ranges(offsets[:-1], length)]
    filled[(start + length)[:, None] + np.arange(len(separator))] = separator
    starts.append(start + sum(map(len, pool)))
    pool.append(filled)
    lengths.append(length)
  return Pieces(*map(np.concatenate, (pool, starts, lengths)), first, len(id_separator), len(title_separator))


@dataclasses.dataclass(frozen=True)
class TemplateTable:
  """G templates of at most P parts (a fragment and a slot each) in numbers; the last part has the response.

  Attributes:
    kind_GxP: of KINDS; the first parts are 'nothing' where a template has fewer than P.
    fragment_GxP: pieces.
    fixed_G: tokens of all its fragments.
    history_G, column_G: kind of its history, 0 for none; where it stands among fragment, slot, fragment, slot, ...
    first_K: for each of KINDS, the first piece that stands in such a slot; items of a history are pieces themselves.
    separator_K: tokens between the items of a history.
  """

  kind_GxP: np.ndarray
  fragment_GxP: np.ndarray
  fixed_G: np.ndarray
  history_G: np.ndarray
  column_G: np.ndarray
  first_K: np.ndarray
  separator_K: np.ndarray


def tabulate(templates: Sequence[Template], pieces: Pieces) -> TemplateTable:
  """`pieces` has the fragments of these templates."""
  shape = (len(templates), max(len(template.slots) for template in templates))
  kind_GxP, fragment_GxP = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
  history_G, column_G = np.zeros(len(templates), np.int64), np.zeros(len(templates), np.int64)
  fragment = pieces.first['fragment']
  for number, template in enumerate(templates):
    parts = len(template.slots)
    kind_GxP[number, -parts:] = [KINDS.index(slot) for slot in template.slots]
    fragment_GxP[number, -parts:] = np.arange(fragment, fragment + parts)
    fragment += parts
    for place, slot in enumerate(template.slots):
      if slot.startswith('history'):
        history_G[number], column_G[number] = KINDS.index(slot), 2 * (shape[1] - parts + place) + 1
  first = {**pieces.first, 'history_ids': pieces.first['id'], 'history_titles': pieces.first['title']}
  separators = {'history_ids': pieces.id_separator, 'history_titles': pieces.title_separator}
  return TemplateTable(
    kind_GxP,
    fragment_GxP,
    pieces.length[fragment_GxP].sum(axis=1),
    history_G,
    column_G,
    np.array([first[kind] for kind in KINDS]),
    np.array([separators.get(kind, 0) for kind in KINDS]),
  )
