"""A shop with ids of its own, from its CSV files to the lists: an id is one thing everywhere."""

import importlib.util
import json
import shutil

import numpy as np
import pytest

import letter_jax
from letter_jax.cli import commands
from letter_jax.pipeline import run as pipeline
from letter_jax.serving import jsonl
from letter_jax.system.errors import InputError
from tests.small_data import config_with, run_settings

pytestmark = pytest.mark.slow

# As they stand in the files: decimal texts, surrounding blanks, a tab within, two Unicode forms, quotes, a float.
ODD = [' lead2', 'trail3 ', 'tab\tid0', 'cafe\u0301', '\u00fcn\u00ef6\u00a0', '"q"4', '0017', '0x1F', 'TRUE', '1.0']
GIVEN = [*map(str, range(100, 130)), *ODD]
NORMAL = ['lead2', 'trail3', 'tab\tid0', 'caf\u00e9', '\u00fcn\u00ef6', '"q"4', '0017', '0x1F', 'TRUE', '1.0']
ITEMS = sorted([*map(str, range(100, 130)), *NORMAL])


@pytest.fixture(scope='module')
def shop(tmp_path_factory):
  """A finished workdir: 40 items that are bought often, one that is rare, and one user who came once."""
  folder = tmp_path_factory.mktemp('shop')
  random = np.random.default_rng(0)
  rows = []
  for user in range(60):
    start = random.integers(len(GIVEN))
    for step in range(random.integers(6, 10)):
      rows.append((f'u{user}', GIVEN[(start + step) % len(GIVEN)], 1_700_000_000 + 1000 * user + step))
  rows += [('u1', ' rare-1', 1_600_000_000), ('once', '100', 1_600_000_000)]
  with (folder / 'interactions.csv').open('w', encoding='utf-8') as file:
    file.write('user_id,item_id,timestamp\n')
    file.writelines(f'{user},{_quoted(item)},{time}\n' for user, item, time in rows)
  with (folder / 'items.csv').open('w', encoding='utf-8') as file:
    file.write('item_id,title\n')
    file.writelines(
      f'{_quoted(item)},kind {place % 7} thing {place}\n' for place, item in enumerate([*GIVEN, 'rare-1'])
    )
  settings = run_settings(data__source='csv', data__path=str(folder), data__preparation__core=3)
  pipeline.run(config_with(settings), folder / 'workdir')
  return folder / 'workdir'


def _quoted(text):
  return '"' + text.replace('"', '""') + '"'


@pytest.fixture(scope='module')
def everything(shop):
  """A recommender whose lists are full rankings."""
  return letter_jax.Recommender.from_workdir(shop, beam=len(ITEMS))


def listed(recommender, found, user=0):
  return [recommender.catalogue.raw_ids[item] for item in found.items_UxK[user] if item >= 0]


def test_the_catalogue_has_each_item_once_in_its_normal_form(everything):
  assert sorted(everything.catalogue.raw_ids) == ITEMS and everything.catalogue.own_ids


@pytest.mark.parametrize('denied', [ODD, NORMAL, [f'\t{item}\u00a0' for item in NORMAL]])
def test_what_is_denied_does_not_come_out(shop, tmp_path, denied):
  (tmp_path / 'deny').write_text('\n'.join(denied), encoding='utf-8')
  users = [
    {'user': 'a', 'history': []},
    {'user': 'b', 'history': ['cafe\u0301 ', ' 101']},
    {'user': 'c', 'history': [105]},
  ]
  (tmp_path / 'users').write_text('\n'.join(map(json.dumps, users)))
  options = commands.Options(
    input=str(tmp_path / 'users'),
    output=str(tmp_path / 'lists'),
    beam=40,
    k=40,
    deny=str(tmp_path / 'deny'),
    exclude_history=True,
  )
  commands.run('recommend', shop, options)
  answers = [json.loads(line) for line in (tmp_path / 'lists').read_text().splitlines()]
  left = sorted(set(ITEMS) - set(NORMAL))
  for answer, history in zip(answers, ([], ['101'], ['105'])):
    assert sorted(entry['id'] for entry in answer['recommendations']) == sorted(set(left) - set(history))
    assert answer['skipped'] == 0


def test_a_number_is_the_raw_id_with_these_digits(everything):
  histories = [[101, 102, 3], ['101', ' 102', 'who'], [17, 0, 39], ['0017']]
  found = everything.recommend(histories, k=40, exclude_history=True)
  assert found.skipped_U.tolist() == [1, 1, 3, 0]
  assert found.items_UxK[0].tolist() == found.items_UxK[1].tolist()
  assert not {'101', '102'} & set(listed(everything, found)) and len(listed(everything, found)) == 38
  assert found.from_popularity_U.tolist() == [False, False, True, False]
  only = everything.recommend([[]], among=everything.among([101, '102 ', 'tab\tid0'], deny=[102]))
  assert sorted(listed(everything, only)) == ['101', 'tab\tid0']


def test_lines_with_numbers_and_odd_forms(everything):
  lines = [b'{"history": [101, "caf\\u00e9"]}', '{"history": [" 101", "cafe\u0301"]}'.encode()]
  chunks = jsonl.recommend_lines(everything, jsonl.whole_chunks(lines), 5)
  first, second = (json.loads(answer.line) for chunk in chunks for answer in chunk)
  assert first['recommendations'] == second['recommendations'] and first['skipped'] == 0
  raw_ids = everything.catalogue.raw_ids
  assert all(raw_ids[entry['item']] == entry['id'] for entry in first['recommendations'])


def test_an_item_that_was_left_out_is_told_why(shop, everything, tmp_path):
  (tmp_path / 'allow').write_text('100\nrare-1 \n', encoding='utf-8')
  (tmp_path / 'users').write_text('{"history": []}\n')
  options = commands.Options(
    input=str(tmp_path / 'users'), output=str(tmp_path / 'lists'), allow=str(tmp_path / 'allow')
  )
  with pytest.raises(InputError, match='left out by the 3-core: --config.data.preparation.core, or --cold_items'):
    commands.run('recommend', shop, options)
  preparation = json.loads((shop / 'dataset/summary.json').read_text())['preparation']
  assert preparation['raw_items'] == 41 and preparation['raw_users'] == 61
  assert preparation['left_out']['outside the 3-core'] == {'users': 1, 'items': 1}
  assert '1 of 61 users and 1 of 41 items left out (outside the 3-core)' in (shop / 'report.html').read_text()


def test_cold_items(shop):
  cold = [{'id': ' rare-1\n', 'title': 'kind 3 thing'}, {'id': 200, 'title': 'kind 4 thing'}]
  recommender = letter_jax.Recommender.from_workdir(shop, cold_items=cold)
  assert recommender.catalogue.raw_ids[40:] == ('rare-1', '200')
  # Their texts are cleaned as those of the catalogue were.
  marked = [{'id': 'marked', 'title': '<b>kind</b> 3 &amp; thing', 'brand': 'nan'}]
  assert letter_jax.Recommender.from_workdir(shop, cold_items=marked).catalogue.titles[40] == 'kind 3 & thing'
  with pytest.raises(InputError, match="'marked'. has no text"):
    letter_jax.Recommender.from_workdir(shop, cold_items=[{'id': 'marked', 'title': 'nan'}])
  assert recommender.catalogue.index_of(200) == 41
  for taken in (' lead2', 'caf\u00e9', 101):
    with pytest.raises(InputError, match='is the id of a different item'):
      letter_jax.Recommender.from_workdir(shop, cold_items=[{'id': taken, 'title': 'thing'}])


def test_the_exported_folder_means_the_same(shop, everything, tmp_path):
  shutil.copytree(shop, tmp_path / 'workdir')
  commands.run('export', tmp_path / 'workdir', commands.Options(platforms=('cpu',), beam=40))
  spec = importlib.util.spec_from_file_location('exported_shop', tmp_path / 'workdir/export/recommend.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  histories = [[101, 'cafe\u0301 ', 3], [], ['who', 17], ['\u00a0lead2']]
  items, scores = module.Recommender()(histories, k=40)
  expected = everything.recommend(histories, k=40)
  np.testing.assert_array_equal(items, expected.items_UxK)
  np.testing.assert_allclose(scores, expected.scores_UxK, atol=1e-4)
