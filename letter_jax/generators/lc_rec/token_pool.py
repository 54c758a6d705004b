"""The token pool: all texts, codes and fragments of templates that instructions are made of, tokenised once.

A piece is a stretch of the flat pool: the codes of an item, its title or description, a text about a user, or the
fixed text between two slots of a template.

Shapes: L levels, G templates, P parts of a template (a fragment and a slot each), K kinds of slots.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from letter_jax.data import ragged
from letter_jax.data.dataset import Interactions
from letter_jax.generators.lc_rec import prompts
from letter_jax.generators.lc_rec.prompts import KINDS, Template
from letter_jax.generators.lc_rec.text_tokenizer import TextTokenizer
from letter_jax.generators.lc_rec.user_texts import UserTexts

# Longer texts are truncated.
TITLE_TOKENS = 32
DESCRIPTION_TOKENS = 96
USER_TEXT_TOKENS = 128


@dataclasses.dataclass(frozen=True)
class InstructionData:
  """The data that instructions are made of.

  Attributes:
    interactions: of all users.
    texts: a mapping of `dataset.TEXT_FIELDS` to strings for every item; None if the data set has no texts.
    user_texts: texts about users, or None.
    semantic_ids: int [items, L].
    codebook_size: codes of a level.
    tokenizer: without the codes, so that a title that spells a code is not tokenised as one.
  """

  interactions: Interactions
  texts: Sequence[Mapping[str, str]] | None
  user_texts: UserTexts | None
  semantic_ids: np.ndarray
  codebook_size: int
  tokenizer: TextTokenizer


@dataclasses.dataclass(frozen=True)
class Pieces:
  """The pool of tokens: piece i is tokens[start[i]:start[i] + length[i]].

  Attributes:
    tokens: int32. The pieces of IDs and titles are followed by their separator, which is not part of the piece.
    start, length: int64.
    first: index of the first piece of 'nothing' (which is empty), 'id', 'title' and 'description' (one per item),
      'intention' and 'preference' (one per text), 'fragment' (of all templates, in order).
    id_separator, title_separator: number of tokens of each.
  """

  tokens: np.ndarray
  start: np.ndarray
  length: np.ndarray
  first: dict[str, int]
  id_separator: int
  title_separator: int


def gather_pieces(
  data: InstructionData, templates: Sequence[Template], user_texts: Mapping[str, Sequence[str]]
) -> Pieces:
  """Tokenises everything; `user_texts` are the texts about users by slot."""
  tokenizer, texts, levels = data.tokenizer, data.texts or (), data.semantic_ids.shape[1]
  id_separator, title_separator = (
    tokenizer.encode([text])[0] for text in (prompts.ID_SEPARATOR, prompts.TITLE_SEPARATOR)
  )
  codes_NxL = tokenizer.size + np.arange(levels) * data.codebook_size + np.asarray(data.semantic_ids)
  nothing = np.zeros(0, np.int32)
  fragments = [
    np.concatenate([nothing if place else prompts.bos_of(tokenizer), tokenizer.encode([fragment])[0]])
    for template in templates
    for place, fragment in enumerate(template.fragments)
  ]
  fragment_lengths = np.array([*map(len, fragments)])

  def tokenised(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    return tokenizer.encode([f' {text}' if text else '' for text in texts])

  families = {  # name -> (tokens, offsets, maximal length, separator)
    'nothing': (nothing, np.zeros(2, np.int64), 0, nothing),
    'id': (codes_NxL.ravel(), np.arange(len(codes_NxL) + 1) * levels, levels, id_separator),
    'title': (*tokenised([text['title'] for text in texts]), TITLE_TOKENS, title_separator),
    'description': (*tokenised([text['description'] for text in texts]), DESCRIPTION_TOKENS, nothing),
    **{slot: (*tokenised(of_slot), USER_TEXT_TOKENS, nothing) for slot, of_slot in user_texts.items()},
    'fragment': (np.concatenate(fragments), ragged.offsets(fragment_lengths), int(fragment_lengths.max()), nothing),
  }
  pool: list[np.ndarray] = []
  starts: list[np.ndarray] = []
  lengths: list[np.ndarray] = []
  first: dict[str, int] = {}
  for name, (tokens, offsets, limit, separator) in families.items():
    first[name] = sum(map(len, lengths))
    length = np.minimum(np.diff(offsets), limit)
    start = ragged.starts(length + len(separator))
    stretch = np.empty(int(length.sum() + len(length) * len(separator)), np.int32)
    stretch[ragged.ranges(start, length)] = tokens[ragged.ranges(offsets[:-1], length)]
    stretch[(start + length)[:, None] + np.arange(len(separator))] = separator
    starts.append(start + sum(map(len, pool)))
    pool.append(stretch)
    lengths.append(length)
  return Pieces(
    np.concatenate(pool),
    np.concatenate(starts),
    np.concatenate(lengths),
    first,
    len(id_separator),
    len(title_separator),
  )


@dataclasses.dataclass(frozen=True)
class TemplateTable:
  """G templates of at most P parts (a fragment and a slot each) as arrays; the last part has the response.

  Attributes:
    kind_GxP: int64, index into KINDS; the first parts are 'nothing' where a template has fewer than P.
    fragment_GxP: int64, pieces.
    fixed_G: int64, tokens of all fragments.
    history_G: int64, kind of the history, 0 for none.
    column_G: int64, where the history is among fragment, slot, fragment, slot, ...
    first_K: int64, for each of KINDS, the first piece of such a slot; the items of a history are pieces themselves.
    separator_K: int64, tokens between the items of a history.
  """

  kind_GxP: np.ndarray
  fragment_GxP: np.ndarray
  fixed_G: np.ndarray
  history_G: np.ndarray
  column_G: np.ndarray
  first_K: np.ndarray
  separator_K: np.ndarray


def tabulate(templates: Sequence[Template], pieces: Pieces) -> TemplateTable:
  """The table of these templates, whose fragments are in `pieces` in this order."""
  shape = (len(templates), max(len(template.slots) for template in templates))
  kind_GxP, fragment_GxP = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
  history_G, column_G = np.zeros(len(templates), np.int64), np.zeros(len(templates), np.int64)
  fragment = pieces.first['fragment']
  for index, template in enumerate(templates):
    parts = len(template.slots)
    kind_GxP[index, -parts:] = [KINDS.index(slot) for slot in template.slots]
    fragment_GxP[index, -parts:] = np.arange(fragment, fragment + parts)
    fragment += parts
    for place, slot in enumerate(template.slots):
      if slot.startswith('history'):
        history_G[index], column_G[index] = KINDS.index(slot), 2 * (shape[1] - parts + place) + 1
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
