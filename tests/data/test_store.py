"""The tables on disk, read by this program and by TFDS alone."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from letter_jax.configuration import SyntheticConfig
from letter_jax.data import store, synthetic
from letter_jax.system.errors import InputError
from tests.data.test_dataset import TEXTS, small


@pytest.mark.parametrize('texts', [TEXTS, None])
def test_save_and_load_give_the_same_data_set(tmp_path, texts):
  saved = small(texts)
  store.save(saved, tmp_path / 'a' / 'dataset')
  loaded = store.load(tmp_path / 'a' / 'dataset')
  assert (loaded.name, loaded.texts, loaded.interactions.users) == ('small', texts, ('ann', 'bé'))
  assert loaded.interactions.num_items == 4 and type(loaded.interactions.num_items) is int
  for field in ('items', 'offsets'):
    before, after = getattr(saved.interactions, field), getattr(loaded.interactions, field)
    np.testing.assert_array_equal(before, after)
    assert before.dtype == after.dtype


def test_many_users_keep_their_order_and_interactions(tmp_path, monkeypatch):
  monkeypatch.setattr(store, 'RECORDS_AT_ONCE', 100)  # several blocks
  saved = synthetic.synthesize(SyntheticConfig(num_users=330, num_items=60), 3)
  saved = dataclasses.replace(saved, timestamps=np.arange(len(saved.interactions.items)) * 3600)
  store.save(saved, tmp_path)
  loaded = store.load(tmp_path)
  assert loaded.interactions.users == saved.interactions.users and loaded.texts == saved.texts
  np.testing.assert_array_equal(loaded.interactions.items, saved.interactions.items)
  np.testing.assert_array_equal(loaded.interactions.offsets, saved.interactions.offsets)
  np.testing.assert_array_equal(loaded.timestamps, saved.timestamps)
  assert loaded.summary() == saved.summary()


def test_timestamps_raw_ids_and_preparation_are_saved_too(tmp_path):
  raw = dataclasses.replace(
    small(), timestamps=np.arange(7) * 86400, item_names=('B1', 'B2', 'B3', 'B4'), preparation={'raw_events': 9}
  )
  store.save(raw, tmp_path)
  loaded = store.load(tmp_path)
  assert (loaded.item_names, loaded.preparation) == (raw.item_names, raw.preparation)
  np.testing.assert_array_equal(loaded.timestamps, raw.timestamps)
  store.save(small(), tmp_path)  # replaces the first
  loaded = store.load(tmp_path)
  assert loaded.item_names is loaded.timestamps is loaded.preparation is None


def test_the_summary_has_the_first_and_the_last_day(tmp_path):
  days = np.array([17, 18, 18, 3, 40, 16, 17]) * 86400 * 10**6  # in no order over users
  store.save(dataclasses.replace(small(), timestamps=days - 1), tmp_path / 'prepared')
  store.adopt(tmp_path / 'prepared', tmp_path / 'adopted')
  store.save(small(), tmp_path / 'undated')
  for name in ('prepared', 'adopted'):
    summary = store.load_summary(tmp_path / name)
    assert (summary['first_day'], summary['last_day']) == ('1970-01-03', '1970-02-09')
  assert not {'first_day', 'last_day'} & store.load_summary(tmp_path / 'undated').keys()


def test_tfds_reads_the_tables_without_this_program(tmp_path):
  store.save(dataclasses.replace(small(), timestamps=np.arange(7) * 86400), tmp_path)
  users = tfds.builder_from_directory(tmp_path / store.TABLES['users']).as_data_source('users')
  records = {int(record['user_id']): record for record in users}
  assert len(users) == 2 and records[1]['raw_id'].decode() == 'bé'
  np.testing.assert_array_equal(records[1]['items'], [1, 1, 0, 1])
  np.testing.assert_array_equal(records[1]['timestamps'], np.arange(3, 7) * 86400)
  items = tfds.builder_from_directory(tmp_path / store.TABLES['items']).as_data_source('items')
  titles = {int(record['item_id']): record['title'].decode() for record in items}
  assert titles == {0: 'Bürste', 1: '', 2: 'Öl', 3: '日本'}


def test_lengths_of_a_different_data_set_are_refused(tmp_path):
  store.save(small(), tmp_path)
  np.save(tmp_path / 'lengths.npy', np.array([3, 3, 1], np.int32))
  with pytest.raises(InputError, match='lengths of'):
    store.StreamedInteractions(tmp_path, 1, 22)


@pytest.mark.parametrize('file', ['users', 'items', 'summary.json'])
@pytest.mark.parametrize('damage', ['missing', 'empty', 'half'])
def test_damaged_files_are_refused(tmp_path, file, damage):
  store.save(small(), tmp_path)
  path = tmp_path / file if file == 'summary.json' else store.shards(tmp_path / store.TABLES[file])[0]
  content = path.read_bytes()
  path.unlink()
  if damage != 'missing':
    path.write_bytes(content[: len(content) // 2] if damage == 'half' else b'')
  with pytest.raises(InputError) as caught:
    store.load(tmp_path)
  message = str(caught.value)
  assert str(tmp_path) in message and '--overwrite' in message and '\n' not in message


def test_a_table_of_a_different_data_set_is_refused(tmp_path):
  store.save(small(), tmp_path)
  summary = json.loads((tmp_path / 'summary.json').read_text())
  (tmp_path / 'summary.json').write_text(json.dumps({**summary, 'users': 3}))
  with pytest.raises(InputError, match='2 records, but summary.json has 3'):
    store.load(tmp_path)


def test_the_fingerprint_depends_on_the_records_but_not_on_their_order(tmp_path):
  random = np.random.default_rng(0)
  saved = synthetic.synthesize(SyntheticConfig(num_users=40, num_items=20), 3)
  times = random.integers(0, 99, len(saved.interactions.items))
  changed = {
    'same': saved,
    'items': dataclasses.replace(
      saved, interactions=dataclasses.replace(saved.interactions, items=(saved.interactions.items + 1) % 20)
    ),
    'names': dataclasses.replace(saved, item_names=tuple(map(str, range(20)))),
    'times': dataclasses.replace(saved, timestamps=times),
    'texts': dataclasses.replace(saved, texts=({**saved.texts[0], 'brand': 'other'}, *saved.texts[1:])),
  }
  fingerprints = {}
  for name, data in changed.items():
    store.save(data, tmp_path / name)
    fingerprints[name] = store.load_summary(tmp_path / name)['content']
  assert len(set(fingerprints.values())) == 5 and all(len(content) == 64 for content in fingerprints.values())
  store.adopt(tmp_path / 'times', tmp_path / 'adopted')
  assert store.load_summary(tmp_path / 'adopted')['content'] == fingerprints['times']


def test_prepared_tables_are_adopted_as_links(tmp_path):
  store.save(dataclasses.replace(small(), timestamps=np.arange(7)), tmp_path / 'prepared')
  store.save(small(None), tmp_path / 'dataset')  # to be replaced
  store.adopt(tmp_path / 'prepared', tmp_path / 'dataset')
  for path in (tmp_path / 'prepared').rglob('*'):
    other = tmp_path / 'dataset' / path.relative_to(tmp_path / 'prepared')
    assert path.is_dir() or path.read_bytes() == other.read_bytes()
    assert 'array_record' not in path.name or path.samefile(other)
  assert store.load(tmp_path / 'dataset').texts == TEXTS


@pytest.mark.parametrize('damage', ['no summary', 'no table', 'half a table', 'other counts', 'other items', 'twice'])
def test_invalid_tables_are_not_adopted(tmp_path, damage):
  store.save(small(), tmp_path / 'prepared')
  summary, shard = tmp_path / 'prepared/summary.json', store.shards(tmp_path / 'prepared' / store.TABLES['users'])[0]
  if damage == 'no summary':
    summary.unlink()
  elif damage == 'no table':
    shard.unlink()
  elif damage == 'half a table':
    shard.write_bytes(shard.read_bytes()[:-50])
  elif damage == 'other items':
    _rewrite(shard, lambda features: features['items'].int64_list.value.__setitem__(0, 4))
  elif damage == 'twice':
    _rewrite(shard, lambda features: features['user_id'].int64_list.value.__setitem__(0, 0))
  else:
    summary.write_text(json.dumps({**json.loads(summary.read_text()), 'interactions': 8}))
  with pytest.raises(InputError) as caught:
    store.adopt(tmp_path / 'prepared', tmp_path / 'dataset')
  message = str(caught.value)
  assert '\n' not in message and message.startswith(f'{tmp_path}/prepared: ') and 'config.data.path' in message
  assert not (tmp_path / 'dataset' / 'summary.json').exists()


def _rewrite(shard, change):
  """An ArrayRecord file with the feature maps changed."""
  from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
  from tensorflow_datasets.proto import tf_example_generated_pb2 as tf_example

  examples = list(map(tf_example.Example.FromString, ArrayRecordReader(str(shard)).read_all()))
  writer = ArrayRecordWriter(str(shard), 'group_size:1')
  for example in examples:
    change(example.features.feature)
    writer.write(example.SerializeToString())
  writer.close()


def test_tables_behind_links_are_adopted_but_not_into_their_own_folder(tmp_path):
  store.save(small(), tmp_path / 'kept')
  (tmp_path / 'prepared').mkdir()
  for path in sorted((tmp_path / 'kept').rglob('*')):
    link = tmp_path / 'prepared' / path.relative_to(tmp_path / 'kept')
    link.mkdir() if path.is_dir() else link.symlink_to(path)
  store.adopt(tmp_path / 'prepared', tmp_path / 'dataset')
  assert store.load(tmp_path / 'dataset').texts == TEXTS
  with pytest.raises(InputError, match='config.data.path must not be the output folder'):
    store.adopt(tmp_path / 'prepared', tmp_path / 'prepared')
  assert store.load(tmp_path / 'prepared').texts == TEXTS


def test_a_window_is_read_a_block_at_a_time(tmp_path, monkeypatch):
  saved = synthetic.synthesize(SyntheticConfig(num_users=50, num_items=20), 3)
  store.save(saved, tmp_path)
  monkeypatch.setattr(store, 'RECORDS_AT_ONCE', 7)
  blocks = []

  class Reader:
    """ArrayRecord's reader, recording the sizes of its blocks."""

    def __init__(self, reader):
      self._reader = reader
      self.num_records = reader.num_records

    def read(self, start, end):
      blocks.append(end - start)
      return self._reader.read(start, end)

  table = store.Table(tmp_path / store.TABLES['users'])
  table._readers = list(map(Reader, table._readers))
  assert [features['user_id'].int64_list.value[0] for features in table.parsed(3, 40)] == [
    features['user_id'].int64_list.value[0] for features in table.parsed()
  ][3:40]
  assert sum(blocks) == 37 + 50 and max(blocks) == 7


FULL_DISK = """
import pathlib, resource, sys
from letter_jax.configuration import SyntheticConfig
from letter_jax.data import store, synthetic
data = synthetic.synthesize(SyntheticConfig(num_users=3000, num_items=60), 1)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
  store.save(data, pathlib.Path(sys.argv[1]))
except store.InputError as error:
  print('refused:', error)
"""


def test_a_full_disk_leaves_no_partial_data_set(tmp_path):
  store.save(small(), tmp_path)  # an earlier data set, which must not be taken for the new one
  ended = subprocess.run([sys.executable, '-c', FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=True)
  assert ended.stdout.startswith(f'refused: {tmp_path}: the prepared data set could not be written'), ended.stdout
  assert not list(tmp_path.rglob('*.array_record*'))
  with pytest.raises(InputError, match='cannot be read'):
    store.load(tmp_path)
