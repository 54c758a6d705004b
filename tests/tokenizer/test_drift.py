"""When a tokenizer that is kept no longer fits its catalogue."""

import pytest

from letter_jax.tokenizer import drift


def report_of(items=100, moved=20, perplexity=(50.0, 40.0), **more):
  return {'items': items, 'moved': moved, 'perplexity': list(perplexity), **more}


def test_counts_and_shares_beside_those_of_the_training():
  found = drift.measure(report_of(items=110, moved=33), report_of(), stay=90, left=10, added=20)
  assert (found['stay'], found['new'], found['left'], found['due']) == (90, 20, 10, [])
  assert found['added'] == pytest.approx(20 / 110) and found['not_nearest'] == pytest.approx(0.3)
  assert found['at_training'] == {'not_nearest': 0.2, 'perplexity': [50.0, 40.0]}
  assert drift.in_words(found) == [
    '90 items keep their IDs, 20 are new, 10 left',
    '18.2% of the items were added after the tokenizer was trained; 30.0% have an ID that is not their nearest, 20.0% '
    'at its training',
  ]


def test_the_state_at_the_training_is_handed_on():
  first = drift.measure(report_of(moved=25), report_of(), stay=100, left=0, added=0)
  second = drift.measure(report_of(moved=29), report_of(moved=25, drift=first), stay=100, left=0, added=0)
  assert second['at_training'] == first['at_training'] and second['due'] == []


@pytest.mark.parametrize(
  'changes, added, said',
  [
    ({}, 26, ['26% of the items were added after its training']),
    ({'moved': 31}, 0, ['31% of the items have an ID that is not their nearest, 20% at its training']),
    ({'perplexity': (50.0, 31.9)}, 0, ['the perplexity of level 2 is 32, 40 at its training']),
    ({}, 25, []),
    ({'moved': 30, 'perplexity': (40.0, 32.0)}, 0, []),
  ],
)
def test_why_a_new_tokenizer_is_due(changes, added, said):
  found = drift.measure(report_of(**changes), report_of(), stay=100 - added, left=added, added=added)
  assert found['due'] == said
  last = drift.in_words(found)[-1]
  assert last == f'a new tokenizer is due (--retokenize): {said[0]}' if said else not last.startswith('a new')
