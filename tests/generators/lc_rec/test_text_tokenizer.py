"""The tokenizer of a language model: a trained one, and those of Hugging Face folders."""

import dataclasses
import json

import numpy as np
import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, processors

from letter_jax.data import index_format
from letter_jax.generators.lc_rec.text_tokenizer import BOS, EOS, PAD, SMALLEST, TextTokenizer
from letter_jax.system.errors import InputError

TEXTS = ['A steel ruler of 30 cm.', 'Steel wool, the finest!', 'Ein Maßband, 5 m — gelb 😀', 'A ruler of wool'] * 5


@pytest.fixture(scope='module')
def tokenizer():
  return TextTokenizer.train(TEXTS, 320)


def folder_with(tokenizer, path, **files):
  """A Hugging Face folder: tokenizer.json and the given JSON files."""
  tokenizer.backend.save(str(path / 'tokenizer.json'))
  for name, content in files.items():
    (path / f'{name}.json').write_text(json.dumps(content))
  return path


def test_a_trained_tokenizer_holds_all_bytes_and_begins_with_the_special_tokens(tokenizer):
  assert SMALLEST < tokenizer.size <= 320
  assert (tokenizer.bos, tokenizer.eos, tokenizer.backend.token_to_id(PAD)) == (0, 1, 2)
  text = 'Zebra ☃ \n\t never seen <0>'
  tokens, offsets = tokenizer.encode([text])
  assert tokenizer.decode(tokens) == text and offsets.tolist() == [0, len(tokens)]


def test_training_gives_the_same_tokenizer_again(tokenizer):
  assert TextTokenizer.train(TEXTS, 320).backend.to_str() == tokenizer.backend.to_str()


def test_a_vocabulary_without_room_for_all_bytes_is_an_input_error():
  with pytest.raises(InputError, match=f'vocabulary of 258 tokens.*expected at least {SMALLEST}'):
    TextTokenizer.train(TEXTS, 258)
  assert TextTokenizer.train(TEXTS, SMALLEST).size == SMALLEST


def test_encode_gives_the_texts_one_after_the_other(tokenizer):
  texts = ['steel wool', '', 'ruler', ' ruler']
  tokens, offsets = tokenizer.encode(texts)
  assert tokens.dtype == np.int32 and offsets.dtype == np.int64
  assert [tokenizer.decode(tokens[start:end]) for start, end in zip(offsets, offsets[1:])] == texts
  assert offsets[1] == offsets[2]
  for nothing in ([], ['']):
    tokens, offsets = tokenizer.encode(nothing)
    assert tokens.dtype == np.int32 and tokens.tolist() == [] and offsets.tolist() == [0] * (len(nothing) + 1)


def test_special_tokens_in_a_text_are_text(tokenizer):
  for known in (tokenizer, tokenizer.with_codes(2, 3)):
    tokens, _ = known.encode([f'a {EOS} b {BOS}'])
    assert not {tokenizer.bos, tokenizer.eos} & set(tokens.tolist())
    assert known.decode(tokens) == f'a {EOS} b {BOS}'
  assert tokenizer.decode([tokenizer.bos, *tokenizer.encode(['ruler'])[0], tokenizer.eos]) == 'ruler'


def test_codes_are_numbered_behind_the_vocabulary_as_the_index_writes_them(tokenizer, tmp_path):
  codes_NxL = np.array([[0, 4, 2], [4, 0, 3]], np.int32)
  index_format.write_index(tmp_path / 'index.json', codes_NxL)
  known = tokenizer.with_codes(3, 5)
  assert known.size == tokenizer.size
  for item, names in json.loads((tmp_path / 'index.json').read_text()).items():
    expected = tokenizer.size + np.arange(3) * 5 + codes_NxL[int(item)]
    tokens, _ = known.encode([''.join(names)])
    assert tokens.tolist() == expected.tolist()
    assert known.decode(tokens) == ''.join(names)
  # The one without codes knows nothing of them.
  assert tokenizer.encode(['<a_0>'])[0].max() < tokenizer.size
  assert tokenizer.backend.token_to_id('<a_0>') is None


def test_codes_can_be_added_once(tokenizer):
  with pytest.raises(InputError, match='has the token <a_0> already; expected one without codes'):
    tokenizer.with_codes(2, 3).with_codes(1, 1)


def test_what_was_written_is_read_again(tokenizer, tmp_path):
  known = tokenizer.with_codes(2, 3)
  known.write(tmp_path / 'new' / 'folder')
  again = TextTokenizer.read(tmp_path / 'new' / 'folder')
  assert (again.bos, again.eos, again.size) == (tokenizer.bos, tokenizer.eos, tokenizer.size + 6)
  text = 'A ruler <a_2><b_0>, steel'
  assert again.encode([text])[0].tolist() == known.encode([text])[0].tolist()


@pytest.mark.parametrize(
  'files,bos,eos',
  [
    ({'tokenizer_config': {'bos_token': BOS, 'eos_token': EOS}}, 0, 1),
    ({'tokenizer_config': {'bos_token': {'content': BOS}, 'eos_token': {'content': EOS}}}, 0, 1),
    ({'special_tokens_map': {'bos_token': BOS, 'eos_token': {'content': EOS}}}, 0, 1),
    ({'config': {'bos_token_id': 0, 'eos_token_id': 1}}, 0, 1),
    ({'generation_config': {'eos_token_id': [1, 2], 'bos_token_id': 0}}, 0, 1),
    (
      {'tokenizer_config': {'bos_token': None, 'eos_token': EOS}, 'config': {'bos_token_id': 2, 'eos_token_id': 2}},
      None,
      1,
    ),
    (
      {'tokenizer_config': {'bos_token': '', 'eos_token': None}, 'config': {'bos_token_id': 0, 'eos_token_id': 1}},
      0,
      1,
    ),
    ({'tokenizer_config': {'eos_token': EOS}}, None, 1),
  ],
)
def test_a_folder_says_which_tokens_begin_and_end_a_text(tokenizer, tmp_path, files, bos, eos):
  read = TextTokenizer.read(folder_with(tokenizer, tmp_path, **files))
  assert (read.bos, read.eos, read.size) == (bos, eos, tokenizer.size)


@pytest.mark.parametrize(
  'files,message',
  [
    ({}, 'without the needed special tokens.*expected eos_token in tokenizer_config.json'),
    ({'tokenizer_config': {'bos_token': BOS}}, 'without the needed special tokens'),
    (
      {'tokenizer_config': {'eos_token': '</s>'}},
      r'tokenizer_config.json: eos_token is "</s>"; expected a token of the',
    ),
    ({'config': {'eos_token_id': 5000}}, 'config.json: eos_token_id is 5000; expected a token of the vocabulary'),
    ({'config': {'eos_token_id': True}}, 'config.json: eos_token_id is true; expected a token of the vocabulary'),
    ({'tokenizer_config': [1]}, 'tokenizer_config.json holds a list; expected a JSON object'),
  ],
)
def test_a_folder_that_does_not_say_is_an_input_error(tokenizer, tmp_path, files, message):
  with pytest.raises(InputError, match=message) as error:
    TextTokenizer.read(folder_with(tokenizer, tmp_path, **files))
  assert '\n' not in str(error.value)


def test_a_folder_without_a_readable_tokenizer_is_an_input_error(tmp_path):
  with pytest.raises(InputError, match='tokenizer.json does not exist; expected a Hugging Face folder'):
    TextTokenizer.read(tmp_path)
  (tmp_path / 'tokenizer.json').write_text('{"version": "1.0"')
  with pytest.raises(InputError, match='tokenizer.json cannot be read .*; expected') as error:
    TextTokenizer.read(tmp_path)
  assert '\n' not in str(error.value)


def test_numbers_that_no_token_has_are_an_input_error(tmp_path):
  backend = tokenizers.Tokenizer(models.WordLevel({'a': 0, EOS: 3}, unk_token='a'))
  backend.save(str(tmp_path / 'tokenizer.json'))
  (tmp_path / 'tokenizer_config.json').write_text(json.dumps({'eos_token': EOS}))
  with pytest.raises(InputError, match='2 tokens have numbers up to 3; expected 0 .. N - 1 without gaps'):
    TextTokenizer.read(tmp_path)


def test_a_model_that_puts_a_space_before_every_text_is_not_given_two(tmp_path):
  vocabulary = [('<unk>', 0.0), (EOS, 0.0), ('▁ruler', -1.0), ('▁', -2.0), ('ruler', -2.0), (',', -2.0), ('▁a', -2.0)]
  backend = tokenizers.Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=False))
  backend.normalizer = tokenizers.normalizers.Sequence(
    [tokenizers.normalizers.Prepend('▁'), tokenizers.normalizers.Replace(' ', '▁')]
  )
  backend.save(str(tmp_path / 'tokenizer.json'))
  (tmp_path / 'tokenizer_config.json').write_text(json.dumps({'eos_token': EOS}))
  read = TextTokenizer.read(tmp_path)
  assert read.prefixes_space
  assert read.encode([' ruler', 'ruler', 'a ruler'])[0].tolist() == [2, 2, 6, 2]


def test_byte_level_texts_keep_their_spaces(tokenizer):
  assert not tokenizer.prefixes_space
  assert not isinstance(tokenizer.backend.pre_tokenizer, pre_tokenizers.Metaspace)
  assert tokenizer.encode([' ruler'])[0].tolist() != tokenizer.encode(['ruler'])[0].tolist()


def test_who_reads_it_elsewhere_begins_a_text_as_training_does(tmp_path):
  trained = TextTokenizer.train(['a few words'], 300)
  without = tokenizers.Tokenizer.from_str(trained.backend.to_str())
  without.post_processor = processors.ByteLevel()
  bare = dataclasses.replace(trained, backend=without)
  assert bare.backend.encode('few').ids[0] != trained.bos
  for bos, expected in ((trained.bos, [trained.bos]), (None, [])):
    for one in (bare, trained):
      found = dataclasses.replace(one, bos=bos).beginning_as_trained()
      assert found.backend.encode('few').ids == expected + trained.encode(['few'])[0].tolist()


def test_a_space_before_the_first_word_alone_becomes_one_before_every_fragment():
  trained = TextTokenizer.train(['a few words'], 300)
  backend = tokenizers.Tokenizer(models.BPE({'<s>': 0, '▁': 1, 'a': 2, ',': 3, '<b>': 4}, []))
  backend.add_special_tokens(['<s>'])
  backend.add_tokens([tokenizers.AddedToken('<b>', normalized=False, special=False)])
  backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme='first')
  known = dataclasses.replace(trained, size=5, bos=None, backend=backend).beginning_as_trained()
  fragments = [token for fragment in ('a', ',') for token in backend.encode(fragment).ids]
  whole = known.backend.encode('a<b>,').ids
  assert [token for token in whole if token != 4] == fragments
