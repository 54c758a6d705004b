"""How long stages will take, as far as something that was measured on this machine tells it.

That is an earlier result of the stage, in the same workdir or that of another run of a sweep, with settings that differ
in nothing that costs time; or, for the evaluation of a generator, the validations of its training.
"""

import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence

from letter_jax.configuration import Config
from letter_jax.pipeline import record as records
from letter_jax.pipeline.graph import Graph, Stage
from letter_jax.pipeline.record import Record
from letter_jax.system import machine, time_left
from letter_jax.system.errors import InputError
from letter_jax.workdir import Workdir

# Settings that change what a stage computes, but not how much.
WITHOUT_COST = (
  'seed',
  'alpha',
  'beta',
  'commitment',
  'temperature',
  'crops',
  'learning_rate',
  'weight_decay',
  'dropout',
  'l2',
)


def earlier_results(graph: Graph, workdirs: Iterable[pathlib.Path]) -> dict[str, Record]:
  """Stage -> record of the first of the workdirs where it is complete."""
  found: dict[str, Record] = {}
  for workdir in workdirs:
    for stage in graph:
      try:
        record = records.read_complete(stage.directory(workdir))
      except InputError:  # reported when the stage has its turn
        continue
      if record:
        found.setdefault(stage.name, record)
  return found


def expected_seconds(stage: Stage, config: Config, earlier: Mapping[str, Record]) -> float | None:
  """What an earlier result of a stage took, if it took as much work on the same machine."""
  record = earlier.get(stage.name)
  if record is None or record.get('machine') != machine.describe():
    return None
  wanted, then = stage.settings_of(config), record['settings']
  # Files are recorded by their content.
  changed = [
    key for key in wanted.keys() | then.keys() if wanted.get(key) != then.get(key) and key not in record['files']
  ]
  return None if any(key.rpartition('.')[2] not in WITHOUT_COST for key in changed) else record['seconds']


def outlook(
  graph: Graph, config: Config, root: pathlib.Path, stage: Stage, earlier: Mapping[str, Record]
) -> time_left.Outlook:
  """The stages after `stage` that are not complete."""
  later = graph.stages[graph.stages.index(stage) + 1 :]
  complete = earlier_results(graph, [root])
  open_stages = [each for each in later if each.name not in complete]
  seconds: dict[str, float | None] = {each.name: expected_seconds(each, config, earlier) for each in open_stages}
  derived = {}
  if stage.name == 'generator' and 'evaluate' in seconds and seconds['evaluate'] is None:
    derived['evaluate'] = _evaluation_in_validations(config, Workdir(root).read_summary()['users'])
  return time_left.Outlook(seconds, derived, _trainings(config, stage))


def sweep_seconds(runs: Mapping[str, Config], done: Sequence[pathlib.Path]) -> float | None:
  """What the runs of a sweep that are not done will take; None where a stage of theirs has not been seen.

  Args:
    runs: all runs, in order.
    done: the workdirs of the first ones.
  """
  if not done:
    return None
  seen: set[str] = set()
  total = 0.0
  for number, config in enumerate(runs.values()):
    graph = Graph(config)
    earlier = earlier_results(graph, done)
    for stage in graph:
      names = sorted({stage.name, *graph.ancestors(stage)})
      made_from = json.dumps([(name, graph[name].settings_of(config)) for name in names], sort_keys=True)
      if made_from not in seen and number >= len(done):
        seconds = expected_seconds(stage, config, earlier)
        if seconds is None:
          return None
        total += seconds
      seen.add(made_from)
  return total


def _trainings(config: Config, stage: Stage) -> tuple[str, ...]:
  """Labels of the trainings of a stage, in order."""
  if stage.name != 'collaborative':
    return stage.trainings
  method = '' if config.collaborative.path else config.collaborative.method
  return tuple(
    label for label in stage.trainings if label == method or (label == 'sasrec' and config.collaborative.baseline)
  )


def _evaluation_in_validations(config: Config, users: int) -> tuple[float, int]:
  """The length of the evaluation and its compilations, in validations of the generator's training.

  Args:
    users: of the data set.
  """
  from letter_jax.evaluation.both_protocols import WEIGHED

  validated = min(users, config.generator.validation_users)
  users = min(users, config.evaluation.users or users)
  # Validation and test, with the history in the ranking and out of it: four searches of all users alone.
  beams = 4 * users * config.evaluation.beam
  if config.fusion.partners:
    # Two of the test and two of at most WEIGHED validation users; the partners' candidates cost what beams cost.
    beams += 2 * (users + min(users, WEIGHED)) * (config.evaluation.beam + config.fusion.candidates)
  # Alone and with partners, with the history in and out: each is a program of its own.
  programs = 4 if config.fusion.partners else 2
  return beams / config.generator.validation_beam / validated, programs
