"""The two protocols of a ranking, by name."""

import pytest

from letter_jax.evaluation import history


def figures(history_in, history_out):
  return history.in_both({'validation': {'ndcg@10': history_in}}, {'validation': {'ndcg@10': history_out}}, False)


def test_the_main_figures_are_those_of_the_setting_and_both_are_there():
  for exclude_history, value in ((False, 1), (True, 2)):
    found = history.in_both({'test': {'ndcg@10': 1}}, {'test': {'ndcg@10': 2}}, exclude_history)
    assert found['test']['ndcg@10'] == value
    assert [found[protocol]['test']['ndcg@10'] for protocol in history.PROTOCOLS] == [1, 2]


@pytest.mark.parametrize('history_in, history_out, excluded', [(0.2, 0.3, True), (0.3, 0.2, False), (0.2, 0.2, True)])
def test_the_better_one_on_validation_is_served(history_in, history_out, excluded):
  choice = history.choose(figures(history_in, history_out))
  assert choice == {
    'exclude_history': excluded,
    'ndcg@10': {'history_in': history_in, 'history_out': history_out},
  } and history.is_choice(choice)
  assert history.choice_in_words(choice) == (
    f'NDCG@10 on validation is {history_out:.4f} without them, {history_in:.4f} with them'
  )


@pytest.mark.parametrize(
  'value', [None, 'nothing', {}, {'exclude_history': 1}, {'exclude_history': True, 'ndcg@10': {'history_in': 1}}]
)
def test_what_is_no_choice(value):
  assert not history.is_choice(value)
