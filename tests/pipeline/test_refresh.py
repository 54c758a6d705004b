"""A run on newer data that begins where an earlier one ended: what stays, what is new, and what is refused."""

import json
import shutil

import jax
import numpy as np
import pytest

from letter_jax.generators.features import ItemFeatures
from letter_jax.pipeline import refresh
from letter_jax.pipeline import run as pipeline
from letter_jax.serving.recommender import Recommender
from letter_jax.sharding import on_one_device
from letter_jax.system.errors import InputError
from letter_jax.training.checkpoints import read_best
from letter_jax.workdir import Workdir
from tests.generators.lc_rec.test_end_to_end import LANGUAGE
from tests.shop import write_day
from tests.small_data import config_with, run_settings
from tests.stages import copy_without, run_stages, up_to

pytestmark = pytest.mark.slow


def config_of(data, **changes):
  settings = dict(
    data__source='csv',
    data__path=str(data),
    data__preparation__core=2,
    collaborative__training__epochs=3,
    tokenizer__model__codebook_size=16,
    fusion__partners=('sasrec',),
  )
  return config_with(run_settings(**{**settings, **changes}))


@pytest.fixture(scope='module')
def shop(tmp_path_factory):
  """Folders with the data of three days, the run of the first, and the update of it on the second."""
  root = tmp_path_factory.mktemp('shop')
  for day in range(3):
    write_day(root / f'data{day}', day, users=80)
  run_stages(config_of(root / 'data0'), root / 'day0', up_to('generator'))
  pipeline.run(updated(root, 1), root / 'day1')
  return root


def updated(root, day, **changes):
  return config_of(root / f'data{day}', refresh__previous=str(root / f'day{day - 1}'), refresh__epochs=1, **changes)


def codes_by_raw_id(workdir):
  workdir = Workdir(workdir)
  return dict(zip(workdir.read_item_names(), map(tuple, workdir.read_semantic_ids().codes_NxL.tolist()), strict=True))


def best(workdir, stage):
  return read_best(workdir / stage / 'checkpoints', on_one_device())


def test_items_that_stay_keep_their_ids_and_new_ones_get_others(shop):
  before, after = codes_by_raw_id(shop / 'day0'), codes_by_raw_id(shop / 'day1')
  stay, new = before.keys() & after.keys(), after.keys() - before.keys()
  assert len(stay) > 50 and new and before.keys() - after.keys() and len(set(after.values())) == len(after)
  assert all(before[item] == after[item] for item in stay)
  assert not {after[item] for item in new} & set(before.values())  # not even of an item that left
  drift = json.loads((shop / 'day1/semantic_ids/report.json').read_text())['drift']
  assert (drift['stay'], drift['new'], drift['left']) == (len(stay), len(new), len(before) - len(stay))
  assert drift['added'] == pytest.approx(len(new) / len(after))
  assert np.load(shop / 'day1/semantic_ids/added.npy').sum() == len(new)
  assert f'{len(stay)} items keep their IDs, {len(new)} are new' in (shop / 'day1/report.html').read_text()


def test_texts_are_embedded_and_items_tokenised_as_before(shop):
  before, after = Workdir(shop / 'day0'), Workdir(shop / 'day1')
  rows = dict(zip(before.read_item_names(), before.read_rows(before.text_embeddings)))
  for item, row in zip(after.read_item_names(), after.read_rows(after.text_embeddings), strict=True):
    if item in rows:
      np.testing.assert_allclose(row, rows[item], atol=1e-5)
  jax.tree.map(np.testing.assert_array_equal, best(shop / 'day0', 'tokenizer')[0], best(shop / 'day1', 'tokenizer')[0])
  assert (shop / 'day1/tokenizer/input_scale.npz').read_bytes() == (
    shop / 'day0/tokenizer/input_scale.npz'
  ).read_bytes()


@pytest.mark.parametrize('stage', ['collaborative', 'generator'])
def test_trainings_begin_with_the_earlier_parameters_and_are_never_worse(shop, stage):
  _, progress = best(shop / 'day1', stage)
  first = json.loads((shop / 'day1' / stage / 'metrics.jsonl').read_text().splitlines()[0])
  assert (first['kind'], first['step']) == ('validation', 0)
  assert progress.start_value == first['ndcg@10'] and progress.best_value >= progress.start_value
  assert best(shop / 'day0', stage)[1].start_value is None


def test_where_nothing_is_better_the_earlier_parameters_and_features_stay(shop, tmp_path, capsys):
  """Items that stay keep SASRec's rows and the generator's features; its trained parameters hold no rows of items."""
  features = dict(
    generator__features=('text', 'collaborative'), generator__model__encoder='items', generator__training__epochs=1
  )
  copy_without(shop / 'day0', tmp_path / 'day0', 'generator')
  run_stages(config_of(shop / 'data0', **features), tmp_path / 'day0', up_to('generator'))
  capsys.readouterr()
  previous = dict(refresh__previous=str(tmp_path / 'day0'), refresh__epochs=1, refresh__learning_rate=1e-12)
  run_stages(config_of(shop / 'data1', **features, **previous), tmp_path / 'day1', up_to('generator'))
  said = capsys.readouterr().out
  assert said.count('and found nothing better') == 2
  assert said.count('generator: best ndcg@10') == 1
  generators = [best(tmp_path / name, 'generator')[0] for name in ('day0', 'day1')]
  jax.tree.map(np.testing.assert_array_equal, *generators)
  names = [Workdir(tmp_path / name).read_item_names() for name in ('day0', 'day1')]
  tables = [best(tmp_path / name, 'collaborative')[0]['item_embeddings'] for name in ('day0', 'day1')]
  rows = dict(zip(names[0], np.asarray(tables[0])))
  for item, row in zip(names[1], np.asarray(tables[1]), strict=True):
    if item in rows:
      np.testing.assert_array_equal(row, rows[item])
  # SASRec's rows get new axes in every run; the features are turned back to those of before.
  before, after = (
    dict(zip(of_day, ItemFeatures.read(Workdir(tmp_path / name).generator).table_NxF))
    for of_day, name in zip(names, ('day0', 'day1'))
  )
  for item in before.keys() & after.keys():
    np.testing.assert_allclose(after[item], before[item], atol=1e-4)


def test_an_update_is_resumed_and_left_alone(shop, capsys):
  pipeline.run(updated(shop, 1), shop / 'day1')
  assert capsys.readouterr().out.count('done before') == 8


def test_the_next_night_keeps_the_ids_of_this_one(shop, tmp_path):
  run_stages(updated(shop, 2), tmp_path / 'day2', up_to('semantic_ids'))
  before, after = codes_by_raw_id(shop / 'day1'), codes_by_raw_id(tmp_path / 'day2')
  assert all(before[item] == after[item] for item in before.keys() & after.keys())
  drift = Workdir(tmp_path / 'day2').read_ids_report()['drift']
  at_first = codes_by_raw_id(shop / 'day0')
  assert drift['added'] == pytest.approx(len(after.keys() - at_first.keys()) / len(after))
  assert drift['at_training'] == Workdir(shop / 'day1').read_ids_report()['drift']['at_training']


def test_the_updated_model_recommends_new_items(shop):
  recommender = Recommender.from_workdir(shop / 'day1')
  new = sorted(codes_by_raw_id(shop / 'day1').keys() - codes_by_raw_id(shop / 'day0').keys())
  found = recommender.recommend([['item-0090']], k=len(new), exclude_history=False, among=recommender.among(new))
  names = recommender.catalogue.raw_ids
  assert sorted(names[item] for item in found.items_UxK[0]) == new


def test_a_language_model_begins_with_the_earlier_one_and_the_tokenizer_of_its_texts(shop, tmp_path):
  for day, previous in ((0, {}), (1, {'refresh__previous': str(tmp_path / 'day0'), 'refresh__epochs': 1})):
    copy_without(shop / f'day{day}', tmp_path / f'day{day}', 'generator', 'evaluation', 'report')
    config = config_of(shop / f'data{day}', **LANGUAGE, generator__training__epochs=1, **previous)
    run_stages(config, tmp_path / f'day{day}', up_to('generator'))
  before, after = (tmp_path / f'day{day}/generator/tokenizer/tokenizer.json' for day in (0, 1))
  assert before.read_bytes() == after.read_bytes()
  assert best(tmp_path / 'day1', 'generator')[1].start_value is not None


def test_a_finished_update_needs_the_earlier_run_no_more(shop, tmp_path, capsys):
  shutil.copytree(shop / 'day1', tmp_path / 'day1')
  config = config_of(shop / 'data1', refresh__previous=str(tmp_path / 'gone'), refresh__epochs=1)
  pipeline.run(config, tmp_path / 'day1')
  assert capsys.readouterr().out.count('done before') == 8


def test_a_new_tokenizer(shop, tmp_path, capsys):
  config = updated(shop, 1, refresh__retokenize=True)
  run_stages(config, tmp_path / 'day1', up_to('semantic_ids'))
  said = capsys.readouterr().out
  assert 'it started with' in said and 'tokenizer: best reconstruction' in said
  assert 'drift' not in Workdir(tmp_path / 'day1').read_ids_report()
  assert not (tmp_path / 'day1/semantic_ids/added.npy').exists()


def test_only_users_who_came_back_are_trained_on(shop):
  config, workdir = updated(shop, 1, refresh__since='2023-11-16'), Workdir(shop / 'day1')  # the second day
  whole = workdir.read_interactions(config.data)
  some = refresh.trained_on(config, workdir, whole, 'sasrec')
  lines = (shop / 'data1/interactions.csv').read_text().splitlines()[1:]
  back = {user for user, _, time in (line.split(',') for line in lines) if int(time) >= 1_700_092_800}
  assert set(some.users) == back & set(whole.users) and 0 < len(some.users) < len(whole.users)
  sequences = dict(zip(whole.users, np.split(whole.items, whole.offsets[1:-1])))
  for user, items in zip(some.users, np.split(some.items, some.offsets[1:-1]), strict=True):
    np.testing.assert_array_equal(items, sequences[user])


def _renamed(folder):
  for path in folder.glob('*.csv'):
    path.write_text(path.read_text().replace('item-', 'thing-'))


@pytest.mark.parametrize(
  'changes, said',
  [
    ({'tokenizer.model.codebook_size': 8}, 'config.tokenizer.model.codebook_size is 8, and was 16 in the run of'),
    ({'tokenizer.model.levels': 4}, 'config.tokenizer.model.levels is 4, and was 3'),
    ({'generator.model.d_model': 32}, 'config.generator.model.d_model is 32, and was 16'),
    (
      {'generator.architecture': 'llama', 'generator.lora.rank': 0},
      "config.generator.architecture is 'llama', and was",
    ),
    ({'collaborative.model.dim': 32}, 'config.collaborative.model.dim is 32, and was 16'),
    ({'data.history_length': 6}, 'config.data.history_length is 6, and was 5'),
    ({'text_embeddings.model': 'some'}, "config.text_embeddings.model is 'some', and was ''"),
    ({'refresh.since': '2030-01-01'}, 'of the users who came back since then none has more than 3 interactions'),
    ({'text_embeddings.max_tokens': 9}, 'config.text_embeddings.max_tokens is 9, and was 0'),
    ({'refresh.previous': '/nowhere'}, '/nowhere does not exist; expected the workdir of a run that is complete'),
  ],
)
def test_what_does_not_fit_is_refused_before_anything_is_trained(shop, tmp_path, changes, said):
  config = config_of(shop / 'data1', **{'refresh__previous': str(shop / 'day0'), **changes})
  with pytest.raises(InputError) as caught:
    pipeline.run(config, tmp_path / 'day1')
  assert said in str(caught.value) and '\n' not in str(caught.value)
  assert not (tmp_path / 'day1/collaborative').exists()


def test_data_that_does_not_fit_is_refused(shop, tmp_path):
  shutil.copytree(shop / 'data1', tmp_path / 'data')
  _renamed(tmp_path / 'data')
  for data, said in (
    (
      tmp_path / 'data',
      "has none of the .* items of the data: its raw ids are such as 'item-.*', and those .* 'thing-",
    ),
    (shop / 'data0', 'has the same data: there is nothing new to train on'),
  ):
    config = config_of(data, refresh__previous=str(shop / 'day0'))
    with pytest.raises(InputError, match=said):
      pipeline.run(config, tmp_path / data.name)
  with pytest.raises(InputError, match='the earlier run that it would begin with; expected another folder'):
    pipeline.run(config_of(shop / 'data0', refresh__previous=str(shop / 'day0')), shop / 'day0', 'semantic_ids')
  with pytest.raises(InputError, match='have no raw ids, so those of the two runs cannot be matched'):
    pipeline.run(config_with(run_settings(refresh__previous=str(shop / 'day0'))), tmp_path / 'synthetic')


def test_an_earlier_run_that_is_not_complete_is_refused(shop, tmp_path):
  shutil.copytree(shop / 'day0', tmp_path / 'day0')
  record = tmp_path / 'day0/generator/stage.json'
  record.write_text(json.dumps({**json.loads(record.read_text()), 'complete': False}))
  config = config_of(shop / 'data1', refresh__previous=str(tmp_path / 'day0'))
  with pytest.raises(InputError, match='has no finished generator; expected the workdir of a run that is complete'):
    pipeline.run(config, tmp_path / 'day1')


@pytest.mark.parametrize('key', ['refresh.since', 'refresh.retokenize'])
def test_settings_without_an_earlier_run(key):
  with pytest.raises(InputError, match=f'config.{key} is .*, but no earlier run is named'):
    config_of('data', **{key: '2024-01-01' if key == 'refresh.since' else True})
