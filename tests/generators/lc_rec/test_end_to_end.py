"""The stages with a language model: from nothing, in one process and in two, and its export; wrong bases."""

import json
import pathlib
import shutil

import numpy as np
import pytest
import safetensors.numpy

import letter_jax
from letter_jax.cli import commands
from letter_jax.evaluation import ranks
from letter_jax.generators.lc_rec.config_json import read_architecture
from letter_jax.generators.lc_rec.text_tokenizer import TextTokenizer
from letter_jax.pipeline import run as pipeline
from letter_jax.system.errors import InputError
from letter_jax.workdir import Workdir
from tests import multi_process
from tests.generators import building
from tests.small_data import config_with, run_settings, write_recipe
from tests.stages import copy_without

pytestmark = pytest.mark.slow

LANGUAGE = dict(
  generator__architecture='llama',
  generator__lora__rank=0,
  generator__partition=(),
  generator__softmax='catalogue',
  generator__row_tokens=256,
  generator__mixture__fused=0.1,
  generator__llama__text_vocabulary=300,
  generator__llama__d_model=16,
  generator__llama__d_ff=32,
  generator__llama__layers=1,
  generator__llama__heads=2,
  generator__llama__kv_heads=1,
  generator__llama__d_head=8,
)


def copy_up_to_semantic_ids(workdir, copy):
  return copy_without(workdir, copy, 'generator', 'evaluation', 'export', 'report', 'report.html')


@pytest.fixture(scope='module')
def finished(small_run, tmp_path_factory):
  """A run with a T5's settings up to its semantic IDs, and a language model from there."""
  workdir = tmp_path_factory.mktemp('lcrec') / 'workdir'
  copy_up_to_semantic_ids(small_run, workdir)
  pipeline.run(config_with(run_settings(**LANGUAGE)), workdir)
  return workdir


def test_a_language_model_is_trained_evaluated_and_exported(finished, capsys):
  metrics = json.loads((finished / 'evaluation/metrics.json').read_text())
  assert metrics['test']['recall@20'] > 20 / 60 / 2 and set(metrics['baselines']) == {'sasrec', *ranks.SIMPLE_RULES}
  pipeline.run(config_with(run_settings(**LANGUAGE)), finished)
  said = capsys.readouterr().out
  assert 'generator: done before' in said and 'LETTER-LC-Rec' in said
  commands.run('export', finished, commands.Options(platforms=('cpu',)))
  folder = finished / 'export/hugging_face'
  tokenizer = TextTokenizer.read(folder)
  config = json.loads((folder / 'config.json').read_text())
  assert config['vocab_size'] == tokenizer.size == 300 + 3 * 8
  assert (config['bos_token_id'], config['eos_token_id']) == (tokenizer.bos, tokenizer.eos)
  assert read_architecture(folder, 1).layers == 1
  letter = json.loads((folder / 'letter.json').read_text())
  ids = np.load(finished / 'semantic_ids/semantic_ids.npy')
  prompt = letter['prompt'].replace(
    '{history_ids}', letter['separator'].join(''.join(letter['items'][str(item)]) for item in (3, 5))
  )
  tokens = tokenizer.backend.encode(prompt).ids
  assert tokens[0] == tokenizer.bos
  codes = [300 + level * 8 + int(code) for item in (3, 5) for level, code in enumerate(ids[item])]
  assert [token for token in tokens if token >= 300] == codes


def test_it_recommends_what_the_evaluation_found(finished):
  predictions = [json.loads(line) for line in (finished / 'evaluation/predictions.jsonl').read_text().splitlines()]
  recommender = letter_jax.Recommender.from_workdir(finished)
  found = recommender.recommend([user['history'] for user in predictions[:8]], k=20, exclude_history=False)
  for user, items, scores in zip(predictions, found.items_UxK, found.scores_UxK):
    np.testing.assert_allclose(scores, user['scores'], rtol=1e-4)
    assert items[0] == user['items'][0]


def test_two_processes_give_the_metrics_of_one(finished, tmp_path):
  write_recipe(tmp_path / 'recipe.py', run_settings(**LANGUAGE))
  copy_up_to_semantic_ids(finished, tmp_path / 'workdir')
  started = multi_process.start(tmp_path, [f'--config={tmp_path / "recipe.py"}', f'--workdir={tmp_path / "workdir"}'])
  assert multi_process.wait(started) == [0, 0], multi_process.output_of(tmp_path, 0)
  two, one = (
    json.loads((workdir / 'evaluation/metrics.json').read_text()) for workdir in (tmp_path / 'workdir', finished)
  )
  assert two['test'] == pytest.approx(one['test'], abs=1e-6)


@pytest.fixture(scope='module')
def base(tmp_path_factory):
  folder = tmp_path_factory.mktemp('base')
  building.write_base(folder, ['a few words'], 300, d_model=8, d_ff=16, heads=2, kv_heads=1)
  return folder


def _change(name, **changes):
  def change(folder: pathlib.Path):
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

  return change


def _codes_are_there(folder):
  TextTokenizer.read(folder).with_codes(1, 1).write(folder)


def _one_tensor_short(folder):
  tensors = safetensors.numpy.load_file(folder / 'model.safetensors')
  del tensors['model.layers.1.mlp.up_proj.weight']
  safetensors.numpy.save_file(tensors, folder / 'model.safetensors')


@pytest.mark.parametrize(
  'change, said',
  [
    (
      lambda folder: (folder / 'config.json').unlink(),
      'config.json cannot be read .*the folder of a Hugging Face model',
    ),
    (
      _change('config.json', architectures=['GPT2LMHeadModel']),
      'architecture GPT2LMHeadModel; expected one of LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM',
    ),
    (_change('config.json', architectures=5), 'architecture 5; expected one of'),
    (_change('config.json', hidden_size='16'), "hidden_size is '16'; expected an integer of at least 1"),
    (_change('config.json', num_attention_heads=0), 'num_attention_heads is 0; expected an integer'),
    (_change('config.json', num_key_value_heads=3), 'expected a divisor of the heads'),
    (_change('config.json', rope_scaling='linear'), "rope_scaling is 'linear'; expected an object or null"),
    (_change('config.json', quantization_config={'bits': 4}), 'quantization_config is .*; expected None'),
    (lambda folder: (folder / 'model.safetensors').unlink(), 'model.safetensors missing; expected the weights'),
    (_one_tensor_short, 'tensor model.layers.1.mlp.up_proj.weight is missing'),
    (_change('config.json', intermediate_size=20), r'is of shape \[8, 16\]; expected \[8, 20\]'),
    (lambda folder: (folder / 'tokenizer_config.json').unlink(), 'a tokenizer without the needed special tokens'),
    (_codes_are_there, 'the tokenizer has the token <a_0> already'),
  ],
)
def test_a_wrong_base_is_named_before_anything_is_trained(base, tmp_path, change, said):
  folder = shutil.copytree(base, tmp_path / 'base')
  change(folder)
  settings = run_settings(**{**LANGUAGE, 'generator__base': str(folder), 'generator__lora__rank': 2})
  with pytest.raises(InputError, match=said) as caught:
    pipeline.run(config_with(settings), tmp_path / 'workdir')
  assert '\n' not in str(caught.value)
  assert not (tmp_path / 'workdir/collaborative').exists()


def test_tasks_without_texts_are_named_before_anything_is_trained(tmp_path):
  with pytest.raises(InputError, match='config.generator.mixture.search is 1.0 and there are no texts of users'):
    pipeline.run(config_with(run_settings(**LANGUAGE, generator__mixture__search=1.0)), tmp_path / 'workdir')
  assert not (tmp_path / 'workdir/collaborative').exists()


def test_what_failed_before_it_began_binds_nobody(tmp_path, finished):
  workdir = copy_up_to_semantic_ids(finished, tmp_path / 'workdir')
  with pytest.raises(InputError, match='row_tokens is 64; expected at least'):
    pipeline.run(config_with(run_settings(**{**LANGUAGE, 'generator__row_tokens': 64})), workdir, 'generator')
  pipeline.run(config_with(run_settings(**LANGUAGE, generator__training__epochs=1)), workdir, 'generator')


def test_another_base_is_another_generator(base, tmp_path, finished):
  """The tokens that begin and end a text belong to what a generator depends on."""
  folder = shutil.copytree(base, tmp_path / 'base')
  workdir = copy_up_to_semantic_ids(finished, tmp_path / 'workdir')
  config = config_with(
    run_settings(
      **{**LANGUAGE, 'generator__base': str(folder), 'generator__lora__rank': 2, 'generator__training__epochs': 1}
    )
  )
  pipeline.run(config, workdir, 'generator')
  _change('tokenizer_config.json', bos_token='<pad>')(folder)
  with pytest.raises(InputError, match='content of config.generator.base/tokenizer_config.json'):
    pipeline.run(config, workdir, 'generator')
  assert np.isfinite(Workdir(workdir).restore_generator().validation['ndcg@10'])
