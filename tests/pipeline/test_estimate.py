"""What stages will take: known from earlier results that took as much work, and from nothing else."""

import dataclasses
import json

import pytest

from letter_jax.pipeline import estimate
from letter_jax.pipeline.graph import Graph
from letter_jax.system import artifacts, machine
from tests.small_data import config_with, run_settings

CONFIG = config_with(run_settings())
SECONDS = {
  'dataset': 1.0,
  'text_embeddings': 2.0,
  'collaborative': 4.0,
  'tokenizer': 8.0,
  'semantic_ids': 16.0,
  'generator': 32.0,
  'evaluate': 64.0,
  'report': 128.0,
}


def write(workdir, config, stages=tuple(SECONDS), **changes):
  """The records of stages that are complete."""
  for stage in Graph(config):
    if stage.name in stages:
      record = {
        'settings': stage.settings_of(config),
        'inputs': {},
        'files': {},
        'complete': True,
        'seconds': SECONDS[stage.name],
        'machine': machine.describe(),
        'outputs': {},
      }
      stage.directory(workdir).mkdir(parents=True)
      artifacts.write_json(stage.directory(workdir) / 'stage.json', {**record, **changes})
  return workdir


def changed(**settings):
  return config_with(run_settings(**settings))


def outlook(config, workdir, stage, others=()):
  graph = Graph(config)
  return estimate.outlook(graph, config, workdir, graph[stage], estimate.earlier_results(graph, [workdir, *others]))


def test_a_first_run_knows_nothing(tmp_path):
  assert outlook(CONFIG, tmp_path, 'evaluate').seconds == {'report': None}
  assert outlook(CONFIG, tmp_path, 'report').seconds == {}


def test_what_is_complete_is_not_left(tmp_path):
  write(tmp_path, CONFIG, ('dataset', 'text_embeddings', 'tokenizer', 'evaluate'))
  left = list(outlook(CONFIG, tmp_path, 'text_embeddings').seconds)
  assert left == ['collaborative', 'semantic_ids', 'generator', 'report']


def test_another_run_of_a_sweep_tells_what_its_stages_took(tmp_path):
  other = write(tmp_path / 'other', CONFIG)
  names = ('semantic_ids', 'generator', 'evaluate', 'report')
  alike = changed(tokenizer__model__alpha=0.5, generator__temperature=0.7, seed=1)
  assert outlook(alike, tmp_path / 'this', 'tokenizer', [other]).seconds == {name: SECONDS[name] for name in names}
  longer = changed(generator__training__epochs=3, evaluation__beam=30)
  found = outlook(longer, tmp_path / 'this', 'tokenizer', [other]).seconds
  assert found == {'semantic_ids': 16.0, 'generator': None, 'evaluate': None, 'report': 128.0}


def test_another_machine_tells_nothing(tmp_path):
  other = write(tmp_path / 'other', CONFIG, machine='8 TPU v5e devices')
  assert set(outlook(CONFIG, tmp_path / 'this', 'dataset', [other]).seconds.values()) == {None}


def test_a_damaged_record_tells_nothing(tmp_path):
  other = write(tmp_path / 'other', CONFIG)
  (other / 'report/stage.json').write_text('{')
  assert outlook(CONFIG, tmp_path / 'this', 'evaluate', [other]).seconds == {'report': None}


@pytest.mark.parametrize(
  'partners, times, programs',
  [((), 4 * 2 * 300 / 50, 2), (('sasrec',), (4 * 300 * 20 + 4 * 300 * (20 + 25)) / 10 / 50, 4)],
)
def test_the_evaluation_follows_from_the_validations_of_the_generator(tmp_path, partners, times, programs):
  """Four passes over 300 users with 20 beams, where a validation is one over 50 with 10."""
  (tmp_path / 'dataset').mkdir()
  summary = {'users': 300, 'items': 60, 'interactions': 1000}
  (tmp_path / 'dataset/summary.json').write_text(json.dumps(summary))
  config = changed(generator__validation_beam=10, fusion__partners=partners)
  found = outlook(config, tmp_path, 'generator')
  assert found.seconds == {'evaluate': None, 'report': None} and found.validations == {'evaluate': (times, programs)}
  other = write(tmp_path / 'other', config)
  assert outlook(config, tmp_path, 'generator', [other]).validations == {}


def test_trainings_of_a_stage(tmp_path):
  for settings, expected in (
    ({}, ('sasrec',)),
    (dict(collaborative__method='lightgcn'), ('sasrec', 'lightgcn')),
    (dict(collaborative__method='lightgcn', collaborative__baseline=False), ('lightgcn',)),
    (dict(collaborative__path='rows.npy'), ('sasrec',)),
  ):
    assert outlook(changed(**settings), tmp_path, 'collaborative').trainings == expected


def test_the_runs_of_a_sweep_that_are_left(tmp_path):
  plain = dataclasses.replace(CONFIG, seed=3)
  aligned = changed(seed=3, tokenizer__model__alpha=0.5)
  sharp = changed(seed=3, tokenizer__model__alpha=0.5, generator__temperature=0.7)
  runs = {'plain': plain, 'aligned': aligned, 'sharp': sharp}
  assert estimate.sweep_seconds(runs, []) is None
  done = [write(tmp_path / 'plain', plain)]
  # From the tokenizer on; then from the generator on.
  assert estimate.sweep_seconds(runs, done) == 8 + 16 + 2 * (32 + 64 + 128)
  done.append(write(tmp_path / 'aligned', aligned))
  assert estimate.sweep_seconds(runs, done) == 32 + 64 + 128
  assert estimate.sweep_seconds({**runs, 'longer': changed(seed=3, generator__training__epochs=9)}, done) is None
