import dataclasses
import json
import re
import shutil

import numpy as np
import pytest

from letter_jax.evaluation import ranks
from letter_jax.reporting import lists, overview, page, recommendations
from letter_jax.reporting.finished import read_finished
from letter_jax.reporting.report import write_report
from letter_jax.system.errors import InputError
from letter_jax.workdir import Workdir
from tests.reporting.html_reader import Reader
from tests.reporting.small_run import USERS, write_run

RULES = {'bought_together': 0.55, 'buy_again': 0.31, 'popularity': 0.2}


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('run')
  return write_run(workdir), workdir


@pytest.fixture
def copy(run, tmp_path):
  config, workdir = run
  return config, shutil.copytree(workdir, tmp_path / 'run')


def words(config, workdir) -> str:
  """The text of the section alone: a whole page takes seconds."""
  finished = read_finished(config, Workdir(workdir))
  section = overview.section(finished, lists.read_lists(finished))
  return Reader(page.document('', '', [section])).words['overview']


@pytest.mark.parametrize(
  ('ours', 'rules', 'users', 'expected'),
  [
    (0.5687, {**RULES}, 5000, '57 of 100 users; best simple rule (bought together): 55.'),
    (0.552, {**RULES}, 5000, '552 of 1,000 users; best simple rule (bought together): 550.'),
    (0.552, {**RULES}, 500, '55 of 100 users; a simple rule does as well (bought together): 55.'),
    (0.067, {'popularity': 0.011}, 2000, '67 of 1,000 users; best simple rule (popularity): 11.'),
    (0.3, {'buy_again': 0.2000001, 'popularity': 0.2}, 50, '15 of 50 users; best simple rule (popularity): 10.'),
    (0.3, {**RULES}, 5000, '30 of 100 users; a simple rule does better (bought together): 55.'),
  ],
)
def test_the_result_in_words(ours, rules, users, expected):
  found = overview.in_words(ours, rules, users)
  assert found.startswith(f'The next item is among ten recommendations for {expected}')


def test_the_page_begins_with_the_title_and_the_sentence(run):
  config, workdir = run
  write_report(config, workdir)
  read = Reader((workdir / 'report.html').read_text(encoding='utf-8'))
  metrics = json.loads((workdir / 'evaluation/metrics.json').read_text())
  served = {name: found['history_out']['test']['recall@10'] for name, found in metrics['baselines'].items()}
  expected = overview.in_words(metrics['history_out']['test']['recall@10'], served, USERS)
  assert re.search(rf'Small & <b>\s+{re.escape(expected)}', read.words[''])
  assert 'all of 30 items' in read.words['overview']
  assert "except those of the user's own history" in read.words['overview']


def test_the_title_is_the_setting_or_the_name_or_the_folder(run, tmp_path):
  config, workdir = run
  finished = read_finished(config, Workdir(workdir))

  def title(name='Beauty', **settings) -> str:
    data = dataclasses.replace(config.data, **settings)
    changed = dataclasses.replace(
      finished, config=dataclasses.replace(config, data=data), summary={**finished.summary, 'name': name}
    )
    return changed.data_title

  assert title() == title(path=str(tmp_path)) == 'Beauty'
  assert title(title=' Our shop ') == 'Our shop'
  assert title('csv', source='csv', path=str(tmp_path / 'shop')) == 'shop'
  assert title('csv', source='csv') == 'csv'
  assert title('ml-1m', source='movielens', path=str(tmp_path)) == 'ml-1m'
  assert title('synthetic', source='synthetic') == 'Synthetic store'


def test_what_was_left_out_and_why(copy):
  config, workdir = copy
  path = workdir / 'dataset/summary.json'
  preparation = {
    'raw_users': 2000,
    'raw_items': 78,
    'dropped': {'outside the dates': 0, 'duplicate': 17, 'outside the 5-core': 4321},
    'left_out': {'outside the dates': {'users': 0, 'items': 0}, 'outside the 5-core': {'users': 1234, 'items': 56}},
    'problems': {'not JSON': {'lines': 3, 'first': 'reviews.json:7'}},
  }
  days = {'first_day': '2019-02-03', 'last_day': '2020-11-30'}
  path.write_text(json.dumps({**json.loads(path.read_text()), **days, 'preparation': preparation}))
  found = words(config, workdir)
  assert '1,234 of 2,000 users and 56 of 78 items left out (outside the 5-core)' in found
  assert 'fewer than 5 interactions' in found and '4,321' in found and '17' in found
  assert 'outside the dates' not in found and 'not JSON: 3 lines' in found
  assert 'from 2019-02-03 to 2020-11-30' in found and 'has no dates' not in found


def test_data_without_dates_says_so(run):
  found = words(*run)
  assert 'the source has no dates' in found and 'what was left out before is not known' in found


def test_the_share_of_repeats_is_that_of_the_data(run):
  config, workdir = run
  data = Workdir(workdir).read_interactions(config.data)
  sequences = np.split(data.items, data.offsets[1:-1])
  share = np.mean([sequence[-1] in sequence[:-1] for sequence in sequences])
  assert 0 < share < 1 and f'{share:.1%} of the hidden items are repeats' in words(*run)


def test_the_use_of_the_catalogue_is_that_of_the_lists(run):
  config, workdir = run
  lines = [json.loads(line) for line in (workdir / 'evaluation/predictions.jsonl').read_text().splitlines()]
  shown = {item for line in lines for item in line['items'][:10]}
  assert re.search(rf'LETTER-TIGER\s*{len(shown)}\s*{len(shown) / 30:.1%}', words(config, workdir))


def test_lists_of_every_model_and_lines_of_the_shown_users(copy):
  config, workdir = copy
  path = workdir / 'evaluation/predictions.jsonl'
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  lines = [{**line, 'sasrec_items': [user % 30, 3]} for user, line in enumerate(lines)]
  path.write_text('\n'.join(map(json.dumps, lines)))
  finished = read_finished(config, Workdir(workdir))
  found = lists.read_lists(finished)
  assert set(found.items_UxK) == {ranks.GENERATOR, 'sasrec'} and len(found.shown) == 10
  assert found.items_UxK['sasrec'].tolist() == [[user % 30, 3, *[-1] * 8] for user in range(USERS)]
  assert found.shown == {user: lines[user] for user in found.shown}
  # What `recommend` gives stands beside the lists of the main protocol, where it is not the same.
  served = [{**line, 'served_items': [7], 'served_sasrec_items': [8]} for line in lines]
  path.write_text('\n'.join(map(json.dumps, served)))
  of_served = lists.read_lists(finished).items_UxK
  assert {model: items_UxK[:, :2].tolist()[0] for model, items_UxK in of_served.items()} == {
    ranks.GENERATOR: [7, -1],
    'sasrec': [8, -1],
  }
  (users,) = recommendations.section(finished, found).content
  assert users.count('SASRec recommends') == users.count('LETTER-TIGER recommends') == 10
  path.write_text('\n'.join(map(json.dumps, lines[:-1])))
  with pytest.raises(InputError, match=f'predictions.jsonl ends before line {USERS}; run again'):
    lists.read_lists(finished)


def test_an_evaluation_of_both_ways_is_said_in_both(copy):
  config, workdir = copy
  path = workdir / 'evaluation/metrics.json'
  metrics = json.loads(path.read_text())
  for served, other, said in (('history_out', 'history_in', 'With'), ('history_in', 'history_out', 'Without')):
    metrics[served]['test']['recall@10'], metrics[other]['test']['recall@10'] = 0.2345, 0.1234
    metrics['recommend']['exclude_history'] = served == 'history_out'
    path.write_text(json.dumps(metrics))
    of_page = words(config, workdir)
    assert '(Recall@10) is .2345 for LETTER-TIGER, the model that recommends' in of_page
    assert f'{said} the items of the history in the ranking, LETTER-TIGER has .1234 and the best rule' in of_page
