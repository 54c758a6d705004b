import dataclasses
import json
import re
import shutil

import numpy as np
import pytest

from letter_jax.data import store
from letter_jax.evaluation import ranks
from letter_jax.reporting import accuracy, figures, item_space, page, recommendations
from letter_jax.reporting.finished import duration, read_finished
from letter_jax.reporting.lists import read_lists
from letter_jax.reporting.report import write_report
from letter_jax.system.errors import InputError
from letter_jax.workdir import Workdir
from tests.reporting.html_reader import Reader
from tests.reporting.small_run import CODES, HOSTILE, ITEMS, LEVELS, USERS, add_tokenizer, write_run

SECTIONS = ('overview', 'users', 'results', 'training', 'codes', 'collisions', 'map', 'neighbours', 'origin')


def report(config, workdir) -> str:
  write_report(config, workdir)
  return (workdir / 'report.html').read_text(encoding='utf-8')


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('run')
  return write_run(workdir), workdir


@pytest.fixture(scope='module')
def content(run) -> str:
  return report(*run)


def test_the_page_is_complete_and_has_every_section(content):
  read = Reader(content)
  assert content.startswith('<!DOCTYPE html>') and content.rstrip().endswith('</html>')
  assert [name for name in read.ids if name in SECTIONS] == list(SECTIONS)
  assert len(read.ids) == len(set(read.ids))
  assert [value for key, value in read.attributes if key == 'href'] == [f'#{name}' for name in SECTIONS]
  assert ('name', 'viewport') in read.attributes


def test_the_page_and_every_plot_have_a_light_and_a_dark_scheme(content):
  """`Reader` checks that each <img> is in a <picture> with a <source> for dark pages."""
  pictures = Reader(content).pictures
  style = content[content.index('<style>') : content.index('</style>')]
  assert 'color-scheme: light dark' in style and '@media (prefers-color-scheme: dark)' in style
  assert len(pictures) >= 10 and content.count('<figure>') == content.count('<picture>') == len(pictures)
  with_text = [(light, dark) for light, dark in pictures if b'<text' in light]
  assert len(with_text) == len(pictures) - 1  # all but the map
  assert all(figures.LIGHT_INK.encode() in light and figures.DARK_INK.encode() in dark for light, dark in with_text)


def test_the_page_loads_nothing_and_runs_nothing(content):
  read = Reader(content)
  assert not {'script', 'link', 'iframe', 'object', 'embed', 'base'} & set(read.tags)
  assert all(value.startswith(('#', 'data:')) for key, value in read.attributes if key in ('href', 'src', 'srcset'))
  assert 'http' not in content and '@import' not in content and 'url(' not in content
  assert not [key for key, _ in read.attributes if key.startswith('on')]


def test_text_of_the_data_is_escaped(content):
  """A frequent item has a <script> as its title, and the data set's name has a tag."""
  read = Reader(content)
  assert '<script' not in content and HOSTILE in read.words['users']
  assert 'Small & <b>' in read.words['']


def test_the_same_workdir_gives_the_same_bytes(run, content):
  assert report(*run) == content


def test_results_are_those_of_the_run(run, content):
  _, workdir = run
  words = Reader(content).words['results']
  metrics = json.loads((workdir / 'evaluation' / 'metrics.json').read_text())
  for test in (metrics['test'], *(baseline['test'] for baseline in metrics['baselines'].values())):
    assert page.number(test['recall@10']) in words and page.number(test['ndcg@20']) in words
  assert {'LETTER-TIGER', 'SASRec', 'popularity'} <= set(re.findall(r'[\w-]+', words)) and 'LightGCN' not in words


def test_newcomers_have_a_row_for_each_length(run, tmp_path):
  config, workdir = run
  shutil.copytree(workdir, tmp_path / 'run')
  path = tmp_path / 'run' / 'evaluation' / 'metrics.json'
  metrics = json.loads(path.read_text())
  by_length = {
    length: {'recall@10': 0.0101 * place, 'ndcg@10': 0.0011 * place}
    for place, length in enumerate(('0', '1', '2', '3', 'whole'), 1)
  }
  path.write_text(json.dumps({**metrics, 'short_histories': {'users': 57, **by_length}}))
  words = Reader(report(config, tmp_path / 'run')).words['results']
  assert 'The same 57 test users' in words and 'LETTER-TIGER: Recall@10' in words and 'SASRec: Recall' not in words
  for figures_of_length in by_length.values():
    assert page.number(figures_of_length['recall@10']) in words and page.number(figures_of_length['ndcg@10']) in words


def test_users_and_items_that_were_left_out_are_said(run, tmp_path):
  config, workdir = run
  shutil.copytree(workdir, tmp_path / 'run')
  path = tmp_path / 'run' / 'dataset' / 'summary.json'
  left = {'outside the 5-core': {'users': 1234, 'items': 56}}
  preparation = {'raw_users': 2000, 'raw_items': 78, 'left_out': left}
  path.write_text(json.dumps({**json.loads(path.read_text()), 'preparation': preparation}))
  words = Reader(report(config, tmp_path / 'run')).words
  assert '1,234 of 2,000 users and 56 of 78 items left out (outside the 5-core)' in words['overview']


def test_the_seed_draws_ten_users(run, content):
  config, workdir = run
  drawn = np.sort(np.random.default_rng(config.seed).choice(USERS, 10, replace=False))
  assert re.findall(r'User user (\d+)', Reader(content).words['users']) == [str(user) for user in drawn]
  lines = (workdir / 'evaluation' / 'predictions.jsonl').read_text().splitlines()
  hits = sum(line['target'] in line['items'][:10] for line in map(json.loads, (lines[user] for user in drawn)))
  assert hits and Reader(content).words['users'].count('✓') == hits


def test_origin_has_the_changed_settings_and_the_times(content):
  words = Reader(content).words['origin']
  assert 'tokenizer.model.codebook_size' in words and 'evaluation.beam' not in words
  assert '1 min 15 s' in words and '2 min 30 s' in words and '800' in words
  assert 'config.seed = 42' in words and 'This page was made with Python' in words
  assert 'eight abaci' in words and 'one abacus' in words


def test_a_tokenizer_gives_curves_collisions_and_a_map_with_codes(tmp_path):
  config = write_run(tmp_path)
  without = Reader(report(config, tmp_path)).words
  add_tokenizer(tmp_path)
  random = np.random.default_rng(0)
  latent_Nxd, codebooks = random.normal(size=(ITEMS, 4)), random.normal(size=(LEVELS, CODES, 4))
  np.save(tmp_path / 'semantic_ids' / 'latents.npy', latent_Nxd)
  np.save(tmp_path / 'semantic_ids' / 'codebooks.npy', codebooks)
  content = report(config, tmp_path)
  words = Reader(content).words
  assert 'crosses are the codes of level 1' in words['map'] and 'crosses are' not in without['map']
  assert 'Tokenizer' in words['training'] and 'Tokenizer' not in without['training']
  assert 'collision rate of the nearest codes' in words['collisions'] and '5 (16.7%)' in words['collisions']
  # The commitment terms have no plot of their own; that of the codebook mentions them.
  assert 'codebook: ' in words['training'] and words['training'].count('commitment') == 1


def test_given_ids_are_reported_as_given(tmp_path):
  config = write_run(tmp_path)
  path = tmp_path / 'semantic_ids' / 'report.json'
  of_ids = json.loads(path.read_text())
  path.write_text(
    json.dumps({key: of_ids[key] for key in ('codebook_size', 'collision_rate', 'largest_group')} | {'source': 'given'})
  )
  (tmp_path / 'text_embeddings' / 'embeddings.npy').unlink()
  words = Reader(report(config, tmp_path)).words
  assert 'were given' in words['collisions'] and 'no text embeddings' in words['map']
  assert 'only one of text and collaborative' in words['neighbours']


def test_a_language_model_without_texts(tmp_path):
  config = write_run(tmp_path, {'generator.architecture': 'llama', 'generator.lora.rank': 0}, texts=False)
  words = Reader(report(config, tmp_path)).words
  assert 'LETTER-LC-Rec' in words['results'] and 'LETTER-TIGER' not in words['results']
  assert re.search(r'item \d+', words['users']) and 'Not coloured' in words['map']


def test_missing_ranks_are_refused(tmp_path):
  config = write_run(tmp_path)
  (tmp_path / 'evaluation' / ranks.FILE).unlink()
  with pytest.raises(InputError, match=f'evaluation/{ranks.FILE} cannot be read .*; expected the ranks'):
    write_report(config, tmp_path)


def test_the_target_is_marked_by_its_index_not_by_its_title(tmp_path):
  """Items may share a title, and given semantic IDs may be shared: then only one of the two is the target."""
  config = write_run(tmp_path)
  np.save(tmp_path / 'semantic_ids' / 'semantic_ids.npy', np.zeros((ITEMS, LEVELS), np.int32))
  run = dataclasses.replace(
    read_finished(config, Workdir(tmp_path)), texts=({'title': 'same', 'categories': ''},) * ITEMS
  )
  lines = [json.loads(line) for line in (tmp_path / 'evaluation' / 'predictions.jsonl').read_text().splitlines()]
  (users,) = recommendations.section(run, read_lists(run)).content
  drawn = np.sort(np.random.default_rng(config.seed).choice(USERS, 10, replace=False))
  assert users.count('class="hit"') == sum(lines[user]['target'] in lines[user]['items'][:10] for user in drawn)


def test_right_to_left_names_are_isolated_from_what_follows(tmp_path):
  config = write_run(tmp_path)
  title, category = 'שעון קיר', 'ساعات'
  path = tmp_path / 'evaluation' / 'predictions.jsonl'
  lines = [{**json.loads(line), 'user': 'עדי'} for line in path.read_text().splitlines()]
  path.write_text('\n'.join(map(json.dumps, lines)))
  run = dataclasses.replace(
    read_finished(config, Workdir(tmp_path)), texts=({'title': title, 'categories': category},) * ITEMS
  )
  (users,) = recommendations.section(run, read_lists(run)).content
  (legend, _) = item_space.map_section(run).content
  assert '<h3>User <bdi>עדי</bdi></h3>' in users and f'<bdi>{category}</bdi>' in legend
  assert users.count(title) == users.count(f'<bdi>{title}</bdi> <code>') > 100


def test_no_evaluation_is_refused_in_one_line(tmp_path):
  config = write_run(tmp_path)
  (tmp_path / 'evaluation' / 'metrics.json').unlink()
  with pytest.raises(InputError) as error:
    write_report(config, tmp_path)
  assert str(error.value).startswith(f'{tmp_path} has no evaluation/metrics.json; expected')
  assert '\n' not in str(error.value) and not (tmp_path / 'report.html').exists()


def test_ranks_of_other_users_are_refused(tmp_path):
  config = write_run(tmp_path)
  path = tmp_path / 'evaluation' / ranks.FILE
  ranks.write(path, {model: of_model[:, 1:] for model, of_model in ranks.read(path).items()})
  with pytest.raises(InputError, match=f'ranks of {USERS - 1} users .* but the data set has {USERS}'):
    write_report(config, tmp_path)


def test_a_damaged_log_is_refused_with_its_line(tmp_path):
  config = write_run(tmp_path)
  with (tmp_path / 'generator' / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 1\n')
  with pytest.raises(InputError, match=r'generator/metrics.jsonl:7 cannot be read'):
    write_report(config, tmp_path)


@pytest.mark.parametrize('values', ([0, 0, 0], [3], [1, 1, 1, 1, 9], list(range(100)), [0, *[5] * 50, 6, 7]))
def test_groups_hold_every_user_once(values):
  values_U = np.array(values)
  groups = accuracy.groups(values_U, 'items')
  assert (sum(member_U.astype(int) for _, member_U in groups) == 1).all()
  assert all((values_U[member_U] == 0).all() for label, member_U in groups if label.startswith('0 '))


def test_nearest_are_those_of_sorting_all_cosines():
  rows_NxD = np.random.default_rng(0).normal(size=(50, 5)) * np.arange(1, 51)[:, None]
  query_S = np.array([0, 7, 8, 20, 49])
  unit_NxD = rows_NxD / np.linalg.norm(rows_NxD, axis=1, keepdims=True)
  for item, nearest_k in zip(query_S, item_space.nearest(rows_NxD, query_S)):
    order = [other for other in np.argsort(-unit_NxD @ unit_NxD[item]) if other != item]
    assert nearest_k.tolist() == order[:10]


def test_an_item_with_many_duplicates_is_not_its_own_neighbour():
  rows_NxD = np.concatenate([np.ones((30, 4)), np.zeros((2, 4)), np.eye(4)])
  query_S = np.arange(len(rows_NxD))
  nearest_Sxk = item_space.nearest(rows_NxD, query_S)
  assert nearest_Sxk.shape == (36, 10) and (nearest_Sxk != query_S[:, None]).all()
  assert all(len(set(nearest_k)) == 10 for nearest_k in nearest_Sxk.tolist())
  assert (nearest_Sxk[:30] < 30).all()


def test_categories_are_those_of_the_more_informative_level():
  def named(*categories):
    return item_space.categories([{'categories': category} for category in categories], len(categories))

  assert named('All > A', 'All > B', 'All')[0].tolist() == ['A', 'B', 'other']
  assert named('A > x', 'B > x', 'C > x')[1] == 'first'
  many, _ = named(*(f'{name} > x' for name in 'aabbccddeeffgghhij'))
  assert many.tolist() == [*'aabbccddeeffgghh', 'other', 'other']
  assert named('', '')[1] == ''


def test_the_map_is_deterministic_and_keeps_clusters_together():
  centres = np.repeat(np.eye(3) * 50, 30, axis=0)
  rows = np.random.default_rng(0).normal(size=(90, 3)) + centres
  places = item_space.project(rows, 0)
  assert places.shape == (90, 2) and np.array_equal(places, item_space.project(rows, 0))
  nearest = np.argsort(((places[:, None] - places[None]) ** 2).sum(axis=2), axis=1)[:, 1:4]
  assert (nearest // 30 == (np.arange(90) // 30)[:, None]).all()
  assert item_space.project(rows[:4], 0).shape == (4, 2) and item_space.project(rows[:60, :1], 0).shape == (60, 2)


def test_numbers_and_durations():
  assert [page.number(value) for value in (0.08891, 1.0, 0.0, -0.0123, -1e-9, 12.5)] == [
    '.0889',
    '1.0000',
    '.0000',
    '−.0123',
    '.0000',
    '12.5000',
  ]
  assert [duration(seconds) for seconds in (4.21, 125, 4200, None)] == ['4.2 s', '2 min 05 s', '1 h 10 min', '–']


@pytest.mark.parametrize(
  'values, labels',
  [
    ([1] * 90 + [2] * 5 + [100], ['1 x', '2 x', '100 x']),
    ([0, 1, 5, 9], ['0 x', '1 x', '5 x', '9 x']),
    (range(1, 9), ['1–2 x', '3–4 x', '5–6 x', '7–8 x']),
  ],
)
def test_groups_are_about_equally_large(values, labels):
  assert [label for label, _ in accuracy.groups(np.array(values), 'x')] == labels


def test_a_report_of_streamed_interactions(tmp_path, monkeypatch):
  config = write_run(tmp_path, {'data.window_users': 7})
  monkeypatch.setattr(store, 'load_interactions', None)
  streamed = report(config, tmp_path)
  monkeypatch.undo()
  whole = report(dataclasses.replace(config, data=dataclasses.replace(config.data, window_users=0)), tmp_path)
  assert Reader(streamed).words['users'] == Reader(whole).words['users']
  assert Reader(streamed).words['results'] == Reader(whole).words['results']
