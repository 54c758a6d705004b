"""Recipes by name and by path, with and without an argument."""

import ml_collections
import pytest

from letter_jax.cli import recipes
from letter_jax.configuration import from_config_dict
from tests.data.json_input import one_line
from tests.paths import ROOT


def _write(folder, body, parameters=''):
  path = folder / 'recipe.py'
  path.write_text(
    f'from letter_jax.configuration import default_config\n\n\ndef get_config({parameters}):\n{body}\n',
    encoding='utf-8',
  )
  return path


def test_the_included_recipes():
  names = recipes.included()
  assert {'quickstart', 'letter_tiger', 'letter_lcrec', 'ablation'} <= set(names)
  assert all(path == ROOT / 'configs' / f'{name}.py' for name, path in names.items())


def test_a_name_and_a_path_give_the_same_recipe():
  by_name, by_path = recipes.load('quickstart'), recipes.load(str(ROOT / 'configs/quickstart.py'))
  assert by_name.to_dict() == by_path.to_dict()
  assert from_config_dict(by_name).data.source == 'synthetic'


def test_an_argument():
  beauty, yelp = recipes.load('letter_tiger:beauty'), recipes.load(f'{ROOT / "configs/letter_tiger.py"}:yelp')
  assert beauty.to_dict() != yelp.to_dict()


def test_an_argument_may_be_empty_or_have_colons(tmp_path):
  path = _write(tmp_path, '  config = default_config()\n  config.data.name = name\n  return config', "name='unset'")
  for argument, name in (('', 'unset'), (':', ''), (':a', 'a'), (':a:b', 'a:b')):
    assert recipes.load(f'{path}{argument}').data.name == name


@pytest.mark.parametrize('recipe', ['nowhere', 'nowhere:beauty', 'configs/nowhere.py', '_base', ''])
def test_an_unknown_recipe(recipe):
  one_line(lambda: recipes.load(recipe), f'--config={recipe} does not exist', 'expected a recipe', 'quickstart')


def test_arguments_that_a_recipe_does_not_take(tmp_path):
  path = _write(tmp_path, '  return default_config()')
  one_line(lambda: recipes.load(f'{path}:beauty'), f'{path}:beauty', 'the recipe takes no argument')
  path = _write(tmp_path, '  return default_config()', 'name')
  one_line(lambda: recipes.load(str(path)), f'{path}', 'the recipe takes an argument after a colon')


@pytest.mark.parametrize(
  'body, parts',
  [
    ('  return undefined', ('raised NameError', 'undefined')),
    ('  raise KeyError("get")', ('raised KeyError', 'get')),
    ('  raise TypeError("wrong")', ('raised TypeError', 'wrong')),
    ('  return default_config().generator.tau', ('raised AttributeError', 'tau')),
    ('  return {}', ('returns a dict', 'expected a ConfigDict')),
    ('  return', ('returns a NoneType', 'expected a ConfigDict')),
    ('  return (', ('raised SyntaxError',)),
  ],
)
def test_a_recipe_that_fails(tmp_path, body, parts):
  path = _write(tmp_path, body)
  one_line(lambda: recipes.load(str(path)), f'--config={path}', *parts)


def test_an_error_message_of_a_recipe_is_kept():
  one_line(lambda: recipes.load('ablation:nowhere'), '--config=ablation:nowhere is not valid')


def test_a_file_without_get_config(tmp_path):
  (tmp_path / 'recipe.py').write_text('config = 1\n')
  one_line(lambda: recipes.load(str(tmp_path / 'recipe.py')), 'recipe.py has no function get_config')


def test_a_recipe_is_a_config_dict_that_flags_can_change():
  config = recipes.load('quickstart')
  assert isinstance(config, ml_collections.ConfigDict)
  config.generator.temperature = 0.5
  assert from_config_dict(config).generator.temperature == 0.5
