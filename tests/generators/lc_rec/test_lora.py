import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from letter_jax.configuration import LoRAConfig
from letter_jax.generators.lc_rec import lora
from letter_jax.generators.lc_rec.llama import Llama
from letter_jax.sharding import name_of
from tests.generators.lc_rec.test_llama import ARCHITECTURE, POSITIONS_BxT, SEGMENTS_BxT, TOKENS_BxT, random_params
from tests.small_data import relative_error

pytestmark = pytest.mark.slow

ADAPTERS = LoRAConfig(rank=2, alpha=6.0, dropout=0.5)
BASE, MODEL = Llama(ARCHITECTURE), Llama(ARCHITECTURE, ADAPTERS)


@pytest.fixture(scope='module')
def params():
  return random_params(MODEL)


def logits(model, params, seed=None):
  return np.asarray(_logits(model, params, None if seed is None else jax.random.key(seed)))[SEGMENTS_BxT > 0]


@functools.partial(jax.jit, static_argnums=0)
def _logits(model, params, key):
  rngs = {} if key is None else {'dropout': key}
  hidden = model.apply({'params': params}, TOKENS_BxT, SEGMENTS_BxT, POSITIONS_BxT, key is None, rngs=rngs)
  return model.apply({'params': params}, hidden, method=Llama.logits)


def with_b_of(params, factor):
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: leaf * factor if path[-1].key == 'lora_b' else leaf, params
  )


def without_adapters(params):
  trainable, frozen = lora.split(params, False)
  return {**frozen, **{name: trainable[name] for name in ('new_embedding', 'new_head')}}


def names(tree) -> set[str]:
  return {name_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)}


def test_adapters_of_zeros_are_the_base(params):
  expected = logits(BASE, without_adapters(params))
  assert relative_error(logits(MODEL, with_b_of(params, 0)), expected) < 1e-6
  assert relative_error(logits(MODEL, params), expected) > 0.1


def test_adapters_add_alpha_over_rank_times_their_product(params):
  one = LoRAConfig(rank=2, alpha=6.0, dropout=0.0, targets=('down',))
  model = Llama(ARCHITECTURE, one)
  shapes = random_params(model)
  assert {name for name in names(shapes) if 'lora' in name} == {
    'layers/feed_forward/down/lora_a',
    'layers/feed_forward/down/lora_b',
  }
  down = params['layers']['feed_forward']['down']
  assert down['lora_a'].shape == (3, 20, 2) and down['lora_b'].shape == (3, 2, 12)
  base = without_adapters(params)
  kernel = down['kernel'] + 3.0 * jnp.einsum('lir,lro->lio', down['lora_a'], down['lora_b'])
  by_hand = lora.join({'layers': {'feed_forward': {'down': {'kernel': kernel}}}}, base)
  with_one = lora.join({'layers': {'feed_forward': {'down': down}}}, base)
  assert relative_error(logits(model, with_one), logits(BASE, by_hand)) < 1e-5


@pytest.mark.parametrize('int8', [False, True])
def test_merged_kernels_do_what_adapters_do(params, int8):
  if int8:
    trainable, frozen = lora.split(params, False)
    params = lora.join(trainable, lora.quantize_int8(frozen))
  merged = lora.merge(params, ADAPTERS)
  assert names(merged) == names(random_params(BASE))
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(merged))
  assert relative_error(logits(BASE, merged), logits(MODEL, params)) < 1e-5


def test_merging_keeps_the_dtype_and_adds_in_float32(params):
  trainable, frozen = lora.split(params, False)
  base = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), frozen)
  merged = lora.merge(lora.join(trainable, base), ADAPTERS)
  gate = params['layers']['feed_forward']['gate']
  wide = gate['kernel'].astype(jnp.bfloat16).astype(jnp.float32) + 3.0 * jnp.matmul(
    gate['lora_a'], gate['lora_b'], precision='highest'
  )
  found = merged['layers']['feed_forward']['gate']['kernel']
  assert found.dtype == jnp.bfloat16
  assert float(jnp.mean(found == wide.astype(jnp.bfloat16))) > 0.99


def test_splitting_and_joining_are_inverse(params):
  trainable, frozen = lora.split(params, False)
  assert names(trainable) == {name for name in names(params) if 'lora' in name or 'new_' in name}
  assert names(frozen) == names(params) - names(trainable)
  again = lora.join(trainable, frozen)
  assert jax.tree.structure(again) == jax.tree.structure(params)
  jax.tree.map(np.testing.assert_array_equal, again, params)
  assert lora.split(params, True) == (params, {}) and lora.join(params, {}) == params


@pytest.mark.parametrize('int8', [False, True])
def test_gradients_reach_the_trainable_part_alone_and_all_of_it(params, int8):
  trainable, frozen = lora.split(params, False)
  frozen = lora.quantize_int8(frozen) if int8 else frozen

  def loss(trainable):
    params = lora.join(trainable, frozen)
    hidden = MODEL.apply({'params': params}, TOKENS_BxT, SEGMENTS_BxT, POSITIONS_BxT)
    return jnp.sum(jnp.sin(MODEL.apply({'params': params}, hidden, method=Llama.logits)))

  gradient = jax.jit(jax.grad(loss))(trainable)
  assert names(gradient) == names(trainable)
  assert all(float(jnp.abs(leaf).max()) > 0 and leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(gradient))


def test_no_kernels_gradient_is_computed_for_a_frozen_base(params):
  """A kernel's gradient is a product with as many operations as the layer's own: half of the backward pass."""
  trainable, frozen = lora.split(params, False)

  def flops(differentiated):
    def loss(part, rest):
      params = lora.join(part, rest)
      return jnp.sum(
        MODEL.apply(
          {'params': params}, np.zeros((4, 64), np.int32), np.ones((4, 64), np.int32), np.zeros((4, 64), np.int32)
        )
        ** 2
      )

    return jax.jit(jax.grad(loss)).lower(*differentiated).compile().cost_analysis()['flops']

  kernels = (
    sum(leaf.size for path, leaf in jax.tree_util.tree_leaves_with_path(frozen) if path[-1].key == 'kernel')
    // ARCHITECTURE.layers
  )  # the loop's body counts once
  saved = flops((params, {})) - flops((trainable, frozen))
  assert saved > 0.9 * 2 * 4 * 64 * kernels


def test_dropout_acts_on_the_adapters_in_training_alone(params):
  plain = logits(MODEL, params)
  np.testing.assert_array_equal(logits(MODEL, params, 0), logits(MODEL, params, 0))
  assert relative_error(logits(MODEL, params, 0), plain) > 0.1
  assert relative_error(logits(MODEL, params, 0), logits(MODEL, params, 1)) > 0.1
  zeros = with_b_of(params, 0)
  np.testing.assert_array_equal(logits(MODEL, zeros, 0), logits(MODEL, zeros))


def test_int8_kernels_are_off_by_half_a_scale_at_most(params):
  _, frozen = lora.split(params, False)
  out = frozen['layers']['attention']['out']
  out['kernel'] = out['kernel'].at[1, :, 4].set(0)  # a channel of nothing
  quantized = lora.quantize_int8(frozen)
  kernels = [path for path, _ in jax.tree_util.tree_leaves_with_path(frozen) if path[-1].key == 'kernel']
  assert len(kernels) == 7
  for path in kernels:
    before, after = frozen, quantized
    for key in path[:-1]:
      before, after = before[key.key], after[key.key]
    assert after['kernel'].dtype == jnp.int8 and after['scale'].dtype == jnp.float32
    assert (after['scale'] > 0).all() and after['scale'].shape == (3, before['kernel'].shape[-1])
    error = np.abs(after['kernel'] * after['scale'][:, None] - before['kernel'])
    assert (error <= after['scale'][:, None] * 0.5001).all()
    assert int(jnp.abs(after['kernel']).max()) == 127
  unchanged = names(frozen) - {name_of(path) for path in kernels}
  assert names(quantized) >= unchanged and quantized['embedding'].dtype == jnp.float32


def test_an_int8_base_computes_nearly_the_same(params):
  trainable, frozen = lora.split(params, False)
  error = relative_error(logits(MODEL, lora.join(trainable, lora.quantize_int8(frozen))), logits(MODEL, params))
  assert 1e-4 < error < 0.05


def test_new_rows_have_the_old_ones_mean_and_spread():
  random = np.random.default_rng(0)
  old = random.normal(size=(500, 3)) * np.array([0.1, 1.0, 4.0]) + np.array([-1.0, 0.0, 7.0])
  new = np.asarray(lora.new_rows(jnp.asarray(old, jnp.bfloat16), 4000, jax.random.key(0)))
  assert new.dtype == np.float32 and new.shape == (4000, 3)
  np.testing.assert_allclose(new.mean(0), old.mean(0), atol=0.2)
  np.testing.assert_allclose(new.std(0), old.std(0), rtol=0.1)
  np.testing.assert_array_equal(new, lora.new_rows(jnp.asarray(old, jnp.bfloat16), 4000, jax.random.key(0)))


def test_training_starts_at_the_base_with_new_tokens_like_the_old(params):
  trainable, frozen = lora.split(params, False)
  frozen = {**frozen, 'embedding': frozen['embedding'] + 5, 'head': frozen['head'] - 5}
  shapes = jax.eval_shape(lambda: params)
  start = jax.jit(lora.initial)(params, frozen, jax.random.key(3))
  assert jax.tree.map(jnp.shape, start) == jax.tree.map(jnp.shape, trainable)
  again = lora.initial(shapes, frozen, jax.random.key(3))
  jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5), start, again)
  for part in start['layers'].values():
    for name, adapter in part.items():
      bound = 1 / np.sqrt(adapter['lora_a'].shape[1])
      assert 0.8 * bound < float(jnp.abs(adapter['lora_a']).max()) <= bound, name
      assert not adapter['lora_b'].any() and (adapter['lora_a'][0] != adapter['lora_a'][1]).all()
  query, key = (start['layers']['attention'][name]['lora_a'] for name in ('query', 'key'))
  assert (query != key).all()
  assert start['new_embedding'].mean() == pytest.approx(5, abs=0.3)
  assert start['new_head'].mean() == pytest.approx(-5, abs=0.3)
