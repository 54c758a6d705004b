"""The stages together, on a synthetic store that is trained in seconds."""

import contextlib
import json
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from letter_jax.collaborative import lightgcn
from letter_jax.collaborative.embeddings import collaborative_rows
from letter_jax.data import index_format, synthetic
from letter_jax.evaluation import ranks
from letter_jax.pipeline import record
from letter_jax.pipeline import run as pipeline
from letter_jax.pipeline.graph import STAGES
from letter_jax.sharding import on_one_device
from letter_jax.system.errors import InputError
from letter_jax.system.lock import Lock
from letter_jax.training.checkpoints import read_best
from letter_jax.workdir import Workdir
from tests.small_data import config_with, run_settings
from tests.stages import run_stages, up_to

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def finished(small_run):
  return small_run


@pytest.fixture
def workdir(finished, tmp_path):
  return shutil.copytree(finished, tmp_path / 'workdir')


def _trees(folder):
  return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob('*')) if path.is_file()}


def test_every_artifact_is_there(finished):
  ids = np.load(finished / 'semantic_ids/semantic_ids.npy')
  assert ids.shape == (60, 3) and ids.dtype == np.int32
  assert len(np.unique(ids, axis=0)) == 60
  np.testing.assert_array_equal(index_format.read_index(finished / 'semantic_ids/index.json', 60), ids)
  text = np.load(finished / 'text_embeddings/embeddings.npy')
  assert text.dtype == np.float32 and len(text) == 60
  assert np.load(finished / 'collaborative/embeddings.npy').shape == (60, 8)
  metrics = json.loads((finished / 'evaluation/metrics.json').read_text())
  names = {f'{name}@{k}' for name in ('recall', 'ndcg') for k in (1, 5, 10, 20)}
  for split in ('test', 'validation'):
    assert set(metrics[split]) == names
    assert all(0 <= value <= 1 for value in metrics[split].values())
    for baseline in ('sasrec', *ranks.SIMPLE_RULES):
      assert set(metrics['baselines'][baseline][split]) == names


def test_predictions_have_every_user_once_and_give_the_metrics(finished):
  lines = [json.loads(line) for line in (finished / 'evaluation/predictions.jsonl').read_text().splitlines()]
  assert sorted(line['user'] for line in lines) == sorted(f'user-{user}' for user in range(120))
  assert all(len(set(line['items'])) == 20 == len(line['scores']) for line in lines)
  assert all(line['scores'] == sorted(line['scores'], reverse=True) for line in lines)
  metrics = json.loads((finished / 'evaluation/metrics.json').read_text())
  for found, key in ((metrics, 'items'), (metrics['baselines']['sasrec'], 'sasrec_items')):
    hits = np.mean([line['target'] in line[key][:10] for line in lines])
    assert found['test']['recall@10'] == pytest.approx(hits, abs=1e-6)


def test_a_finished_run_is_left_alone(workdir, capsys):
  before = _trees(workdir)
  pipeline.run(config_with(run_settings()), workdir)
  assert capsys.readouterr().out.count('done before') == len(STAGES)
  assert _trees(workdir) == before


def test_a_second_run_of_a_workdir_is_refused_and_a_run_leaves_no_lock(workdir):
  lock, before = Lock(workdir), _trees(workdir)
  lock.acquire()
  for stage in ('all', 'dataset', 'report'):
    with pytest.raises(InputError, match=f'{workdir} is in use by process {os.getpid()} on .*, since .*; expected one'):
      pipeline.run(config_with(run_settings()), workdir, stage, overwrite=True)
  lock.release()
  assert _trees(workdir) == before
  for stage, error in (('dataset', False), ('all', True)):
    with pytest.raises(InputError) if error else contextlib.nullcontext():
      pipeline.run(config_with(run_settings(**({'evaluation__beam': 61} if error else {}))), workdir, stage)
    assert not (workdir / 'run.lock').exists()


def test_settings_without_effect_may_change(workdir, capsys):
  pipeline.run(config_with(run_settings(generator__training__log_every_steps=1)), workdir)
  assert capsys.readouterr().out.count('done before') == len(STAGES)


def test_a_changed_setting_is_named_and_nothing_is_touched(workdir):
  before = _trees(workdir)
  with pytest.raises(InputError) as caught:
    pipeline.run(config_with(run_settings(tokenizer__model__alpha=0.5)), workdir)
  assert 'stage tokenizer' in str(caught.value)
  assert 'config.tokenizer.model.alpha (0.02 then, 0.5 now)' in str(caught.value)
  assert _trees(workdir) == before


def test_a_setting_that_is_newer_than_the_workdir_had_its_default_then(workdir, capsys):
  record = workdir / 'generator/stage.json'
  written = json.loads(record.read_text())
  del written['settings']['generator.temperature']
  record.write_text(json.dumps(written))
  pipeline.run(config_with(run_settings()), workdir)
  assert 'generator: done before' in capsys.readouterr().out
  with pytest.raises(InputError, match=r'config.generator.temperature \(1.0 then, 0.5 now\)'):
    pipeline.run(config_with(run_settings(generator__temperature=0.5)), workdir)


def test_one_stage_needs_those_before_it(tmp_path):
  with pytest.raises(InputError, match='stage tokenizer needs dataset, which is not complete'):
    pipeline.run(config_with(run_settings()), tmp_path, 'tokenizer')


def test_one_stage_refuses_inputs_of_another_config(workdir):
  with pytest.raises(InputError, match=r'stage evaluate needs generator, .*config.generator.temperature'):
    pipeline.run(config_with(run_settings(generator__temperature=0.5)), workdir, 'evaluate')


def test_an_output_that_was_deleted_is_made_again(workdir):
  expected = (workdir / 'evaluation/metrics.json').read_bytes()
  (workdir / 'evaluation/metrics.json').unlink()
  pipeline.run(config_with(run_settings()), workdir)
  assert (workdir / 'evaluation/metrics.json').read_bytes() == expected


def test_a_named_stage_is_redone_with_overwrite(workdir, capsys):
  expected = (workdir / 'semantic_ids/semantic_ids.npy').read_bytes()
  pipeline.run(config_with(run_settings()), workdir, 'semantic_ids', overwrite=True)
  assert 'semantic_ids: redone\n' in capsys.readouterr().out
  assert (workdir / 'semantic_ids/semantic_ids.npy').read_bytes() == expected
  assert not (workdir / 'generator').exists()


def test_a_stage_in_the_middle_is_redone_with_other_settings(workdir, capsys):
  settings = run_settings(semantic_ids__collisions='reference')
  pipeline.run(config_with(settings), workdir, 'semantic_ids', overwrite=True)
  assert 'semantic_ids: redone' in capsys.readouterr().out
  assert len(np.unique(np.load(workdir / 'semantic_ids/semantic_ids.npy'), axis=0)) == 60
  run_stages(config_with(settings), workdir, up_to('tokenizer'))
  assert capsys.readouterr().out.count('done before') == 4


@pytest.mark.parametrize('output', ['dataset/summary.json', 'semantic_ids/report.json'])
def test_whatever_was_spoiled_is_made_again(workdir, capsys, output):
  expected = (workdir / output).read_bytes()
  (workdir / output).write_bytes(expected[:5])
  with pytest.raises(InputError, match='missing or changed since it was written'):
    pipeline.run(config_with(run_settings()), workdir, 'evaluate')
  pipeline.run(config_with(run_settings()), workdir)
  assert (workdir / output).read_bytes() == expected
  assert capsys.readouterr().out.count('done before') == len(STAGES) - 1


def test_what_cannot_be_redone_is_kept(workdir, capsys):
  before = (workdir / 'text_embeddings/embeddings.npy').read_bytes()
  broken = config_with(run_settings(text_embeddings__model='./nowhere'))
  with pytest.raises(InputError, match='nowhere is not a folder'):
    pipeline.run(broken, workdir, 'text_embeddings', overwrite=True)
  assert (workdir / 'text_embeddings/embeddings.npy').read_bytes() == before
  pipeline.run(config_with(run_settings()), workdir)
  assert capsys.readouterr().out.count('done before') == len(STAGES)
  assert not [path for path in workdir.iterdir() if path.name.startswith('.')]


@pytest.mark.parametrize('attempts', [1, 2])
def test_what_killed_attempts_were_to_replace_is_not_lost(workdir, monkeypatch, capsys, attempts):
  """Ctrl-C leaves the half-made stage, to be resumed; if it cannot be made after all, the first result comes back."""
  before = (workdir / 'text_embeddings/embeddings.npy').read_bytes()

  def killed(config, workdir, given):
    (workdir / 'text_embeddings/half.npy').write_bytes(b'half')
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(pipeline.stages, 'text_embeddings', killed)
    for attempt in range(attempts):
      with pytest.raises(KeyboardInterrupt):
        pipeline.run(config_with(run_settings(text_embeddings__dim=5 + attempt)), workdir, overwrite=True)
  with pytest.raises(InputError, match='nowhere is not a folder'):
    pipeline.run(config_with(run_settings(text_embeddings__model='./nowhere')), workdir, overwrite=True)
  assert (workdir / 'text_embeddings/embeddings.npy').read_bytes() == before
  capsys.readouterr()
  pipeline.run(config_with(run_settings()), workdir)
  assert capsys.readouterr().out.count('done before') == len(STAGES)
  pipeline.run(config_with(run_settings(text_embeddings__dim=5)), workdir, 'text_embeddings', overwrite=True)
  assert (workdir / 'text_embeddings/embeddings.npy').read_bytes() != before
  assert not [path for path in workdir.iterdir() if path.name.startswith('.')]


def test_a_workdir_of_an_earlier_version_is_named_as_such(workdir):
  record = workdir / 'dataset/stage.json'
  written = json.loads(record.read_text())
  del written['outputs']['lengths.npy']
  record.write_text(json.dumps(written))
  for stage in ('all', 'evaluate'):
    with pytest.raises(InputError, match=r'different version of this program \(which writes lengths.npy\).*overwrite'):
      pipeline.run(config_with(run_settings()), workdir, stage)
  pipeline.run(config_with(run_settings()), workdir, 'dataset', overwrite=True)


def test_tables_that_are_made_again_change_nothing_for_later_stages(workdir, capsys):
  """TFDS writes other bytes for the same records in another process."""
  (table,) = (workdir / 'dataset/tfds').rglob('*users*.array_record*')
  script = (
    'import pathlib; from letter_jax.pipeline import run as pipeline; '
    'from tests.small_data import config_with, run_settings; '
    f'pipeline.run(config_with(run_settings()), pathlib.Path({str(workdir)!r}), "dataset")'
  )
  for seed in ('1', '2', '3'):  # at least one of them orders the features otherwise
    table.write_bytes(b'')
    subprocess.run([sys.executable, '-c', script], check=True, env={**os.environ, 'PYTHONHASHSEED': seed})
  pipeline.run(config_with(run_settings()), workdir)
  assert capsys.readouterr().out.count('done before') == len(STAGES)


def test_the_time_of_a_killed_attempt_counts(workdir):
  record, last = workdir / 'semantic_ids/stage.json', workdir / 'semantic_ids/index.json'
  written = json.loads(record.read_text())
  record.write_text(json.dumps({**written, 'complete': False, 'seconds': 1000.0}))
  os.utime(record, (5000, 5000))
  for path in last.parent.iterdir():
    if path != record:
      os.utime(path, (5070, 5070))
  pipeline.run(config_with(run_settings()), workdir, 'semantic_ids')
  assert 1070 <= json.loads(record.read_text())['seconds'] < 1200


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
  (tmp_path / 'dataset').mkdir()
  (tmp_path / 'dataset/mine.txt').write_text('mine')
  for overwrite in (False, True):
    with pytest.raises(InputError, match='no run of this program wrote it'):
      pipeline.run(config_with(run_settings()), tmp_path, overwrite=overwrite)
  assert (tmp_path / 'dataset/mine.txt').read_text() == 'mine'


def test_a_damaged_record_is_reported(workdir):
  (workdir / 'generator/stage.json').write_text('{"settings": ')
  with pytest.raises(InputError, match='stage.json is damaged'):
    pipeline.run(config_with(run_settings()), workdir)


def test_the_generator_can_be_restored(finished):
  restored = Workdir(finished).restore_generator()
  assert restored.semantic_ids.codes_NxL.shape == (60, 3)
  assert restored.semantic_ids.codebook_size == 8
  assert restored.params['embedding'].shape == (2 + 3 * 8, 16)
  assert restored.config.generator.model.d_model == 16
  assert restored.step > 0 and 'ndcg@10' in restored.validation


def test_restoring_from_a_folder_without_generator(tmp_path):
  with pytest.raises(InputError, match='has no generator to restore'):
    Workdir(tmp_path).restore_generator()


@pytest.mark.parametrize(
  'settings, message',
  [
    (dict(evaluation__beam=61), 'config.evaluation.beam is 61; expected at most the number of items, 60'),
    (dict(evaluation__beam=5), 'config.evaluation.beam is 5; expected at least 20'),
    (dict(tokenizer__model__codebook_size=3), '60 items cannot have semantic IDs of their own'),
    (dict(semantic_ids__path='nowhere.json'), 'nowhere.json does not exist; config.semantic_ids.path names it'),
    (dict(collaborative__path='nowhere.npy'), 'nowhere.npy does not exist; config.collaborative.path names it'),
  ],
)
def test_invalid_inputs_are_reported_before_anything_is_trained_or_removed(workdir, settings, message):
  before = _trees(workdir)
  with pytest.raises(InputError, match=message):
    pipeline.run(config_with(run_settings(**settings)), workdir, overwrite=True)
  assert _trees(workdir) == before


# LightGCN next to SASRec.


def _lightgcn(**changes):
  return config_with(
    run_settings(
      collaborative__method='lightgcn',
      collaborative__lightgcn__dim=12,
      collaborative__lightgcn__training__epochs=2,
      collaborative__lightgcn__training__batch_size=128,
      collaborative__lightgcn__training__evaluate_every_epochs=1,
      generator__training__epochs=1,
      **changes,
    )
  )


def _metrics(workdir, stage='collaborative'):
  return json.loads((workdir / stage / 'metrics.json').read_text())


def test_overwrite_with_lightgcn_redoes_what_follows_and_aligns_with_it(finished, workdir, capsys):
  pipeline.run(_lightgcn(), workdir, overwrite=True)
  said = capsys.readouterr().out
  assert said.count('done before') == 2  # dataset, text embeddings
  assert 'collaborative: redone' in said
  assert {'tokenizer: running', 'generator: running', 'evaluate: running'} <= set(said.splitlines())
  names = ('LETTER-TIGER', 'SASRec', 'LightGCN', 'bought together', 'buy again', 'popularity')
  assert [said.count(f'\n{name} ') for name in names] == [2] * 6  # both protocols
  trained = _metrics(workdir)
  assert trained.keys() == {'sasrec', 'lightgcn'}
  assert trained['sasrec'] == _metrics(finished)['sasrec'] != trained['lightgcn']
  baselines = _metrics(workdir, 'evaluation')['baselines']
  for rule in ranks.SIMPLE_RULES:
    assert baselines.pop(rule) == _metrics(finished, 'evaluation')['baselines'][rule]
  for model, found in trained.items():
    history_in = {split: found[split] for split in ('validation', 'test')}
    assert baselines.pop(model) == {**found, 'history_in': history_in}
  assert not baselines

  # The rows are of the propagated items of the best validation, not of SASRec's.
  config = _lightgcn()
  data = synthetic.synthesize(config.data.synthetic, config.seed).interactions
  params, _ = read_best(workdir / 'collaborative/lightgcn/checkpoints', on_one_device())
  graph = jax.device_put(lightgcn.build_graph(data))
  _, items = lightgcn.embeddings(config.collaborative.lightgcn, params, graph)
  expected, found = collaborative_rows(np.asarray(items), 8), np.load(workdir / 'collaborative/embeddings.npy')
  assert found.dtype == np.float32
  np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-4)


def test_lightgcn_alone(tmp_path):
  run_stages(_lightgcn(collaborative__baseline=False), tmp_path, ('dataset', 'collaborative'))
  assert _metrics(tmp_path).keys() == {'lightgcn'}
  assert not (tmp_path / 'collaborative/checkpoints').exists()
  assert np.load(tmp_path / 'collaborative/embeddings.npy').shape == (60, 8)


# Checkpoints that lie elsewhere.


def _elsewhere(tmp_path, **changes):
  return config_with(run_settings(checkpoints=str(tmp_path / 'elsewhere'), generator__training__epochs=1, **changes))


@pytest.fixture(scope='module')
def apart(tmp_path_factory):
  """A folder with the workdir of a run that has a generator, and its checkpoints beside it."""
  folder = tmp_path_factory.mktemp('apart')
  run_stages(_elsewhere(folder), folder / 'workdir', up_to('generator'))
  return folder


def test_checkpoints_elsewhere_belong_to_one_run(apart, capsys):
  assert {path.name for path in (apart / 'elsewhere').iterdir()} == {'sasrec', 'tokenizer', 'generator'}
  assert not list((apart / 'workdir').rglob('checkpoints'))
  assert Workdir(apart / 'workdir').restore_generator().params
  run_stages(_elsewhere(apart), apart / 'workdir', up_to('generator'))
  assert capsys.readouterr().out.count('done before') == len(up_to('generator'))
  # Another run does not take them for its own.
  with pytest.raises(InputError, match='sasrec holds checkpoints of a different run'):
    pipeline.run(_elsewhere(apart, seed=5), apart / 'other')


def test_a_redo_replaces_checkpoints_elsewhere_or_brings_them_back(apart, monkeypatch, capsys):
  before = _trees(apart)

  def fails(config, workdir, given):
    raise InputError('no')

  with monkeypatch.context() as patch:
    patch.setattr(pipeline.stages, 'generator', fails)
    with pytest.raises(InputError, match='no'):
      pipeline.run(_elsewhere(apart), apart / 'workdir', 'generator', overwrite=True)
  assert _trees(apart) == before
  pipeline.run(_elsewhere(apart), apart / 'workdir', 'generator', overwrite=True)
  assert 'generator: redone' in capsys.readouterr().out and Workdir(apart / 'workdir').restore_generator().params
  assert not [path for path in apart.rglob('.*.replaced')]


def test_a_redo_that_cannot_begin_leaves_what_was_there(workdir, monkeypatch):
  before = (workdir / 'tokenizer/stage.json').read_bytes()

  def full(*_):
    raise InputError('the disk is full')

  with monkeypatch.context() as patched:
    patched.setattr(record, 'write', full)
    with pytest.raises(InputError, match='the disk is full'):
      pipeline.run(config_with(run_settings()), workdir, 'tokenizer', overwrite=True)
  assert (workdir / 'tokenizer/stage.json').read_bytes() == before
  assert not list(workdir.glob('.*.replaced'))
