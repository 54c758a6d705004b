"""The stage evaluate: the best generator, alone and with its partners, and the baselines next to it."""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from letter_jax.configuration import Config
from letter_jax.data.dataset import Interactions
from letter_jax.data.splits import Examples
from letter_jax.pipeline.inputs import GivenInputs
from letter_jax.system import processes
from letter_jax.training import trackers
from letter_jax.workdir import SERVED, Workdir

if TYPE_CHECKING:
  from scipy import sparse

  from letter_jax.decoding.user_search import UserSearch
  from letter_jax.evaluation.both_protocols import Evaluated, Ranks, Split
  from letter_jax.evaluation.first_purchases import FirstPurchases
  from letter_jax.evaluation.history import Figures
  from letter_jax.serving.loaded_generator import LoadedGenerator, Partner


@dataclasses.dataclass(frozen=True)
class _Task:
  """What every model is evaluated on.

  Attributes:
    users: split -> users and targets, as of `both_protocols.validation_and_test`.
    longest: the most items that any user has had.
    exclude_history: the main protocol.
    newcomers: answers for users without a history.
  """

  users: 'Mapping[str, Split]'
  longest: int
  exclude_history: bool
  newcomers: 'FirstPurchases'

  @property
  def test(self) -> Examples:
    return self.users['test'].examples


def evaluate(config: Config, root: pathlib.Path, given: GivenInputs) -> None:
  """Evaluates on validation and test in both protocols; writes metrics, ranks, lists and the weights of partners."""
  from letter_jax.evaluation import both_protocols, history, popularity, ranks
  from letter_jax.evaluation.bought_together import neighbours
  from letter_jax.generators.generator import user_search
  from letter_jax.serving.loaded_generator import LoadedGenerator

  workdir = Workdir(root)
  whole = workdir.read_interactions(config.data).whole()  # on every process: the baselines count in them
  task = _Task(
    both_protocols.validation_and_test(whole, config.data.history_length, config.evaluation.users),
    int(whole.lengths.max()),
    config.evaluation.exclude_history,
    workdir.read_first_purchases(),
  )
  counts_N = popularity.training_counts(whole)
  neighbours_NxN = neighbours(whole, config.data.history_length, counts_N)
  loaded = LoadedGenerator.of_workdir(workdir, config)
  search = user_search(loaded.generator, config.evaluation.beam, config.evaluation.batch_size)
  alone, figures = _evaluate_alone(loaded, search, task)
  figures['baselines'], test_ranks = _evaluate_baselines(config, workdir, neighbours_NxN, counts_N, task)
  test_ranks |= alone.ranks
  lists, served = {'': alone}, figures  # `recommend` uses the models together where there are several
  sasrec = loaded.partner('sasrec') if config.trains_sasrec else None
  if config.fusion.partners:
    if 'bought_together' in config.fusion.partners:
      processes.on_first_process(lambda: _write_bought_together(workdir, neighbours_NxN, counts_N))
    partners = [sasrec if name == 'sasrec' and sasrec else loaded.partner(name) for name in config.fusion.partners]
    fused, figures[ranks.FUSED] = _evaluate_fused(loaded, search, partners, task)
    workdir.write_fusion({**dataclasses.asdict(config.fusion), 'weights': fused.figures['weights']})
    test_ranks |= fused.ranks
    lists['fused_'], served = fused, figures[ranks.FUSED]
  print(
    f'evaluate: recommend will {"leave out" if served[history.SERVED]["exclude_history"] else "keep"} the items of '
    f'the history by default: {history.choice_in_words(served[history.SERVED])}',
    flush=True,
  )
  main = history.protocol_of(task.exclude_history)
  recommended = history.protocol_of(served[history.SERVED]['exclude_history'])
  protocols = {'': main, **({} if recommended == main else {SERVED: recommended})}
  of_sasrec: dict[str, np.ndarray] = {}
  if sasrec:
    for protocol in protocols.values():
      out = protocol == history.HISTORY_OUT
      of_sasrec[protocol] = _lists_of(sasrec, config, loaded, task.users['test'], out)
  workdir.write_predictions(_predictions(whole, task.test, protocols, lists, of_sasrec))
  figures |= both_protocols.about_protocols(task.users, task.exclude_history)
  figures |= {'users': len(task.test), 'beam': config.evaluation.beam, 'generator_step': loaded.step}
  workdir.write_metrics(figures, test_ranks)
  for model, of_model in ((ranks.GENERATOR, figures), (ranks.FUSED, figures.get(ranks.FUSED, {}))):
    trackers.log('test', loaded.step, {f'{model}/{name}': value for name, value in of_model.get('test', {}).items()})


def _evaluate_alone(loaded: 'LoadedGenerator', search: 'UserSearch', task: _Task) -> 'tuple[Evaluated, Figures]':
  """The generator by itself, and its entries in `metrics.json`."""
  from letter_jax.evaluation import both_protocols, history, ranks
  from letter_jax.evaluation.short_histories import KEY, evaluate_short_histories

  found = both_protocols.evaluate_generator(search, loaded.params, task.users, task.longest, task.exclude_history)
  ranks_3xU = found.ranks[ranks.GENERATOR]
  short = evaluate_short_histories(search, loaded.params, task.test, task.longest, ranks_3xU, task.newcomers)
  return found, {**found.figures, KEY: short, history.SERVED: history.choose(found.figures)}


def _evaluate_fused(
  loaded: 'LoadedGenerator', search: 'UserSearch', partners: 'Sequence[Partner]', task: _Task
) -> 'tuple[Evaluated, Figures]':
  """The generator with its partners, by the weights that validation chooses, and their entries in `metrics.json`."""
  from letter_jax.evaluation import both_protocols, history, ranks
  from letter_jax.evaluation.short_histories import KEY, evaluate_short_histories

  settings = loaded.config.fusion
  fused_search, models = loaded.fused_search(search, partners, settings.candidates)
  found = both_protocols.evaluate_fused(fused_search, models, task.users, task.longest, task.exclude_history)
  params = (*models, np.array(found.figures['weights'], np.float32))
  ranks_3xU = found.ranks[ranks.FUSED]
  short = evaluate_short_histories(fused_search, params, task.test, task.longest, ranks_3xU, task.newcomers)
  entries = {**dataclasses.asdict(settings), **found.figures, KEY: short}
  return found, {**entries, history.SERVED: history.choose(found.figures)}


def _evaluate_baselines(
  config: Config, workdir: Workdir, neighbours_NxN: 'sparse.csr_array', counts_N: np.ndarray, task: _Task
) -> 'tuple[dict[str, Figures], Ranks]':
  """The simple rules, and the models of the stage collaborative, which that stage has evaluated.

  Args:
    neighbours_NxN: as of `evaluation.bought_together.neighbours`.
    counts_N: int64, the training interactions of each item.
  """
  from letter_jax.evaluation import both_protocols, ranks
  from letter_jax.evaluation.simple_rules import evaluate_simple_rules

  exclude_history = task.exclude_history
  of_popularity, popularity_ranks = both_protocols.evaluate_popularity(counts_N, task.users, exclude_history)
  figures, test_ranks = evaluate_simple_rules(neighbours_NxN, counts_N, task.users, exclude_history)
  if config.has_collaborative:
    of_models = both_protocols.of_collaborative(workdir.read_collaborative_metrics(), exclude_history)
    figures, test_ranks = {**of_models, **figures}, {**workdir.read_collaborative_ranks(), **test_ranks}
  return {**figures, ranks.POPULARITY: of_popularity}, {**test_ranks, **popularity_ranks}


def _write_bought_together(workdir: Workdir, neighbours_NxN: 'sparse.csr_array', counts_N: np.ndarray) -> None:
  from letter_jax.collaborative.bought_together import BoughtTogether

  BoughtTogether.of(neighbours_NxN, counts_N).write(workdir.bought_together)


def _lists_of(
  partner: 'Partner', config: Config, loaded: 'LoadedGenerator', test: 'Split', exclude_history: bool
) -> np.ndarray:
  """int32 [U, K], the lists of a dense model alone; -1 where there are fewer items."""
  from letter_jax.collaborative.full_ranking import full_lists

  scores, params = partner
  settings, mesh = config.evaluation, loaded.generator.ids.mesh
  history_out = test.whole if exclude_history else None
  examples, width, num_items = test.examples, config.data.history_length, loaded.generator.ids.rows
  return full_lists(scores, num_items, params, examples, history_out, width, settings.beam, mesh)


def _predictions(
  data: Interactions,
  examples: Examples,
  protocols: Mapping[str, str],
  lists: 'Mapping[str, Evaluated]',
  of_sasrec: Mapping[str, np.ndarray],
) -> Iterator[dict[str, Any]]:
  """The lines of `predictions.jsonl`, one per user.

  Args:
    protocols: prefix of keys -> protocol: '' of the main one, and SERVED of that of `recommend`, if it is the other.
    lists: the results of each generator by the prefix of its keys.
    of_sasrec: protocol -> as of `_lists_of`; empty where SASRec was not trained.
  """
  for user in range(len(examples)):
    line = {
      'user': data.users[examples.user[user]],
      'history': examples.items[examples.start[user] : examples.end[user]].tolist(),
      'target': int(examples.targets[user]),
    }
    for served, protocol in protocols.items():
      for prefix, evaluated in lists.items():
        items_K, scores_K = (of_users[user] for of_users in evaluated.lists[protocol])
        line[f'{served}{prefix}items'] = items_K[items_K >= 0].tolist()
        line[f'{served}{prefix}scores'] = [round(score, 6) for score in scores_K[items_K >= 0].tolist()]
      if of_sasrec:
        items_K = of_sasrec[protocol][user]
        line[f'{served}sasrec_items'] = items_K[items_K >= 0].tolist()
    yield line
