import runpy

import pytest

from letter_jax.configuration import Config, GeneratorConfig, default_config, from_config_dict
from letter_jax.system.errors import InputError
from tests.paths import ROOT


def test_defaults_survive_the_round_trip():
  assert from_config_dict(default_config()) == Config()


def _changed(key: str, value):
  tree = default_config().to_dict()
  *sections, last = key.split('.')
  inner = tree
  for section in sections:
    inner = inner[section]
  inner[last] = value
  return tree


@pytest.mark.parametrize(
  'key, value, message',
  [
    (
      'generator.tempreature',
      1.0,
      'config.generator.tempreature does not exist; did you mean config.generator.temperature',
    ),
    ('generator.temperature', 'warm', "config.generator.temperature is 'warm'; expected a number"),
    ('generator.temperature', 0, 'config.generator.temperature is 0.0; expected more than 0'),
    ('generator.temperature', float('nan'), 'config.generator.temperature is nan; expected a finite number'),
    ('generator.training.epochs', True, 'config.generator.training.epochs is True; expected an integer'),
    ('generator.training.epochs', 2.5, 'config.generator.training.epochs is 2.5; expected an integer'),
    ('generator.training.epochs', 0, 'config.generator.training.epochs is 0; expected at least 1'),
    ('generator.model.dropout', 1.0, 'config.generator.model.dropout is 1.0; expected less than 1'),
    ('data.source', 'sql', "config.data.source is 'sql'; expected one of 'letter', 'synthetic'"),
    ('tokenizer.model.hidden', 512, 'config.tokenizer.model.hidden is 512; expected a list of integers'),
    (
      'tokenizer.model.hidden',
      (512, None),
      'config.tokenizer.model.hidden is (512, None); expected a list of integers',
    ),
    ('mesh.fully_sharded', 'no', "config.mesh.fully_sharded is 'no'; expected true or false"),
    ('data.name', None, 'config.data.name is None; expected text'),
    ('tokenizer.model.hidden', (512, 0), 'config.tokenizer.model.hidden[1] is 0; expected at least 1'),
    ('collaborative.model.heads', 3, 'config.collaborative.model.heads is 3; expected a divisor of'),
    ('data.history_length', 25, 'config.generator.row_items is 24; expected at least config.data.history_length, 25'),
    ('tokenizer.training.accumulation_steps', 2, 'config.tokenizer.training.accumulation_steps is 2; expected 1'),
    (
      'collaborative.lightgcn.training.accumulation_steps',
      2,
      'config.collaborative.lightgcn.training.accumulation_steps is 2; expected 1',
    ),
    (
      'collaborative',
      {'method': 'lightgcn', 'path': 'rows.npy'},
      "config.collaborative.method is 'lightgcn', but config.collaborative.path gives the rows",
    ),
    (
      'data.preparation',
      {'since': '2019-05-01', 'until': '2019-01-01'},
      'config.data.preparation.since is 2019-05-01; expected a day before config.data.preparation.until, 2019-01-01',
    ),
    ('data.preparation.since', 'May', "config.data.preparation.since is 'May'; expected a day as YYYY-MM-DD"),
    ('generator.partition', (('out', 'data'),), "config.generator.partition[0][1] is 'data'; expected a list of texts"),
    (
      'generator.partition',
      (('out',),),
      "config.generator.partition[0] is ('out',); expected a pair of text and a list",
    ),
    ('mesh.model', float('inf'), 'config.mesh.model is inf; expected an integer'),
    (
      'generator.lora.targets',
      ('query', 'keys'),
      "config.generator.lora.targets[1] is 'keys'; expected one of 'query'",
    ),
    (
      'generator.crops',
      0.1,
      "config.generator.crops is 0.1, but only a T5 with config.generator.model.encoder='items' is trained on crops",
    ),
    ('tokenizer', 3, 'config.tokenizer is 3; expected a section with keys model, partition, training'),
  ],
)
def test_a_wrong_value_names_its_key(key, value, message):
  with pytest.raises(InputError) as caught:
    from_config_dict(_changed(key, value))
  assert message in str(caught.value)
  assert '\n' not in str(caught.value)


def test_an_integer_is_accepted_for_a_float():
  assert from_config_dict(_changed('generator.temperature', 2)).generator.temperature == 2.0


CONFIGS = ROOT / 'configs'
RECIPES = [
  ('quickstart', ''),
  ('million', ''),
  ('million', '30000'),
  ('ablation', ''),
  ('ablation', 'synthetic'),
  ('ablation', 'scientific'),
  *(('letter_tiger', name) for name in ('scientific', 'beauty', 'instruments', 'yelp', 'csv')),
  *(('letter_tiger_paper', name) for name in ('instruments', 'beauty', 'yelp')),
  ('letter_lcrec', 'tiny'),
  *(('letter_lcrec', name) for name in ('scientific_tiny', 'beauty_tiny', 'instruments_tiny', 'yelp_tiny')),
]


def test_every_recipe_is_in_this_list():
  assert {name for name, _ in RECIPES} == {path.stem for path in CONFIGS.glob('*.py')}


@pytest.mark.parametrize('name, argument', RECIPES)
def test_recipes_are_valid(name, argument):
  config = from_config_dict(runpy.run_path(str(CONFIGS / f'{name}.py'))['get_config'](*[argument] * bool(argument)))
  if argument not in ('csv', 'synthetic', '30000'):
    assert config.data.name == argument.removesuffix('tiny').removesuffix('_').capitalize()
  if name == 'letter_tiger_paper':
    assert config.generator == GeneratorConfig(temperature=0.7)


def test_a_store_has_a_size():
  recipe = runpy.run_path(str(CONFIGS / 'million.py'))['get_config']
  for size in ('many', '999', '-5'):
    with pytest.raises(InputError, match=f'million:{size} is not valid; expected a number of items, at least 1000'):
      recipe(size)


def test_a_language_model_needs_a_base_or_training_from_scratch():
  recipe = runpy.run_path(str(CONFIGS / 'letter_lcrec.py'))['get_config']
  config = recipe('beauty')
  with pytest.raises(InputError, match="config.generator.base is ''; expected the folder of a Hugging Face model"):
    from_config_dict(config)
  config.generator.base = 'FOLDER'
  assert from_config_dict(config).generator.lora.rank == 8
  config.generator.lora.rank = 0
  config.generator.base_dtype = 'int8'
  with pytest.raises(InputError, match="config.generator.base_dtype is 'int8', but no parameters are frozen"):
    from_config_dict(config)
  for name in ('nowhere', 'beauty_', 'beauty_small'):
    with pytest.raises(InputError, match=f'letter_lcrec:{name} is not valid'):
      recipe(name)
