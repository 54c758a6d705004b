"""Packed instructions against examples that are spelled out one by one."""

import collections
import dataclasses
import re

import grain
import numpy as np
import pytest

from letter_jax.configuration import MixtureConfig
from letter_jax.data.input_pipeline import Batching
from letter_jax.generators.lc_rec import prompts
from letter_jax.generators.lc_rec.batches import InstructionEpochs, assign_rows
from letter_jax.generators.lc_rec.text_tokenizer import TextTokenizer
from letter_jax.generators.lc_rec.token_pool import InstructionData
from letter_jax.generators.lc_rec.user_texts import UserTexts
from letter_jax.system.errors import InputError
from tests.data.test_packing import realistic_lengths
from tests.small_data import distinct_codes, numbered_interactions

LEVELS, CODEBOOK_SIZE, HISTORY = 3, 16, 4
ALL = MixtureConfig(1, 1, 1, 1, 1, 1)
LENGTHS = (3, 4, 5, 9, 12, 6, 3, 8)
WORDS = ['steel', 'ruler', 'wool', 'gauge', 'tape', 'brass', 'copper', 'bolt', 'nut', 'washer', 'lamp', 'fuse']


def text_of(random, words):
  return ' '.join(random.choice(WORDS, words))


@pytest.fixture(scope='module')
def tokenizer():
  texts = [text for texts in prompts.TEMPLATES.values() for text in texts] + WORDS
  return TextTokenizer.train(texts * 3, 700)


def catalogue(num_items):
  """Titles and descriptions; every seventh item lacks a title, every third a description, some are long."""
  random = np.random.default_rng(1)
  title_words = [40 if item % 11 == 8 else 6 for item in range(num_items)]
  return tuple(
    {
      'title': '' if item % 7 == 5 else f'No. {item} {text_of(random, title_words[item])}',
      'description': '' if item % 3 == 1 else text_of(random, 150 if item % 5 == 0 else 8),
    }
    for item in range(num_items)
  )


def users_texts(users):
  random = np.random.default_rng(2)
  return UserTexts(
    {user: (f'{user} likes {text_of(random, 4)}', f'{user} hates {text_of(random, 200)}') for user in users[1:]},
    {user: (f'{user} wants {text_of(random, 5)}',) for user in (*users, 'stranger')},
  )


def arguments(tokenizer, lengths=LENGTHS, mixture=ALL, num_items=None, **changes):
  """Every interaction is of an item of its own, or `num_items` of them come again and again."""
  data = numbered_interactions(lengths)
  if num_items is not None:
    data = dataclasses.replace(data, items=data.items % num_items, num_items=num_items)
  return {
    **dict(
      interactions=data,
      texts=catalogue(data.num_items),
      semantic_ids=distinct_codes(data.num_items, LEVELS, CODEBOOK_SIZE),
      codebook_size=CODEBOOK_SIZE,
      tokenizer=tokenizer,
      mixture=mixture,
      user_texts=users_texts(data.users),
      history_length=HISTORY,
      row_tokens=256,
      batch_size=9,
      seed=3,
      epochs=3,
    ),
    **changes,
  }


def epochs_of(setting):
  """The batches of a setting, in which all fields are on one level."""
  setting = dict(setting)
  data, batching = (
    kind(**{field.name: setting.pop(field.name) for field in dataclasses.fields(kind) if field.name in setting})
    for kind in (InstructionData, Batching)
  )
  return InstructionEpochs(data=data, batching=batching, **setting)


def code_tokens(setting):
  return setting['tokenizer'].size + np.arange(LEVELS) * CODEBOOK_SIZE + setting['semantic_ids']


def unpacked(batch):
  """[(prompt, what is fed of the response, item or None, text targets)], read as a model reads them."""
  found = []
  for tokens_T, segments_T, positions_T, items_S, item_places_S, targets_Q, places_Q in zip(
    *(leaf.reshape(int(np.prod(leaf.shape[:-1])), leaf.shape[-1]) for leaf in batch.values())
  ):
    segments = sorted(set(segments_T.tolist()) - {0})
    assert segments == list(range(1, len(segments) + 1))
    assert not tokens_T[segments_T == 0].any() and not positions_T[segments_T == 0].any()
    assert segments_T[item_places_S[items_S >= 0]].all() and segments_T[places_Q[targets_Q >= 0]].all()
    assert not item_places_S[items_S < 0].any() and not places_Q[targets_Q < 0].any()
    for segment in segments:
      cells = np.flatnonzero(segments_T == segment)
      assert (np.diff(cells) == 1).all()
      assert positions_T[cells].tolist() == list(range(len(cells)))
      items = [
        (int(item), int(place))
        for item, place in zip(items_S, item_places_S)
        if item >= 0 and segments_T[place] == segment
      ]
      words = [
        (int(place), int(word))
        for word, place in zip(targets_Q, places_Q)
        if word >= 0 and segments_T[place] == segment
      ]
      assert (len(items) == 1) != bool(words)
      last = items[0][1] if items else words[0][0]
      assert [place for place, _ in words] == list(range(last, last + len(words)))
      prompt, fed = tokens_T[cells[0] : last + 1], tokens_T[last + 1 : cells[-1] + 1]
      found.append(
        (tuple(prompt.tolist()), tuple(fed.tolist()), items[0][0] if items else None, tuple(word for _, word in words))
      )
  return found


def epoch_of(batches, epoch):
  return [entry for index in range(batches.per_epoch) for entry in unpacked(batches[epoch * batches.per_epoch + index])]


def natural_examples(data, user_texts):
  """task -> [(name, history, item, text)], one by one."""
  found = {task: [] for task in prompts.TEMPLATES}
  for user, name in enumerate(data.users):
    training = data.items[data.offsets[user] : data.offsets[user + 1]].tolist()[:-2]
    for end in range(1, len(training)):
      for task in ('sequential', 'fused'):
        found[task].append(((name, end), training[:end][-HISTORY:], training[end], None))
    for text in user_texts.intentions.get(name, ()):
      found['search'].append(((name, text), training[:-1][-HISTORY:], training[-1], text))
    for text in user_texts.preferences.get(name, ()):
      found['preference'].append(((name, text), training[-HISTORY:], None, text))
  for item in range(data.num_items):
    for task in ('item_to_id', 'id_to_item'):
      found[task].append((item, [], item, None))
  return found


def spelled_out(setting, template, history, item, text):
  """An example as `unpacked` gives it, or None where the template has an empty slot."""
  tokenizer, texts, codes_NxL = setting['tokenizer'], setting['texts'], code_tokens(setting)

  def tokens(said):
    return tokenizer.encode([said])[0].tolist()

  def words(said, limit):
    return tokens(' ' + said)[:limit] if said else None

  values = {'intention': words(text, 128), 'preference': words(text, 128)}
  if item is not None:
    values.update(
      id=codes_NxL[item].tolist(),
      title=words(texts[item]['title'], 32),
      description=words(texts[item]['description'], 96),
    )
  titles = [words(texts[each]['title'], 32) for each in history]
  parts = re.split(r'( ?\{\w+\})', template)[:-1]
  needs = [part.strip(' {}') for part in parts[1::2]]

  def prompt_with(history, titles):
    values['history_ids'] = (
      sum(([*(tokens(', ') if place else []), *codes_NxL[each].tolist()] for place, each in enumerate(history)), [])
      or None
    )
    values['history_titles'] = (
      None
      if None in titles
      else sum(([*(tokens(',') if place else []), *title] for place, title in enumerate(titles)), []) or None
    )
    if any(values[need] is None for need in needs):
      return None
    prompt = [tokenizer.bos]
    for part in parts:
      slot = part.strip(' {}')
      if not part.endswith('}'):
        said = part
        continue
      # The space before codes is the fragment's.
      prompt += tokens(said + ' ' if part.startswith(' ') and slot in ('id', 'history_ids') else said)
      prompt += values[slot] if part is not parts[-1] else []
    return prompt

  while (prompt := prompt_with(history, titles)) is not None:
    answer = values[needs[-1]]
    fed = answer[:-1] if needs[-1] == 'id' else answer
    if len(prompt) + len(fed) <= setting['row_tokens'] or len(history) == 1:
      return (
        (tuple(prompt), tuple(fed), item, ())
        if needs[-1] == 'id'
        else (tuple(prompt), tuple(fed), None, (*answer, tokenizer.eos))
      )
    history, titles = history[1:], titles[1:]
  return None


def with_templates(setting):
  """Every form that an example may take, as `unpacked` gives it -> (task, name, number of the template)."""
  found = {}
  for task, examples in natural_examples(setting['interactions'], setting['user_texts']).items():
    for name, *example in examples:
      for number, template in enumerate(prompts.TEMPLATES[task]):
        told = spelled_out(setting, template, *example)
        if told is not None:
          assert found.setdefault(told, (task, name, number)) == (task, name, number)
  return found


def possible(setting):
  return {told: name[:2] for told, name in with_templates(setting).items()}


@pytest.mark.parametrize('row_tokens', [190, 256, 700])
def test_every_example_of_every_task_comes_once_an_epoch(tokenizer, row_tokens):
  setting = arguments(tokenizer, row_tokens=row_tokens)
  batches, expected = epochs_of(setting), possible(setting)
  tasks = collections.Counter(task for task, _ in set(expected.values()))
  assert set(tasks) == set(prompts.TEMPLATES)
  for epoch in range(3):
    found = epoch_of(batches, epoch)
    assert len(found) == batches.examples == tasks.total()
    assert not set(found) - set(expected)
    assert {expected[entry] for entry in found} == set(expected.values())
  assert epoch_of(batches, 0) != epoch_of(batches, 1)


def test_templates_are_drawn_again_in_every_epoch(tokenizer):
  setting = arguments(tokenizer, mixture=MixtureConfig(1, 0, 0, 0), epochs=40)
  batches, names = epochs_of(setting), with_templates(setting)
  told = [names[entry] for epoch in range(40) for entry in epoch_of(batches, epoch)]
  of_template = collections.Counter(number for _, _, number in told)
  assert len(of_template) == 6 and min(of_template.values()) > 0.7 * max(of_template.values())
  of_example = collections.Counter((task, name) for task, name, _ in set(told))
  assert len(of_example) == batches.examples and min(of_example.values()) >= 5


def test_the_first_sequential_template_is_the_decoding_prompt(tokenizer):
  setting = arguments(tokenizer, mixture=MixtureConfig(1, 0, 0, 0), epochs=80)
  batches = epochs_of(setting)
  prefix, separator, suffix = map(list, prompts.decoding_prompt(tokenizer))
  codes_NxL, expected = code_tokens(setting), set()
  for _, history, item, _ in natural_examples(setting['interactions'], setting['user_texts'])['sequential']:
    prompt = list(prefix)
    for place, each in enumerate(history):
      prompt += [*(separator if place else []), *codes_NxL[each]]
    expected.add(((*map(int, prompt + suffix),), (*codes_NxL[item][:-1].tolist(),), item, ()))
  assert expected <= {entry for epoch in range(80) for entry in epoch_of(batches, epoch)}


def assert_same(batch, other):
  assert batch.keys() == other.keys()
  for name, leaf in batch.items():
    assert leaf.dtype == np.int32
    np.testing.assert_array_equal(leaf, other[name])


def test_validation_and_test_items_change_nothing(tokenizer):
  """Each user's last two items are others: not a token of any batch differs."""
  setting = arguments(tokenizer)
  data = setting['interactions']
  items = data.items.copy()
  for end in data.offsets[1:]:
    items[end - 2 : end] = (items[end - 2 : end] + 5) % data.num_items
  batches = epochs_of(setting)
  others = epochs_of({**setting, 'interactions': dataclasses.replace(data, items=items)})
  assert len(batches) == len(others)
  for step in range(len(batches)):
    assert_same(batches[step], others[step])
  held_out = {int(item) for end in data.offsets[1:] for item in data.items[end - 2 : end]}
  batches = epochs_of({**setting, 'mixture': MixtureConfig(1, 0, 0, 1, 1, 1)})
  assert not held_out & {item for _, _, item, _ in epoch_of(batches, 0)}


def test_a_batch_follows_from_its_step_alone(tokenizer):
  setting = arguments(tokenizer)
  batches = epochs_of(setting)
  assert len(batches) == 3 * batches.per_epoch and batches.per_epoch > 3
  steps = [len(batches) - 1, 0, batches.per_epoch, batches.per_epoch - 1, 2, 0]
  first = {step: batches[step] for step in steps}
  again = epochs_of(setting)
  for step in reversed(steps):
    assert_same(again[step], first[step])
  assert not np.array_equal(epochs_of({**setting, 'seed': 4})[0]['tokens_BxT'][0], batches[0]['tokens_BxT'][0])


def test_grain_reads_the_batches(tokenizer):
  batches = epochs_of(arguments(tokenizer))
  dataset = batches.dataset()
  assert isinstance(dataset, grain.MapDataset) and len(dataset) == len(batches)
  for step, batch in enumerate(dataset.to_iter_dataset(grain.ReadOptions(num_threads=4, prefetch_buffer_size=8))):
    assert_same(batch, batches[step])


@pytest.mark.parametrize('processes', [2, 4])
def test_the_parts_of_the_processes_are_the_whole(tokenizer, processes):
  setting = arguments(tokenizer, batch_size=40, accumulation_steps=3)
  whole = epochs_of({**setting, 'devices': 4})
  parts = [epochs_of({**setting, 'devices': 4, 'part': process, 'parts': processes}) for process in range(processes)]
  for step in range(len(whole)):
    for name, leaf in whole[step].items():
      assert leaf.ndim == 3 and leaf.shape[0] == 3 and leaf.shape[1] % 4 == 0
      np.testing.assert_array_equal(np.concatenate([part[step][name] for part in parts], axis=1), leaf)


def test_devices_and_micro_batches_move_rows_and_change_none(tokenizer):
  setting = arguments(tokenizer, batch_size=40)
  plain = epochs_of(setting)
  split = epochs_of({**setting, 'accumulation_steps': plain.rows, 'devices': 2})
  assert plain.rows == split.rows
  for step in range(len(plain)):
    for name, leaf in split[step].items():
      assert leaf.shape == (plain.rows, 2, leaf.shape[-1])
      np.testing.assert_array_equal(leaf[:, 0], plain[step][name])
      assert set(leaf[:, 1].ravel().tolist()) <= {-1 if name in ('items_BxS', 'text_targets_BxQ') else 0}


def test_all_batches_have_one_shape_and_no_row_holds_more(tokenizer):
  batches = epochs_of(arguments(tokenizer))
  shapes = {
    'tokens_BxT': 256,
    'segments_BxT': 256,
    'positions_BxT': 256,
    'items_BxS': batches.item_responses,
    'item_places_BxS': batches.item_responses,
    'text_targets_BxQ': batches.text_tokens,
    'text_places_BxQ': batches.text_tokens,
  }
  fullest = collections.Counter()
  for step in range(len(batches)):
    batch = batches[step]
    assert {name: leaf.shape for name, leaf in batch.items()} == {
      name: (batches.rows, width) for name, width in shapes.items()
    }
    for name in ('items_BxS', 'text_targets_BxQ'):
      fullest[name] = max(fullest[name], int((batch[name] >= 0).sum(axis=1).max()))
  assert fullest == {'items_BxS': batches.item_responses, 'text_targets_BxQ': batches.text_tokens}


@pytest.mark.parametrize('task,empty', [('sequential', 'text_targets_BxQ'), ('id_to_item', 'items_BxS')])
def test_tasks_without_a_kind_of_response_have_no_room_for_it(tokenizer, task, empty):
  mixture = MixtureConfig(**{**dict.fromkeys(dataclasses.asdict(ALL), 0), task: 1})
  batches = epochs_of(arguments(tokenizer, mixture=mixture, accumulation_steps=2))
  assert batches[0][empty].shape == (2, batches.rows // 2, 0)


def test_rows_are_nearly_full_and_evenly_so(tokenizer):
  batches = epochs_of(
    arguments(tokenizer, realistic_lengths(900), num_items=400, history_length=20, row_tokens=512, batch_size=128)
  )
  rows = [batches[step] for step in range(batches.per_epoch)]
  segments = np.concatenate([batch['segments_BxT'] for batch in rows])
  used = segments[segments.any(axis=1)]
  assert (used > 0).mean() == pytest.approx(batches.density) and batches.density > 0.95
  assert used.any(axis=1).sum() > (batches.per_epoch - 1) * batches.rows
  for name, most in (('items_BxS', batches.item_responses), ('text_targets_BxQ', batches.text_tokens)):
    filled = np.concatenate([batch[name] for batch in rows]) >= 0
    assert filled.sum() / len(used) > 0.6 * most
  examples = sum(int(batch['segments_BxT'].max(axis=1).sum()) for batch in rows)
  assert examples == batches.examples
  assert abs(examples / batches.per_epoch - 128) < 16


def test_weights_are_examples_of_a_task_relative_to_how_many_there_are(tokenizer):
  setting = arguments(tokenizer, epochs=4)
  names = possible(setting)
  natural = collections.Counter(task for task, _ in set(names.values()))
  mixture = MixtureConfig(0.5, 2, 0.25, 0, 0, 1.5)
  batches = epochs_of({**setting, 'mixture': mixture})
  told = collections.Counter()
  for epoch in range(4):
    found = [names[entry] for entry in epoch_of(batches, epoch)]
    counts = collections.Counter(task for task, _ in found)
    assert counts == {
      task: round(weight * natural[task]) for task, weight in dataclasses.asdict(mixture).items() if weight
    }
    told.update(found)
  # A pass goes through all examples of a task before one comes again.
  for task, weight in dataclasses.asdict(mixture).items():
    times = [told[name] for name in set(names.values()) if name[0] == task]
    assert max(times) - min(times) <= 1 and sum(times) == 4 * round(weight * natural[task])


def test_long_histories_lose_their_oldest_items_and_are_counted(tokenizer):
  lengths = (30, 30)
  mixture = MixtureConfig(1, 0, 0, 0)
  plenty = epochs_of(arguments(tokenizer, lengths, mixture, history_length=20, row_tokens=512))
  assert plenty.shortened == 0
  setting = arguments(tokenizer, lengths, mixture, history_length=20, row_tokens=80)
  batches = epochs_of(setting)
  item_of = {tuple(codes): item for item, codes in enumerate(code_tokens(setting).tolist())}
  shortened = 0
  for prompt, fed, item, _ in epoch_of(batches, 0):
    codes = [token for token in prompt if token >= tokenizer.size]
    history = [item_of[tuple(codes[place : place + LEVELS])] for place in range(0, len(codes), LEVELS)]
    assert history == list(range(item - len(history), item))
    one_more = LEVELS + len(tokenizer.encode([', '])[0])
    whole = min(item % 30, 20)
    if len(history) < whole:
      shortened += 1
      assert len(prompt) + len(fed) + one_more > 80
  assert shortened == batches.shortened > 0


def test_a_row_without_room_for_an_example_is_an_input_error(tokenizer):
  setting = arguments(tokenizer, mixture=MixtureConfig(1, 0, 0, 0))
  with pytest.raises(InputError, match='row_tokens is 12; expected at least') as error:
    epochs_of({**setting, 'row_tokens': 12})
  needed = int(re.search('at least ([0-9]+)', str(error.value))[1])
  assert epochs_of({**setting, 'row_tokens': needed}).shortened > 0
  with pytest.raises(InputError, match=f'config.generator.row_tokens is {needed - 1}; expected at least {needed}'):
    epochs_of({**setting, 'row_tokens': needed - 1})


@pytest.mark.parametrize(
  'changes,message',
  [
    ({'mixture': MixtureConfig(0, 0, 0, 0)}, 'mixture has only zeros; expected a task with a weight above 0'),
    ({'texts': None}, 'mixture.item_to_id is 1 and there are no texts of items; expected them, or 0'),
    ({'user_texts': None}, 'mixture.search is 1 and there are no texts of users; expected config.generator.user_texts'),
    ({'user_texts': UserTexts({}, {'stranger': ('x',)})}, 'user_texts names none of the users; expected names like '),
    ({'mixture': MixtureConfig(1e-3, 0, 0, 0)}, 'mixture leave no example in an epoch; expected larger ones'),
  ],
)
def test_a_mixture_that_the_data_cannot_give_is_an_input_error(tokenizer, changes, message):
  with pytest.raises(InputError, match=message) as error:
    epochs_of({**arguments(tokenizer), **changes})
  assert '\n' not in str(error.value)


def test_users_of_three_interactions_have_no_sequential_example(tokenizer):
  with pytest.raises(InputError, match='mixture.sequential is 1 and the data has no example of it; expected 0'):
    epochs_of(arguments(tokenizer, [3] * 20))


def test_sequential_examples_need_no_texts(tokenizer):
  setting = arguments(tokenizer, mixture=MixtureConfig(1, 0, 0, 0))
  assert_same(epochs_of({**setting, 'texts': None, 'user_texts': None})[0], epochs_of(setting)[0])


@pytest.mark.parametrize('seed', range(5))
def test_no_row_gets_more_than_it_holds(seed):
  random = np.random.default_rng(seed)
  length_M = random.integers(1, 101, 400)
  words_M = np.where(random.random(400) < 0.3, random.integers(1, 60, 400), 0)
  rows = int(-(-length_M.sum() // 94))
  row_M = assign_rows(length_M, words_M, rows, 100)
  used_R = np.bincount(row_M, length_M, minlength=rows)
  assert used_R.max() <= 100 and row_M.min() >= 0 and row_M.max() < rows
  assert assign_rows(length_M, words_M, int(length_M.sum() // 101), 100) is None
