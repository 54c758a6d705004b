"""The tokenizer as an object gives what the functions of the pipeline give, and survives its file."""

import dataclasses
import json
import sys
import tempfile

import jax
import numpy as np
import pytest

from letter_jax.collaborative.embeddings import collaborative_rows
from letter_jax.configuration import RQVAEConfig, TokenizerConfig, TrainingConfig
from letter_jax.system.errors import InputError
from letter_jax.tokenizer import letter_tokenizer
from letter_jax.tokenizer.assignment import assign_later_items, assign_semantic_ids
from letter_jax.tokenizer.letter_tokenizer import LetterTokenizer
from letter_jax.tokenizer.training import encode_items, train_tokenizer

pytestmark = pytest.mark.slow

MODEL = RQVAEConfig(hidden=(12,), latent_dim=4, levels=3, codebook_size=6, clusters=2)
# More rows in a batch than there are items.
TRAINING = TrainingConfig(epochs=3, batch_size=1024, evaluate_every_epochs=1)
CONFIG = TokenizerConfig(model=MODEL, training=TRAINING)
RANDOM = np.random.default_rng(0)
TEXT_NxT = RANDOM.normal(size=(50, 10)).astype(np.float32)
NEW_MxT = RANDOM.normal(size=(7, 10)).astype(np.float32)
WIDE_NxE = RANDOM.normal(size=(50, 9))
ROWS_Nxd = collaborative_rows(WIDE_NxE, 4)


@pytest.fixture(scope='module')
def tokenizer():
  return LetterTokenizer.train(TEXT_NxT, ROWS_Nxd, CONFIG, seed=3)


def assert_equal(ours, expected):
  jax.tree.map(np.testing.assert_array_equal, ours.params, expected.params)
  np.testing.assert_array_equal(ours.latents_Nxd, expected.latents_Nxd)
  np.testing.assert_array_equal(ours.scale.mean, expected.scale.mean)
  assert (ours.scale.deviation, ours.config) == (expected.scale.deviation, expected.config)


def test_it_has_the_bits_of_the_functions_of_the_pipeline(tokenizer, tmp_path):
  params, _ = train_tokenizer(CONFIG, TEXT_NxT, ROWS_Nxd, tmp_path, seed=3)
  latent_Nxd, codebooks_LxKxd = encode_items(CONFIG, TEXT_NxT, tmp_path)
  jax.tree.map(np.testing.assert_array_equal, tokenizer.params, jax.device_get(params))
  np.testing.assert_array_equal(tokenizer.encode(TEXT_NxT), latent_Nxd)
  np.testing.assert_array_equal(tokenizer.latents_Nxd, latent_Nxd)
  np.testing.assert_array_equal(tokenizer.codebooks_LxKxd, codebooks_LxKxd)
  for collisions in ('resolve', 'reference'):
    codes_NxL, report = assign_semantic_ids(latent_Nxd, codebooks_LxKxd, MODEL, collisions)
    np.testing.assert_array_equal(tokenizer.codes(collisions=collisions), codes_NxL)
    np.testing.assert_array_equal(tokenizer.codes(TEXT_NxT, collisions), codes_NxL)
    assert tokenizer.assign(collisions=collisions)[1] == report
  new_Mxd, _ = encode_items(CONFIG, NEW_MxT, tmp_path)
  taken_NxL = tokenizer.codes()
  new_MxL = tokenizer.add(NEW_MxT, taken_NxL)
  np.testing.assert_array_equal(new_MxL, assign_later_items(new_Mxd, codebooks_LxKxd, taken_NxL))
  assert new_MxL.dtype == np.int32 and len(np.unique(np.concatenate([taken_NxL, new_MxL]), axis=0)) == 57


def test_a_folder_and_messages_only_on_request(tokenizer, tmp_path, monkeypatch, capsys):
  (tmp_path / 'temporary').mkdir()
  monkeypatch.setattr('tempfile.tempdir', str(tmp_path / 'temporary'))
  monkeypatch.chdir(tmp_path / 'temporary')
  monkeypatch.setattr(tempfile, 'mkdtemp', lambda *arguments, **named: pytest.fail('a folder is made'))
  assert_equal(LetterTokenizer.train(TEXT_NxT, ROWS_Nxd, CONFIG, 3), tokenizer)
  assert capsys.readouterr() == ('', '') and not list((tmp_path / 'temporary').iterdir())
  monkeypatch.undo()
  kept = LetterTokenizer.train(TEXT_NxT, ROWS_Nxd, CONFIG, 3, directory=str(tmp_path / 'kept'), verbose=True)
  assert_equal(kept, tokenizer)
  assert 'tokenizer: best reconstruction' in capsys.readouterr().out
  assert {'checkpoints', 'metrics.jsonl'} <= {file.name for file in (tmp_path / 'kept').iterdir()}


def test_what_others_say_during_a_silent_training_is_seen(monkeypatch, capsys):
  def talk(*arguments, **named):
    print('from another thread')
    print('a warning', file=sys.stderr)
    return train_tokenizer(*arguments, **named)

  monkeypatch.setattr(letter_tokenizer, 'train_tokenizer', talk)
  LetterTokenizer.train(TEXT_NxT, ROWS_Nxd, CONFIG, 3)
  assert capsys.readouterr() == ('from another thread\n', 'a warning\n')


class Captured(Exception):
  """Raised instead of training, with what was to be trained on."""


@pytest.mark.parametrize(
  'collaborative_NxE, config, alpha, expected_Nxd',
  [
    (None, CONFIG, 0.0, np.zeros((50, 4), np.float32)),
    (10 * ROWS_Nxd, CONFIG, MODEL.alpha, 10 * ROWS_Nxd),
    (WIDE_NxE, CONFIG, MODEL.alpha, collaborative_rows(WIDE_NxE, 4)),
    (WIDE_NxE[:, :2], MODEL, MODEL.alpha, collaborative_rows(WIDE_NxE[:, :2], 4)),
  ],
  ids=['text alone', 'the width of the latents', 'wider', 'narrower, and the model alone'],
)
def test_the_rows_that_it_trains_with(monkeypatch, collaborative_NxE, config, alpha, expected_Nxd):
  def capture(config, text_NxT, rows_Nxd, directory, *, seed, verbose):
    raise Captured(config, rows_Nxd, seed)

  monkeypatch.setattr(letter_tokenizer, 'train_tokenizer', capture)
  with pytest.raises(Captured) as captured:
    LetterTokenizer.train(TEXT_NxT, collaborative_NxE, config)
  used, rows_Nxd, seed = captured.value.args
  expected = CONFIG if config is CONFIG else TokenizerConfig(model=MODEL)
  assert used == dataclasses.replace(expected, model=dataclasses.replace(MODEL, alpha=alpha)) and seed == 42
  np.testing.assert_array_equal(rows_Nxd, expected_Nxd)


def test_a_file_keeps_everything(tokenizer, tmp_path):
  path = tmp_path / 'folder' / 'tokenizer.npz'
  tokenizer.save(str(path))
  loaded = LetterTokenizer.load(str(path))
  assert_equal(loaded, tokenizer)
  np.testing.assert_array_equal(loaded.codes(), tokenizer.codes())
  np.testing.assert_array_equal(loaded.encode(NEW_MxT), tokenizer.encode(NEW_MxT))


def test_files_that_are_not_a_tokenizer(tokenizer, tmp_path):
  path = tmp_path / 'file.npz'
  expected = 'expected a file written by LetterTokenizer.save'
  with pytest.raises(InputError, match=f'file.npz cannot be read.*{expected}'):
    LetterTokenizer.load(path)
  for content in (b'', b'no archive'):
    path.write_bytes(content)
    with pytest.raises(InputError, match=f'file.npz cannot be read.*{expected}'):
      LetterTokenizer.load(path)
  np.savez(path, array=np.zeros(3))
  with pytest.raises(InputError, match=f'file.npz is not a saved tokenizer; {expected}'):
    LetterTokenizer.load(path)
  with path.open('wb') as file:
    np.save(file, np.zeros(3))
  with pytest.raises(InputError, match=expected):
    LetterTokenizer.load(path)
  tokenizer.save(path)
  with np.load(path) as file:
    arrays = dict(file)
  np.savez(path, **{**arrays, 'parameters/codebooks': np.zeros((3, 7, 4), np.float32)})
  with pytest.raises(InputError, match=r'file.npz is damaged \(its parameters do not fit its config\)'):
    LetterTokenizer.load(path)
  np.savez(path, **{name: array for name, array in arrays.items() if name != 'latents'})
  with pytest.raises(InputError, match=r"file.npz is damaged \('latents.*"):
    LetterTokenizer.load(path)
  config = json.loads(str(arrays['config']))
  config['model']['levels'] = 0
  np.savez(path, **{**arrays, 'config': np.array(json.dumps(config))})
  with pytest.raises(InputError, match=r'is damaged \(config.tokenizer.model.levels is 0; expected at least 1'):
    LetterTokenizer.load(path)


@pytest.mark.parametrize(
  'arguments, message',
  [
    ((TEXT_NxT, ROWS_Nxd[:49], CONFIG), 'collaborative embeddings have 49 rows; expected 50'),
    ((TEXT_NxT[0], None, CONFIG), 'text embeddings have shape'),
    ((TEXT_NxT, ROWS_Nxd, {'levels': 3}), 'config is a dict; expected a TokenizerConfig or an RQVAEConfig'),
    ((TEXT_NxT, None, RQVAEConfig(levels=0)), 'config.tokenizer.model.levels is 0; expected at least 1'),
  ],
  ids=['rows', 'one axis', 'a dict', 'a setting'],
)
def test_wrong_arguments_end_before_the_training(arguments, message):
  with pytest.raises(InputError, match=message):
    LetterTokenizer.train(*arguments)


def test_wrong_arguments_of_a_trained_tokenizer(tokenizer):
  with pytest.raises(InputError, match='text embeddings have 9 columns; expected 10'):
    tokenizer.encode(TEXT_NxT[:, 1:])
  with pytest.raises(InputError, match="collisions is 'refrence'"):
    tokenizer.codes(collisions='refrence')
  with pytest.raises(InputError, match='expected integers'):
    tokenizer.add(NEW_MxT, np.zeros((3, 2), int))


def test_its_semantic_ids_have_its_codebook_size(tokenizer):
  ids = tokenizer.semantic_ids()
  np.testing.assert_array_equal(ids.codes_NxL, tokenizer.codes())
  assert ids.codebook_size == MODEL.codebook_size
  assert tokenizer != dataclasses.replace(tokenizer)  # compared by identity: its arrays have no one truth value
