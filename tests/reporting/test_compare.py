import dataclasses
import json
import pathlib
import re
import shutil

import pytest

from letter_jax.data import store
from letter_jax.evaluation import ranks
from letter_jax.reporting.bootstrap import paired_difference
from letter_jax.reporting.compare import compare, differing, unique_names
from letter_jax.system.errors import InputError
from letter_jax.workdir import Workdir
from tests.reporting.html_reader import Reader
from tests.reporting.small_run import ITEMS, add_tokenizer, data, write_run


@pytest.fixture(scope='module')
def runs(tmp_path_factory) -> list[pathlib.Path]:
  folder = tmp_path_factory.mktemp('runs')
  write_run(folder / 'one' / 'run', seed=1)
  write_run(folder / 'two' / 'run', {'generator.temperature': 0.7, 'generator.training.epochs': 3}, seed=2)
  add_tokenizer(folder / 'two' / 'run')
  return [folder / 'one' / 'run', folder / 'two' / 'run']


@pytest.fixture
def copies(runs, tmp_path) -> list[pathlib.Path]:
  return [pathlib.Path(shutil.copytree(run, tmp_path / f'copy {place}')) for place, run in enumerate(runs)]


def test_the_table_has_a_line_for_each_run_and_one_for_each_difference(runs, tmp_path):
  lines = compare(runs, tmp_path).splitlines()
  assert re.match(r'test, history in +Recall@5 +Recall@10 +NDCG@5 +NDCG@10$', lines[0])
  assert [line.split()[0] for line in lines[1:3]] == ['one/run', 'two/run']
  assert lines[4].startswith('minus one/run') and lines[5].startswith('two/run')
  assert any(re.match(r'generator.temperature +1 +0.7$', line) for line in lines)
  assert any(re.match(r'reconstruction +– +0.2$', line) for line in lines)
  assert any(re.match(r'time of generator +1 min 15 s +1 min 15 s$', line) for line in lines)
  assert not any('data.source' in line for line in lines)


def test_json_has_the_values_and_the_paired_differences(runs, tmp_path):
  compare(runs, tmp_path)
  content = json.loads((tmp_path / 'compare.json').read_text())
  first, second = content['runs']
  assert first['difference_to_first'] is None
  a_3xU, b_3xU = (ranks.read(run / 'evaluation' / ranks.FILE)[ranks.GENERATOR] for run in runs)
  value, low, high = paired_difference(ranks.gains(b_3xU, 'ndcg@10'), ranks.gains(a_3xU, 'ndcg@10'), content['seed'])
  assert second['difference_to_first']['ndcg@10'] == {'value': value, 'low': low, 'high': high}
  assert value == pytest.approx(second['test']['ndcg@10']['value'] - first['test']['ndcg@10']['value'])
  assert second['config'] == {'generator.temperature': 0.7, 'generator.training.epochs': 3}
  assert second['tokenizer']['collision_rate_nearest'] == 0.3 and len(first['tokenizer']['perplexity']) == 3


def test_an_asterisk_where_the_interval_excludes_zero(copies, tmp_path):
  path = copies[1] / 'evaluation' / ranks.FILE
  ranks_by_model = ranks.read(path)
  ahead_U, _, in_list_U = ranks_by_model[ranks.GENERATOR]
  ahead_U[:], in_list_U[:] = 0, 1
  ranks.write(path, ranks_by_model)
  assert compare(copies, tmp_path).splitlines()[5].count('*') == 4
  shutil.copy(copies[0] / 'evaluation' / ranks.FILE, path)
  assert compare(copies, tmp_path).splitlines()[5].count('*') == 0


def test_the_page_is_complete_and_loads_nothing(runs, tmp_path):
  compare(runs, tmp_path)
  content = (tmp_path / 'compare.html').read_text(encoding='utf-8')
  read = Reader(content)
  assert {'results', 'differences', 'curves', 'settings', 'facts'} <= set(read.ids) and 'http' not in content
  assert 'two/run' in read.words['differences'] and 'generator.temperature' in read.words['settings']


def test_names_take_as_much_of_the_path_as_makes_them_unique():
  assert unique_names([pathlib.Path('/a/b/x'), pathlib.Path('/a/c/y')]) == ['x', 'y']
  assert unique_names([pathlib.Path('/a/b/x'), pathlib.Path('/a/c/x')]) == ['b/x', 'c/x']


def test_settings_that_differ():
  assert differing([{'a': 1, 'b': 2}, {'a': 1, 'b': 3}]) == ['b']
  assert differing([{'a': 1}, {'a': 1, 'b': None}]) == ['b']
  assert differing([{'b': None, 'a': 1}, {'a': 1}]) == ['b']


def refused(workdirs, directory) -> str:
  with pytest.raises(InputError) as error:
    compare(workdirs, directory)
  assert '\n' not in str(error.value) and not (directory / 'compare.json').exists()
  return str(error.value)


def test_one_run_or_the_same_twice_is_refused(runs, tmp_path):
  for workdirs in ([], runs[:1], [runs[0], runs[0] / '..' / 'run']):
    assert 'expected two or more different workdirs' in refused(workdirs, tmp_path)


def test_a_run_without_evaluation_is_refused(copies, tmp_path):
  (copies[1] / 'evaluation' / 'metrics.json').unlink()
  assert refused(copies, tmp_path).startswith(f'{copies[1]} has no evaluation/metrics.json; expected')


def change_line(workdir: pathlib.Path, row: int, values: dict) -> None:
  path = workdir / 'evaluation' / 'predictions.jsonl'
  lines = path.read_text().splitlines()
  lines[row - 1] = json.dumps(json.loads(lines[row - 1]) | values)
  path.write_text('\n'.join(lines) + '\n')


@pytest.mark.parametrize(
  ('values', 'message'),
  [
    ({'target': 2}, "the target in line 3 of evaluation/predictions.jsonl is '2' against '1'"),
    ({'target': 99}, 'evaluation/predictions.jsonl has the target 99; expected 0 to'),
    ({'user': 'nobody'}, "the test user in line 3 of evaluation/predictions.jsonl is 'nobody' against 'user 2'"),
  ],
)
def test_other_users_or_targets_are_refused(copies, tmp_path, values, message):
  change_line(copies[1], 3, values)
  assert message in refused(copies, tmp_path)


def test_targets_are_compared_by_raw_ids(copies, tmp_path):
  """Two data sets may have the same items in different orders."""
  whole = data()
  names = tuple(f'item {item}' for item in range(ITEMS))
  for workdir, item_names in zip(copies, (names, names[::-1])):
    store.save(dataclasses.replace(whole, item_names=item_names), workdir / 'dataset')
  assert 'the target in line 1' in refused(copies, tmp_path)
  predictions = list(Workdir(copies[1]).read_predictions())
  for row, line in enumerate(predictions, 1):
    change_line(copies[1], row, {'target': ITEMS - 1 - line['target']})
  assert 'interval excludes 0' in compare(copies, tmp_path)


def test_a_different_number_of_users_is_refused(copies, tmp_path):
  path = copies[1] / 'evaluation'
  ranks_by_model = ranks.read(path / ranks.FILE)
  ranks.write(path / ranks.FILE, {model: ranks_3xU[:, :-1] for model, ranks_3xU in ranks_by_model.items()})
  lines = (path / 'predictions.jsonl').read_text().splitlines()[:-1]
  (path / 'predictions.jsonl').write_text('\n'.join(lines) + '\n')
  assert '59 test users against 60' in refused(copies, tmp_path)


def test_a_run_without_ranks_is_refused(copies, tmp_path):
  (copies[1] / 'evaluation' / ranks.FILE).unlink()
  assert f'{copies[1]}/evaluation/{ranks.FILE} cannot be read' in refused(copies, tmp_path)


def test_a_setting_of_a_stage_that_did_not_run_has_its_default(copies, tmp_path):
  path = copies[1] / 'generator' / 'stage.json'
  record = json.loads(path.read_text())
  path.write_text(json.dumps(record | {'settings': {'generator.temperature': 0.7}}))
  path = copies[1] / 'collaborative' / 'stage.json'
  path.write_text(json.dumps(record | {'settings': {}}))
  lines = compare(copies, tmp_path).splitlines()
  assert any(re.match(r'tokenizer.model.levels +3 +4$', line) for line in lines)
  assert not any(line.startswith('generator.training.epochs') for line in lines)


def test_the_page_escapes_names_is_deterministic_and_has_both_colour_schemes(copies, tmp_path):
  hostile = copies[1].rename(copies[1].parent / '<b>&')
  compare([copies[0], hostile], tmp_path / 'first')
  compare([copies[0], hostile], tmp_path / 'second')
  content = (tmp_path / 'first' / 'compare.html').read_text(encoding='utf-8')
  assert (tmp_path / 'second' / 'compare.html').read_text(encoding='utf-8') == content
  read = Reader(content)
  assert '<b>&' in read.words['results'] and '<b>&' not in content
  assert len(read.pictures) == 2
