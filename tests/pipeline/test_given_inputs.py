"""Results from outside of a run: semantic IDs and rows, matched by raw id or by position."""

import json

import numpy as np
import pytest

from letter_jax.data import matching
from letter_jax.evaluation import ranks
from letter_jax.pipeline import run as pipeline
from letter_jax.pipeline.graph import Graph
from letter_jax.semantic_ids import ids
from letter_jax.semantic_ids.ids import SemanticIds
from letter_jax.system.errors import InputError
from letter_jax.workdir import Workdir
from tests.small_data import config_with, run_settings, write_letter_folder
from tests.stages import run_stages, up_to

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def finished(small_run):
  return small_run


def _metrics(workdir, stage='collaborative'):
  return json.loads((workdir / stage / 'metrics.json').read_text())


# On a small folder in LETTER's format.


def _letter_settings(folder, **changes):
  return config_with(run_settings(data__source='letter', data__path=str(folder), data__name='Small', **changes))


@pytest.fixture
def reads(monkeypatch):
  """The names of the given files, once for each time that one is read."""
  names = []

  def counted(module, function):
    read = getattr(module, function)
    monkeypatch.setattr(module, function, lambda path, *rest: names.append(path.name) or read(path, *rest))

  counted(matching, 'read_rows')
  counted(ids, 'read_given')
  return names


def test_everything_given_from_outside(tmp_path, finished, reads):
  folder = tmp_path / 'data'
  write_letter_folder(folder, users=40, items=60)
  np.save(folder / 'Small.emb.npy', np.load(finished / 'text_embeddings/embeddings.npy').astype(np.float16))
  np.save(folder / 'Small.cf.npy', np.load(finished / 'collaborative/embeddings.npy'))
  config = _letter_settings(
    folder,
    text_embeddings__path=str(folder / 'Small.emb.npy'),
    collaborative__path=str(folder / 'Small.cf.npy'),
    collaborative__baseline=False,
  )
  for stage in up_to('semantic_ids'):
    reads.clear()
    pipeline.run(config, tmp_path / 'workdir', stage)
    assert reads == ([] if stage == 'dataset' else ['Small.emb.npy', 'Small.cf.npy']), 'read once, checked and used'
  np.testing.assert_array_equal(
    np.load(tmp_path / 'workdir/collaborative/embeddings.npy'), np.load(finished / 'collaborative/embeddings.npy')
  )
  assert _metrics(tmp_path / 'workdir') == {}

  given = _letter_settings(folder, semantic_ids__path=str(tmp_path / 'workdir/semantic_ids/index.json'))
  assert [stage.name for stage in Graph(given)] == [
    'dataset',
    'collaborative',
    'semantic_ids',
    'generator',
    'evaluate',
    'report',
  ]
  with pytest.raises(InputError, match='--stage=tokenizer has nothing to do'):
    pipeline.run(given, tmp_path / 'other', 'tokenizer')
  for stage in ('dataset', 'semantic_ids'):
    reads.clear()
    pipeline.run(given, tmp_path / 'other', stage)
  assert reads == ['index.json']
  np.testing.assert_array_equal(
    np.load(tmp_path / 'workdir/semantic_ids/semantic_ids.npy'),
    np.load(tmp_path / 'other/semantic_ids/semantic_ids.npy'),
  )


def test_sasrec_is_not_trained_where_nothing_reads_it(tmp_path, finished):
  ids = str(finished / 'semantic_ids/index.json')
  given = dict(semantic_ids__path=ids, collaborative__baseline=False)
  pipeline.run(config_with(run_settings(**given)), tmp_path)
  assert not (tmp_path / 'collaborative').exists() and (tmp_path / 'report.html').exists()
  assert _metrics(tmp_path, 'evaluation')['baselines'].keys() == set(ranks.SIMPLE_RULES)
  for read in (
    dict(given, fusion__partners=('sasrec',)),
    dict(given, collaborative__baseline=True),
    dict(collaborative__baseline=False),
  ):
    config = config_with(run_settings(**read))
    assert config.trains_sasrec and 'collaborative' in Graph(config)
  config = config_with(run_settings(**given, collaborative__method='lightgcn'))
  assert not config.trains_sasrec and 'collaborative' in Graph(config)


def test_a_file_whose_content_changed_is_noticed(tmp_path):
  folder = tmp_path / 'data'
  write_letter_folder(folder)
  config = _letter_settings(folder)
  pipeline.run(config, tmp_path / 'workdir', 'dataset')
  write_letter_folder(folder, seed=1)
  with pytest.raises(InputError, match='content of config.data.path/Small.inter.json'):
    pipeline.run(config, tmp_path / 'workdir', 'dataset')


@pytest.mark.parametrize(
  'rows, said', [(np.zeros((29, 8), np.float32), '29'), (np.full((30, 8), np.nan, np.float32), 'NaN|finite')]
)
def test_wrong_rows_from_outside(tmp_path, rows, said):
  folder = tmp_path / 'data'
  write_letter_folder(folder)
  np.save(folder / 'rows.npy', rows)
  for section, stage in (('text_embeddings', 'text_embeddings'), ('collaborative', 'collaborative')):
    config = _letter_settings(folder, **{f'{section}__path': str(folder / 'rows.npy')})
    pipeline.run(config, tmp_path / section, 'dataset')
    with pytest.raises(InputError, match=said) as caught:
      pipeline.run(config, tmp_path / section, stage)
    assert 'rows.npy' in str(caught.value) and '\n' not in str(caught.value)


# Results of one run, given to a run on a different catalogue.

ITEM_IDS = tuple(f'item-{item:02}' for item in range(30))


def _write_csv(folder, item_ids=ITEM_IDS):
  """40 users with 8 of the items each; item i has the id item_ids[i], and does not occur where that is None."""
  folder.mkdir()
  random = np.random.default_rng(0)
  events = [
    f'user-{user},{item_ids[item]},{time}'
    for user in range(40)
    for time, item in enumerate(random.choice(len(item_ids), 8, replace=False))
    if item_ids[item] is not None
  ]
  (folder / 'interactions.csv').write_text('\n'.join(['user_id,item_id,timestamp', *events]) + '\n')
  titles = [f'{name},thing {item % 7} of kind {item % 3}' for item, name in enumerate(item_ids) if name is not None]
  (folder / 'items.csv').write_text('\n'.join(['item_id,title', *titles]) + '\n')


def _csv_config(folder, **changes):
  return config_with(run_settings(data__source='csv', data__path=str(folder), data__preparation__core=2, **changes))


@pytest.fixture(scope='module')
def csv_run(tmp_path_factory):
  """The workdir of a run on CSV data, up to its semantic IDs."""
  root = tmp_path_factory.mktemp('csv')
  _write_csv(root / 'data')
  run_stages(_csv_config(root / 'data'), root / 'workdir', up_to('semantic_ids'))
  assert Workdir(root / 'workdir').read_item_names() == ITEM_IDS
  return root / 'workdir'


GIVEN = {'semantic_ids__path': 'semantic_ids/index.json', 'text_embeddings__path': 'text_embeddings/embeddings.npy'}


def _codes_by_raw_id(root):
  workdir = Workdir(root)
  return dict(zip(workdir.read_item_names(), workdir.read_semantic_ids().codes_NxL.tolist(), strict=True))


@pytest.mark.parametrize('key', GIVEN)
def test_an_item_with_a_different_id_is_refused(csv_run, tmp_path, key):
  """The number of items is the same, so positions alone would not show it."""
  _write_csv(tmp_path / 'data', ('renamed', *ITEM_IDS[1:]))
  config = _csv_config(tmp_path / 'data', **{key: str(csv_run / GIVEN[key])})
  with pytest.raises(InputError, match="different catalogue: 1 of the 30 items .*'renamed'") as caught:
    pipeline.run(config, tmp_path / 'workdir')
  assert '\n' not in str(caught.value) and str(csv_run) in str(caught.value)
  assert not (tmp_path / 'workdir/collaborative').exists()


def test_each_raw_id_keeps_its_codes_and_its_embedding(csv_run, tmp_path, capsys):
  """Without its first item the catalogue has every other item at a different position."""
  _write_csv(tmp_path / 'data', (None, *ITEM_IDS[1:]))
  for key, name in (('semantic_ids__path', 'semantic_ids'), ('text_embeddings__path', 'text_embeddings')):
    config = _csv_config(tmp_path / 'data', **{key: str(csv_run / GIVEN[key])})
    run_stages(config, tmp_path / name, ('dataset', name))
    assert f'{GIVEN[key]}, matched by raw id' in capsys.readouterr().out
  expected = _codes_by_raw_id(csv_run)
  del expected[ITEM_IDS[0]]
  assert _codes_by_raw_id(tmp_path / 'semantic_ids') == expected
  given_NxT = np.load(csv_run / 'text_embeddings/embeddings.npy')
  rows_MxT = np.load(tmp_path / 'text_embeddings/text_embeddings/embeddings.npy')
  np.testing.assert_array_equal(rows_MxT, given_NxT[1:])


@pytest.mark.parametrize('name', ['index.json', 'semantic_ids.csv'])
def test_given_semantic_ids_may_list_the_items_in_any_order(csv_run, tmp_path, name):
  ids, order = Workdir(csv_run).read_semantic_ids(), np.random.default_rng(1).permutation(30)
  shuffled = SemanticIds(ids.codes_NxL[order], ids.codebook_size)
  shuffled.write(tmp_path, [ITEM_IDS[item] for item in order])
  config = _csv_config(csv_run.parent / 'data', semantic_ids__path=str(tmp_path / name))
  run_stages(config, tmp_path / 'workdir', ('dataset', 'semantic_ids'))
  assert _codes_by_raw_id(tmp_path / 'workdir') == _codes_by_raw_id(csv_run)
