"""Which programs a recommender compiles, and when."""

import contextlib
import shutil

import jax
import numpy as np
import pytest

import letter_jax
from letter_jax.semantic_ids.ids import SemanticIds
from letter_jax.serving import recommender as recommender_module
from letter_jax.system import compilation_cache
from letter_jax.workdir import Workdir

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def compiled():
  """A list of what is compiled in the context."""
  events = []

  def note(event, duration, **_):
    if event.endswith(('backend_compile_duration', 'compile_time_saved_sec')):
      events.append(event)

  jax.monitoring.register_event_duration_secs_listener(note)
  try:
    yield events
  finally:
    jax.monitoring.unregister_event_duration_listener(note)


def histories(users, longest):
  random = np.random.default_rng(users)
  return [random.integers(60, size=random.integers(1, longest + 1)).tolist() for _ in range(users)]


def test_after_the_warm_up_nothing_is_compiled(finished, monkeypatch):
  monkeypatch.setattr(recommender_module, 'EXCLUDED', (8, 64))  # there are 60 items
  with compiled() as before:
    recommender = letter_jax.Recommender.from_workdir(finished, warm_up=True)
  assert before
  among = recommender.among(['3', '4'], ['5'])
  with compiled() as events:
    for users in (1, 3, 17, 100):
      for longest in (1, 7, 80):
        for exclude_history in (False, True):
          recommender.recommend(histories(users, longest), exclude_history=exclude_history)
    recommender.recommend(histories(2, 5), among=recommender.among(deny=['7']))
    recommender.recommend(histories(2, 5), among=among)
  assert not events


def test_another_recommender_of_the_same_architecture_compiles_nothing(finished, tmp_path):
  """A few items more, other semantic IDs, other parameters: what a night brings."""
  letter_jax.Recommender.from_workdir(finished, warm_up=True)
  with compiled() as events:
    letter_jax.Recommender.from_workdir(finished, warm_up=True)
  assert not events
  other = tmp_path / 'workdir'
  shutil.copytree(finished, other)
  workdir = Workdir(other)
  ids = workdir.read_semantic_ids()
  codes_NxL = np.random.default_rng(0).permutation(ids.codes_NxL)
  workdir.write_semantic_ids(SemanticIds(codes_NxL, ids.codebook_size), {})
  with compiled() as events:
    recommender = letter_jax.Recommender.from_workdir(other, warm_up=True)
  assert not events
  cold = [{'id': 'new', 'title': 'a new thing'}]
  alone = letter_jax.Recommender.from_workdir(other, fusion=False, warm_up=True)
  grown = letter_jax.Recommender.from_workdir(other, cold_items=cold)  # may compile the tokenizer, for the new item
  with compiled() as events:
    grown.recommend(histories(3, 9))
  assert not events
  assert len(grown.catalogue) == len(alone.catalogue) + 1 == len(recommender.catalogue) + 1


def test_the_cache_of_the_command_line_is_used(monkeypatch, tmp_path):
  before = jax.config.jax_compilation_cache_dir
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  try:
    jax.config.update('jax_compilation_cache_dir', None)
    compilation_cache.use()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / 'letter_jax/compiled')
    jax.config.update('jax_compilation_cache_dir', str(tmp_path / 'own'))
    compilation_cache.use()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / 'own')
  finally:
    jax.config.update('jax_compilation_cache_dir', before)
