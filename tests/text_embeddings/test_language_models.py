"""The cache and what surrounds it, with an encoder of a few lines: no PyTorch here (that is tests/parity)."""

import json
import os
import subprocess
import sys
import types

import numpy as np
import pytest

from letter_jax import configuration
from letter_jax.pipeline import run as pipeline
from letter_jax.system.errors import InputError
from letter_jax.text_embeddings import language_models
from letter_jax.text_embeddings.language_models import (
  LanguageModel,
  cache_folder,
  embed_with,
  joined_text,
  load_model,
  model_files,
  separate_texts,
  token_limit,
)
from letter_jax.text_embeddings.tf_idf import embed_texts
from tests.small_data import config_with


def item(title='', brand='', categories='', description=''):
  return {'title': title, 'brand': brand, 'categories': categories, 'description': description}


def row_of(text, dim):
  return np.array([len(text), *np.random.default_rng(list(text.encode())).normal(size=dim - 1)], np.float32)


class Encoder:
  """Rows that follow from the text; notes what it was asked, and can be killed after some batches."""

  def __init__(self, dim=5, killed_after=None):
    self.dim, self.batches, self._killed_after = dim, [], killed_after

  def __call__(self, texts):
    if len(self.batches) == self._killed_after:
      raise KeyboardInterrupt
    self.batches.append(texts)
    return np.stack([row_of(text, self.dim) for text in texts])

  @property
  def texts(self):
    return [text for batch in self.batches for text in batch]


def model_of(encode, identity='a', item_texts=joined_text):
  return LanguageModel('some/model', {'files': identity}, encode.dim, item_texts, encode)


ITEMS = [item(f'item {"x" * n}', brand='Acme') for n in range(10)]


def shards_of(cache):
  return sorted(cache.glob('*/*.npz'))


def test_rows_are_the_models_and_each_text_is_embedded_once(tmp_path):
  encode = Encoder()
  rows_NxD = embed_with(model_of(encode), [ITEMS[2], ITEMS[0], ITEMS[2], ITEMS[1]], 2, tmp_path)
  assert rows_NxD.dtype == np.float32
  texts = [joined_text(ITEMS[n])[0] for n in (2, 0, 2, 1)]
  np.testing.assert_array_equal(rows_NxD, [row_of(text, 5) for text in texts])
  # The longest first, so that a batch holds texts of a length.
  assert encode.batches == [[texts[0], texts[3]], [texts[1]]]


def test_what_is_in_the_cache_is_not_embedded_again(tmp_path):
  first = embed_with(model_of(Encoder()), ITEMS, 4, tmp_path)
  encode = Encoder()
  again = embed_with(model_of(encode), [*ITEMS, item('new')], 4, tmp_path)
  np.testing.assert_array_equal(again[:10], first)
  assert encode.texts == ['new']
  assert len(shards_of(tmp_path)) == 2


def test_another_model_has_a_cache_of_its_own(tmp_path):
  embed_with(model_of(Encoder(), identity='a'), ITEMS, 4, tmp_path)
  encode = Encoder(dim=3)
  assert embed_with(model_of(encode, identity='b'), ITEMS, 4, tmp_path).shape == (10, 3)
  assert len(encode.texts) == 10
  assert {json.loads(path.read_text())['files'] for path in tmp_path.glob('*/model.json')} == {'a', 'b'}


@pytest.mark.parametrize('limit', ['texts', 'seconds'])
def test_a_kill_loses_no_more_than_a_shard_and_the_batches_stay_the_same(tmp_path, monkeypatch, limit):
  whole = Encoder()
  expected = embed_with(model_of(whole), ITEMS, 2, tmp_path / 'whole')
  if limit == 'texts':
    monkeypatch.setattr(language_models, 'SHARD_TEXTS', 4)
  else:
    ticks = iter(range(100))  # a second each time it is looked at: once at the start, after each batch and each shard
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
  said = capsys.readouterr().out
  assert len(encode.texts) == 6
  assert all(f'{path} is damaged' in said for path in (cut, flipped, lacking)) and said.count('is damaged') == 3


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
def test_a_shard_that_makes_no_sense_is_passed_over(tmp_path, capsys, hashes, rows):
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


def test_a_model_whose_dimension_changed_names_the_folder_to_remove(tmp_path):
  embed_with(model_of(Encoder(dim=5)), ITEMS, 4, tmp_path)
  (folder,) = tmp_path.iterdir()
  with pytest.raises(InputError, match='rows of 5 dimensions, some/model gives 7; .*remove that folder') as caught:
    embed_with(model_of(Encoder(dim=7)), ITEMS, 4, tmp_path)
  assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
  'rows, said',
  [
    (np.array([[1.0, np.inf]]), 'gave a row that is not finite for the text "kettle"'),
    (np.ones((1, 3)), r'gave rows of shape \[1, 3\] for 1 texts; expected \[1, 2\]'),
  ],
)
def test_rows_that_cannot_be_are_not_kept(tmp_path, rows, said):
  with pytest.raises(InputError, match=said):
    embed_with(LanguageModel('some/model', {}, 2, joined_text, lambda texts: rows), [item('kettle')], 4, tmp_path)
  assert not shards_of(tmp_path)


def test_items_without_text_are_the_empty_text_and_are_counted(tmp_path, capsys):
  rows_NxD = embed_with(model_of(Encoder()), [item('kettle'), item(), item()], 4, tmp_path)
  np.testing.assert_array_equal(rows_NxD[1:], [row_of('', 5)] * 2)
  assert 'text_embeddings: items without text: 2\n' in capsys.readouterr().out
  embed_with(model_of(Encoder()), [item('kettle')], 4, tmp_path)
  assert 'no text' not in capsys.readouterr().out


def test_title_and_description_are_averaged_and_one_alone_stands_for_both(tmp_path):
  rows_NxD = embed_with(
    model_of(Encoder(), item_texts=separate_texts),
    [item('kettle', 'Acme', 'A > B', 'of copper'), item('kettle', 'Acme'), item('', '', 'A', 'red'), item('', 'Acme')],
    4,
    tmp_path,
  )
  title, description, red, nothing = (row_of(text, 5) for text in ('kettle', 'of copper', 'red', ''))
  np.testing.assert_allclose(rows_NxD, [(title + description) / 2, title, red, nothing], rtol=1e-6)


def test_no_item_has_a_text_that_the_model_takes(tmp_path):
  with pytest.raises(InputError, match='no item has a text that some/model takes'):
    embed_with(model_of(Encoder(), item_texts=separate_texts), [item('', 'Acme'), item('', '', 'A')], 4, tmp_path)


@pytest.mark.parametrize(
  'text, joined',
  [
    (item('Kettle.', 'Acme', 'Home, Kitchen > Tea', 'Of copper.'), 'Kettle.. Acme. Home, Kitchen, Tea. Of copper.'),
    (item('Kettle', '', 'Home', ''), 'Kettle. Home'),
    (item(), ''),
  ],
)
def test_fields_are_joined(text, joined):
  assert joined_text(text) == (joined,)


@pytest.mark.parametrize('texts', [None, (), (item(), item())])
def test_no_text_at_all_is_said_before_a_model_is_looked_for(texts):
  config = configuration.TextEmbeddingsConfig(model='no/such-model')
  with pytest.raises(InputError, match='no item has text to embed'):
    embed_texts(texts, config, seed=0)


def test_the_config_names_the_model_and_the_cache_lies_where_the_user_wants_it(tmp_path, monkeypatch):
  asked = []
  encode = Encoder()
  monkeypatch.setattr(language_models, 'load_model', lambda *asked_for: asked.append(asked_for) or model_of(encode))
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  config = configuration.TextEmbeddingsConfig(model='some/model', max_tokens=7, batch_size=3)
  assert embed_texts(ITEMS, config, seed=0)[0].shape == (10, 5)
  assert asked == [('some/model', 7)] and [len(batch) for batch in encode.batches] == [3, 3, 3, 1]
  assert len(shards_of(tmp_path / 'letter_jax' / 'text_embeddings')) == 1
  monkeypatch.setenv('XDG_CACHE_HOME', '')
  monkeypatch.setenv('HOME', str(tmp_path / 'home'))
  assert cache_folder() == tmp_path / 'home' / '.cache' / 'letter_jax' / 'text_embeddings'


def test_a_cache_that_cannot_be_written(tmp_path):
  (tmp_path / 'cache').write_text('a file is in the way')
  with pytest.raises(InputError, match='could not be written .*XDG_CACHE_HOME'):
    embed_with(model_of(Encoder()), ITEMS, 4, tmp_path / 'cache')


def folder_of_a_model(path, file='modules.json'):
  path.mkdir()
  (path / file).write_text('{}')
  return path


@pytest.mark.parametrize('missing', ['sentence_transformers', 'torch', 'transformers'])
def test_a_missing_package_is_named(tmp_path, monkeypatch, missing):
  for name in ('sentence_transformers', 'torch', 'transformers'):
    # None is what Python keeps for a module that must not be imported.
    monkeypatch.setitem(sys.modules, name, None if name == missing else sys)
  folders = folder_of_a_model(tmp_path / 'st'), folder_of_a_model(tmp_path / 'hf', 'config.json')
  for name in ('all-MiniLM-L6-v2', *folders):
    with pytest.raises(InputError, match='pip install sentence-transformers') as caught:
      load_model(str(name), 0)
    assert missing in str(caught.value) and '\n' not in str(caught.value)


def test_what_is_no_folder_of_a_model(tmp_path, monkeypatch):
  (tmp_path / 'empty').mkdir()
  (tmp_path / 'file').write_text('')
  for name, said in (
    ('empty', 'has neither modules.json nor config.json'),
    ('file', 'is not a folder'),
    ('missing', 'is not a folder'),
  ):
    with pytest.raises(InputError, match=said):
      load_model(str(tmp_path / name), 0)
  monkeypatch.chdir(tmp_path)
  for name in ('./missing', 'file'):
    with pytest.raises(InputError, match='is not a folder'):
      load_model(name, 0)


def tokenizer_of(truncation=None, model_max_length=10**30, words=('<s>', '</s>', 'kettle')):
  """As much of a tokenizer of transformers as is asked for its limits."""
  cut = None if truncation is None else {'max_length': truncation}
  return types.SimpleNamespace(
    get_vocab=lambda: dict.fromkeys(words),
    all_special_tokens=['<s>', '</s>'],
    num_special_tokens_to_add=lambda: 2,
    backend_tokenizer=types.SimpleNamespace(truncation=cut),
    model_max_length=model_max_length,
  )


def positions(number):
  return types.SimpleNamespace(max_position_embeddings=number)


@pytest.mark.parametrize(
  'max_tokens, config, tokenizer, own, expected',
  [
    (0, positions(512), tokenizer_of(truncation=128, model_max_length=512), 256, 128),  # all-MiniLM-L6-v2
    (0, positions(512), tokenizer_of(model_max_length=384), 400, 384),
    (0, positions(512), tokenizer_of(), 256, 256),
    (0, positions(512), tokenizer_of(), 2048, 512),
    (0, types.SimpleNamespace(), tokenizer_of(), 2048, 2048),
    (0, None, tokenizer_of(), None, None),
    (0, None, None, None, None),
    (512, positions(512), tokenizer_of(truncation=128), 256, 512),
    (3, positions(512), tokenizer_of(), 256, 3),
    (77, None, None, None, 77),
  ],
)
def test_tokens_of_a_text_that_count(max_tokens, config, tokenizer, own, expected):
  assert token_limit('some/model', max_tokens, config, tokenizer, own) == expected


@pytest.mark.parametrize(
  'max_tokens, tokenizer, said',
  [
    (513, tokenizer_of(), 'max_tokens is 513; expected at most the 512 positions of some/model'),
    (2, tokenizer_of(), 'max_tokens is 2; expected more than the 2 that some/model adds'),
    (0, tokenizer_of(words=('<s>', '</s>')), 'some/model has no tokenizer'),
  ],
)
def test_limits_that_cannot_be(max_tokens, tokenizer, said):
  with pytest.raises(InputError, match=said):
    token_limit('some/model', max_tokens, positions(512), tokenizer, 256)


def test_files_of_a_model(tmp_path):
  for name in ('modules.json', '1_Pooling/config.json', '.git/HEAD', '__pycache__/a.pyc', '.hidden'):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text('')
  assert [path.relative_to(tmp_path).as_posix() for path in model_files(str(tmp_path))] == [
    '1_Pooling/config.json',
    'modules.json',
  ]
  assert list(model_files('all-MiniLM-L6-v2')) == list(model_files('')) == []


def test_importing_the_module_imports_no_torch_and_no_jax():
  code = (
    'import sys, letter_jax.data.language_models; '
    'sys.exit(bool({"torch", "transformers", "sentence_transformers", "jax"} & sys.modules.keys()))'
  )
  assert subprocess.run([sys.executable, '-c', code], env=dict(os.environ)).returncode == 0


def test_path_and_model_together_are_refused():
  with pytest.raises(InputError, match="config.text_embeddings.model is 'a' beside .*path, 'b.npy'; expected one"):
    config_with({'text_embeddings.model': 'a', 'text_embeddings.path': 'b.npy'})


def test_a_stage_follows_the_content_of_the_model_and_not_the_batch_size(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(language_models, 'load_model', lambda name, max_tokens: model_of(Encoder()))
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  folder = folder_of_a_model(tmp_path / 'model')
  workdir = tmp_path / 'workdir'

  store = {'data.source': 'synthetic', 'data.synthetic.num_users': 120, 'data.synthetic.num_items': 60}

  def run(**settings):
    pipeline.run(
      config_with({**store, **{f'text_embeddings.{name}': value for name, value in settings.items()}}),
      workdir,
      'text_embeddings',
    )
    return capsys.readouterr().out

  pipeline.run(config_with(store), workdir, 'dataset')
  run(model=str(folder))
  assert np.load(workdir / 'text_embeddings' / 'embeddings.npy').shape == (60, 5)
  assert 'text_embeddings: done before' in run(model=str(folder), batch_size=7)
  with pytest.raises(InputError, match='config.text_embeddings.max_tokens'):
    run(model=str(folder), max_tokens=9)
  (folder / 'modules.json').write_text('[]')
  with pytest.raises(InputError, match='content of config.text_embeddings.model/modules.json'):
    run(model=str(folder))
