"""Recommendations of a finished run: equal to the evaluation's without filters, and exact with filters."""

import dataclasses
import shutil

import numpy as np
import pytest

import letter_jax
from letter_jax.configuration import MeshConfig
from letter_jax.data import store
from letter_jax.semantic_ids.ids import SemanticIds
from letter_jax.serving.catalogue import Catalogue
from letter_jax.serving.cold_items import read_cold_items, with_cold_items
from letter_jax.serving.loaded_generator import serving_config
from letter_jax.system.errors import InputError
from letter_jax.text_embeddings import language_models
from letter_jax.workdir import Workdir

pytestmark = pytest.mark.slow

ITEMS = 60


@pytest.fixture(scope='module')
def recommender(finished):
  return letter_jax.Recommender.from_workdir(finished, beam=20)


@pytest.fixture(scope='module')
def everything(finished):
  """With as many beams as items: its lists are full rankings."""
  return letter_jax.Recommender.from_workdir(finished, beam=ITEMS)


def test_the_lists_are_those_of_the_evaluation(recommender, predictions):
  found = recommender.recommend([user['history'] for user in predictions], k=20, exclude_history=False)
  assert found.items_UxK.shape == found.scores_UxK.shape == (len(predictions), 20)
  assert found.items_UxK.dtype == np.int32 and found.scores_UxK.dtype == np.float32
  assert (found.skipped_U == 0).all()
  for user, items, scores in zip(predictions, found.items_UxK.tolist(), found.scores_UxK):
    assert items == user['items']
    np.testing.assert_allclose(scores, user['scores'], atol=1e-5)


def test_a_history_is_ruled_out_of_a_full_ranking(everything, predictions):
  histories = [user['history'] for user in predictions[:30]]
  histories[0] = [*range(50), *histories[0]]  # all of it, not only the latest that the model sees
  whole = everything.recommend(histories, k=ITEMS, exclude_history=False)
  found = everything.recommend(histories, k=ITEMS, exclude_history=True)
  for history, before, after, scores_before, scores in zip(
    histories, whole.items_UxK.tolist(), found.items_UxK.tolist(), whole.scores_UxK, found.scores_UxK
  ):
    kept = [place for place, item in enumerate(before) if item not in history]
    assert after == [before[place] for place in kept] + [-1] * (ITEMS - len(kept))
    np.testing.assert_allclose(scores[: len(kept)], scores_before[kept], atol=1e-5)
    assert (scores[len(kept) :] == -np.inf).all()


def test_only_some_items_may_come_out(everything, predictions):
  histories = [user['history'] for user in predictions[:9]]
  whole = everything.recommend(histories, k=ITEMS, exclude_history=False).items_UxK.tolist()
  allow, deny = range(0, ITEMS, 3), ['6', 9]
  among = everything.among(allow, deny)
  found = everything.recommend(histories, k=10, exclude_history=False, among=among).items_UxK.tolist()
  assert found == [[item for item in row if item % 3 == 0 and item not in (6, 9)][:10] for row in whole]
  assert everything.recommend(histories[:1], k=3, among=everything.among(['7'])).items_UxK.tolist() == [[7, -1, -1]]


def test_items_of_a_list_that_are_unknown(recommender):
  denied = recommender.recommend([[1]], k=20, among=recommender.among(['3', '4', '5'], ['4', 'who', 60]))
  assert sorted(denied.items_UxK[0].tolist())[-2:] == [3, 5]
  skipped = recommender.recommend([[1]], k=20, among=recommender.among(['3', 'who'], skip_unknown=True))
  assert skipped.items_UxK[0].tolist() == [3] + [-1] * 19
  with pytest.raises(InputError, match='no item is allowed'):
    recommender.among(['who'], skip_unknown=True)


def test_numbers_and_raw_ids_mean_the_same_and_the_unknown_is_skipped(recommender):
  found = recommender.recommend([[3, 14, 15], ['3', '14', '15'], ['3', 'who', 14, 60, -1, '15'], [np.int64(3), 14, 15]])
  assert found.skipped_U.tolist() == [0, 0, 3, 0]
  assert (found.items_UxK == found.items_UxK[0]).all()


def test_a_history_without_a_known_item_gets_the_popularity_of_first_purchases(recommender, finished):
  data = store.load_interactions(finished / 'dataset')
  first = np.bincount(data.items[data.offsets[:-1]], minlength=ITEMS)
  found = recommender.recommend([[], ['who', '77'], [3]], k=20)
  assert found.from_popularity_U.tolist() == [True, True, False] and found.skipped_U.tolist() == [0, 2, 0]
  popular, same, _ = found.items_UxK.tolist()
  assert popular == same and len(set(popular)) == 20
  assert first[popular].tolist() == sorted(first.tolist(), reverse=True)[:20]
  np.testing.assert_allclose(found.scores_UxK[0], np.log((first[popular] + 1) / (120 + ITEMS)), rtol=1e-6)
  allowed = [item for item in popular if item % 2] + popular[:2]
  among = recommender.among(allowed, deny=popular[:3])
  few = recommender.recommend([[], [3]], k=20, among=among)
  kept = [item for item in popular if item % 2 and item not in popular[:3]]
  assert few.items_UxK[0].tolist() == kept + [-1] * (20 - len(kept))
  assert (few.scores_UxK[0, len(kept) :] == -np.inf).all() and few.items_UxK[1, 0] in kept
  nobody = recommender.recommend([])
  assert nobody.items_UxK.shape == (0, 10) and nobody.from_popularity_U.shape == (0,)


def test_a_user_gets_the_same_alone_and_among_others(recommender, predictions):
  histories = [user['history'] for user in predictions]
  together = recommender.recommend(histories)
  for user in (0, 17, 119):
    alone = recommender.recommend([histories[user]])
    assert alone.items_UxK[0].tolist() == together.items_UxK[user].tolist()
    np.testing.assert_allclose(alone.scores_UxK[0], together.scores_UxK[user], atol=1e-5)


def test_wrong_calls(recommender, finished, tmp_path):
  for k in (0, 21):
    with pytest.raises(InputError, match=f'k is {k}; expected 1 to 20'):
      recommender.recommend([[1]], k=k)
  with pytest.raises(InputError, match="1 allowed item is unknown, the first is 'who'"):
    recommender.among(['3', 'who'])
  for item in (True, 1.5, None):
    with pytest.raises(InputError, match='history 1 has an item that is neither a string nor an integer'):
      recommender.recommend([[1], [2, item]])
  for histories in ([3], ['3']):
    with pytest.raises(InputError, match='history 0 is .*3.*; expected a sequence of items'):
      recommender.recommend(histories)
  other = letter_jax.Recommender.from_workdir(finished, beam=20)
  with pytest.raises(InputError, match='history 0 is b.*; expected a sequence of items'):
    recommender.recommend([b'12'])
  for lists in ({'allow': '12'}, {'deny': '12'}, {'repeat': '12'}):
    with pytest.raises(InputError, match=f"{next(iter(lists))} is '12'; expected a sequence of items"):
      recommender.among(**lists)
  with pytest.raises(InputError, match='made by a different Recommender'):
    recommender.recommend([[1]], among=other.among([1, 2]))
  with pytest.raises(InputError, match='no item is allowed'):
    recommender.among([1], [1])
  with pytest.raises(InputError, match='beam is 61; expected 1 to 60'):
    letter_jax.Recommender.from_workdir(finished, beam=61)
  with pytest.raises(InputError, match='has no generator to restore'):
    letter_jax.Recommender.from_workdir(tmp_path)


def test_cold_items_have_ids_of_their_own_and_can_come_out_and_go_in(finished):
  twin = {'id': 'new-1', 'title': 'Harrowby Studio Watering can, steel, large, rust'}
  cold = [twin, {**twin, 'id': 'new-2'}, {'id': 'new-3', 'title': 'Chess', 'categories': ['Games', 'Board']}]
  recommender = letter_jax.Recommender.from_workdir(finished, beam=63, cold_items=cold)
  catalogue = recommender.catalogue
  assert len(catalogue) == 63 and catalogue.trained == 60 and catalogue.raw_ids[60:] == ('new-1', 'new-2', 'new-3')
  assert len(np.unique(catalogue.ids.codes_NxL, axis=0)) == 63
  found = recommender.recommend([['new-1', 3]], k=63, exclude_history=False)
  assert sorted(found.items_UxK[0].tolist()) == list(range(63)) and np.isfinite(found.scores_UxK).all()
  among = recommender.among(['new-1', 'new-2', 'new-3'])
  only = recommender.recommend([['new-1', 3]], k=3, exclude_history=True, among=among)
  assert sorted(only.items_UxK[0].tolist()) == [-1, 61, 62]
  # Of two with the same text the codes part at the last level, or where a prefix is full.
  assert (catalogue.ids.codes_NxL[60, 0] == catalogue.ids.codes_NxL[61, 0]) and only.skipped_U[0] == 0


def test_with_cold_items_the_catalogue_is_placed_once(finished, monkeypatch):
  placed = []
  place = SemanticIds.place
  monkeypatch.setattr(
    SemanticIds, 'place', lambda ids, mesh, room=False: placed.append(len(ids)) or place(ids, mesh, room)
  )
  letter_jax.Recommender.from_workdir(finished, cold_items=[{'id': 'new', 'title': 'Watering can'}])
  assert placed == [ITEMS + 1]


def test_ids_of_cold_items_are_in_their_normal_form(finished):
  cold = [{'id': 'new-1', 'title': 'Chess'}, {'id': ' new-2', 'title': 'Chess'}]
  recommender = letter_jax.Recommender.from_workdir(finished, cold_items=cold)
  assert recommender.catalogue.raw_ids[60:] == ('new-1', 'new-2')
  popular = recommender.recommend([[]], among=recommender.among(['new-2 ', 'new-1', '5']))
  assert popular.items_UxK[0, :3].tolist() == [5, 60, 61]


def test_a_tf_idf_projection_that_is_damaged_or_missing(finished, tmp_path):
  shutil.copytree(finished, tmp_path / 'workdir')
  path = tmp_path / 'workdir/text_embeddings/tf_idf.npz'
  cold = [{'id': 'new', 'title': 'Watering can'}]
  path.write_bytes(path.read_bytes()[:100])
  with pytest.raises(InputError, match='tf_idf.npz cannot be read'):
    letter_jax.Recommender.from_workdir(tmp_path / 'workdir', cold_items=cold)
  path.unlink()
  with pytest.raises(InputError, match='tf_idf.npz cannot be read'):
    letter_jax.Recommender.from_workdir(tmp_path / 'workdir', cold_items=cold)


@pytest.mark.parametrize(
  'items, message',
  [
    ([{'title': 'a'}], 'cold item 1: "id" is None'),
    ([{'id': '3', 'title': 'a'}], 'cold item 1: "id" \'3\' is the id of a different item'),
    ([{'id': 'x', 'title': 'a'}, {'id': 'x', 'title': 'b'}], 'cold item 2: "id" \'x\' is the id of a different item'),
    ([{'id': 'x', 'title': 'a'}, {'id': ' x ', 'title': 'b'}], 'cold item 2: "id" \'x\' is the id of a different item'),
    ([{'id': '3\u00a0', 'title': 'a'}], 'cold item 1: "id" \'3\' is the id of a different item'),
    ([{'id': ' \t', 'title': 'a'}], 'expected the raw id, a non-empty string'),
    ([{'id': 77, 'title': 'a'}], 'cold item 1: "id" is 77'),
    ([{'id': 'x'}], 'has no text'),
    ([{'id': 'x', 'title': 5}], 'title 5'),
    ([[1]], 'cold item 1 is'),
  ],
)
def test_wrong_cold_items(finished, items, message):
  with pytest.raises(InputError, match=message):
    letter_jax.Recommender.from_workdir(finished, cold_items=items)


def test_cold_items_whose_text_gives_nothing_are_counted(finished, capsys):
  cold = [
    {'id': 'new-1', 'title': Workdir(finished).read_texts()[0]['title']},
    {'id': 'new-2', 'title': '全新 产品'},
    {'id': 'new-3', 'title': '?'},
  ]
  letter_jax.Recommender.from_workdir(finished, cold_items=cold)
  said = capsys.readouterr()
  (line,) = said.err.splitlines()
  assert said.out == '' and "2 of 3 cold items have no term of the catalogue, such as 'new-2'" in line
  assert 'config.text_embeddings.model' in line
  letter_jax.Recommender.from_workdir(finished, cold_items=cold[:1])
  assert capsys.readouterr().err == ''


def test_what_a_language_model_prints_is_not_among_the_recommendations(finished, monkeypatch, capsys):
  def embed_items(texts, config):
    print(f'text_embeddings: {config.model}')
    return np.ones((len(texts), workdir.read_rows(workdir.text_embeddings).shape[1]), np.float32)

  workdir = Workdir(finished)
  config = serving_config(workdir, MeshConfig())
  config = dataclasses.replace(config, text_embeddings=dataclasses.replace(config.text_embeddings, model='encoder'))
  monkeypatch.setattr(language_models, 'embed_items', embed_items)
  catalogue = Catalogue.of_workdir(workdir, workdir.read_semantic_ids())
  with_cold_items(catalogue, [{'id': 'new', 'title': 'Chess'}], config, workdir)
  said = capsys.readouterr()
  assert said.out == '' and 'encoder' in said.err


def test_files_of_cold_items(tmp_path):
  path = tmp_path / 'cold.jsonl'
  path.write_text('{"id": "x", "title": "a"}\n\n{"id": "y"}\n')
  assert [item['id'] for item in read_cold_items(path)] == ['x', 'y']
  for content, message in (
    (b'\n', 'is empty'),
    (b'{"id": "x"}\n{', 'cold.jsonl:2 is not valid JSON'),
    (b'\xff\n', 'is not valid JSON'),
  ):
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
      read_cold_items(path)
  with pytest.raises(InputError, match='cannot be read'):
    read_cold_items(tmp_path / 'nowhere.jsonl')
