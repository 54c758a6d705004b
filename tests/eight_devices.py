"""Every training on meshes of eight devices against one: run by `test_meshes.py` in a process that has so many.

JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=8 python -m tests.eight_devices {tokenizer,sasrec,generator,language}
... tests.eight_devices decoding {generator,language}
... tests.eight_devices restored FOLDER
"""

import dataclasses
import functools
import json
import pathlib
import runpy
import sys
import tempfile
from unittest import mock

import jax
import numpy as np
import optax

from letter_jax import sharding
from letter_jax.collaborative.sasrec_training import sasrec_program, sasrec_ranking
from letter_jax.configuration import MeshConfig
from letter_jax.data import splits
from letter_jax.tokenizer.training import tokenizer_program
from letter_jax.training import loop, optimizers
from letter_jax.training.checkpoints import Checkpoints, Progress
from tests.generators import building
from tests.paths import ROOT
from tests.small_data import config_with, cyclic_interactions, distinct_codes, relative_error, run_settings

# Meshes to search on.
SEARCH_MESHES = {'generator': [(8, 1), (2, 4)], 'language': [(2, 4)]}
# Meshes to train on, and whether parameters are sharded over 'data', too.
LAYOUTS = {
  'tokenizer': [((4, 2), True)],
  'sasrec': [((2, 4), True)],
  'generator': [((4, 2), True), ((2, 4), False)],
  'language': [((2, 4), True)],
}
# SASRec's softmax does not see a shift of all keys: the gradient of their bias is rounding, and Adam makes whole steps
# of it.
ROUNDING = ('key/bias',)
STEPS = 2
DATA = cyclic_interactions(users=60, num_items=30, longest=12)
CODES = distinct_codes(30, levels=3, codebook_size=8)
# Widths that divide, and a batch that does not: rows are filled up.
CONFIG = config_with(
  run_settings(
    data__history_length=8,
    generator__row_items=8,
    generator__model__heads=8,
    generator__model__d_kv=4,
    generator__model__dropout=0.1,
    generator__training__accumulation_steps=2,
    generator__softmax='catalogue',
    collaborative__model__heads=2,
    collaborative__training__batch_size=50,
    tokenizer__training__batch_size=29,
  )
)
TEXT, COLLABORATIVE = (
  np.random.default_rng(seed).normal(size=(60, width)).astype(np.float32) for seed, width in ((0, 24), (1, 8))
)
# Adapters on a base, with the recipe's partition rules.
LANGUAGE = config_with(
  run_settings(
    data__history_length=8,
    generator__architecture='llama',
    generator__base='FOLDER',
    generator__row_tokens=192,
    generator__mixture__fused=0.0,
    generator__mixture__id_to_item=0.3,
    generator__training__accumulation_steps=2,
    generator__partition=runpy.run_path(str(ROOT / 'configs/letter_lcrec.py'))['PARTITION'],
  )
)
ITEM_TEXTS = tuple({'title': f'number {item}', 'brand': '', 'categories': '', 'description': ''} for item in range(30))


@functools.cache
def language_base() -> pathlib.Path:
  """A small LLaMA in a folder, whose widths divide by eight."""
  folder = pathlib.Path(tempfile.mkdtemp())
  titles = [text['title'] for text in ITEM_TEXTS]
  building.write_base(folder, titles, 264, d_model=16, d_ff=32, heads=8, kv_heads=8)
  return folder


def language(config, mesh) -> loop.Program:
  folder = language_base()
  settings = dataclasses.replace(LANGUAGE.generator, base=str(folder))
  config = dataclasses.replace(LANGUAGE, mesh=config.mesh, generator=settings)
  generator = building.to_train(config, building.placed(CODES, 8, mesh), folder, ITEM_TEXTS)
  # With Adam's own epsilon, 1e-8, adapters make steps of full size out of rounding errors: they start at zero.
  coarse = lambda training, steps: optax.adamw(optimizers.learning_rate(training, steps), eps=1e-3)
  with mock.patch.object(optimizers, 'adamw', coarse):
    return building.program(config, generator, DATA)


def to_train(config, mesh):
  return building.to_train(config, building.placed(CODES, 8, mesh), pathlib.Path())


def sasrec(config, mesh) -> loop.Program:
  settings, length = config.collaborative, config.data.history_length
  rank = sasrec_ranking(settings.model, DATA.num_items, length, mesh)
  return sasrec_program(
    settings, DATA, DATA, mesh, rank, history_length=length, seed=config.seed, fully_sharded=config.mesh.fully_sharded
  )


PROGRAMS = {
  'tokenizer': lambda config, mesh: tokenizer_program(
    config.tokenizer, TEXT, COLLABORATIVE, config.seed, mesh, config.mesh.fully_sharded
  ),
  'sasrec': sasrec,
  'generator': lambda config, mesh: building.program(config, to_train(config, mesh), DATA),
  'language': language,
}


def after_steps(program: loop.Program):
  """(metrics, gradients, parameters, largest share of the parameters on one device) after STEPS calls."""
  abstract = loop.abstract_state(program)
  shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
  state = jax.jit(program.init, out_shardings=shardings)(*program.init_arguments)
  for call in range(STEPS):
    batch = program.batches[call] if program.batches is not None else call * program.steps_per_call
    state, metrics = program.step(state, *program.arguments(batch))
    if call == 0:  # Adam's first moment is then a tenth of the gradient (of an epoch's gradients)
      moment = next(
        part.mu
        for part in jax.tree.leaves(state.opt_state, is_leaf=lambda part: hasattr(part, 'mu'))
        if hasattr(part, 'mu')
      )
      gradients = jax.device_get(moment)
  assert all(
    jax.tree.leaves(
      jax.tree.map(lambda leaf, sharding: leaf.sharding.is_equivalent_to(sharding, leaf.ndim), state, shardings)
    )
  )
  here = [
    sum(shard.data.size for shard in leaf.addressable_shards if shard.device == jax.devices()[0])
    for leaf in jax.tree.leaves(state.params)
  ]
  share = sum(here) / sum(leaf.size for leaf in jax.tree.leaves(state.params))
  return jax.device_get(metrics), gradients, jax.device_get(state.params), share


def compare(name: str, expected, axes: tuple[int, int], fully_sharded: bool) -> dict[str, float]:
  config = dataclasses.replace(CONFIG, mesh=MeshConfig(*axes, fully_sharded))
  *found, share = after_steps(PROGRAMS[name](config, sharding.make_mesh(config.mesh)))
  errors = {
    kind: max(
      error
      for path, error in jax.tree_util.tree_leaves_with_path(jax.tree.map(relative_error, ours, theirs))
      if not sharding.name_of(path).endswith(ROUNDING)
    )
    for kind, ours, theirs in zip(('metrics', 'gradients', 'parameters'), found, expected)
  }
  return {**errors, 'share': share}


def decoded(mesh, name: str):
  """Best items of every user and their scores, with the parameters that a generator starts with."""
  config, folder = CONFIG, pathlib.Path()
  if name == 'language':
    folder = language_base()
    config = dataclasses.replace(LANGUAGE, generator=dataclasses.replace(LANGUAGE.generator, base=str(folder)))
  program = PROGRAMS[name](config, sharding.make_mesh(MeshConfig(), jax.devices()[:1]))
  params = jax.device_get(jax.jit(program.init)(*program.init_arguments).params)
  generator = building.to_search(config, building.placed(CODES, 8, mesh), folder)
  params = generator.whole_params(sharding.put(params, sharding.replicated(mesh)))
  found = building.evaluator(config, generator, 20).evaluate(params, splits.test_examples(DATA, 8), '')
  return found.items_UxK, found.scores_UxK, found.metrics


def restored(folder: pathlib.Path) -> None:
  """A state that was saved on eight devices, read on other meshes: prints for each whether it has the same numbers."""

  def program_of(axes, fully_sharded):
    config = dataclasses.replace(CONFIG, mesh=MeshConfig(*axes, fully_sharded))
    devices = jax.devices()[: axes[0] * axes[1]]
    return PROGRAMS['generator'](config, sharding.make_mesh(config.mesh, devices))

  def abstract_and_state(program):
    abstract = loop.abstract_state(program)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    return abstract, jax.jit(program.init, out_shardings=shardings)(*program.init_arguments)

  _, state = abstract_and_state(program_of((4, 2), True))
  expected = jax.device_get(state)
  checkpoints = Checkpoints(folder)
  checkpoints.save_latest(state, Progress(step=3))
  checkpoints.save_best(state.params, Progress(step=3))
  checkpoints.wait()
  for axes, fully_sharded in [((8, 1), True), ((2, 4), False), ((1, 2), True), ((1, 1), False)]:
    program = program_of(axes, fully_sharded)
    abstract = loop.abstract_state(program)
    found, progress = checkpoints.restore_latest(abstract)
    # What a training can start from: the best parameters as they are laid out, and arrays of the host put like others.
    best, _ = checkpoints.restore_best(program.layout)
    put = sharding.put_like(expected.params, found.params)
    starts = all(
      np.array_equal(leaf, known) and leaf.sharding.is_equivalent_to(wanted.sharding, leaf.ndim)
      for given in (best, put)
      for leaf, known, wanted in zip(*map(jax.tree.leaves, (given, expected.params, abstract.params)), strict=True)
    )
    as_wanted = all(
      jax.tree.leaves(
        jax.tree.map(lambda leaf, wanted: leaf.sharding.is_equivalent_to(wanted.sharding, leaf.ndim), found, abstract)
      )
    )
    same = all(jax.tree.leaves(jax.tree.map(np.array_equal, jax.device_get(found), expected)))
    print(json.dumps({'mesh': axes, 'same': same, 'laid_out': as_wanted, 'starts': starts, 'step': progress.step}))
  checkpoints.close()


def main(name: str, folder: str = '') -> None:
  if name == 'restored':
    restored(pathlib.Path(folder))
    return
  one = sharding.make_mesh(MeshConfig(), jax.devices()[:1])
  if name == 'decoding':
    items, scores, metrics = decoded(one, folder)
    for axes in SEARCH_MESHES[folder]:
      found = decoded(sharding.make_mesh(MeshConfig(*axes)), folder)
      print(
        json.dumps(
          {
            'mesh': axes,
            'other_items': int((items != found[0]).sum()),
            'scores': relative_error(found[1], scores),
            'metrics': max(abs(found[2][key] - metrics[key]) for key in metrics),
          }
        )
      )
    return
  *expected, _ = after_steps(PROGRAMS[name](CONFIG, one))
  for axes, fully_sharded in LAYOUTS[name]:
    print(json.dumps({'mesh': axes, 'fully_sharded': fully_sharded, **compare(name, expected, axes, fully_sharded)}))


if __name__ == '__main__':
  main(*sys.argv[1:])
