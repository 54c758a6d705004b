"""A generator and the popularity baseline in both protocols, of which one is the main one."""

import numpy as np
import pytest

from letter_jax.evaluation import both_protocols, popularity, ranks
from letter_jax.evaluation.history import choose
from tests.evaluation.test_list_evaluator import ITEMS, expected_ranks, searches, world  # noqa: F401

LENGTH = 12


@pytest.fixture(scope='module')
def evaluated(world):  # noqa: F811
  data, table, *_ = world
  users, search = both_protocols.validation_and_test(data, LENGTH), searches(beam=ITEMS)[0]
  longest = int(data.lengths.max())
  return {
    exclude_history: both_protocols.evaluate_generator(search, table, users, longest, exclude_history)
    for exclude_history in (False, True)
  }


def test_a_generator(world, evaluated):  # noqa: F811
  data, _, _, scores_IxN, _ = world
  for exclude_history, found in evaluated.items():
    for key, out in (('history_in', False), ('history_out', True)):
      rank_U = expected_ranks(data, scores_IxN, out)
      expected = ranks.metrics_of(np.stack([rank_U, np.ones_like(rank_U), rank_U < ITEMS]))
      assert found.figures[key]['test'] == pytest.approx(expected, abs=1e-6)
      assert found.ranks[ranks.key('generator', key)][0].tolist() == np.where(rank_U < ITEMS, rank_U, 0).tolist()
    main = found.figures['history_out' if exclude_history else 'history_in']
    assert found.figures['test'] is main['test'] and found.figures['validation'] is main['validation']
    for user in range(len(data.users)):
      had = set(data.items[data.offsets[user] : data.offsets[user + 1] - 1].tolist())
      for protocol, expected in (('history_out', 0), ('history_in', len(had))):
        assert len(had & set(found.lists[protocol][0][user].tolist())) == expected


def test_what_is_said_of_the_protocols(world, evaluated):  # noqa: F811
  data, *_ = world
  users = both_protocols.validation_and_test(data, LENGTH)
  told = both_protocols.about_protocols(users, True)
  assert told['protocol'] == 'history_out' and choose(evaluated[True].figures) == choose(evaluated[False].figures)
  for split, back in (('validation', 2), ('test', 1)):
    repeats = []
    for first, end in zip(data.offsets[:-1], data.offsets[1:]):
      *had, target = data.items[first : end - back + 1].tolist()
      repeats.append(target in had)
    assert told['repeats'][split] == pytest.approx(np.mean(repeats)) and 0 < np.mean(repeats) < 1


def test_the_baselines(world):  # noqa: F811
  data, *_ = world
  users, counts_N = both_protocols.validation_and_test(data, LENGTH), popularity.training_counts(data)
  figures, of_users = both_protocols.evaluate_popularity(counts_N, users, True)
  assert figures['test'] is figures['history_out']['test'] and figures['test'] != figures['history_in']['test']
  for protocol in ('history_in', 'history_out'):
    expected = ranks.metrics_of(of_users[ranks.key('popularity', protocol)])
    assert figures[protocol]['test'] == pytest.approx(expected, abs=1e-6)
  given = {'sasrec': {'validation': 1, 'test': 2, 'history_out': {'validation': 3, 'test': 4}}}
  assert both_protocols.of_collaborative(given, True)['sasrec'] == {
    'validation': 3,
    'test': 4,
    'history_in': {'validation': 1, 'test': 2},
    'history_out': {'validation': 3, 'test': 4},
  }
