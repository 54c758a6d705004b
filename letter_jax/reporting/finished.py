"""A finished run: everything that the report and comparison pages show, read from a workdir."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from letter_jax.configuration import RAW_SOURCES, Config, flattened
from letter_jax.data import splits
from letter_jax.evaluation import history, popularity, ranks
from letter_jax.evaluation.repeats import repeat_share
from letter_jax.generators.generator import NAMES as GENERATOR_NAMES
from letter_jax.system.errors import InputError
from letter_jax.system.wording import counted
from letter_jax.workdir import REDO_EVALUATION, Workdir

RULE_NAMES = {name: name.replace('_', ' ') for name in ranks.SIMPLE_RULES}
BASELINE_NAMES = {'sasrec': 'SASRec', 'lightgcn': 'LightGCN', **RULE_NAMES}


@dataclasses.dataclass(frozen=True)
class Finished:
  """A run whose evaluation is complete.

  Attributes:
    config: the configuration of the run.
    workdir: its folder.
    summary: `dataset/summary.json`.
    item_names: raw ids of all items; None if the source has none.
    texts: texts of all items, field -> text; None if the source has none.
    examples: the test example of every user, or of those that `config.evaluation.users` chose.
    repeats: the share of the test targets that the user had before.
    lengths_U: int64, the number of items before each user's target.
    counts_N: int64, training interactions of each item.
    metrics: `evaluation/metrics.json`.
    ranks: model -> int32 [3, users] (`evaluation/ranks.py`), in the main protocol (`protocol`).
    other_ranks: the same in the other protocol.
    codes_NxL: int32, the semantic IDs.
    ids: `semantic_ids/report.json`.
  """

  config: Config
  workdir: Workdir
  summary: dict[str, Any]
  item_names: tuple[str, ...] | None
  texts: tuple[dict[str, str], ...] | None
  examples: splits.Examples
  repeats: float
  lengths_U: np.ndarray
  counts_N: np.ndarray
  metrics: dict[str, Any]
  ranks: dict[str, np.ndarray]
  other_ranks: dict[str, np.ndarray]
  codes_NxL: np.ndarray
  ids: dict[str, Any]

  @property
  def generator_name(self) -> str:
    """The name of the generator on the page, such as 'LETTER-TIGER'."""
    return GENERATOR_NAMES[self.config.generator.architecture]

  @property
  def protocol(self) -> str:
    """The main protocol of the evaluation, a key of `metrics_of` (`evaluation/history.py`)."""
    return self.metrics[history.MAIN]

  @property
  def other_protocol(self) -> str:
    """The other one."""
    return history.protocol_of(self.protocol == history.HISTORY_IN)

  @property
  def served_protocol(self) -> str:
    """The protocol that `recommend` follows by default."""
    choice = self.metrics_of(self.ours)[history.SERVED]
    return history.protocol_of(choice['exclude_history'])

  @property
  def served_ranks(self) -> dict[str, np.ndarray]:
    """`ranks` in the protocol that `recommend` follows."""
    return self.ranks if self.served_protocol == self.protocol else self.other_ranks

  @property
  def ours(self) -> str:
    """The key of the model that `recommend` uses: the generator, with its partner where it has one."""
    return ranks.FUSED if ranks.FUSED in self.metrics else ranks.GENERATOR

  @property
  def data_title(self) -> str:
    """What the page calls the data: `config.data.title`, or else its name, or that of its folder."""
    data, name = self.config.data, self.summary['name']
    if data.title.strip():
      return data.title.strip()
    if data.source == 'synthetic':
      return 'Synthetic store'
    # Raw files without a name of their own are named after their kind, which says less than their folder does.
    return (pathlib.Path(data.path).resolve().name if data.path and name in RAW_SOURCES else '') or name

  def model_names(self) -> dict[str, str]:
    """Key in `ranks` -> name on the page, for each model with results; the generator is first."""
    return {
      ranks.GENERATOR: self.generator_name,
      **({ranks.FUSED: fused_name(self.generator_name, self.metrics)} if ranks.FUSED in self.metrics else {}),
      **{key: name for key, name in BASELINE_NAMES.items() if key in self.metrics['baselines']},
    }

  def metrics_of(self, model: str) -> dict[str, Any]:
    """{'validation': metrics, 'test': metrics}, the same for each protocol, and more.

    Args:
      model: a key of `model_names`.
    """
    if model == ranks.GENERATOR:
      return self.metrics
    return self.metrics[model] if model == ranks.FUSED else self.metrics['baselines'][model]

  def title(self, item: int) -> str:
    """The name of an item on the page: its title, else its raw id, else its row number."""
    title = self.texts[item]['title'] if self.texts else ''
    name = self.item_names[item] if self.item_names else ''
    return title or name or f'item {item}'


def fused_name(generator: str, metrics: Mapping[str, Any]) -> str:
  """The name of a generator together with its partners, such as 'LETTER-TIGER + SASRec'."""
  return ' + '.join([generator, *(BASELINE_NAMES[name] for name in metrics[ranks.FUSED]['partners'])])


def read_finished(config: Config, workdir: Workdir) -> Finished:
  """Reads a finished run.

  Args:
    config: the configuration of the run.
    workdir: its folder.

  Raises:
    InputError: the evaluation is not complete, or a file is damaged or does not match the data set.
  """
  metrics = workdir.read_metrics()
  whole = workdir.read_interactions(config.data).whole()
  counts_N = popularity.training_counts(whole)
  examples = splits.test_examples(whole, config.data.history_length, config.evaluation.users)
  test_ranks = workdir.read_ranks()
  for model, ranks_3xU in test_ranks.items():
    if ranks_3xU.shape[1] != len(examples):
      raise InputError(
        f'{workdir.evaluation} has ranks of {counted(ranks_3xU.shape[1], "user")} ({model}), but the data set has '
        f'{len(examples)} to test; {REDO_EVALUATION}'
      )
  main = metrics[history.MAIN]
  ranks_of: dict[bool, dict[str, np.ndarray]] = {True: {}, False: {}}
  for model in (ranks.GENERATOR, ranks.FUSED, *BASELINE_NAMES):
    for protocol in history.PROTOCOLS:
      if ranks.key(model, protocol) in test_ranks:
        ranks_of[protocol == main][model] = test_ranks[ranks.key(model, protocol)]
  return Finished(
    config,
    workdir,
    workdir.read_summary(),
    workdir.read_raw_ids(),
    workdir.read_texts(),
    examples,
    repeat_share(examples.whole_histories(whole)),
    whole.lengths[examples.user] - 1,
    counts_N,
    metrics,
    ranks_of[True],
    ranks_of[False],
    workdir.read_semantic_ids().codes_NxL,
    workdir.read_ids_report(),
  )


def duration(seconds: float | None) -> str:
  """A duration as text: '4.0 s', '2 min 05 s', '1 h 10 min'; a dash for None."""
  if seconds is None:
    return '–'
  if seconds < 60:
    return f'{seconds:.1f} s'
  minutes, rest = divmod(round(seconds), 60)
  return f'{minutes} min {rest:02} s' if minutes < 60 else f'{minutes // 60} h {minutes % 60:02} min'


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
  """The values of a nested config by dotted key, with lists as tuples."""
  return {key: _frozen(value) for key, value in flattened(config).items()}


def _frozen(value: Any) -> Any:
  return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value
