"""The part of the report that shows real users: what they chose, and what they were recommended."""

import numpy as np

from letter_jax.reporting import page
from letter_jax.reporting.finished import Finished
from letter_jax.reporting.page import Html
from letter_jax.system.errors import InputError
from letter_jax.workdir import REDO_EVALUATION

USERS, SHOWN = 10, 10


def section(run: Finished) -> Html:
  count = len(run.examples)
  drawn = np.sort(np.random.default_rng(run.config.seed).choice(count, min(USERS, count), replace=False)).tolist()
  return page.section(
    'users',
    f'{len(drawn)} users',
    'Drawn by the seed, not picked, so expect misses: Recall@10 is '
    f'{page.number(run.metrics["test"]["recall@10"])}. Look at whether a miss is at least of the right kind. The '
    'numbers after a title are its semantic ID.',
    page.tag('div', page.join(_card(run, user, line) for user, line in zip(drawn, _lines(run, drawn))), class_='cards'),
  )


def _lines(run: Finished, users: list[int]) -> list[dict]:
  """The lines of these users, in order."""
  wanted = set(users)
  found = [line for user, line in enumerate(run.workdir.read_predictions()) if user in wanted]
  if len(found) < len(users):
    raise InputError(f'{run.workdir}/evaluation/predictions.jsonl ends before line {users[-1] + 1}; {REDO_EVALUATION}')
  return found


def _card(run: Finished, user: int, line: dict) -> Html:
  target = line['target']
  listed = [_item(run, item, item == target) for item in line['items'][:SHOWN]]
  history = [_item(run, item) for item in line['history']]
  shown, hidden = history[-5:], history[:-5]
  earlier = page.details(f'{len(hidden)} earlier', page.tag('ol', page.join(hidden))) if hidden else Html('')
  return page.tag(
    'article',
    page.join(
      [
        page.tag('h3', f'User {line["user"]}'),
        page.tag('h4', 'history, latest last'),
        earlier,
        page.tag('ol', page.join(shown), start=len(hidden) + 1),
        page.tag('h4', 'chosen next'),
        page.paragraph(_title(run, target)),
        _places(run, user),
        page.tag('h4', f'{run.generator_name} recommends'),
        page.tag('ol', page.join(listed)),
      ]
    ),
    class_='card',
  )


def _title(run: Finished, item: int) -> Html:
  return page.join([run.title(item), page.tag('code', '-'.join(map(str, run.codes_NxL[item].tolist())))], ' ')


def _item(run: Finished, item: int, hit: bool = False) -> Html:
  return page.tag(
    'li', page.join([_title(run, item), '✓'], ' ') if hit else _title(run, item), **({'class_': 'hit'} if hit else {})
  )


def _places(run: Finished, user: int) -> Html:
  """Where each model ranks what the user chose."""
  said = []
  for model, name in run.model_names().items():
    if model in run.ranks:
      ahead, group, found = run.ranks[model][:, user].tolist()
      place = 'not in the list' if not found else f'place {ahead + 1:,}' + (f'–{ahead + group:,}' if group > 1 else '')
      said.append(f'{name}: {place}')
  return page.note('; '.join(said))
