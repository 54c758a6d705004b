"""What is wrong with the value of an override: one line with the key, the value and what was expected."""

import pytest
from absl import flags

from letter_jax.cli import overrides
from letter_jax.configuration import default_config
from letter_jax.system.errors import InputError

KEYS = {
  int: ('seed', 'an integer'),
  float: ('generator.temperature', 'a number'),
  bool: ('mesh.fully_sharded', 'true or false'),
  str: ('data.name', 'text'),
  tuple: ('tokenizer.model.hidden', 'a list of integers'),
}


def error_of(*arguments: str) -> str:
  with pytest.raises(InputError) as caught:
    overrides.check(['letter-jax', *arguments], default_config())
  assert '\n' not in str(caught.value)
  return str(caught.value)


@pytest.mark.parametrize(
  'kind, text',
  [(int, text) for text in ('abc', '2.5', '', 'None', 'true', '(1,)')]
  + [(float, text) for text in ('abc', '', 'None', 'true')]
  + [(bool, text) for text in ('maybe', '2', 'None')]
  + [(tuple, text) for text in ('(1, 2', '')],
)
def test_a_value_of_a_different_type(kind, text):
  key, expected = KEYS[kind]
  assert error_of(f'--config.{key}={text}') == f'--config.{key}={text}; expected {expected}'


@pytest.mark.parametrize('text', ['x', 'None', '3', '--config.seed'])
def test_a_value_as_the_next_word(text):
  assert error_of('--config.mesh.model', text.replace('3', 'three')).startswith('--config.mesh.model=')
  overrides.check(['letter-jax', '--config.mesh.model', '3'], default_config())


@pytest.mark.parametrize('kind', [int, float, str, tuple])
def test_a_flag_without_a_value(kind):
  key, expected = KEYS[kind]
  assert error_of(f'--config.{key}') == f'--config.{key} is given without a value; expected {expected}'


@pytest.mark.parametrize(
  'argument, parts',
  [
    ('--noconfig.seed', ('--noconfig.seed sets a value to false', 'expected an integer')),
    ('--noconfig.mesh.fully_sharded=true', ('sets a value to false', 'expected true or false')),
    ('--config.tokenizer.model.hidden[0]=7', ('an entry of a list', 'expected the whole list', '(512, 256, 128, 64)')),
    ('--config.generator=3', ('--config.generator is a section', '--config.generator.architecture=VALUE')),
    ('--config.generator.tempreature=1', ('does not exist', 'did you mean --config.generator.temperature')),
    ('--config.training.epochs=1', ('--config.training.epochs does not exist',)),
    ('--config.seed[0]=1', ('an entry of a list',)),
  ],
)
def test_keys_that_take_no_such_value(argument, parts):
  message = error_of(argument)
  assert all(part in message for part in parts), message


def test_values_of_the_right_type():
  for argument in (
    '--config.seed=7',
    '--config.generator.temperature=1',
    '--config.generator.temperature=1e-3',
    '--config.mesh.fully_sharded',
    '--config.mesh.fully_sharded=false',
    '--noconfig.mesh.fully_sharded',
    '--config.data.name=None',
    '--config.tokenizer.model.hidden=(4, 5)',
    '--config.tokenizer.model.hidden=4',
    '--config.generator.lora.targets=query',
  ):
    overrides.check(['letter-jax', argument], default_config())


@pytest.mark.parametrize(
  'argument, expected',
  [
    ('--test_overrides_k=abc', '--test_overrides_k=abc; expected an integer'),
    ('-test_overrides_k=2.5', '--test_overrides_k=2.5; expected an integer'),
    ('--test_overrides_quick=maybe', '--test_overrides_quick=maybe; expected true or false'),
  ],
)
def test_a_flag_of_the_program(argument, expected):
  if 'test_overrides_k' not in flags.FLAGS:
    flags.DEFINE_integer('test_overrides_k', 1, 'for this test')
    flags.DEFINE_bool('test_overrides_quick', False, 'for this test')
  with pytest.raises(InputError) as caught:
    overrides.check_flags(['letter-jax', '--test_overrides_k=3', '--test_overrides_quick', argument])
  assert str(caught.value) == expected
