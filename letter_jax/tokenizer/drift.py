"""How far a catalogue has moved away from its tokenizer, over the runs that keep it, and when a new one is due."""

from collections.abc import Mapping
from typing import Any

# A new tokenizer is due where more of the catalogue came after its training, where the share of items whose ID is not
# the nearest grew by more, or where the perplexity of a level fell below this share of what it was.
ADDED, NOT_NEAREST, PERPLEXITY = 0.25, 0.1, 0.8

KEY = 'drift'  # in `semantic_ids/report.json`


def measure(
  report: Mapping[str, Any], before: Mapping[str, Any], *, stay: int, left: int, added: int
) -> dict[str, Any]:
  """The drift of a catalogue, from the report of its semantic IDs and that of the run before.

  Args:
    report: as of `assignment.report_of`, with `diagnostics.diagnose`'s entries.
    before: the same of the run before, with its own drift under KEY unless it trained the tokenizer.
    stay, left: items that both runs have, and that only the run before has.
    added: items that the training of the tokenizer did not know.

  Returns:
    'stay', 'new' and 'left': numbers of items. 'added' and 'not_nearest': shares of the items, which came after the
    tokenizer's training, and whose ID is not that of their nearest codes. 'perplexity' by level. 'at_training': the
    last two when the tokenizer was trained. 'due': why a new tokenizer is due, in words; empty where none is.
  """
  now = _state(report)
  then = before[KEY]['at_training'] if KEY in before else _state(before)
  share = added / report['items']
  due = []
  if share > ADDED:
    due.append(f'{share:.0%} of the items were added after its training')
  if now['not_nearest'] - then['not_nearest'] > NOT_NEAREST:
    due.append(
      f'{now["not_nearest"]:.0%} of the items have an ID that is not their nearest, {then["not_nearest"]:.0%} at its '
      'training'
    )
  for level, (perplexity, was) in enumerate(zip(now['perplexity'], then['perplexity']), 1):
    if perplexity < PERPLEXITY * was:
      due.append(f'the perplexity of level {level} is {perplexity:.0f}, {was:.0f} at its training')
  return {
    'stay': stay,
    'new': report['items'] - stay,
    'left': left,
    'added': share,
    **now,
    'at_training': then,
    'due': due,
  }


def in_words(drift: Mapping[str, Any]) -> list[str]:
  """Sentences about what `measure` returned, without their full stops."""
  said = [
    f'{drift["stay"]:,} items keep their IDs, {drift["new"]:,} are new, {drift["left"]:,} left',
    f'{drift["added"]:.1%} of the items were added after the tokenizer was trained; {drift["not_nearest"]:.1%} have an '
    f'ID that is not their nearest, {drift["at_training"]["not_nearest"]:.1%} at its training',
  ]
  if drift['due']:
    said.append(f'a new tokenizer is due (--retokenize): {"; ".join(drift["due"])}')
  return said


def _state(report: Mapping[str, Any]) -> dict[str, Any]:
  return {'not_nearest': report['moved'] / report['items'], 'perplexity': report['perplexity']}
