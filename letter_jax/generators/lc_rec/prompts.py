"""The wording of instructions: six tasks that connect semantic IDs with texts, and the templates of each task.

The tasks are those of LC-Rec (Zheng et al. 2024, section 3.3); the wording is ours. A template is one string; its last
slot is the response, and everything before it is the prompt:

    history_ids      the user's items, oldest first, as semantic IDs with ID_SEPARATOR in between
    history_titles   the same items as titles with TITLE_SEPARATOR in between
    id, title, description    of one item
    intention, preference     a text about a user

The fragments between the slots and the texts in the slots are tokenised separately and then concatenated. Codes are
tokens by themselves, so a fragment between codes gives the same tokens as in the whole text. A text includes the space
before it (' Steel Ruler'), as the words of byte-level BPE do.
"""

import dataclasses
import functools
import string
from typing import NamedTuple

import numpy as np

from letter_jax.generators.lc_rec.text_tokenizer import TextTokenizer

ID_SEPARATOR = ', '
TITLE_SEPARATOR = ','  # the space after it belongs to the next title
TEXT_SLOTS = ('history_titles', 'title', 'description', 'intention', 'preference')
SLOTS = ('history_ids', 'id', *TEXT_SLOTS)
KINDS = ('nothing', *SLOTS)  # kinds of slots; arrays hold the index

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


@dataclasses.dataclass(frozen=True)
class Template:
  """A template in parts: fragments[0], slots[0], fragments[1], ..., fragments[-1], slots[-1], the response.

  A fragment before a text lacks its last space, which is part of the text.

  Attributes:
    task: a key of TEMPLATES.
    fragments: fixed texts, one before each slot.
    slots: of SLOTS.
  """

  task: str
  fragments: tuple[str, ...]
  slots: tuple[str, ...]


@functools.cache
def templates_of(task: str) -> tuple[Template, ...]:
  """The templates of a task, in the order of TEMPLATES."""
  return tuple(parse(task, text) for text in TEMPLATES[task])


def parse(task: str, text: str) -> Template:
  """The parts of a template; `task` is its task.

  Raises:
    ValueError: the template breaks the rules above. Templates are part of the program, so this is not an input error.
  """
  fragments, slots = zip(*((fragment, slot or '') for fragment, slot, _, _ in string.Formatter().parse(text)))
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
  """A prompt of the search, int32 [tokens]: prefix, codes of the items with separators in between, suffix."""

  prefix: np.ndarray
  separator: np.ndarray
  suffix: np.ndarray


def decoding_prompt(tokenizer: TextTokenizer) -> DecodingPrompt:
  """The first template of the sequential task, which is also used in training; starts with bos if there is one."""
  template = templates_of('sequential')[0]
  prefix, suffix = (tokenizer.encode([fragment])[0] for fragment in template.fragments)
  return DecodingPrompt(np.concatenate([bos_of(tokenizer), prefix]), tokenizer.encode([ID_SEPARATOR])[0], suffix)


def bos_of(tokenizer: TextTokenizer) -> np.ndarray:
  """The beginning of a text, int32 [1]; [0] if the model has none."""
  return np.array([] if tokenizer.bos is None else [tokenizer.bos], np.int32)
