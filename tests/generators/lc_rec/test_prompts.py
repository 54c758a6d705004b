"""Templates, and the prompt for decoding."""

import dataclasses
import string

import numpy as np
import pytest

from letter_jax.configuration import MixtureConfig
from letter_jax.generators.lc_rec import prompts
from letter_jax.generators.lc_rec.text_tokenizer import TextTokenizer

ALLOWED = {
  'sequential': [{'history_ids', 'id'}],
  'item_to_id': [{'title', 'id'}, {'title', 'description', 'id'}],
  'id_to_item': [{'id', 'title'}],
  'fused': [{'history_titles', 'id'}, {'history_ids', 'title'}],
  'search': [{'intention', 'id'}, {'history_ids', 'intention', 'id'}],
  'preference': [{'history_ids', 'preference'}],
}
RESPONSES = {
  'sequential': {'id'},
  'item_to_id': {'id'},
  'id_to_item': {'title'},
  'fused': {'id', 'title'},
  'search': {'id'},
  'preference': {'preference'},
}


@pytest.fixture(scope='module')
def tokenizer():
  return TextTokenizer.train([text for texts in prompts.TEMPLATES.values() for text in texts] * 3, 600)


def test_every_task_has_several_templates_of_its_slots():
  assert list(prompts.TEMPLATES) == list(ALLOWED) == list(MixtureConfig.__dataclass_fields__)
  texts = [text for texts in prompts.TEMPLATES.values() for text in texts]
  assert len(set(texts)) == len(texts)
  for task, allowed in ALLOWED.items():
    templates = prompts.templates_of(task)
    assert 4 <= len(templates) <= 6
    for template in templates:
      assert template.task == task and set(template.slots) in allowed and template.slots[-1] in RESPONSES[task]
    assert all(any(set(template.slots) == slots for template in templates) for slots in allowed)


def test_a_template_in_parts_is_the_whole_text():
  for task, texts in prompts.TEMPLATES.items():
    for template, text in zip(prompts.templates_of(task), texts):
      values = {slot: f'[{slot}]' for slot in template.slots}
      together = ''.join(
        fragment + (' ' if slot in prompts.TEXT_SLOTS else '') + values[slot]
        for fragment, slot in zip(template.fragments, template.slots)
      )
      assert together == string.Formatter().vformat(text, (), values)


@pytest.mark.parametrize(
  'text',
  [
    '{id}',
    'ends {id} behind',
    'an {unknown}',
    'no space:{title}',
    'two: {history_ids}, {history_titles} and {id}',
    'recall {history_ids}',
    'nothing',
  ],
)
def test_a_template_that_breaks_the_rules_is_rejected(text):
  with pytest.raises(ValueError):
    prompts.parse('sequential', text)


def test_what_a_person_writes_has_the_tokens_of_the_decoding_prompt(tokenizer):
  """Byte-level BPE: pieces apart and the text as a whole are the same tokens."""
  levels, codebook_size = 3, 4
  known = tokenizer.with_codes(levels, codebook_size)
  prefix, separator, suffix = prompts.decoding_prompt(tokenizer)
  assert all(part.dtype == np.int32 and len(part) for part in (prefix, separator, suffix))
  assert prefix[0] == tokenizer.bos
  codes_NxL = np.array([[0, 1, 2], [3, 0, 3], [2, 2, 1]])
  for count in (1, 2, 3):
    names = [''.join(f'<{"abc"[level]}_{code}>' for level, code in enumerate(codes)) for codes in codes_NxL[:count]]
    written = f'A customer bought these items, the oldest first: {", ".join(names)}\nThe next purchase is '
    laid_out = list(prefix)
    for number, codes in enumerate(codes_NxL[:count]):
      laid_out += [*(separator if number else ()), *(tokenizer.size + np.arange(levels) * codebook_size + codes)]
    assert laid_out + list(suffix) == [tokenizer.bos, *known.encode([written])[0]]


def test_a_model_without_a_beginning_has_prompts_without_one(tokenizer):
  without = dataclasses.replace(tokenizer, bos=None)
  prefix, _, suffix = prompts.decoding_prompt(without)
  expected, _, same_suffix = prompts.decoding_prompt(tokenizer)
  assert prefix.tolist() == expected[1:].tolist() and suffix.tolist() == same_suffix.tolist()
