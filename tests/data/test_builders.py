"""TFDS builders on small raw files, in a folder or downloaded from a local server."""

import functools
import gzip
import hashlib
import http.server
import tempfile
import threading
import zipfile

import numpy as np
import pytest
import tensorflow_datasets as tfds

from letter_jax.configuration import DataConfig, PreparationConfig, SyntheticConfig
from letter_jax.data import builders, store
from letter_jax.data.raw import downloads
from letter_jax.pipeline import run as pipeline
from letter_jax.system.errors import InputError
from tests.data.raw.test_raw import WRITERS
from tests.small_data import config_with, run_settings, write_letter_folder

CORE = PreparationConfig(core=3)
BUILDERS = {
  'amazon2014': builders.Amazon2014,
  'amazon2018': builders.Amazon2018,
  'amazon2023': builders.Amazon2023,
  'movielens 1m': builders.MovieLensSequences,
  'movielens 32m': builders.MovieLensSequences,
  'yelp': builders.Yelp,
}


def records(builder, table):
  builder.download_and_prepare()
  id_name = 'user_id' if table == 'users' else 'item_id'
  return sorted(builder.as_data_source(table), key=lambda record: record[id_name])


@pytest.mark.parametrize('source', BUILDERS)
def test_each_raw_source_has_a_builder(tmp_path, source):
  WRITERS[source](tmp_path / 'raw')
  settings = DataConfig(
    source=source.split()[0],
    path=str(tmp_path / 'raw'),
    preparation=CORE,
    name='Beauty' if source.startswith('amazon') else '',
  )
  make = functools.partial(BUILDERS[source], settings=settings, data_dir=tmp_path / 'tfds')
  users = records(make(config='users'), 'users')
  assert [user['raw_id'].decode() for user in users] == ['A1', 'A2']
  assert users[0]['items'].tolist()[:4] == [0, 1, 2, 1] and users[0]['items'].dtype == np.int32
  days = users[1]['timestamps'] // (86400 * 10**6)
  first = 19_001 if source == 'amazon2023' else 1
  assert days.tolist() == list(range(first, first + 5))
  items = records(make(config='items'), 'items')
  assert [item['raw_id'].decode() for item in items] == ['B1', 'B2', 'B3']
  assert items[0]['title'].decode().startswith('Soap') and items[0]['categories'].decode() == 'Beauty > Bath & Body'
  assert items[2]['title'] == b'' and items[2]['description'] == b''


def test_a_builder_leaves_nothing_in_the_temporary_folder(tmp_path, monkeypatch):
  write_letter_folder(tmp_path / 'raw')
  (tmp_path / 'temporary').mkdir()
  monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'temporary'))
  records(builders.LetterFolder(settings=DataConfig(path=str(tmp_path / 'raw')), data_dir=tmp_path / 'tfds'), 'users')
  assert list((tmp_path / 'temporary').iterdir()) == []


def test_letter_folders_and_the_synthetic_store_have_builders(tmp_path):
  write_letter_folder(tmp_path / 'raw')
  folder = builders.LetterFolder(settings=DataConfig(path=str(tmp_path / 'raw')), data_dir=tmp_path / 'tfds')
  users = records(folder, 'users')
  assert len(users) == 40 and users[0]['timestamps'].tolist() == []
  sizes = SyntheticConfig(num_users=50, num_items=20)
  made = [
    records(
      builders.SyntheticStore(
        settings=DataConfig(source='synthetic', synthetic=sizes), seed=seed, data_dir=tmp_path / 'tfds'
      ),
      'users',
    )
    for seed in (1, 1, 2)
  ]
  histories = [[record['items'].tolist() for record in one] for one in made]
  assert len(histories[0]) == 50 and histories[0] == histories[1] != histories[2]


def test_different_settings_make_a_different_data_set(tmp_path):
  WRITERS['amazon2014'](tmp_path / 'raw')
  for core, users in ((3, 2), (1, 2), (4, 1)):
    settings = DataConfig(
      source='amazon2014', name='Beauty', path=str(tmp_path / 'raw'), preparation=PreparationConfig(core=core)
    )
    if core == 4:
      with pytest.raises(InputError, match='no interaction is left'):
        records(builders.Amazon2014(settings=settings, data_dir=tmp_path / 'tfds'), 'users')
    else:
      assert len(records(builders.Amazon2014(settings=settings, data_dir=tmp_path / 'tfds'), 'users')) == users


def test_settings_of_training_do_not_make_a_different_data_set(tmp_path):
  WRITERS['amazon2014'](tmp_path / 'raw')
  names = [
    builders.Amazon2014(
      data_dir=tmp_path / 'tfds',
      settings=DataConfig(source='amazon2014', name='Beauty', path=str(tmp_path / 'raw'), **changes),
    ).builder_config.name
    for changes in ({}, {'history_length': 7, 'window_users': 3}, {'preparation': CORE})
  ]
  assert names[0] == names[1] != names[2]


def test_different_files_make_a_different_data_set(tmp_path):
  settings = DataConfig(source='amazon2014', name='Beauty', path=str(tmp_path / 'raw'), preparation=CORE)
  WRITERS['amazon2014'](tmp_path / 'raw')
  before = records(builders.Amazon2014(settings=settings, data_dir=tmp_path / 'tfds'), 'users')
  reviews = tmp_path / 'raw/reviews_Beauty_5.json.gz'
  more = '{"reviewerID": "A1", "asin": "B3", "unixReviewTime": 99999999}\n'
  reviews.write_bytes(reviews.read_bytes() + gzip.compress(more.encode()))
  after = records(builders.Amazon2014(settings=settings, data_dir=tmp_path / 'tfds'), 'users')
  assert len(after[0]['items']) == len(before[0]['items']) + 1
  with pytest.raises(InputError, match="Amazon2018 was given settings of source 'amazon2014'; expected 'amazon2018'"):
    builders.Amazon2018(settings=settings, data_dir=tmp_path / 'tfds')


def test_yelp_is_read_from_the_manual_folder(tmp_path):
  yelp = builders.Yelp(settings=DataConfig(source='yelp', preparation=CORE), data_dir=tmp_path / 'tfds')
  with pytest.raises(AssertionError, match='yelp_academic_dataset_review.json'):
    yelp.download_and_prepare()
  WRITERS['yelp'](tmp_path / 'manual')
  yelp.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=tmp_path / 'manual'))
  assert len(yelp.as_data_source('users')) == 2
  with pytest.raises(InputError, match='accepting its terms; expected a folder with yelp_academic_dataset_review.json'):
    pipeline.run(config_with({**run_settings(), 'data.source': 'yelp'}), tmp_path / 'workdir', 'dataset')


@pytest.fixture
def server(tmp_path):
  """The address that serves the folder `served`, and the paths requested."""
  requests = []

  class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
      requests.append(self.path)

  (tmp_path / 'served').mkdir()
  running = http.server.ThreadingHTTPServer(('localhost', 0), functools.partial(Handler, directory=tmp_path / 'served'))
  threading.Thread(target=running.serve_forever, daemon=True).start()
  yield f'http://localhost:{running.server_port}', requests
  running.shutdown()


def dataset_stage(tmp_path, **settings):
  changes = {f'data.{key}': value for key, value in settings.items()}
  pipeline.run(
    config_with({**run_settings(), 'data.preparation.core': 3, 'data.downloads': str(tmp_path / 'kept'), **changes}),
    tmp_path / 'workdir',
    'dataset',
    overwrite=True,
  )
  return store.load(tmp_path / 'workdir/dataset')


def test_amazon_is_downloaded_once(tmp_path, server, monkeypatch):
  address, requests = server
  WRITERS['amazon2014'](tmp_path / 'served')
  monkeypatch.setitem(downloads.AMAZON, 2014, (f'{address}/reviews_{{}}_5.json.gz', f'{address}/meta_{{}}.json.gz'))
  for _ in range(2):
    data = dataset_stage(tmp_path, source='amazon2014', name='Beauty')
    assert data.item_names == ('B1', 'B2', 'B3') and data.texts[0]['title'] == 'Soap & Water Set'
    assert data.preparation['problems']['not JSON']['first'] == 'reviews_Beauty_5.json.gz:12'
  assert sorted(requests) == ['/meta_Beauty.json.gz', '/reviews_Beauty_5.json.gz']
  with pytest.raises(InputError, match='reviews_Toys_5.json.gz .* could not be downloaded .*404.*by hand'):
    dataset_stage(tmp_path, source='amazon2014', name='Toys')


def test_a_truncated_download_is_repeated(tmp_path, server, monkeypatch):
  address, _ = server
  WRITERS['amazon2014'](tmp_path / 'served')
  monkeypatch.setitem(downloads.AMAZON, 2014, (f'{address}/reviews_{{}}_5.json.gz', f'{address}/meta_{{}}.json.gz'))
  reviews = tmp_path / 'served/reviews_Beauty_5.json.gz'
  whole = reviews.read_bytes()
  reviews.write_bytes(whole[:-20])
  with pytest.raises(InputError, match='is damaged .*the same command downloads it again'):
    dataset_stage(tmp_path, source='amazon2014', name='Beauty')
  reviews.write_bytes(whole)
  assert dataset_stage(tmp_path, source='amazon2014', name='Beauty').item_names == ('B1', 'B2', 'B3')


def test_an_invalid_archive_is_downloaded_again(tmp_path, server, monkeypatch):
  address, _ = server
  monkeypatch.setattr(downloads, 'MOVIELENS', address + '/{}.zip')
  (tmp_path / 'served/ml-32m.zip').write_bytes(b'<html>busy</html>')
  with pytest.raises(InputError, match='not a zip file'):
    dataset_stage(tmp_path, source='movielens', name='ml-32m')
  WRITERS['movielens 32m'](tmp_path / 'raw')
  with zipfile.ZipFile(tmp_path / 'served/ml-32m.zip', 'w') as archive:
    for path in (tmp_path / 'raw').iterdir():
      archive.write(path, f'ml-32m/{path.name}')
  assert dataset_stage(tmp_path, source='movielens', name='ml-32m').item_names == ('B1', 'B2', 'B3')
  assert not list((tmp_path / 'kept').rglob('.unpacking-*'))


def test_without_a_network_the_download_fails_at_once(tmp_path, monkeypatch):
  monkeypatch.setattr(downloads, 'MOVIELENS', 'http://no-such-host.invalid/{}.zip')
  monkeypatch.setattr(downloads.urllib.request, 'getproxies', dict)
  with pytest.raises(InputError, match=r'no-such-host.invalid/ml-1m.zip could not be downloaded .*downloaded by hand'):
    dataset_stage(tmp_path, source='movielens', name='ml-1m')


@pytest.mark.parametrize('right', [True, False])
def test_a_wrong_checksum_of_movielens_is_refused(tmp_path, server, monkeypatch, right):
  address, _ = server
  WRITERS['movielens 1m'](tmp_path / 'raw')
  with zipfile.ZipFile(tmp_path / 'served/ml-1m.zip', 'w') as archive:
    for path in (tmp_path / 'raw').iterdir():
      archive.write(path, f'ml-1m/{path.name}')
  monkeypatch.setattr(downloads, 'MOVIELENS', address + '/{}.zip')
  content = (tmp_path / 'served/ml-1m.zip').read_bytes()
  checksum = hashlib.sha256(content if right else b'').hexdigest()
  known = tfds.core.download.checksums.UrlInfo(len(content), checksum, None)
  monkeypatch.setattr(tfds.core.download.checksums, 'get_all_url_infos', lambda: {f'{address}/ml-1m.zip': known})
  if right:
    assert dataset_stage(tmp_path, source='movielens', name='ml-1m').item_names == ('B1', 'B2', 'B3')
  else:
    with pytest.raises(InputError, match='ml-1m.zip could not be downloaded .*checksum'):
      dataset_stage(tmp_path, source='movielens', name='ml-1m')
    assert not (tmp_path / 'workdir/dataset/summary.json').exists()


def test_tfds_has_checksums_for_the_official_addresses_of_movielens():
  known = tfds.core.download.checksums.get_all_url_infos()
  assert {name for name in downloads.MOVIELENS_NAMES if downloads.MOVIELENS.format(name) in known} == {
    'ml-1m',
    'ml-20m',
    'ml-25m',
  }
