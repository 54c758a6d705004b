"""The cache of text embeddings: what it keeps, and what happens to damaged shards."""

import json
import os

import numpy as np
import pytest

from letter_jax.system.errors import InputError
from letter_jax.text_embeddings import language_models
from letter_jax.text_embeddings.language_models import embed_with, joined_text
from tests.text_embeddings.encoder import ITEMS, Encoder, item, model_of, row_of, shards_of


def test_cached_texts_are_not_embedded_again(tmp_path):
  first = embed_with(model_of(Encoder()), ITEMS, 4, tmp_path)
  encode = Encoder()
  again = embed_with(model_of(encode), [*ITEMS, item('new')], 4, tmp_path)
  np.testing.assert_array_equal(again[:10], first)
  assert encode.texts == ['new']
  assert len(shards_of(tmp_path)) == 2


def test_each_model_has_its_own_cache(tmp_path):
  embed_with(model_of(Encoder(), identity='a'), ITEMS, 4, tmp_path)
  encode = Encoder(dim=3)
  assert embed_with(model_of(encode, identity='b'), ITEMS, 4, tmp_path).shape == (10, 3)
  assert len(encode.texts) == 10
  assert {json.loads(path.read_text())['files'] for path in tmp_path.glob('*/model.json')} == {'a', 'b'}


@pytest.mark.parametrize('limit', ['texts', 'seconds'])
def test_a_kill_loses_at_most_a_shard_and_a_resumed_run_forms_the_same_batches(tmp_path, monkeypatch, limit):
  whole = Encoder()
  expected = embed_with(model_of(whole), ITEMS, 2, tmp_path / 'whole')
  if limit == 'texts':
    monkeypatch.setattr(language_models, 'SHARD_TEXTS', 4)
  else:
    ticks = iter(range(100))  # a second passes at every call: at the start, after each batch and after each shard
    monkeypatch.setattr(language_models.time, 'monotonic', lambda: next(ticks))
    monkeypatch.setattr(language_models, 'SHARD_SECONDS', 2)
  killed = Encoder(killed_after=3)
  with pytest.raises(KeyboardInterrupt):
    embed_with(model_of(killed), ITEMS, 2, tmp_path / 'cache')
  assert len(shards_of(tmp_path / 'cache')) == 1
  resumed = Encoder()
  rows_NxD = embed_with(model_of(resumed), ITEMS, 2, tmp_path / 'cache')
  assert resumed.batches == whole.batches[2:]  # of the three batches before the kill two were kept
  np.testing.assert_array_equal(rows_NxD, expected)


def test_a_damaged_shard_is_named_and_its_texts_are_embedded_again(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(language_models, 'SHARD_TEXTS', 2)
  expected = embed_with(model_of(Encoder()), ITEMS, 2, tmp_path)
  cut, flipped, lacking, *_ = shards_of(tmp_path)
  cut.write_bytes(cut.read_bytes()[:-40])
  content = bytearray(flipped.read_bytes())
  content[content.index(row_of(_a_text(flipped), 5).tobytes()) + 5] ^= 1
  flipped.write_bytes(content)
  with lacking.open('wb') as file:
    np.savez(file, rows=np.zeros((2, 5), np.float32))
  capsys.readouterr()
  encode = Encoder()
  np.testing.assert_array_equal(embed_with(model_of(encode), ITEMS, 2, tmp_path), expected)
  message = capsys.readouterr().out
  assert len(encode.texts) == 6
  assert all(f'{path} is damaged' in message for path in (cut, flipped, lacking)) and message.count('is damaged') == 3


def _a_text(shard):
  with np.load(shard) as arrays:
    lengths = arrays['rows'][:, 0]
  return next(joined_text(text)[0] for text in ITEMS if len(joined_text(text)[0]) == lengths[0])


@pytest.mark.parametrize(
  'hashes, rows',
  [
    (np.zeros((2, 32), np.uint8), np.full((2, 5), np.nan, np.float32)),
    (np.zeros((3, 32), np.uint8), np.zeros((2, 5), np.float32)),
    (np.zeros((2, 32), np.uint8), np.zeros(2, np.float32)),
    (np.zeros((2, 32), np.uint8), np.zeros((2, 5))),
  ],
)
def test_a_shard_with_invalid_arrays_is_skipped(tmp_path, capsys, hashes, rows):
  embed_with(model_of(Encoder()), ITEMS, 4, tmp_path)
  (shard,) = shards_of(tmp_path)
  np.savez(shard, hashes=hashes, rows=rows)
  encode = Encoder()
  embed_with(model_of(encode), ITEMS, 4, tmp_path)
  assert len(encode.texts) == 10 and f'{shard} is damaged' in capsys.readouterr().out


class Planted:
  """Makes a folder when it is unpickled."""

  def __init__(self, folder):
    self._folder = folder

  def __reduce__(self):
    return os.mkdir, (str(self._folder),)


def test_nothing_pickled_is_loaded(tmp_path, capsys):
  embed_with(model_of(Encoder()), ITEMS, 4, tmp_path)
  (shard,) = shards_of(tmp_path)
  np.savez(shard, hashes=np.array([Planted(tmp_path / 'planted')]), rows=np.zeros((1, 5), np.float32))
  embed_with(model_of(Encoder()), ITEMS, 4, tmp_path)
  assert f'{shard} is damaged' in capsys.readouterr().out and not (tmp_path / 'planted').exists()


def test_rows_of_a_different_width_are_refused_with_the_folder_to_remove(tmp_path):
  embed_with(model_of(Encoder(dim=5)), ITEMS, 4, tmp_path)
  (folder,) = tmp_path.iterdir()
  with pytest.raises(InputError, match='rows of 5 dimensions, but some/model gives 7; .*remove that folder') as caught:
    embed_with(model_of(Encoder(dim=7)), ITEMS, 4, tmp_path)
  assert str(folder) in str(caught.value)


@pytest.mark.parametrize('there_is_a_cache', [True, False])
def test_without_a_cache_that_can_be_written_the_rows_are_the_same(tmp_path, monkeypatch, capsys, there_is_a_cache):
  monkeypatch.setattr(language_models, 'SHARD_TEXTS', 2)
  expected = embed_with(model_of(Encoder()), ITEMS, 4, tmp_path / 'writable')
  (tmp_path / 'cache').write_text('a file is in the way')
  capsys.readouterr()
  rows_NxD = embed_with(model_of(Encoder()), ITEMS, 4, tmp_path / 'cache' if there_is_a_cache else None)
  np.testing.assert_array_equal(rows_NxD, expected)
  said = capsys.readouterr().out
  assert said.count('nothing is cached from here on') == there_is_a_cache
  assert ('not cached: no home folder can be written' in said) != there_is_a_cache
