"""The Beam preparation against the local one, record for record, on small raw files in the true formats."""

import json

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader
from tensorflow_datasets.proto import tf_example_generated_pb2 as tf_example

from letter_jax.configuration import DataConfig, PreparationConfig
from letter_jax.data import left_out, store
from letter_jax.data.beam import pipelines, reading, transforms
from letter_jax.data.raw.read import read_raw_dataset
from letter_jax.pipeline import run as pipeline
from letter_jax.system.errors import InputError
from tests.data.raw import test_raw
from tests.small_data import config_with, run_settings

pytestmark = pytest.mark.slow

# The second option keeps the pipeline in this process: without it DirectRunner fetches another runner, Prism.
BEAM = ['--runner=DirectRunner', '--allow_unsafe_triggers']


def random_events(seed, count=260, users=24, items=16):
  """Many at the same time, some duplicated, with raw ids beyond ASCII and of several lengths."""
  random = np.random.default_rng(seed)
  events = [
    (f'{"Aéz日"[user % 4]}{user}', f'B{int(items * random.random() ** 2)}', int(random.integers(0, 20)))
    for user in random.integers(0, users, count)
  ]
  return events + events[:20]


def write_reviews(path, events, described=('B0',)):
  test_raw.write(
    path, [json.dumps({'reviewerID': user, 'asin': item, 'unixReviewTime': time}) for user, item, time in events]
  )
  test_raw.write(path.parent / 'meta_Beauty.json', [f"{{'asin': '{item}', 'title': 'Soap'}}" for item in described])


def prepare(config, directory, *options):
  return pipelines.prepare_with_beam(config, directory, [*BEAM, *options])


def records(directory):
  """The records of each table, in the order of its files."""
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
  local = read_raw_dataset(config)
  store.save(local, folder / 'local')
  summary = prepare(config, folder / 'beam', *options)
  assert summary == local.summary() == store.load(folder / 'beam').summary()
  assert records(folder / 'beam') == records(folder / 'local')
  names = {'tfds', 'summary.json', left_out.FILE}
  assert {path.name for path in (folder / 'beam').iterdir()} == names
  assert (folder / 'beam' / left_out.FILE).read_bytes() == (folder / 'local' / left_out.FILE).read_bytes()
  assert [path.name for path in (folder / 'beam/tfds').iterdir()] == ['letter_dataset']
  return local


@pytest.mark.parametrize('source', test_raw.WRITERS)
def test_every_raw_format_is_prepared_as_locally(tmp_path, monkeypatch, source):
  monkeypatch.setattr(test_raw, 'EVENTS', random_events(list(test_raw.WRITERS).index(source)))
  monkeypatch.setattr(reading, 'SPAN_BYTES', 1000)
  monkeypatch.setattr(transforms, 'BUCKETS', 4)
  test_raw.WRITERS[source](tmp_path / 'raw')
  local = assert_same_as_local(test_raw.settings(source, tmp_path / 'raw', core=5), tmp_path)
  assert len(local.interactions.users) > 8 and local.preparation['dropped']['duplicate'] >= 20
  assert bool(local.preparation['problems']) == (source != 'amazon2023')


def test_many_spans_and_several_workers_do_not_change_the_result(tmp_path, monkeypatch):
  monkeypatch.setattr(reading, 'SPAN_BYTES', 300)
  raw = tmp_path / 'raw'
  events = [*random_events(7), ('old', 'B old', 0), ('short', 'B short', 8), ('short', 'B0', 9)]
  write_reviews(raw / 'reviews_Beauty_5.json', [(user, item, day * 86400) for user, item, day in events])
  (raw / 'reviews_Beauty_5.json').write_bytes(b'\n{\n' + (raw / 'reviews_Beauty_5.json').read_bytes())
  with (raw / 'reviews_Beauty_5.json').open('ab') as file:
    file.write(
      b'{\n\n{"reviewerID": "A", "asin": "B", "unixReviewTime": 1' + b'0' * 30 + b'}\n{\r\n\xff\n'
      b'{"reviewerID": "A\\ud800", "asin": "B", "unixReviewTime": 1}'
    )
  with (raw / 'meta_Beauty.json').open('ab') as file:
    file.write(b'\n' * 400 + b"{'asin': 'B0', 'title': 'second'}\n{'asin': 'B\\ud800'}\n{'asin': 3}\n\xff")
    file.write(b"\n{'asin': 'B1', 'brand': 'no title'}" + b'\n' * 400 + b"{'asin': 'B1', 'title': 'a title'}\n")
    file.write(b"{'asin': 'B1', 'title': 'another'}\n")
  config = DataConfig(
    source='amazon2014',
    path=str(raw),
    name='Beauty',
    preparation=PreparationConfig(core=1, repeats='drop', since='1970-01-04', until='1970-01-15'),
  )
  local = assert_same_as_local(config, tmp_path, '--direct_num_workers=3', '--direct_running_mode=multi_threading')
  assert local.left_out == {left_out.DATES: ['B old'], 'outside the 1-core': [], left_out.SHORT: ['B short']}
  dropped = local.preparation['dropped']
  assert len(dropped) == 5 and all(dropped[reason] for reason in dropped if 'core' not in reason)
  assert local.preparation['problems']['invalid UTF-8 (replaced)']['lines'] == 2
  assert local.texts[local.item_names.index('B0')]['title'] == 'Soap'
  assert local.texts[local.item_names.index('B1')]['title'] == 'a title'


def test_csv_files_with_bad_records_and_times_below_a_second_are_prepared_as_locally(tmp_path, capsys):
  start = 1700000000123
  rows = [f'{user},{item},24" tv,{start + time}' for user, item, time in random_events(5)]
  rows[3:3] = [
    'u,"B1,x,1',
    f'u,B1,"two\nlines",{start}',
    'u,B1,x',
    'u,B1,x,05/01/2024',
    'u,B1,x,1700000000',
    'u\xff\r,,',
  ]
  test_raw.write(tmp_path / 'raw/interactions.csv', ['user_id,item_id,note,timestamp', *rows])
  test_raw.write(tmp_path / 'raw/items.csv', ['item_id,title', 'B1,nan', 'B1,"A', 'title"', 'B2,"x', 'B3,Size <M>'])
  config = DataConfig(source='csv', path=str(tmp_path / 'raw'), preparation=PreparationConfig(core=3))
  local = assert_same_as_local(config, tmp_path)
  assert set(local.timestamps % 10**6) > {123_000, 124_000}
  assert local.preparation['time_unit_of_source'] == 'milliseconds' and len(local.preparation['problems']) == 5
  assert local.preparation['problems']['timestamp not in milliseconds, unlike most'] == {
    'lines': 1,
    'first': 'interactions.csv:10',
    'value': '"1700000000"',
  }
  titles = [local.texts[local.item_names.index(item)]['title'] for item in ('B1', 'B2', 'B3')]
  assert titles == ['A title', '', 'Size <M>']
  assert capsys.readouterr().out.count('dataset: interactions.csv: timestamps in milliseconds\n') == 2


def test_the_core_is_a_fixed_point_of_several_pipelines(tmp_path, monkeypatch):
  monkeypatch.setattr(pipelines, 'PASSES', 2)
  # A chain that loses its ends in every pass, and a square that stays.
  chain = [(f'u{user:02}', f'i{user + step:02}', user) for user in range(10) for step in (0, 1)]
  square = [(f'v{user}', f'j{item}', 5) for user in range(3) for item in range(3)]
  write_reviews(tmp_path / 'raw/reviews_Beauty_5.json.gz', chain + square, ['j0'])
  config = DataConfig(
    source='amazon2014', path=str(tmp_path / 'raw'), name='Beauty', preparation=PreparationConfig(core=2)
  )
  local = assert_same_as_local(config, tmp_path)
  assert local.item_names == ('j0', 'j1', 'j2') and local.preparation['k_core_rounds'] > 2 * pipelines.PASSES
  assert local.preparation['left_out']['outside the 2-core'] == {'users': 10, 'items': 11}


def test_a_damaged_file_raises_the_error_of_the_local_preparation(tmp_path):
  test_raw.write_amazon2014(tmp_path / 'raw')
  config = test_raw.settings('amazon2014', tmp_path / 'raw')
  metadata = tmp_path / 'raw/meta_Beauty.json.gz'
  metadata.write_bytes(metadata.read_bytes()[:-20])
  with pytest.raises(InputError) as of_texts:
    prepare(config, tmp_path / 'beam')
  with pytest.raises(InputError) as local:
    read_raw_dataset(config)
  assert str(of_texts.value) == str(local.value) and 'meta_Beauty.json.gz is damaged' in str(local.value)
  assert not (tmp_path / 'beam/summary.json').exists()
  (tmp_path / 'raw/reviews_Beauty_5.json.gz').write_bytes(b'<html>404</html>')
  with pytest.raises(InputError, match='reviews_Beauty_5.json.gz is damaged'):
    prepare(config, tmp_path / 'beam')  # in the folder that the failed run left


@pytest.mark.parametrize(
  'lines, core, message',
  [
    (['a', 'b'], 5, r'no usable event \(not JSON: 2 lines, first reviews_Beauty_5.json:1\)'),
    (
      ['{"reviewerID": "A", "asin": "B", "unixReviewTime": 1}'],
      1,
      r'is left after preparation \(1 of users with fewer',
    ),
  ],
)
def test_a_file_without_usable_events_is_refused(tmp_path, lines, core, message):
  test_raw.write(tmp_path / 'raw/reviews_Beauty_5.json', lines)
  test_raw.write(tmp_path / 'raw/meta_Beauty.json', [])
  with pytest.raises(InputError, match=message):
    prepare(test_raw.settings('amazon2014', tmp_path / 'raw', core), tmp_path / 'beam')


def test_files_that_name_their_items_differently_raise_the_error_of_the_local_preparation(tmp_path):
  events = [(f'u{user}', f'{item}.0', item) for user in range(4) for item in range(6)]
  write_reviews(tmp_path / 'raw/reviews_Beauty_5.json', events, [*map(str, range(9)), '5.0'])
  config = test_raw.settings('amazon2014', tmp_path / 'raw')
  with pytest.raises(InputError) as local:
    read_raw_dataset(config)
  with pytest.raises(InputError) as caught:
    prepare(config, tmp_path / 'beam')
  assert str(caught.value) == str(local.value)
  assert "has '0.0', '1.0', '2.0', meta_Beauty.json has '0', '1', '2'" in str(caught.value)


def test_invalid_settings_are_refused(tmp_path):
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


def test_paths_are_absolute_for_every_worker(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert [str(pipelines.absolute(path)) for path in ('gs://bucket/raw', 'raw', tmp_path)] == [
    'gs://bucket/raw',
    str(tmp_path / 'raw'),
    str(tmp_path),
  ]


def test_unknown_beam_options_are_refused(tmp_path):
  config = DataConfig(source='yelp', path=str(tmp_path))
  with pytest.raises(InputError, match='DirectRunner does not know --runer'):
    pipelines.prepare_with_beam(config, tmp_path / 'beam', ['--runer=DataflowRunner'])


@pytest.mark.parametrize('directory', ['/proc/nowhere/beam', 'a file', 'run[1]'])
def test_an_unwritable_directory_is_an_input_error(tmp_path, directory):
  (tmp_path / 'a file').touch()
  test_raw.write_yelp(tmp_path / 'raw')
  with pytest.raises(InputError, match='--directory=.*; expected'):
    prepare(DataConfig(source='yelp', path=str(tmp_path / 'raw')), tmp_path / directory)


def test_a_full_disk_is_an_input_error(tmp_path, monkeypatch):
  def full(value, path):
    raise OSError(28, 'No space left on device', str(path))

  monkeypatch.setattr(transforms, '_write_json', full)
  test_raw.write_yelp(tmp_path / 'raw')
  with pytest.raises(InputError, match="pipeline 'reading events' failed .*No space left") as caught:
    prepare(DataConfig(source='yelp', path=str(tmp_path / 'raw')), tmp_path / 'beam')
  assert '\n' not in str(caught.value)


def test_an_invalid_prepared_folder_is_refused(tmp_path):
  settings = run_settings(data__source='prepared', data__path=str(tmp_path))
  (tmp_path / 'summary.json').write_text('{}')
  expected = 'expected a complete folder that letter_jax.cli.prepare_with_beam wrote'
  with pytest.raises(InputError, match=f'{tmp_path}: .* cannot be read .*; {expected}'):
    pipeline.run(config_with(settings), tmp_path / 'workdir', 'dataset')
  with pytest.raises(InputError, match='config.data.path is empty'):
    pipeline.run(config_with({**settings, 'data.path': ''}), tmp_path / 'workdir', 'dataset')
