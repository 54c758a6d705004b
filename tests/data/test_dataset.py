import dataclasses
import json

import numpy as np
import pytest

from letter_jax.data import dataset
from letter_jax.errors import InputError

TEXTS = tuple({'title': title, 'brand': '', 'categories': '', 'description': ''}
              for title in ('Bürste', '', 'Öl', '日本'))


def small(texts=TEXTS):
  interactions = dataset.Interactions(np.array([0, 1, 2, 1, 1, 0, 1], np.int32), np.array([0, 3, 7]), 4, ('ann', 'bé'))
  return dataset.Dataset('small', interactions, texts)


@pytest.mark.parametrize('texts', [TEXTS, None])
def test_save_and_load_give_the_same_data_set(tmp_path, texts):
  saved = small(texts)
  saved.save(tmp_path / 'a' / 'dataset')
  loaded = dataset.load(tmp_path / 'a' / 'dataset')
  assert (loaded.name, loaded.texts, loaded.interactions.users) == ('small', texts, ('ann', 'bé'))
  assert loaded.interactions.num_items == 4 and type(loaded.interactions.num_items) is int
  for field in ('items', 'offsets'):
    before, after = getattr(saved.interactions, field), getattr(loaded.interactions, field)
    np.testing.assert_array_equal(before, after)
    assert before.dtype == after.dtype


def test_what_only_raw_files_have_is_saved_too(tmp_path):
  raw = dataclasses.replace(small(), timestamps=np.arange(7) * 86400, item_names=('B1', 'B2', 'B3', 'B4'),
                            preparation={'raw_events': 9})
  raw.save(tmp_path)
  loaded = dataset.load(tmp_path)
  assert (loaded.item_names, loaded.preparation) == (raw.item_names, raw.preparation)
  np.testing.assert_array_equal(loaded.timestamps, raw.timestamps)
  small().save(tmp_path)
  loaded = dataset.load(tmp_path)
  assert loaded.item_names is loaded.timestamps is loaded.preparation is None


def test_summary_counts(tmp_path):
  small().save(tmp_path)
  summary = json.loads((tmp_path / 'summary.json').read_text())
  assert (summary['users'], summary['items'], summary['interactions'], summary['training_examples']) == (2, 4, 7, 1)
  assert summary['sparsity'] == pytest.approx(1 - 7 / 8)
  assert summary['items_without_interactions'] == 1 and summary['items_without_text'] == 1
  assert summary['history_length_quantiles']['1'] == 4 and summary['popularity_quantiles']['1'] == 4
  assert small(None).summary()['items_without_text'] is None


@pytest.mark.parametrize('file', ['interactions.npz', 'users.json', 'items.json', 'item_names.json', 'summary.json'])
@pytest.mark.parametrize('damage', ['missing', 'empty', 'half'])
def test_damaged_files(tmp_path, file, damage):
  small().save(tmp_path)
  content = (tmp_path / file).read_bytes()
  (tmp_path / file).unlink()
  if damage != 'missing':
    (tmp_path / file).write_bytes(content[:len(content) // 2] if damage == 'half' else b'')
  with pytest.raises(InputError) as caught:
    dataset.load(tmp_path)
  message = str(caught.value)
  assert str(tmp_path) in message and '--overwrite' in message and '\n' not in message
