"""LETTER-LC-Rec's training on a catalogue of 16 items that follow each other, from nothing and from a small base."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from letter_jax import sharding
from letter_jax.data import splits
from letter_jax.evaluation.evaluator import GeneratorEvaluator
from letter_jax.generators.lc_rec import lora, prompts
from letter_jax.generators.lc_rec import weights as llama_weights
from letter_jax.generators.lc_rec.config_json import read_architecture
from letter_jax.generators.lc_rec.llama import Llama
from letter_jax.generators.lc_rec.text_tokenizer import TextTokenizer
from letter_jax.generators.lc_rec.training import frozen_params
from letter_jax.system.errors import InputError
from tests.generators import building
from tests.small_data import config_with, cyclic_interactions, distinct_codes, relative_error

pytestmark = pytest.mark.slow

ITEMS, LEVELS, K = 16, 2, 8
SEMANTIC_IDS = distinct_codes(ITEMS, LEVELS, K)
TEXTS = tuple(
  {
    'title': f'item number {item}',
    'brand': '',
    'categories': '',
    'description': f'one of {ITEMS}, the one after {item - 1}',
  }
  for item in range(ITEMS)
)
SETTINGS = {
  'seed': 7,
  'data.history_length': 3,
  'evaluation.batch_size': 32,
  'generator.architecture': 'llama',
  'generator.partition': (),
  'generator.row_tokens': 128,
  'generator.validation_beam': 10,
  'generator.llama.text_vocabulary': 300,
  'generator.llama.d_model': 24,
  'generator.llama.d_ff': 48,
  'generator.llama.layers': 2,
  'generator.llama.heads': 2,
  'generator.llama.kv_heads': 1,
  'generator.llama.d_head': 12,
  'generator.lora.rank': 0,
  'generator.lora.dropout': 0.0,
  'generator.mixture.fused': 0.1,
  'generator.training.epochs': 2,
  'generator.training.batch_size': 32,
  'generator.training.learning_rate': 1e-2,
  'generator.training.log_every_steps': 1,
  'generator.training.checkpoint_every_steps': 1000,
}


def data():
  return cyclic_interactions(users=120, num_items=ITEMS, longest=8)


def settings_of(**changes):
  return config_with({**SETTINGS, **{f'generator.{key.replace("__", ".")}': value for key, value in changes.items()}})


def train(directory, config):
  return building.train(config, to_train(config, directory), data(), directory)


def to_train(config, directory):
  return building.to_train(config, building.placed(SEMANTIC_IDS, K), directory, TEXTS)


def to_search(config, directory):
  return building.to_search(config, building.placed(SEMANTIC_IDS, K), directory)


def assert_same(ours, expected):
  assert jax.tree.structure(ours) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, ours, expected)


@pytest.fixture(scope='module')
def base_folder(tmp_path_factory):
  """A small LLaMA with its tokenizer, as Hugging Face has them, and more rows than tokens."""
  folder = tmp_path_factory.mktemp('base')
  titles = [text['title'] for text in TEXTS] * 3
  building.write_base(folder, titles, 280, d_model=16, d_ff=32, heads=4, kv_heads=2, context=256, new_tokens=3)
  return folder


def adapted(base_folder, **changes):
  return settings_of(**{'base': str(base_folder), 'lora__rank': 4, 'mixture__fused': 0.0, **changes})


@pytest.fixture(scope='module')
def adapters(tmp_path_factory, base_folder):
  """The config of a training of adapters, its folder, and its parameters."""
  config = adapted(base_folder, lora__dropout=0.1, training__checkpoint_every_steps=5)
  folder = tmp_path_factory.mktemp('adapters')
  trained, _ = train(folder, config)
  return config, folder, trained


def test_a_model_from_nothing_learns_what_follows(tmp_path):
  config = settings_of(training__epochs=12, training__evaluate_every_epochs=6)
  trained, progress = train(tmp_path, config)
  lines = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
  losses = [line for line in lines if line['kind'] == 'train']
  assert losses[-1]['items'] < 0.7 * losses[0]['items'] and losses[-1]['words'] < 0.7 * losses[0]['words']
  assert progress.best_metrics['ndcg@10'] > 0.6  # by chance 0.28
  # From the folder alone, as a later stage does it.
  generator = to_search(config, tmp_path)
  evaluator = building.evaluator(config, generator, 10)
  params = generator.whole_params(trained)
  found = evaluator.validate(params, splits.validation_examples(data(), 3))
  assert found == pytest.approx(progress.best_metrics)
  assert evaluator.validate(params, splits.test_examples(data(), 3))['ndcg@10'] > 0.6


def test_a_resumed_training_is_the_uninterrupted_one(tmp_path, adapters, monkeypatch):
  config, _, whole = adapters
  with monkeypatch.context() as patched:
    patched.setattr(GeneratorEvaluator, 'validate', lambda *_: {}['interrupted'])
    with pytest.raises(KeyError, match='interrupted'):
      train(tmp_path, config)
  assert [path.name for path in (tmp_path / 'checkpoints' / 'latest').iterdir() if path.name == '10']
  resumed, _ = train(tmp_path, config)
  assert_same(resumed, whole)


def test_adapters_and_new_tokens_alone_are_trained(adapters):
  _, folder, trained = adapters
  names = {sharding.name_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(trained)}
  assert {name.rpartition('/')[2] for name in names} == set(lora.TRAINED)
  assert len(names) == 2 * 7 + 2
  moved = [
    float(np.abs(leaf).max()) for path, leaf in jax.tree_util.tree_leaves_with_path(trained) if path[-1].key == 'lora_b'
  ]
  assert min(moved) > 0
  # Checkpoints hold nothing else.
  stored = sum(path.stat().st_size for path in (folder / 'checkpoints' / 'best').rglob('*') if path.is_file())
  assert stored < 40 * sum(leaf.size for leaf in jax.tree.leaves(trained))


def test_full_fine_tuning_starts_from_the_base_and_moves_all_of_it(tmp_path, base_folder):
  config = adapted(base_folder, lora__rank=0, training__epochs=1)
  generator = to_train(config, tmp_path)
  base, program = generator.base, building.program(config, generator, data())
  state = jax.jit(program.init)(*program.init_arguments)
  shardings = sharding.on_one_device().of(llama_weights.shapes(base.architecture, jnp.float32))
  given = llama_weights.read(base_folder, base.architecture, shardings, jnp.float32)
  assert_same(lora.split(state.params, False)[1], given)
  trained, _ = train(tmp_path, config)
  assert all(
    np.any(one != other) for one, other in zip(jax.tree.leaves(lora.split(trained, False)[1]), jax.tree.leaves(given))
  )


def test_an_int8_base_gives_nearly_the_same(adapters):
  config, folder, trained = adapters
  rounded = dataclasses.replace(config, generator=dataclasses.replace(config.generator, base_dtype='int8'))
  scores = []
  for each in (config, rounded):
    generator = to_search(each, folder)
    evaluator = building.evaluator(each, generator, ITEMS)
    found = evaluator.evaluate(generator.whole_params(trained), splits.test_examples(data(), 3), '')
    scores.append(np.take_along_axis(found.scores_UxK, np.argsort(found.items_UxK, axis=1), axis=1))
  frozen = frozen_params(generator.config, generator.base, generator.layout())
  assert {leaf.dtype for leaf in jax.tree.leaves(frozen['layers'])} == {np.dtype('int8'), np.dtype('float32')}
  assert 0 < relative_error(scores[1], scores[0]) < 0.02


def test_what_is_exported_computes_the_same(tmp_path, adapters):
  config, folder, trained = adapters
  generator = to_search(config, folder)
  base = generator.base
  generator.write_hugging_face(tmp_path / 'export', trained)
  known = TextTokenizer.read(tmp_path / 'export')
  assert known.size == base.tokenizer.size + LEVELS * K
  architecture = read_architecture(tmp_path / 'export', 1)
  assert architecture.text_vocabulary == known.size
  shardings = sharding.on_one_device().of(llama_weights.shapes(architecture, jnp.float32))
  merged = llama_weights.read(tmp_path / 'export', architecture, shardings, jnp.float32)
  merged |= {'new_embedding': jnp.zeros((1, 16)), 'new_head': jnp.zeros((1, 16))}
  tokens = jnp.asarray(known.backend.encode('item <a_3><b_1>, number <a_0>', add_special_tokens=False).ids)[None]
  assert (np.asarray(tokens) >= base.tokenizer.size).sum() == 3

  def logits(model, params):
    hidden = model.apply({'params': params}, tokens, jnp.ones_like(tokens), jnp.arange(tokens.shape[1])[None])
    return model.apply({'params': params}, hidden, slice(0, known.size), method=Llama.logits)

  ours = logits(Llama(base.architecture, config.generator.lora), generator.whole_params(trained))
  assert relative_error(logits(Llama(architecture), merged), ours) < 1e-4


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'row_tokens': 512}, 'config.generator.row_tokens is 512; expected at most 256, the context of the model'),
    ({'mixture__search': 1.0}, 'config.generator.mixture.search is 1.0 and there are no texts of users'),
    ({'row_tokens': 16}, 'config.generator.row_tokens is 16; expected at least'),
    ({'partition': (('nothing', ('', '')),)}, "the partition rule 'nothing' matches no parameter"),
  ],
)
def test_what_cannot_be_trained_is_an_input_error(tmp_path, base_folder, changes, message):
  with pytest.raises(InputError, match=message):
    train(tmp_path, adapted(base_folder, **changes))


def test_a_history_longer_than_the_context_loses_its_oldest_items(tmp_path, base_folder):
  config = adapted(base_folder)
  generator = to_train(config, tmp_path)
  base = generator.base
  prompt = prompts.decoding_prompt(base.tokenizer)
  context = len(prompt.prefix) + len(prompt.suffix) + 3 * (LEVELS + len(prompt.separator)) + LEVELS
  short = dataclasses.replace(base, architecture=dataclasses.replace(base.architecture, context=context))
  evaluator = building.evaluator(config, dataclasses.replace(generator, base=short), 10)
  examples = splits.test_examples(data(), 8)
  assert 0 < evaluator.shortened(examples) < len(examples)
  program = building.program(config, generator, data())
  params = generator.whole_params(jax.jit(program.init)(*program.init_arguments).params)
  found = evaluator.evaluate(params, examples, '')
  cut = evaluator.evaluate(params, splits.test_examples(data(), 3), '')
  np.testing.assert_array_equal(found.items_UxK, cut.items_UxK)
  none = dataclasses.replace(base, architecture=dataclasses.replace(base.architecture, context=20))
  with pytest.raises(InputError, match='the context of the model is 20 tokens; expected room for a prompt'):
    building.evaluator(config, dataclasses.replace(generator, base=none), 10)
