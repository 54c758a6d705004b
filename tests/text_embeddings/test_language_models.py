"""Embedding items with a language model, on an encoder of a few lines."""

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
  embed_with,
  joined_text,
  load_model,
  model_files,
  separate_texts,
  token_limit,
)
from letter_jax.text_embeddings.tf_idf import embed_texts
from tests.small_data import config_with
from tests.text_embeddings.encoder import ITEMS, Encoder, item, model_of, row_of, shards_of


def test_rows_come_from_the_model_and_each_text_is_embedded_once(tmp_path):
  encode = Encoder()
  rows_NxD = embed_with(model_of(encode), [ITEMS[2], ITEMS[0], ITEMS[2], ITEMS[1]], 2, tmp_path)
  assert rows_NxD.dtype == np.float32
  texts = [joined_text(ITEMS[n])[0] for n in (2, 0, 2, 1)]
  np.testing.assert_array_equal(rows_NxD, [row_of(text, 5) for text in texts])
  # The longest first, so that a batch holds texts of a length.
  assert encode.batches == [[texts[0], texts[3]], [texts[1]]]


@pytest.mark.parametrize(
  'rows, message',
  [
    (np.array([[1.0, np.inf]]), 'gave a row that is not finite for the text "kettle"'),
    (np.ones((1, 3)), r'gave rows of shape \[1, 3\] for 1 text; expected \[1, 2\]'),
  ],
)
def test_invalid_rows_are_refused_and_not_cached(tmp_path, rows, message):
  with pytest.raises(InputError, match=message):
    embed_with(LanguageModel('some/model', {}, 2, joined_text, lambda texts: rows), [item('kettle')], 4, tmp_path)
  assert not shards_of(tmp_path)


def test_items_without_text_get_the_row_of_the_empty_text_and_are_counted(tmp_path, capsys):
  rows_NxD = embed_with(model_of(Encoder()), [item('kettle'), item(), item()], 4, tmp_path)
  np.testing.assert_array_equal(rows_NxD[1:], [row_of('', 5)] * 2)
  assert 'text_embeddings: items without text: 2\n' in capsys.readouterr().out
  embed_with(model_of(Encoder()), [item('kettle')], 4, tmp_path)
  assert 'no text' not in capsys.readouterr().out


def test_title_and_description_are_averaged_where_an_item_has_both(tmp_path):
  rows_NxD = embed_with(
    model_of(Encoder(), item_texts=separate_texts),
    [item('kettle', 'Acme', 'A > B', 'of copper'), item('kettle', 'Acme'), item('', '', 'A', 'red'), item('', 'Acme')],
    4,
    tmp_path,
  )
  title, description, red, nothing = (row_of(text, 5) for text in ('kettle', 'of copper', 'red', ''))
  np.testing.assert_allclose(rows_NxD, [(title + description) / 2, title, red, nothing], rtol=1e-6)


def test_a_catalogue_without_a_text_that_the_model_takes_is_refused(tmp_path):
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
def test_joined_text(text, joined):
  assert joined_text(text) == (joined,)


@pytest.mark.parametrize('texts', [None, (), (item(), item())])
def test_a_catalogue_without_text_is_refused_before_the_model_is_loaded(texts):
  config = configuration.TextEmbeddingsConfig(model='no/such-model')
  with pytest.raises(InputError, match='no item has text to embed'):
    embed_texts(texts, config, seed=0)


def test_the_config_names_the_model_and_the_environment_the_cache_folder(tmp_path, monkeypatch):
  loaded = []
  encode = Encoder()
  monkeypatch.setattr(language_models, 'load_model', lambda *arguments: loaded.append(arguments) or model_of(encode))
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  config = configuration.TextEmbeddingsConfig(model='some/model', max_tokens=7, batch_size=3)
  assert embed_texts(ITEMS, config, seed=0)[0].shape == (10, 5)
  assert loaded == [('some/model', 7)] and [len(batch) for batch in encode.batches] == [3, 3, 3, 1]
  assert len(shards_of(tmp_path / 'letter_jax' / 'text_embeddings')) == 1


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


def test_a_folder_without_a_model_is_refused(tmp_path, monkeypatch):
  (tmp_path / 'empty').mkdir()
  (tmp_path / 'file').write_text('')
  for name, message in (
    ('empty', 'has neither modules.json nor config.json'),
    ('file', 'is not a folder'),
    ('missing', 'is not a folder'),
  ):
    with pytest.raises(InputError, match=message):
      load_model(str(tmp_path / name), 0)
  monkeypatch.chdir(tmp_path)
  for name in ('./missing', 'file'):
    with pytest.raises(InputError, match='is not a folder'):
      load_model(name, 0)


def tokenizer_of(truncation=None, model_max_length=10**30, words=('<s>', '</s>', 'kettle')):
  """The part of a transformers tokenizer that determines token limits."""
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
def test_token_limit(max_tokens, config, tokenizer, own, expected):
  assert token_limit('some/model', max_tokens, config, tokenizer, own) == expected


@pytest.mark.parametrize(
  'max_tokens, tokenizer, message',
  [
    (513, tokenizer_of(), 'max_tokens is 513; expected at most the 512 positions of some/model'),
    (2, tokenizer_of(), 'max_tokens is 2; expected more than the 2 that some/model adds'),
    (0, tokenizer_of(words=('<s>', '</s>')), 'some/model has no tokenizer'),
  ],
)
def test_impossible_token_limits_are_refused(max_tokens, tokenizer, message):
  with pytest.raises(InputError, match=message):
    token_limit('some/model', max_tokens, positions(512), tokenizer, 256)


def test_model_files_are_those_that_are_not_hidden(tmp_path):
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
    'import sys, letter_jax.text_embeddings.language_models; '
    'sys.exit(bool({"torch", "transformers", "sentence_transformers", "jax"} & sys.modules.keys()))'
  )
  assert subprocess.run([sys.executable, '-c', code], env=dict(os.environ)).returncode == 0


def test_a_path_and_a_model_together_are_refused():
  with pytest.raises(InputError, match="config.text_embeddings.model is 'a' and .*path is 'b.npy'; expected one"):
    config_with({'text_embeddings.model': 'a', 'text_embeddings.path': 'b.npy'})


def test_the_stage_depends_on_the_models_files_but_not_on_the_batch_size(tmp_path, monkeypatch, capsys):
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
