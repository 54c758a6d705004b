"""LLaMA against itself (packed, cached, in slices) and against values by hand; for Hugging Face's numbers see
tests/parity."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from letter_jax.configuration import LoRAConfig
from letter_jax.generators.lc_rec.llama import Architecture, Llama, RopeScaling, rotary_frequencies
from tests.small_data import relative_error

# Every size another number; heads share keys in pairs.
ARCHITECTURE = Architecture(
  text_vocabulary=14,
  new_tokens=9,
  d_model=12,
  d_ff=20,
  layers=3,
  heads=4,
  kv_heads=2,
  d_head=6,
  qk_norm=True,
  qkv_bias=True,
)
MODEL = Llama(ARCHITECTURE)
V = ARCHITECTURE.text_vocabulary


def random_params(model: Llama, seed: int = 0) -> dict:
  """Large enough that attention is far from uniform."""
  tokens = jnp.zeros((1, 2), jnp.int32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), tokens, tokens, tokens)['params']
  random = np.random.default_rng(seed)
  return jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape) * 0.4, jnp.float32), shapes)


@pytest.fixture(scope='module')
def params():
  return random_params(MODEL)


# No token twice; some are new ones (14 and more).
TOKENS_BxT = np.array([[0, 15, 2, 3, 16, 5], [6, 17, 8, 9, 18, 11]])
SEGMENTS_BxT = np.array([[1, 1, 1, 2, 2, 0], [2, 2, 1, 1, 1, 0]])
POSITIONS_BxT = np.array([[0, 1, 2, 0, 1, 0], [0, 1, 0, 1, 2, 0]])


def test_a_token_sees_those_before_it_in_its_segment_and_itself(params):
  noise_D = np.random.default_rng(1).normal(size=ARCHITECTURE.d_model)

  def hidden(tables):
    return MODEL.apply({'params': {**params, **tables}}, TOKENS_BxT, SEGMENTS_BxT, POSITIONS_BxT) @ noise_D

  tables = {name: params[name] for name in ('embedding', 'new_embedding')}
  jacobian = jax.jit(jax.jacrev(hidden))(tables)
  moved_BxTxV = np.concatenate([np.asarray(jacobian[name] != 0).any(-1) for name in tables], axis=-1)
  for row, place in np.ndindex(TOKENS_BxT.shape):
    if SEGMENTS_BxT[row, place]:
      own = (SEGMENTS_BxT[row] == SEGMENTS_BxT[row, place]) & (np.arange(6) <= place)
      assert set(np.flatnonzero(moved_BxTxV[row, place])) == set(TOKENS_BxT[row][own])


def whole(params, sequences) -> np.ndarray:
  """The hidden states [..., D] of the last tokens of sequences, a row each, [...] lists."""
  rows = [sequence for user in sequences for sequence in user]
  place = np.arange(10) < np.array([len(row) for row in rows])[:, None]
  tokens = np.zeros(place.shape, np.int32)
  tokens[place] = np.concatenate(rows)
  hidden = jax.jit(MODEL.apply)(
    {'params': params}, tokens, place.astype(np.int32), np.broadcast_to(np.arange(10), tokens.shape)
  )
  last = np.asarray(hidden)[np.arange(len(rows)), place.sum(1) - 1]
  return last.reshape(len(sequences), -1, ARCHITECTURE.d_model)


def test_cached_steps_give_the_hidden_states_of_whole_sequences(params):
  random = np.random.default_rng(2)
  tokens_BxT = random.integers(0, ARCHITECTURE.vocabulary, (2, 7))
  valid_BxT = np.array([[0, 1, 1, 0, 1, 0, 1], [1, 0, 0, 1, 0, 0, 1]], bool)  # holes anywhere but at the end
  positions_BxT = np.maximum(np.cumsum(valid_BxT, axis=1) - 1, 0)
  prompts = [list(tokens[valid]) for tokens, valid in zip(tokens_BxT, valid_BxT)]
  apply = lambda method, *arguments: jax.jit(
    lambda params, *arguments: MODEL.apply({'params': params}, *arguments, method=method)
  )(params, *arguments)

  hidden_BxD, prompt = apply(Llama.prefill, tokens_BxT, valid_BxT, positions_BxT)
  # Shared by the beams: no axis of theirs.
  assert all(leaf.shape == (3, 2, 2, 7, 6) for leaf in jax.tree.leaves(prompt))
  assert relative_error(hidden_BxD, whole(params, [prompts])[0]) < 1e-5
  taken = [[[], [], []], [[], [], []]]
  cache = None
  for step in range(3):
    tokens_BxW = random.integers(0, ARCHITECTURE.vocabulary, (2, 3))
    taken = [[beam + [token] for beam, token in zip(beams, tokens)] for beams, tokens in zip(taken, tokens_BxW)]
    hidden_BxWxD, cache = apply(Llama.decode_step, tokens_BxW, valid_BxT.sum(1) + step, cache, prompt, valid_BxT)
    assert all(leaf.shape == (2, 3, 3, step + 1, 2, 6) for leaf in jax.tree.leaves(cache))
    expected = whole(params, [[sequence + beam for beam in beams] for sequence, beams in zip(prompts, taken)])
    assert relative_error(hidden_BxWxD, expected) < 1e-5
    # As the search does it: beams go on from other beams.
    parent_BxW = random.integers(0, 3, (2, 3))
    taken = [[beams[parent] for parent in parents] for beams, parents in zip(taken, parent_BxW)]
    cache = jax.tree.map(lambda leaf, parent_BxW=parent_BxW: jax.vmap(lambda row, p: row[p])(leaf, parent_BxW), cache)
  assert relative_error(expected[0], expected[1]) > 0.1  # the users are not alike


@pytest.mark.parametrize('tied', [False, True])
def test_logits_of_some_columns_are_those_of_all(tied):
  model = Llama(dataclasses.replace(ARCHITECTURE, tied=tied))
  params = random_params(model)
  assert ('head' in params) != tied
  hidden = np.random.default_rng(3).normal(size=(2, 3, 12)).astype(np.float32)
  logits = lambda columns: model.apply({'params': params}, hidden, columns, method=Llama.logits)
  if tied:
    table_VxD = np.concatenate([params['embedding'], params['new_embedding']])
  else:
    table_VxD = np.concatenate([params['head'].T, params['new_head']])
  assert logits(slice(None)).dtype == jnp.float32
  for columns in (slice(None), slice(0, 5), slice(V, V + 3), slice(V + 3, V + 9), slice(10, 20), slice(V - 1, V)):
    assert relative_error(logits(columns), (hidden @ table_VxD.T)[..., columns]) < 1e-5


@pytest.mark.parametrize('tied', [False, True])
def test_logits_of_codes_cost_the_codes_alone(tied):
  model = Llama(dataclasses.replace(ARCHITECTURE, text_vocabulary=5000, tied=tied))
  params, hidden = random_params(model), np.ones((4, 12), np.float32)
  run = jax.jit(lambda params: model.apply({'params': params}, hidden, slice(5003, 5006), method=Llama.logits))
  assert run.lower(params).cost_analysis()['flops'] < 2 * 4 * 12 * 3 * 2


@pytest.fixture(scope='module')
def logits(params):
  """Of the rows above and of one that is all padding, by dtype of the activations."""
  tokens, segments, positions = (
    np.concatenate([rows, np.zeros_like(rows[:1])]) for rows in (TOKENS_BxT, SEGMENTS_BxT, POSITIONS_BxT)
  )

  def run(dtype):
    model = Llama(ARCHITECTURE, dtype=dtype)
    hidden = jax.jit(model.apply)({'params': params}, tokens, segments, positions)
    assert hidden.dtype == dtype
    return np.asarray(model.apply({'params': params}, hidden, method=Llama.logits))

  return {dtype: run(dtype) for dtype in (jnp.float32, jnp.bfloat16)}


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_logits_are_float32_and_finite_on_padding_too(logits, dtype):
  assert logits[dtype].dtype == np.float32 and np.isfinite(logits[dtype]).all()


def test_bfloat16_activations_give_logits_near_those_of_float32(logits):
  real = SEGMENTS_BxT > 0
  assert 1e-4 < relative_error(logits[jnp.bfloat16][:2][real], logits[jnp.float32][:2][real]) < 0.08


def loss_and_gradient(model, params):
  def run(params):
    hidden = model.apply(
      {'params': params}, TOKENS_BxT, SEGMENTS_BxT, POSITIONS_BxT, False, rngs={'dropout': jax.random.key(4)}
    )
    logits = model.apply({'params': params}, hidden, method=Llama.logits)
    return jnp.sum(jnp.sin(logits) * (SEGMENTS_BxT > 0)[..., None])

  return jax.value_and_grad(run), params


def test_remat_gives_the_same_gradients_in_less_memory():
  lora = LoRAConfig(rank=2, alpha=4.0, dropout=0.3)
  architecture = dataclasses.replace(ARCHITECTURE, layers=12)
  params = random_params(Llama(architecture, lora))
  results, memory = {}, {}
  for remat in (False, True):
    run, _ = loss_and_gradient(Llama(architecture, lora, remat=remat), params)
    compiled = jax.jit(run).lower(params).compile()
    results[remat], memory[remat] = compiled(params), compiled.memory_analysis().temp_size_in_bytes
  assert max(jax.tree.leaves(jax.tree.map(relative_error, results[True], results[False]))) < 1e-5
  assert memory[True] < memory[False] / 2


def test_one_layer_is_compiled_whatever_their_number():
  sizes = []
  for layers in (2, 6):
    model = Llama(dataclasses.replace(ARCHITECTURE, layers=layers))
    run, params = loss_and_gradient(model, random_params(model))
    assert params['layers']['attention']['query']['kernel'].shape == (layers, 12, 24)
    sizes.append(jax.jit(run).lower(params).as_text().count('dot_general'))
  assert sizes[0] == sizes[1] > 0


def test_kernels_start_small_and_those_of_the_residual_smaller():
  model = Llama(dataclasses.replace(ARCHITECTURE, d_model=64, d_ff=96, d_head=16, layers=2))
  tokens = jnp.zeros((1, 2), jnp.int32)
  params = jax.jit(model.init)(jax.random.key(0), tokens, tokens, tokens)['params']
  for name in ('query', 'key', 'value', 'out', 'gate', 'up', 'down'):
    kernel = next(part[name] for part in params['layers'].values() if name in part)['kernel']
    expected = 0.02 / math.sqrt(4) if name in ('out', 'down') else 0.02
    assert float(kernel.std()) == pytest.approx(expected, rel=0.1)
    assert float(jnp.abs(kernel[0] - kernel[1]).max()) > 0  # layers are not copies of each other
  for name in ('embedding', 'new_embedding', 'head', 'new_head'):
    assert float(params[name].std()) == pytest.approx(0.02, rel=0.15)


def test_frequencies_are_those_computed_by_hand():
  plain = dataclasses.replace(ARCHITECTURE, d_head=8, rope_theta=10000.0)
  np.testing.assert_allclose(rotary_frequencies(plain), [1, 0.1, 0.01, 0.001], rtol=1e-5)
  linear = dataclasses.replace(plain, rope_scaling=RopeScaling('linear', 4.0))
  np.testing.assert_allclose(rotary_frequencies(linear), [0.25, 0.025, 0.0025, 0.00025], rtol=1e-5)
  # Of 1000 positions a wave of frequency f has 159.15 f turns: more than 4 stay, fewer than 1 are stretched by 8, and
  # 1.5915 lie 0.5915 / 3 of the way between.
  llama3 = dataclasses.replace(plain, rope_scaling=RopeScaling('llama3', 8.0, 1.0, 4.0, 1000))
  between = 0.01 * (0.197183 + (1 - 0.197183) / 8)
  np.testing.assert_allclose(rotary_frequencies(llama3), [1, 0.1, between, 0.000125], rtol=1e-5)


def test_llama_7b_has_its_number_of_parameters():
  model = Llama(Architecture(32000, 1024, d_model=4096, d_ff=11008, layers=32, heads=32, kv_heads=32, d_head=128))
  tokens = jnp.zeros((1, 2), jnp.int32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), tokens, tokens, tokens)['params']
  assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 6_738_415_616 + 2 * 1024 * 4096
