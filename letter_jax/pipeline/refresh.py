"""A run on newer data that begins where an earlier one ended (`config.refresh`), such as last night's.

Items are matched by raw id. Those that stay keep their semantic IDs, new ones get IDs that were free from the earlier
run's tokenizer, and those that left are gone from the trie. SASRec and the generator start from the earlier parameters,
train for a few epochs, and keep what they started from unless validation becomes better.

With `retokenize` only SASRec starts from the earlier run: semantic IDs of another tokenizer mean something else.

Shapes: N items of this run, L levels, T columns of the text embeddings.
"""

import dataclasses
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from letter_jax.configuration import CollaborativeConfig, Config, GeneratorConfig
from letter_jax.data import ragged
from letter_jax.data.dataset import Interactions, Windows
from letter_jax.data.times import day_start
from letter_jax.generators.features import ItemFeatures
from letter_jax.pipeline.inputs import text_embeddings_files
from letter_jax.system import artifacts
from letter_jax.system.errors import InputError
from letter_jax.system.wording import counted
from letter_jax.workdir import BEST_VALIDATION, CODES_TABLE, DESCRIPTION, METRICS, PROJECTION, Workdir

if TYPE_CHECKING:
  from letter_jax.pipeline.inputs import GivenInputs
  from letter_jax.semantic_ids.ids import SemanticIds
  from letter_jax.sharding import Layout
  from letter_jax.text_embeddings.tf_idf import TextProjection
  from letter_jax.training.loop import Start

_Trained = TypeVar('_Trained', CollaborativeConfig, GeneratorConfig)

KEY = 'refresh.previous'  # the setting, and the earlier run's results in the records of stages

# What tells whether the results of a stage of the earlier run have changed.
_IDENTITY = {
  'text_embeddings': PROJECTION,
  'collaborative': METRICS,
  'tokenizer': BEST_VALIDATION,
  'semantic_ids': CODES_TABLE,
  'generator': DESCRIPTION,
}
# Sections of the generator's settings that determine its parameters, by architecture.
_SIZES = {'t5': ('model', 'features', 'softmax'), 'llama': ('llama', 'lora', 'base', 'softmax')}


def files(config: Config, stage: str) -> dict[str, pathlib.Path]:
  """The result of the earlier run that a stage depends on; none where it depends on none."""
  if not _reads_earlier(config, stage):
    return {}
  return {KEY: pathlib.Path(config.refresh.previous) / stage / _IDENTITY[stage]}


def settings(config: Config, stage: str) -> tuple[str, ...]:
  """The settings of `config.refresh` that the results of a stage depend on."""
  if not _reads_earlier(config, stage):
    return ()
  trains = ('refresh.epochs', 'refresh.learning_rate', 'refresh.since')
  retokenize = ('refresh.retokenize',) if stage == 'collaborative' else ()
  return (KEY, *retokenize, *(trains if stage in ('collaborative', 'generator') else ()))


def _reads_earlier(config: Config, stage: str) -> bool:
  if not config.refresh.previous:
    return False
  if stage == 'collaborative':
    return config.trains_sasrec
  return embeds_as_before(config) if stage == 'text_embeddings' else keeps_tokenizer(config)


def keeps_tokenizer(config: Config) -> bool:
  """Whether the earlier run's tokenizer and semantic IDs are kept."""
  return bool(config.refresh.previous) and not config.refresh.retokenize


def embeds_as_before(config: Config) -> bool:
  """Whether the earlier run's TF-IDF embeds the texts."""
  return keeps_tokenizer(config) and not config.text_embeddings.path and not config.text_embeddings.model


def stages_needed(config: Config) -> tuple[str, ...]:
  """The stages that the earlier run must have completed."""
  trained = (
    ('collaborative', config.trains_sasrec),
    ('tokenizer', keeps_tokenizer(config) and not config.semantic_ids.path),
  )
  return ('dataset', 'semantic_ids', 'generator', *(stage for stage, reads in trained if reads))


def require_other_workdir(config: Config, workdir: pathlib.Path) -> None:
  """Raises InputError where a run would begin with itself."""
  if config.refresh.previous and workdir.resolve() == pathlib.Path(config.refresh.previous).resolve():
    raise InputError(f'--workdir is {workdir}, the earlier run that it would begin with; expected another folder')


def check(config: Config, workdir: Workdir, given: 'GivenInputs') -> None:
  """Raises InputError for an earlier run, whose stages are complete, that this one cannot begin with."""
  earlier = Earlier(config, workdir)
  then, named = earlier.config, f'the run of {earlier.workdir}'
  if earlier.workdir.read_summary()['content'] == workdir.read_summary()['content']:
    raise InputError(f'{named} has the same data: there is nothing new to train on; expected newer data')
  if not (earlier.row_N >= 0).any():
    raise InputError(
      f'{named} has none of the {counted(len(earlier.row_N), "item")} of the data: its raw ids are such as '
      f'{earlier.names[0]!r}, and those of the data such as {earlier.names_now[0]!r}; expected items that it knows'
    )
  if config.refresh.since:
    _back(config, workdir, workdir.read_interactions(config.data).whole().lengths)
  if then.data.history_length != config.data.history_length:
    raise _other(named, 'data.history_length', then.data.history_length, config.data.history_length)
  if config.trains_sasrec and then.collaborative.model != config.collaborative.model:
    raise _other(named, 'collaborative.model', then.collaborative.model, config.collaborative.model)
  if not keeps_tokenizer(config):
    return
  if bool(then.semantic_ids.path) != bool(config.semantic_ids.path):
    raise _other(named, 'semantic_ids.path', then.semantic_ids.path, config.semantic_ids.path)
  if config.semantic_ids.path:
    earlier.continued(given.semantic_ids()[0])
  if then.tokenizer.model != config.tokenizer.model:
    raise _other(named, 'tokenizer.model', then.tokenizer.model, config.tokenizer.model)
  _check_rows(config, earlier, given, named)
  for key in ('architecture', *_SIZES[config.generator.architecture]):
    before, now = (getattr(settings.generator, key) for settings in (then, config))
    if before != now:
      raise _other(named, f'generator.{key}', before, now)


def _check_rows(config: Config, earlier: 'Earlier', given: 'GivenInputs', named: str) -> None:
  """Raises InputError where the text embeddings or the features of the items are not of the earlier run's kind."""
  text, then = config.text_embeddings, earlier.config.text_embeddings
  for key in ('model', 'max_tokens', 'path'):
    before, now = getattr(then, key), getattr(text, key)
    if before != now if key != 'path' else bool(before) != bool(now):
      raise _other(named, f'text_embeddings.{key}', before, now)
  if text.model:
    now = {key: artifacts.fingerprint(path) for key, path in text_embeddings_files(config).items()}
    record = earlier.workdir.read_records().get('text_embeddings', {})
    if changed := [key for key, content in now.items() if record.get('files', {}).get(key, content) != content]:
      raise InputError(
        f'the content of config.{changed[0]} is not that of {named}; expected the same language model, or --retokenize'
      )
  rows = {'config.text_embeddings.path': (given.text_rows()[0], earlier.text_width())} if text.path else {}
  for file, (features, _) in given.features().items():
    rows[f'config.generator.features: {file}'] = features, earlier.features_width(file)
  for name, (given_rows, width) in rows.items():
    if width not in (None, given_rows.shape[1]):
      raise InputError(f'{name} has rows of {given_rows.shape[1]} columns, and {named} had {width}; expected the same')


def _other(named: str, key: str, then: Any, now: Any) -> InputError:
  if dataclasses.is_dataclass(then) and type(then) is type(now):
    names = [field.name for field in dataclasses.fields(then) if getattr(then, field.name) != getattr(now, field.name)]
    key, then, now = f'{key}.{names[0]}', getattr(then, names[0]), getattr(now, names[0])
  return InputError(
    f'config.{key} is {now!r}, and was {then!r} in {named}; expected the same, or a run without config.refresh.previous'
  )


def trained_on(config: Config, workdir: Workdir, data: Windows, stage: str) -> Windows:
  """The interactions to train on: all, or those of the users who came back since `refresh.since`, which it says.

  Raises:
    InputError: nobody did, or the data has no times.
  """
  if not config.refresh.since or not isinstance(data, Interactions):
    return data
  back_V = _back(config, workdir, data.lengths)
  of_all = counted(len(data.users), 'user')
  print(f'{stage}: trained on {len(back_V):,} of {of_all}, who came back since {config.refresh.since}', flush=True)
  return _of_users(data, back_V)


def _back(config: Config, workdir: Workdir, lengths_U: np.ndarray) -> np.ndarray:
  """The numbers of the users who came back since `refresh.since`; InputError where there is none to train on.

  Args:
    lengths_U: int64, the number of interactions of each user.
  """
  last_U = workdir.read_last_times()
  if last_U is None:
    raise InputError(f'config.refresh.since is {config.refresh.since}, but the data has no times; expected no date')
  back_V = np.flatnonzero(last_U >= day_start(config.refresh.since))
  # The last two items are held out, and an example has an item before its target.
  if not (lengths_U[back_V] > 3).any():
    raise InputError(
      f'config.refresh.since is {config.refresh.since}, but of the users who came back since then none has more than 3 '
      'interactions; expected an earlier day'
    )
  return back_V


def _of_users(data: Interactions, user_V: np.ndarray) -> Interactions:
  lengths_V = data.lengths[user_V]
  cells = ragged.ranges(data.offsets[user_V], lengths_V)
  users = tuple(data.users[user] for user in user_V.tolist())
  return Interactions(data.items[cells], ragged.offsets(lengths_V), data.num_items, users)


def continuing(config: Config, settings: _Trained) -> _Trained:
  """The settings of a model that starts from the earlier run's parameters."""
  refresh, training = config.refresh, settings.training
  training = dataclasses.replace(
    training,
    epochs=refresh.epochs,
    max_steps=0,
    learning_rate=training.learning_rate * refresh.learning_rate,
    evaluate_every_epochs=1,
  )
  return dataclasses.replace(settings, training=training)


def kept(config: Config, workdir: Workdir) -> 'Earlier | None':
  """The earlier run whose tokenizer and semantic IDs this one keeps; None where it keeps none."""
  return Earlier(config, workdir) if keeps_tokenizer(config) else None


class Earlier:
  """The earlier run, as its results belong to the items of this one.

  Attributes:
    workdir: of the earlier run.
    config: of the earlier run.
    names, names_now: raw ids of the items of the earlier run, and of this one.
    row_N: int64, the item's number in the earlier run; -1 where it is new.
  """

  def __init__(self, config: Config, workdir: Workdir):
    """Reads the raw ids.

    Raises:
      InputError: one of the two runs has no raw ids, or the earlier one no generator.
    """
    self.workdir = Workdir(config.refresh.previous)
    self.config = self.workdir.read_generator_config()
    names, names_now = self.workdir.read_raw_ids(), workdir.read_raw_ids()
    for root, found in ((self.workdir, names), (workdir, names_now)):
      if found is None:
        raise InputError(
          f'the items of {root} have no raw ids, so those of the two runs cannot be matched; expected data with raw '
          'ids, or a run without config.refresh.previous'
        )
    assert names is not None and names_now is not None
    self.names, self.names_now = names, names_now
    row_of = {name: row for row, name in enumerate(names)}
    self.row_N = np.array([row_of.get(name, -1) for name in names_now], np.int64)
    self._now = config

  def sasrec_start(self) -> 'Start':
    """Starts SASRec with the earlier parameters; the embeddings of new items are initial ones."""
    from letter_jax import sharding

    def start(fresh: dict[str, Any], layout: sharding.Layout) -> dict[str, Any]:
      # The number of items is another one, so the table may not be divisible in the same way.
      before = sharding.fetch(self._best(self.workdir.collaborative, 'sasrec', sharding.Layout(layout.mesh)))
      rows_NxD = sharding.fetch(fresh['item_embeddings']).copy()
      stays_N = self.row_N >= 0
      rows_NxD[stays_N] = before['item_embeddings'][self.row_N[stays_N]]
      return sharding.put_like({**before, 'item_embeddings': rows_NxD}, fresh)

    return start

  def collaborative_rows(self, items_NxE: np.ndarray) -> np.ndarray | None:
    """float32 [N, d]: rows of SASRec's items on the axes of the earlier ones; None where those were not SASRec's.

    `collaborative_rows` chooses axes and a scale for each catalogue, and a generator that reads the rows as features
    knows those of its training. The earlier rows are a linear map of the earlier embeddings; it is applied again.
    """
    from letter_jax import sharding

    if self.config.collaborative.path or self.config.collaborative.method != 'sasrec':
      return None
    layout = sharding.Layout(sharding.make_mesh(self._now.mesh))
    before_MxE = sharding.fetch(self._best(self.workdir.collaborative, 'sasrec', layout)['item_embeddings'])
    map_Exd, *_ = np.linalg.lstsq(before_MxE, self.workdir.read_rows(self.workdir.collaborative), rcond=None)
    return (items_NxE @ map_Exd).astype(np.float32)

  def generator_start(self) -> 'Start':
    """Starts the generator with the earlier parameters."""
    return lambda fresh, layout: self._best(self.workdir.generator, 'generator', layout)

  def write_prepared(self, names: Sequence[str], directory: pathlib.Path) -> None:
    """Takes over what the earlier generator prepared for its training, such as the tokenizer of its texts.

    Args:
      names: `Generator.prepares`.
      directory: the generator's folder of this run.
    """
    for name in names:
      if (self.workdir.generator / name).is_dir() and not (directory / name).exists():
        with artifacts.replaced_folder(directory / name) as new:
          shutil.copytree(self.workdir.generator / name, new, dirs_exist_ok=True)

  def write_tokenizer(self, workdir: Workdir) -> dict[str, float]:
    """Takes the earlier tokenizer over; returns the metrics of its best validation."""
    from letter_jax import sharding
    from letter_jax.tokenizer.input_scale import InputScale
    from letter_jax.training.checkpoints import Checkpoints, folder, read_best

    layout = sharding.Layout(sharding.make_mesh(self._now.mesh))
    params, progress = read_best(folder(self.config.checkpoints, self.workdir.tokenizer, 'tokenizer'), layout)
    InputScale.read(self.workdir.tokenizer).write(workdir.tokenizer)
    checkpoints = Checkpoints(folder(self._now.checkpoints, workdir.tokenizer, 'tokenizer'))
    try:
      checkpoints.save_best(params, progress)
    finally:
      checkpoints.close()
    return progress.best_metrics

  def text_width(self) -> int | None:
    """The columns of the earlier text embeddings; None where there are none."""
    folder = self.workdir.text_embeddings
    return self.workdir.read_rows(folder, mmap=True).shape[1] if self.workdir.has_rows(folder) else None

  def features_width(self, features: str) -> int | None:
    """The columns of a file of features in the earlier run; None where it has none."""
    rows = ItemFeatures.read(self.workdir.generator).rows if self.config.generator.features else {}
    return rows[features].shape[1] if features in rows else None

  def text_projection(self) -> 'TextProjection | None':
    """The TF-IDF of the earlier run, which its tokenizer was trained on; None where a language model makes the rows."""
    from letter_jax.text_embeddings.tf_idf import TextProjection

    return TextProjection.read(self.workdir.tf_idf) if embeds_as_before(self._now) else None

  def continued(self, ids: 'SemanticIds') -> 'SemanticIds':
    """Given semantic IDs, with the earlier codebook size; InputError where items that stay do not keep theirs."""
    stays_N, before = self.row_N >= 0, self.workdir.read_semantic_ids()
    if ids.levels != before.levels or ids.codebook_size > before.codebook_size:
      raise InputError(
        f'{self._now.semantic_ids.path} has {ids.levels} codes below {ids.codebook_size}, and {self.workdir} has '
        f'{before.levels} below {before.codebook_size}; expected the same, or --retokenize'
      )
    differs_S = (ids.codes_NxL[stays_N] != before.codes_NxL[self.row_N[stays_N]]).any(axis=1)
    if differs_S.any():
      item = np.flatnonzero(stays_N)[np.argmax(differs_S)]
      raise InputError(
        f'{self._now.semantic_ids.path} gives {np.count_nonzero(differs_S):,} items another semantic ID than '
        f'{self.workdir} has, such as {self.names_now[item]!r}; expected the same, or --retokenize'
      )
    return dataclasses.replace(ids, codebook_size=before.codebook_size)

  def semantic_ids(self, latent_NxD: np.ndarray, codebooks_LxKxD: np.ndarray) -> 'tuple[SemanticIds, np.ndarray]':
    """The semantic IDs of this run's items, and bool [N], whether the tokenizer's training did not know the item.

    Args:
      latent_NxD: float32, of the tokenizer's encoder.
      codebooks_LxKxD: float32.
    """
    from letter_jax.semantic_ids.ids import SemanticIds
    from letter_jax.tokenizer.assignment import assign_later_items

    before, stays_N = self.workdir.read_semantic_ids(), self.row_N >= 0
    codes_NxL = np.empty((len(stays_N), before.levels), np.int32)
    codes_NxL[stays_N] = before.codes_NxL[self.row_N[stays_N]]
    # The ID of an item that has just left is not reused in this run, unless there are too few.
    room = before.codebook_size**before.levels - np.count_nonzero(~stays_N)
    taken = before.codes_NxL if len(before) <= room else codes_NxL[stays_N]
    if not stays_N.all():
      codes_NxL[~stays_N] = assign_later_items(latent_NxD[~stays_N], codebooks_LxKxD, taken)
    added_N = ~stays_N
    added_N[stays_N] = self.workdir.read_added_items(len(before))[self.row_N[stays_N]]
    return SemanticIds(codes_NxL, before.codebook_size), added_N

  def drift(self, added_N: np.ndarray, report: Mapping[str, Any]) -> dict[str, Any]:
    """`drift.measure` of this run's semantic IDs; `added_N` as of `semantic_ids`."""
    from letter_jax.tokenizer import drift

    stay = int(np.count_nonzero(self.row_N >= 0))
    before, left = self.workdir.read_ids_report(), len(self.names) - stay
    return drift.measure(report, before, stay=stay, left=left, added=int(np.count_nonzero(added_N)))

  def _best(self, directory: pathlib.Path, label: str, layout: 'Layout') -> Any:
    """The best parameters of a training of the earlier run."""
    from letter_jax.training.checkpoints import folder, read_best

    return read_best(folder(self.config.checkpoints, directory, label), layout)[0]
