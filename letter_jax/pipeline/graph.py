"""The stage graph: what each stage reads, writes and depends on.

A stage is a function of its settings, its input artifacts and the files from outside that its settings name.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

from letter_jax import workdir as files
from letter_jax.configuration import MADE_FEATURES, Config, flattened
from letter_jax.data import sources
from letter_jax.pipeline import evaluation, inputs, refresh, stages
from letter_jax.pipeline.inputs import GivenInputs

# Settings that do not change results: how often something is logged or saved, how many users are decoded at once, how
# arrays lie on the devices.
WITHOUT_EFFECT = (
  'partition',
  'log_every_steps',
  'checkpoint_every_steps',
  'keep_checkpoints',
  'evaluation.batch_size',
  'text_embeddings.batch_size',
)


@dataclasses.dataclass(frozen=True)
class Stage:
  """One step of the pipeline.

  Attributes:
    name: as in --stage.
    inputs: stages whose results it reads.
    settings: sections or keys of the config that it depends on.
    outputs: files that later stages read, relative to its folder.
    run: does the work; (config, workdir, inputs from outside). Every process runs it, and process 0 writes.
    files: config -> files from outside that it reads, by the config key that names them.
    folder: under the workdir; the name, where empty.
    identity: the outputs that later stages depend on; all, where empty.
    alone: whether process 0 runs it by itself.
    trainings: labels of the trainings whose checkpoints it writes.
  """

  name: str
  inputs: tuple[str, ...]
  settings: tuple[str, ...]
  outputs: tuple[str, ...]
  run: Callable[[Config, pathlib.Path, GivenInputs], None]
  files: Callable[[Config], dict[str, pathlib.Path]] = lambda config: {}
  folder: str = ''
  identity: tuple[str, ...] = ()
  alone: bool = False
  trainings: tuple[str, ...] = ()

  def directory(self, workdir: pathlib.Path) -> pathlib.Path:
    """Its folder."""
    return workdir / (self.folder or self.name)

  def settings_of(self, config: Config) -> dict[str, Any]:
    """The settings that its results depend on, by dotted key."""
    return {
      key: value
      for key, value in json_settings(config).items()
      if any(key == prefix or key.startswith(f'{prefix}.') for prefix in self.settings)
      and not key.endswith(WITHOUT_EFFECT)
    }


class Graph:
  """The stages that a config needs, in order; a stage whose result is given from outside is not among them.

  Attributes:
    stages: in an order in which they can run.
  """

  def __init__(self, config: Config):
    self.stages = _stages(config)
    self._by_name = {stage.name: stage for stage in self.stages}

  def __iter__(self):
    return iter(self.stages)

  def __contains__(self, name: str) -> bool:
    return name in self._by_name

  def __getitem__(self, name: str) -> Stage:
    return self._by_name[name]

  def ancestors(self, stage: Stage) -> set[str]:
    """Names of all stages whose results a stage depends on."""
    return {name for direct in stage.inputs for name in (direct, *self.ancestors(self[direct]))}

  def descendants(self, stage: Stage) -> list[Stage]:
    """All stages that depend on the results of a stage, in order."""
    return [later for later in self.stages if stage.name in self.ancestors(later)]


def json_settings(config: Config) -> dict[str, Any]:
  """All settings by dotted key, values as JSON gives them back."""
  return {key: json.loads(json.dumps(value)) for key, value in flattened(dataclasses.asdict(config)).items()}


def _stages(config: Config) -> list[Stage]:
  learned_ids, features = not config.semantic_ids.path, config.generator.features
  fused = (files.FUSION,) if config.fusion.partners else ()
  if 'bought_together' in config.fusion.partners:
    fused = (*fused, files.BOUGHT_TOGETHER)
  made_features = dict(zip(MADE_FEATURES, ('text_embeddings', 'collaborative')))
  data_settings = {'synthetic': ('seed', 'data.synthetic'), 'letter': ('data.name',), 'prepared': ()}.get(
    config.data.source, ('data.name', 'data.preparation')
  )
  all_stages = [
    Stage(
      'dataset',
      (),
      ('data.source', *data_settings),
      (files.TFDS, files.LENGTHS, files.SUMMARY),
      stages.dataset,
      lambda config: sources.source_files(config.data),
      identity=(files.SUMMARY,),
      alone=True,
    ),
    Stage(
      'text_embeddings',
      ('dataset',),
      ('seed', 'text_embeddings', *refresh.settings(config, 'text_embeddings')),
      (files.EMBEDDINGS, files.EMBEDDING_IDS),
      stages.text_embeddings,
      lambda config: {**inputs.text_embeddings_files(config), **refresh.files(config, 'text_embeddings')},
      alone=True,
    ),
    Stage(
      'collaborative',
      ('dataset',),
      ('seed', 'data.history_length', 'data.window_users', 'collaborative', 'tokenizer.model.latent_dim')
      + (('evaluation.users',) if config.trains_sasrec or config.collaborative.method == 'lightgcn' else ())
      + refresh.settings(config, 'collaborative'),
      (files.EMBEDDINGS, files.EMBEDDING_IDS, files.METRICS, files.RANKS),
      stages.collaborative,
      lambda config: {
        **inputs.given_rows_files('collaborative.path', config.collaborative.path),
        **refresh.files(config, 'collaborative'),
      },
      trainings=('sasrec', 'lightgcn'),
    ),
    Stage(
      'tokenizer',
      ('text_embeddings', 'collaborative'),
      ('seed', 'tokenizer', *refresh.settings(config, 'tokenizer')),
      (files.BEST_VALIDATION, files.INPUT_SCALE),
      stages.tokenizer,
      lambda config: refresh.files(config, 'tokenizer'),
      trainings=('tokenizer',),
    ),
    Stage(
      'semantic_ids',
      ('tokenizer',) if learned_ids else ('dataset',),
      ('seed', 'semantic_ids', *refresh.settings(config, 'semantic_ids')),
      (files.CODES, files.CODES_TABLE, files.INDEX, files.IDS_REPORT),
      stages.semantic_ids,
      lambda config: {**inputs.semantic_ids_files(config), **refresh.files(config, 'semantic_ids')},
    ),
    Stage(
      'generator',
      ('dataset', 'semantic_ids', *(stage for source, stage in made_features.items() if source in features)),
      ('seed', 'data.history_length', 'data.window_users', 'generator', *refresh.settings(config, 'generator')),
      (files.DESCRIPTION,),
      stages.generator,
      lambda config: {**inputs.generator_files(config), **refresh.files(config, 'generator')},
      trainings=('generator',),
    ),
    Stage(
      'evaluate',
      ('dataset', 'collaborative', 'semantic_ids', 'generator'),
      ('data.history_length', 'evaluation', 'fusion'),
      (files.METRICS, files.PREDICTIONS, files.RANKS, *fused),
      evaluation.evaluate,
      folder='evaluation',
    ),
    Stage(
      'report',
      ('collaborative', 'text_embeddings', 'tokenizer', 'semantic_ids', 'generator', 'evaluate'),
      ('seed', 'data.title'),
      (f'../{files.REPORT}',),
      stages.report,
      alone=True,
    ),
  ]
  unneeded = {
    *(() if learned_ids else ('tokenizer',)),
    *(() if learned_ids or 'text' in features else ('text_embeddings',)),
    *(() if config.has_collaborative else ('collaborative',)),
  }
  return [
    dataclasses.replace(stage, inputs=tuple(name for name in stage.inputs if name not in unneeded))
    for stage in all_stages
    if stage.name not in unneeded
  ]


STAGES = tuple(stage.name for stage in _stages(Config()))
