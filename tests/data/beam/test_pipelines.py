"""The Beam preparation against the local one, record for record, on small raw files in the true formats."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader
from tensorflow_datasets.proto import tf_example_generated_pb2 as tf_example

from letter_jax.configuration import DataConfig, PreparationConfig
from letter_jax.data import store
from letter_jax.data.beam import pipelines, transforms
from letter_jax.data.raw.read import read_dataset
from letter_jax.pipeline import run as pipeline
from letter_jax.system.errors import InputError
from tests.data.raw import test_raw
from tests.multi_process import HANG_SECONDS
from tests.paths import ROOT
from tests.small_data import config_with, run_settings, write_recipe

# The second option keeps the pipeline in this process: without it DirectRunner fetches another runner, Prism.
BEAM = ['--runner=DirectRunner', '--allow_unsafe_triggers']


def random_events(seed, count=260, users=24, items=16):
  """Many of one moment, some twice, raw ids beyond ASCII and of several lengths."""
  random = np.random.default_rng(seed)
  events = [
    (f'{"Aéz日"[user % 4]}{user}', f'B{int(items * random.random() ** 2)}', int(random.integers(0, 20)))
    for user in random.integers(0, users, count)
  ]
  return events + events[:20]


def write_reviews(path, events):
  test_raw.write(
    path, [json.dumps({'reviewerID': user, 'asin': item, 'unixReviewTime': time}) for user, item, time in events]
  )
  test_raw.write(path.parent / 'meta_Beauty.json', ["{'asin': 'B0', 'title': 'Soap'}"])


def prepare(config, directory, *options):
  return pipelines.prepare(config, directory, [*BEAM, *options])


def records(directory):
  """What stands in the files of each table, in their order."""
  return {
    table: [
      tf_example.Example.FromString(record)
      for shard in store.shards(directory / path)
      for record in ArrayRecordReader(str(shard)).read_all()
    ]
    for table, path in store.TABLES.items()
  }


def assert_same_as_local(config, folder, *options):
  """Prepares in `folder`; returns the local data set."""
  local = read_dataset(config)
  store.save(local, folder / 'local')
  summary = prepare(config, folder / 'beam', *options)
  assert summary == local.summary() == store.load(folder / 'beam').summary()
  assert records(folder / 'beam') == records(folder / 'local')
  assert {path.name for path in (folder / 'beam').iterdir()} == {'tfds', 'summary.json'}
  assert [path.name for path in (folder / 'beam/tfds').iterdir()] == ['letter_dataset']
  return local


@pytest.mark.parametrize('source', test_raw.WRITERS)
def test_every_raw_format_as_the_local_preparation_has_it(tmp_path, monkeypatch, source):
  monkeypatch.setattr(test_raw, 'EVENTS', random_events(list(test_raw.WRITERS).index(source)))
  monkeypatch.setattr(transforms, 'SPAN_BYTES', 1000)
  monkeypatch.setattr(transforms, 'BUCKETS', 4)
  test_raw.WRITERS[source](tmp_path / 'raw')
  local = assert_same_as_local(test_raw.settings(source, tmp_path / 'raw', core=5), tmp_path)
  assert len(local.interactions.users) > 8 and local.preparation['dropped']['duplicate'] >= 20
  assert bool(local.preparation['problems']) == (source != 'amazon2023')


def test_options_many_spans_and_several_workers_change_nothing(tmp_path, monkeypatch):
  monkeypatch.setattr(transforms, 'SPAN_BYTES', 300)
  raw = tmp_path / 'raw'
  write_reviews(raw / 'reviews_Beauty_5.json', [(user, item, day * 86400) for user, item, day in random_events(7)])
  (raw / 'reviews_Beauty_5.json').write_bytes(b'\n{\n' + (raw / 'reviews_Beauty_5.json').read_bytes())
  with (raw / 'reviews_Beauty_5.json').open('ab') as file:
    file.write(
      b'{\n\n{"reviewerID": "A", "asin": "B", "unixReviewTime": 1' + b'0' * 30 + b'}\n{\r\n\xff\n'
      b'{"reviewerID": "A\\ud800", "asin": "B", "unixReviewTime": 1}'
    )
  with (raw / 'meta_Beauty.json').open('ab') as file:
    file.write(b'\n' * 400 + b"{'asin': 'B0', 'title': 'second'}\n{'asin': 'B\\ud800'}\n{'asin': 3}\n\xff")
  config = DataConfig(
    source='amazon2014',
    path=str(raw),
    name='Beauty',
    preparation=PreparationConfig(core=1, repeats='drop', since='1970-01-04', until='1970-01-15'),
  )
  local = assert_same_as_local(config, tmp_path, '--direct_num_workers=3', '--direct_running_mode=multi_threading')
  dropped = local.preparation['dropped']
  assert len(dropped) == 5 and all(dropped[reason] for reason in dropped if 'core' not in reason)
  assert local.preparation['problems']['not UTF-8, mended']['lines'] == 2
  assert local.texts[local.item_names.index('B0')]['title'] == 'Soap'


def test_the_core_is_a_fixed_point_of_several_pipelines(tmp_path):
  # A chain whose ends fall away pass after pass, beside a square that stays.
  chain = [(f'u{user:02}', f'i{user + step:02}', user) for user in range(20) for step in (0, 1)]
  square = [(f'v{user}', f'j{item}', 5) for user in range(3) for item in range(3)]
  write_reviews(tmp_path / 'raw/reviews_Beauty_5.json.gz', chain + square)
  config = DataConfig(
    source='amazon2014', path=str(tmp_path / 'raw'), name='Beauty', preparation=PreparationConfig(core=2)
  )
  local = assert_same_as_local(config, tmp_path)
  assert local.item_names == ('j0', 'j1', 'j2') and local.preparation['k_core_rounds'] > 2 * pipelines.PASSES


def test_a_damaged_file_is_said_as_the_local_preparation_says_it(tmp_path):
  test_raw.write_amazon2014(tmp_path / 'raw')
  config = test_raw.settings('amazon2014', tmp_path / 'raw')
  metadata = tmp_path / 'raw/meta_Beauty.json.gz'
  metadata.write_bytes(metadata.read_bytes()[:-20])
  with pytest.raises(InputError) as of_texts:
    prepare(config, tmp_path / 'beam')
  with pytest.raises(InputError) as local:
    read_dataset(config)
  assert str(of_texts.value) == str(local.value) and 'meta_Beauty.json.gz is damaged' in str(local.value)
  assert not (tmp_path / 'beam/summary.json').exists()
  (tmp_path / 'raw/reviews_Beauty_5.json.gz').write_bytes(b'<html>404</html>')
  with pytest.raises(InputError, match='reviews_Beauty_5.json.gz is damaged'):
    prepare(config, tmp_path / 'beam')  # over what was left


@pytest.mark.parametrize(
  'lines, core, said',
  [
    (['a', 'b'], 5, r'no event that can be used \(2 not JSON, first reviews_Beauty_5.json:1\)'),
    (['{"reviewerID": "A", "asin": "B", "unixReviewTime": 1}'], 1, r'is left of the raw ones \(1 of users with fewer'),
  ],
)
def test_nothing_to_prepare(tmp_path, lines, core, said):
  test_raw.write(tmp_path / 'raw/reviews_Beauty_5.json', lines)
  test_raw.write(tmp_path / 'raw/meta_Beauty.json', [])
  with pytest.raises(InputError, match=said):
    prepare(test_raw.settings('amazon2014', tmp_path / 'raw', core), tmp_path / 'beam')


def test_wrong_settings(tmp_path):
  test_raw.write_yelp(tmp_path)
  config = test_raw.settings('yelp', tmp_path)
  with pytest.raises(InputError, match="config.data.source is 'letter'; expected one of 'csv', 'amazon2014'"):
    prepare(DataConfig(source='letter', path=str(tmp_path)), tmp_path / 'beam')
  with pytest.raises(InputError, match='config.data.path is empty'):
    prepare(DataConfig(source='yelp'), tmp_path / 'beam')
  with pytest.raises(InputError, match='Beam options .*nowhere'):
    prepare(config, tmp_path / 'beam', '--runner=nowhere.Runner')
  with pytest.raises(InputError, match='Beam options .*--direct_num_workers: invalid int value: .many'):
    prepare(config, tmp_path / 'beam', '--direct_num_workers=many')
  (tmp_path / 'summary.json').write_text('{}')
  with pytest.raises(InputError, match='is not empty; expected a new folder as --directory'):
    prepare(config, tmp_path)
  assert (tmp_path / 'summary.json').read_text() == '{}'


MODULE = 'letter_jax.data.beam'
WITHOUT_BEAM = (
  f"import runpy, sys; sys.modules['apache_beam'] = None; runpy.run_module({MODULE!r}, run_name='__main__')"
)


def test_paths_mean_the_same_to_every_worker(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert [str(pipelines.absolute(path)) for path in ('gs://bucket/raw', 'raw', tmp_path)] == [
    'gs://bucket/raw',
    str(tmp_path / 'raw'),
    str(tmp_path),
  ]


def _command(*arguments, program=('-m', MODULE)):
  return subprocess.run(
    [sys.executable, *program, *map(str, arguments)],
    cwd=ROOT,
    text=True,
    capture_output=True,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
    timeout=HANG_SECONDS,
  )


def _said(result):
  assert result.returncode == 2 and 'Traceback' not in result.stderr
  (said,) = [line for line in result.stderr.splitlines() if line.startswith('letter_jax: error: ')]
  return said


def test_the_command_without_beam(tmp_path):
  write_recipe(tmp_path / 'recipe.py', {})
  flags = [f'--config={tmp_path / "recipe.py"}', f'--directory={tmp_path / "beam"}']
  assert 'Apache Beam is not installed' in _said(_command(*flags, program=('-c', WITHOUT_BEAM)))
  assert '--directory' in _said(_command(flags[0]))


def test_the_command_and_what_the_program_makes_of_it(tmp_path):
  test_raw.write_yelp(tmp_path / 'raw')
  settings = run_settings(data__source='yelp', data__path=str(tmp_path / 'raw'), data__preparation__core=3)
  write_recipe(tmp_path / 'recipe.py', settings)
  flags = [f'--config={tmp_path / "recipe.py"}', f'--directory={tmp_path / "beam"}']
  result = _command(*flags, '--config.data.name=Tampa', '--', *BEAM)
  assert result.returncode == 0, result.stderr
  assert 'dataset: Tampa: 2 users, 3 items, 9 interactions' in result.stdout
  result = _command(*flags, '--', *BEAM)
  assert _said(result).endswith('beam is not empty; expected a new folder as --directory')

  settings = {**settings, 'data.source': 'prepared', 'data.path': str(tmp_path / 'beam')}
  pipeline.run(config_with(settings), tmp_path / 'workdir', 'dataset')
  assert records(tmp_path / 'workdir/dataset') == records(tmp_path / 'beam')
  assert store.load(tmp_path / 'workdir/dataset').summary() == store.load(tmp_path / 'beam').summary()
  # The fingerprint, too, is that of the local preparation.
  store.save(
    read_dataset(config_with(settings | {'data.source': 'yelp', 'data.path': str(tmp_path / 'raw')}).data),
    tmp_path / 'local',
  )
  assert (
    store.load_summary(tmp_path / 'workdir/dataset')['content'] == store.load_summary(tmp_path / 'local')['content']
  )
  (tmp_path / 'beam/summary.json').write_text((tmp_path / 'beam/summary.json').read_text() + '\n')
  with pytest.raises(InputError, match='content of config.data.path/summary.json'):
    pipeline.run(config_with(settings), tmp_path / 'workdir', 'dataset')


def test_options_that_nobody_knows(tmp_path):
  config = DataConfig(source='yelp', path=str(tmp_path))
  with pytest.raises(InputError, match='DirectRunner does not know --runer'):
    pipelines.prepare(config, tmp_path / 'beam', ['--runer=DataflowRunner'])


@pytest.mark.parametrize('directory', ['/proc/nowhere/beam', 'a file', 'run[1]'])
def test_a_directory_that_cannot_be_written(tmp_path, directory):
  (tmp_path / 'a file').touch()
  test_raw.write_yelp(tmp_path / 'raw')
  with pytest.raises(InputError, match='--directory=.*; expected'):
    prepare(DataConfig(source='yelp', path=str(tmp_path / 'raw')), tmp_path / directory)


def test_a_disk_that_is_full(tmp_path, monkeypatch):
  def full(value, path):
    raise OSError(28, 'No space left on device', str(path))

  monkeypatch.setattr(transforms, '_write_json', full)
  test_raw.write_yelp(tmp_path / 'raw')
  with pytest.raises(InputError, match="pipeline of 'reading events' failed .*No space left") as caught:
    prepare(DataConfig(source='yelp', path=str(tmp_path / 'raw')), tmp_path / 'beam')
  assert '\n' not in str(caught.value)


def test_a_prepared_folder_that_is_none(tmp_path):
  settings = run_settings(data__source='prepared', data__path=str(tmp_path))
  (tmp_path / 'summary.json').write_text('{}')
  with pytest.raises(InputError, match=f'{tmp_path}: .* cannot be read .*; expected a whole folder that {MODULE}'):
    pipeline.run(config_with(settings), tmp_path / 'workdir', 'dataset')
  with pytest.raises(InputError, match='config.data.path is empty'):
    pipeline.run(config_with({**settings, 'data.path': ''}), tmp_path / 'workdir', 'dataset')
