"""Every model of a run, evaluated with the history in the ranking and out of it (`history.py`).

Figures are nested as in `metrics.json`: {'validation': metrics, 'test': metrics} of the main protocol, and the same of
both under 'history_in' and 'history_out'. Ranks of the test are keyed as in `ranks.npz`.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from letter_jax.data import splits
from letter_jax.data.dataset import Interactions
from letter_jax.data.splits import Examples, evenly_spaced
from letter_jax.decoding.fusion import FusedUserSearch
from letter_jax.decoding.user_search import UserSearch
from letter_jax.evaluation import history, metrics, popularity, ranks
from letter_jax.evaluation.evaluator import Evaluation, GeneratorEvaluator
from letter_jax.evaluation.history import Figures, excluded_items, in_both
from letter_jax.evaluation.list_evaluator import ListEvaluator, choose_weights
from letter_jax.evaluation.repeats import repeat_share
from letter_jax.system.wording import counted

Ranks = dict[str, np.ndarray]

WEIGHED = 5000  # validation users for the choice of the partners' weights

_USERS = 4096  # whose whole histories are arrays at a time


@dataclasses.dataclass(frozen=True)
class Split:
  """The users and targets of one split.

  Attributes:
    examples: with histories as a model sees them.
    whole: the same with whole histories, for taking them out of the ranking.
  """

  examples: Examples
  whole: Examples

  def batches(self) -> Iterator['Split']:
    """Parts of at most _USERS users, whose whole histories fit in memory as arrays."""
    for first in range(0, len(self.examples), _USERS):
      chosen = np.arange(first, min(first + _USERS, len(self.examples)))
      yield Split(self.examples.take(chosen), self.whole.take(chosen))


@dataclasses.dataclass(frozen=True)
class Evaluated:
  """A model's results.

  Attributes:
    figures: its entries in `metrics.json`.
    ranks: the ranks int32 [3, U] of the test, by protocol.
    lists: protocol -> items int32 and scores float32 [U, K], the lists of the test; -1 and -inf where there are fewer.
  """

  figures: Figures
  ranks: Ranks
  lists: dict[str, tuple[np.ndarray, np.ndarray]]


def validation_and_test(data: Interactions, history_length: int, users: int = 0) -> dict[str, Split]:
  """The splits 'validation' and 'test' of the users' whole interactions, or of `users` of them."""
  examples = {
    'validation': splits.validation_examples(data, history_length, users),
    'test': splits.test_examples(data, history_length, users),
  }
  return {split: Split(of_split, of_split.whole_histories(data)) for split, of_split in examples.items()}


def evaluate_generator(
  search: UserSearch, params: Any, users: Mapping[str, Split], longest: int, exclude_history: bool
) -> Evaluated:
  """A generator alone.

  Args:
    search, params: of the generator.
    users: as `validation_and_test` returns them.
    longest: the most items that any user has had.
    exclude_history: the main protocol (`config.evaluation.exclude_history`).
  """
  evaluator = GeneratorEvaluator(search)
  evaluations: dict[str, Evaluation] = {}
  for split, of_split in users.items():
    shortened = evaluator.shortened(of_split.examples)
    if shortened:
      print(
        f'evaluate: the oldest items of {shortened:,} of {counted(len(of_split.examples), "history", "histories")} do '
        'not fit in the context of the model',
        flush=True,
      )
    evaluations[split] = evaluator.evaluate(params, of_split.examples, label=f'evaluate {split}')
  lists, widest = ListEvaluator(search, longest), int(users['test'].examples.lengths.max())
  out = {
    split: lists.lists(params, of_split.examples, of_split.whole, f'evaluate {split}, history out', widest, True)
    for split, of_split in users.items()
  }
  figures = in_both(
    {split: evaluation.metrics for split, evaluation in evaluations.items()},
    {split: ranks.metrics_of(ranks_3xU) for split, (*_, ranks_3xU) in out.items()},
    exclude_history,
  )
  if evaluator.has_collisions:
    figures |= {f'{split}_string_match': evaluation.string_match for split, evaluation in evaluations.items()}
  test, (items_UxK, scores_UxK, out_3xU) = evaluations['test'], out['test']
  of_test = {ranks.GENERATOR: test.ranks_3xU, ranks.history_out(ranks.GENERATOR): out_3xU}
  of_protocols = {history.HISTORY_IN: (test.items_UxK, test.scores_UxK), history.HISTORY_OUT: (items_UxK, scores_UxK)}
  return Evaluated(figures, of_test, of_protocols)


def evaluate_fused(
  search: FusedUserSearch, models: tuple[Any, Any], users: Mapping[str, Split], longest: int, exclude_history: bool
) -> Evaluated:
  """A generator with its partners; `figures['weights']` are the weights that validation chose.

  The validation is that of at most WEIGHED users.

  Args:
    search: of the models.
    models: their parameters.
    users, longest, exclude_history: as for `evaluate_generator`.
  """
  evaluator = ListEvaluator(search, longest)
  validation, test = users['validation'], users['test']
  # What is chosen among a few weights needs no more users, and each costs several searches.
  chosen = evenly_spaced(len(validation.examples), WEIGHED)
  examples, whole = validation.examples.take(chosen), validation.whole.take(chosen)
  weights, by_weights = choose_weights(
    evaluator, models, search.num_partners, examples, whole, 'evaluate validation, fused'
  )
  params = (*models, np.array(weights, np.float32))
  label = 'evaluate test, fused'
  in_UxK, in_scores_UxK, in_3xU = evaluator.lists(params, test.examples, None, label)
  out_UxK, out_scores_UxK, out_3xU = evaluator.lists(params, test.examples, test.whole, f'{label}, history out')
  of_validation, validation_out = by_weights[weights]
  figures: Figures = {
    'weights': list(weights),
    'ndcg@10_by_weights': [
      [*each, *(of_protocol['ndcg@10'] for of_protocol in found)] for each, found in by_weights.items()
    ],
    **in_both(
      {'validation': of_validation, 'test': ranks.metrics_of(in_3xU)},
      {'validation': validation_out, 'test': ranks.metrics_of(out_3xU)},
      exclude_history,
    ),
  }
  of_test = {ranks.FUSED: in_3xU, ranks.history_out(ranks.FUSED): out_3xU}
  lists = {history.HISTORY_IN: (in_UxK, in_scores_UxK), history.HISTORY_OUT: (out_UxK, out_scores_UxK)}
  return Evaluated(figures, of_test, lists)


def evaluate_popularity(
  counts_N: np.ndarray, users: Mapping[str, Split], exclude_history: bool
) -> tuple[Figures, Ranks]:
  """The popularity baseline, from the training interactions of each item (`popularity.training_counts`)."""
  history_in: Figures = {}
  history_out: Figures = {}
  of_test: Ranks = {}
  for split, of_split in users.items():
    for figures, key, excluded in (
      (history_in, ranks.POPULARITY, False),
      (history_out, ranks.history_out(ranks.POPULARITY), True),
    ):
      parts = [
        popularity.popularity_metrics(
          counts_N, batch.examples.targets, excluded_items(batch.whole) if excluded else None
        )
        for batch in of_split.batches()
      ]
      figures[split] = metrics.summarize(metrics.merge(sums for sums, _ in parts))
      if split == 'test':
        of_test[key] = np.concatenate([ranks_3xB for _, ranks_3xB in parts], axis=1)
  return in_both(history_in, history_out, exclude_history), of_test


def of_collaborative(figures: Mapping[str, Figures], exclude_history: bool) -> dict[str, Figures]:
  """The figures of the models of the stage collaborative, which knows no main protocol, as those of the others."""
  return {
    model: in_both({split: found[split] for split in ('validation', 'test')}, found['history_out'], exclude_history)
    for model, found in figures.items()
  }


def about_protocols(users: Mapping[str, Split], exclude_history: bool) -> Figures:
  """What `metrics.json` says about the protocols for all models: the main one, and how many targets repeat.

  Args:
    users: as `validation_and_test` returns them.
    exclude_history: the main protocol.
  """
  return {
    history.MAIN: history.protocol_of(exclude_history),
    history.REPEATS: {split: repeat_share(of_split.whole) for split, of_split in users.items()},
  }
