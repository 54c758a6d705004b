"""Every jitted step as an accelerator would get it: lowered for GPU and TPU on a machine that has neither."""

import pytest

from letter_jax import sharding
from letter_jax.configuration import MeshConfig
from letter_jax.pipeline import run as pipeline
from letter_jax.planning import plan
from tests.generators.lc_rec.test_end_to_end import LANGUAGE
from tests.small_data import config_with, run_settings

pytestmark = pytest.mark.slow

STEPS = ('sasrec step', 'tokenizer epoch', 'generator step', 'decoding', 'language generator step', 'language decoding')


@pytest.fixture(scope='module')
def traced(tmp_path_factory):
  """(softmax, name of the step) -> what was traced, in bfloat16."""
  workdir = tmp_path_factory.mktemp('lowering')
  found = {}
  for kind, softmax in (('', 'vocabulary'), ('', 'catalogue'), ('language ', 'vocabulary'), ('language ', 'catalogue')):
    settings = LANGUAGE if kind else {}
    config = config_with(
      {**run_settings(**settings), 'generator.compute_dtype': 'bfloat16', 'generator.softmax': softmax}
    )
    pipeline.run(config, workdir, 'dataset')
    steps = plan.steps(config, workdir, sharding.make_mesh(MeshConfig(data=1)))
    found.update({(softmax, kind + name): step for name, _, _, _, step in steps if not kind or name in STEPS[2:4]})
  return found


@pytest.mark.parametrize('platform', ['cuda', 'tpu'])
@pytest.mark.parametrize('softmax', ['vocabulary', 'catalogue'])
@pytest.mark.parametrize('step', STEPS)
def test_each_step_lowers(traced, step, softmax, platform):
  text = traced[softmax, step].lower(lowering_platforms=(platform,)).as_text()
  assert 'func.func public @main' in text
  # Nothing goes back to Python in a step.
  assert 'callback' not in text
  if step.endswith(('generator step', 'decoding')):
    assert 'bf16' in text


def test_these_are_all_steps(traced):
  assert {name for _, name in traced} == set(STEPS)
