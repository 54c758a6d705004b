import numpy as np
import pytest

from letter_jax.configuration import SyntheticConfig
from letter_jax.data import splits, synthetic_vocabulary
from letter_jax.data.synthetic import synthesize
from letter_jax.text_embeddings.tf_idf import FIELD_REPEATS

SMALL = SyntheticConfig(num_users=2000, num_items=500)


@pytest.fixture(scope='module')
def store():
  return synthesize(SyntheticConfig(), seed=42)


def sequences(data):
  return [items.tolist() for items in np.split(data.interactions.items, data.interactions.offsets[1:-1])]


def recall_at_10(scores_UxN, targets_U):
  score_U = scores_UxN[np.arange(len(targets_U)), targets_U][:, None]
  rank_U = (scores_UxN > score_U).sum(axis=1) + ((scores_UxN == score_U).sum(axis=1) - 1) / 2
  return (rank_U < 10).mean()


@pytest.fixture(scope='module')
def recalls(store):
  """Recall@10 on the test items of rankings by popularity, by text similarity and by transition counts."""
  data = store.interactions
  train, test = splits.training_examples(data, 20), splits.test_examples(data, 20)
  last_U, targets_U = data.items[test.end - 1], test.targets
  popularity_N = np.bincount(train.targets, minlength=data.num_items).astype(np.float32)
  follows_NxN = np.zeros((data.num_items, data.num_items), np.float32)
  np.add.at(follows_NxN, (train.items[train.end - 1], train.targets), 1)
  from sklearn.feature_extraction.text import TfidfVectorizer

  words = TfidfVectorizer(sublinear_tf=True).fit_transform(
    [' '.join(text[field] for field in FIELD_REPEATS) for text in store.texts]
  )
  text_UxN = (words[last_U] @ words.T).toarray()
  text_UxN[np.arange(len(last_U)), last_U] = -1
  return {
    'popularity': recall_at_10(np.tile(popularity_N, (len(targets_U), 1)), targets_U),
    'text': recall_at_10(text_UxN, targets_U),
    'sequence': recall_at_10(follows_NxN[last_U] + 1e-3 * popularity_N / popularity_N.max(), targets_U),
  }


def test_transitions_predict_far_better_than_popularity_or_text(recalls):
  assert recalls['sequence'] > 5 * recalls['popularity']
  assert recalls['sequence'] > 2.5 * recalls['text']
  assert 0.02 < recalls['popularity'] < 0.06
  assert recalls['sequence'] < 0.5  # habits are likely, not certain


def test_default_size_and_shape(store):
  data, config = store.interactions, SyntheticConfig()
  assert len(data.users) == config.num_users == len(set(data.users))
  assert data.num_items == config.num_items == len(store.texts)
  assert data.items.dtype == np.int32 and data.offsets.dtype == np.int64 and data.offsets[-1] == len(data.items)
  assert data.items.min() >= 0 and data.items.max() < data.num_items
  assert data.lengths.min() >= 5
  assert data.lengths.mean() == pytest.approx(config.mean_length, rel=0.05)
  assert np.mean([len(set(items)) < len(items) for items in sequences(store)]) < 1e-3


def test_popularity_has_a_long_tail(store):
  counts = np.sort(np.bincount(store.interactions.items, minlength=store.interactions.num_items))[::-1]
  assert counts[: len(counts) // 10].sum() > 0.35 * counts.sum()
  assert counts[0] < 0.02 * counts.sum()
  assert (counts == 0).mean() < 0.05


def test_texts_belong_to_the_items_of_the_sequences(store):
  category_N = np.array([text['categories'].rpartition(' > ')[0] for text in store.texts])
  same = np.mean(
    [category_N[before] == category_N[after] for items in sequences(store) for before, after in zip(items, items[1:])]
  )
  drawn_U = np.random.default_rng(0).permutation(store.interactions.items)
  assert same > 4 * np.mean(category_N[drawn_U[1:]] == category_N[drawn_U[:-1]])


def test_texts_describe_the_item(store):
  assert len({text['title'] for text in store.texts}) == len(store.texts)
  nouns = {noun for shelf in synthetic_vocabulary.SHELVES.values() for types in shelf.values() for noun in types}
  for text in store.texts:
    department, _, noun = text['categories'].split(' > ')
    assert department in synthetic_vocabulary.SHELVES and noun.lower() in nouns
    assert text['brand'] in text['title'] and noun.lower() in text['title'].lower()
    assert text['brand'] in text['description'] and noun.lower() in text['description'].lower()
    assert not set('{}') & set(text['description'] + text['title'])


def test_the_store_is_determined_by_the_seed():
  first, again, other = synthesize(SMALL, 1), synthesize(SMALL, 1), synthesize(SMALL, 2)
  np.testing.assert_array_equal(first.interactions.items, again.interactions.items)
  assert first.texts == again.texts and first.summary() == again.summary()
  assert first.texts != other.texts and sequences(first) != sequences(other)


def test_the_draws_are_those_recorded_here():
  """A platform with different draws would not reproduce the documented results."""
  data = synthesize(SyntheticConfig(num_users=3, num_items=40), seed=7)
  assert sequences(data) == [
    [22, 1, 20, 24, 11, 18, 33, 13, 28, 21, 25],
    [21, 16, 30, 25, 38, 34],
    [16, 4, 9, 17, 30, 6],
  ]
  assert data.texts[0]['title'] == 'Vestermark Ridge Hand fork, stainless steel, compact, indigo'


def test_the_catalogue_does_not_depend_on_the_users():
  few, many = (synthesize(SyntheticConfig(num_users=users, num_items=100), 1) for users in (5, 50))
  assert few.texts == many.texts and len(few.interactions.lengths) < len(many.interactions.lengths)


def test_habit_and_length_are_followed():
  def repeated_pairs(habit):
    pairs = [
      pair
      for items in sequences(synthesize(SyntheticConfig(num_users=2000, habit=habit), 1))
      for pair in zip(items, items[1:])
    ]
    return 1 - len(set(pairs)) / len(pairs)

  assert repeated_pairs(0.9) > 1.4 * repeated_pairs(0.5) > 1.4**2 * repeated_pairs(0.1)
  longer = synthesize(SyntheticConfig(num_users=2000, num_items=500, mean_length=15.0), 1)
  assert longer.interactions.lengths.mean() == pytest.approx(15, rel=0.05)
  assert set(synthesize(SyntheticConfig(num_users=50, mean_length=5.0), 1).interactions.lengths.tolist()) == {5}


@pytest.mark.parametrize('users, items', [(1, 10), (200, 10), (50, 33), (50, 97), (20, 20_000)])
def test_any_size(users, items):
  data = synthesize(SyntheticConfig(num_users=users, num_items=items), seed=0)
  assert len(data.texts) == items and len({text['title'] for text in data.texts}) == items
  assert len(data.interactions.lengths) == users and data.interactions.lengths.min() >= 5
  assert data.interactions.items.max() < items
