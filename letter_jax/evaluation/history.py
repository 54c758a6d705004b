"""The two protocols of a ranking: items of the user's history compete ('history in'), or are taken out of it.

Published figures differ in this, and not by a constant: where users never have an item again, taking the history out
can only help; where they do, it loses those targets. A figure means nothing without its protocol.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from letter_jax.data.splits import PAD_ITEM, Examples
from letter_jax.ops.rounding import next_power_of_two

# Keys of `metrics.json`: the figures of a model in each protocol, {'validation': metrics, 'test': metrics}.
PROTOCOLS = HISTORY_IN, HISTORY_OUT = 'history_in', 'history_out'
MAIN = 'protocol'  # the protocol of the figures 'validation' and 'test' of each model
SERVED = 'recommend'  # the protocol of `recommend`, of each model that it can use, as of `choose`
REPEATS = 'repeats'  # the share of the targets that the user had before, by split

Figures = dict[str, Any]


def in_both(history_in: Figures, history_out: Figures, exclude_history: bool) -> Figures:
  """A model's figures: those of both protocols, and on top those of the main one, `evaluation.exclude_history`."""
  main = history_out if exclude_history else history_in
  return {**main, HISTORY_IN: history_in, HISTORY_OUT: history_out}


def protocol_of(exclude_history: bool) -> str:
  """The protocol that excludes the items of the history, or the one that does not."""
  return HISTORY_OUT if exclude_history else HISTORY_IN


def choose(figures: Figures) -> dict[str, Any]:
  """The protocol that is better on validation, for recommendations: out of two equal ones, the history is excluded.

  Args:
    figures: of the model that recommends, as of `in_both`.

  Returns:
    {'exclude_history': bool, 'ndcg@10': {'history_in': value, 'history_out': value}}
  """
  ndcg = {protocol: figures[protocol]['validation']['ndcg@10'] for protocol in PROTOCOLS}
  return {'exclude_history': ndcg[HISTORY_OUT] >= ndcg[HISTORY_IN], 'ndcg@10': ndcg}


def excludes(choice: Mapping[str, Any] | None) -> bool:
  """Whether recommendations exclude the history by default: as `choose` has chosen, and where nothing has, they do."""
  return choice is None or choice['exclude_history']


def is_choice(value: Any) -> bool:
  """Whether a value, as JSON gives it back, is one that `choose` returns."""
  if not isinstance(value, dict) or not isinstance(value.get('exclude_history'), bool):
    return False
  ndcg = value.get('ndcg@10')
  return isinstance(ndcg, dict) and all(isinstance(ndcg.get(protocol), float | int) for protocol in PROTOCOLS)


def choice_in_words(choice: Mapping[str, Any]) -> str:
  """The two values that a choice was made by."""
  ndcg = choice['ndcg@10']
  return f'NDCG@10 on validation is {ndcg[HISTORY_OUT]:.4f} without them, {ndcg[HISTORY_IN]:.4f} with them'


def excluded_items(whole: Examples, width: int = 0) -> np.ndarray:
  """int32 [N, H], the distinct items of each history, and PAD_ITEM elsewhere.

  Args:
    whole: examples with whole histories (`Examples.whole_histories`).
    width: H, at least the longest history; 0 for the next power of two.
  """
  had_NxH = np.sort(whole.histories(width or next_power_of_two(int(whole.lengths.max(initial=1)))), axis=1)
  again_NxH = np.zeros(had_NxH.shape, bool)
  again_NxH[:, 1:] = had_NxH[:, 1:] == had_NxH[:, :-1]
  return np.where(again_NxH, PAD_ITEM, had_NxH)
