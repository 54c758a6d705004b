"""Does this project's LLaMA give Hugging Face's numbers?

    python -m tests.parity.llama FILE.npz

prints `name  relative_error` per quantity and exits 0 only when all hold: the loss to 1e-5, logits (an example a row;
two examples a row; through the search's cache) and gradients to 1e-4. FILE.npz is of the form of
tests/golden/llama_reference.npz (see `llama_golden`). Useful on a new accelerator.

    python -m tests.parity.llama --peer

does the same between this project and an installed transformers, over folders that each writes and the other reads.
Needs `pip install torch transformers`, and no network.
"""

import dataclasses
import functools
import pathlib
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from letter_jax import sharding
from letter_jax.configuration import LoRAConfig
from letter_jax.generators.lc_rec import lora
from letter_jax.generators.lc_rec import weights as llama_weights
from letter_jax.generators.lc_rec.config_json import read_architecture
from letter_jax.generators.lc_rec.llama import Architecture, Llama, RopeScaling
from tests.parity.comparison import Comparison

DECODED = 3  # tokens of each example that go through the cache


def main(path: str) -> int:
  golden = dict(np.load(path, allow_pickle=False))
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    tensors = {key.removeprefix('param/'): value for key, value in golden.items() if key.startswith('param/')}
    safetensors.numpy.save_file(tensors, folder / 'model.safetensors')
    (folder / 'config.json').write_text(str(golden['config']), encoding='utf-8')
    architecture, params = _read(folder, int(golden['new_tokens']))
  V = architecture.text_vocabulary
  params['new_embedding'] = jnp.asarray(tensors['model.embed_tokens.weight'][V:])
  if not architecture.tied:
    params['new_head'] = jnp.asarray(tensors['lm_head.weight'][V:])

  tokens, lengths = golden['tokens'], golden['lengths']
  real = np.arange(tokens.shape[1]) < lengths[:, None]
  compare = Comparison()
  with jax.default_matmul_precision('highest'):
    compare('logits', _logits(architecture, params, tokens, real)[real], golden['logits'][real], 1e-4)
    packed = _packed(tokens, real)
    (loss, logits), gradient = jax.jit(
      jax.value_and_grad(lambda params: _loss(architecture, params, *packed), has_aux=True)
    )(params)
    compare('packed_logits', np.asarray(logits)[packed[1] > 0], golden['logits'][real], 1e-4)
    compare('loss', loss, golden['loss'], 1e-5)
    for name, value in llama_weights.to_hugging_face(gradient, architecture).items():
      compare(f'grad/{name}', value, golden[f'grad/{name}'], 1e-4)
    expected = np.stack([golden['logits'][row, length - DECODED - 1 : length] for row, length in enumerate(lengths)])
    compare('cached_logits', _cached(architecture, params, tokens, lengths), expected, 1e-4)
  return compare.exit_code()


def _read(folder: pathlib.Path, new_tokens: int) -> tuple[Architecture, dict]:
  """The base without the last rows of the tables, which are the new tokens'."""
  architecture = read_architecture(folder, new_tokens)
  architecture = dataclasses.replace(architecture, text_vocabulary=architecture.text_vocabulary - new_tokens)
  shardings = sharding.on_one_device().of(llama_weights.shapes(architecture, jnp.float32))
  return architecture, llama_weights.read(folder, architecture, shardings, jnp.float32)


@functools.partial(jax.jit, static_argnames=('architecture', 'method'))
def _apply(architecture: Architecture, params, *arguments, method):
  return Llama(architecture).apply({'params': params}, *arguments, method=method)


def _logits(architecture: Architecture, params, tokens, real):
  """float32 [B, T, V + N], an example a row."""
  positions = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
  hidden = _apply(architecture, params, tokens, real.astype(np.int32), positions, method=Llama.__call__)
  return np.asarray(_apply(architecture, params, hidden, method=Llama.logits))


def _packed(tokens, real):
  """(tokens, segments, positions), two examples a row one behind the other."""
  rows = []
  for first in range(0, len(tokens), 2):
    examples = [tokens[row][real[row]] for row in (first, first + 1)]
    row = np.zeros((3, 2 * tokens.shape[1]), np.int32)
    for place, values in enumerate(
      [
        np.concatenate(examples),
        np.repeat([1, 2], [len(example) for example in examples]),
        np.concatenate([np.arange(len(example)) for example in examples]),
      ]
    ):
      row[place, : len(values)] = values
    rows.append(row)
  return tuple(np.stack(rows, axis=1))


def _loss(architecture: Architecture, params, tokens, segments, positions):
  """(mean over all tokens but the first of each example, logits)."""
  hidden = _apply(architecture, params, tokens, segments, positions, method=Llama.__call__)
  logits = _apply(architecture, params, hidden, method=Llama.logits)
  log_probs = jax.nn.log_softmax(logits[:, :-1])
  chosen = jnp.take_along_axis(log_probs, tokens[:, 1:, None], axis=-1)[..., 0]
  counts = (segments[:, 1:] > 0) & (positions[:, 1:] > 0)
  return -jnp.sum(jnp.where(counts, chosen, 0)) / np.sum(counts), logits


def _cached(architecture: Architecture, params, tokens, lengths):
  """Logits [B, DECODED + 1, V + N] of each example's last tokens, through prompts of unequal length and a cache."""
  prompts = lengths - DECODED
  T = int(prompts.max())
  place = np.arange(T) - (T - prompts)[:, None]  # padding stands in front
  valid, positions = place >= 0, np.maximum(place, 0)
  apply = functools.partial(_apply, architecture, params)
  hidden, prompt = apply(np.take_along_axis(tokens, positions, axis=1), valid, positions, method=Llama.prefill)
  found, cache = [hidden[:, None]], None
  for step in range(DECODED):
    now = np.take_along_axis(tokens, (prompts + step)[:, None], axis=1)
    hidden, cache = apply(now, prompts + step, cache, prompt, valid, method=Llama.decode_step)
    found.append(hidden)
  return apply(jnp.concatenate(found, axis=1), method=Llama.logits)


PEERS = {
  'llama': dict(kv_heads=2, rope_scaling=RopeScaling('llama3', 4.0, 1.0, 4.0, 32), rope_theta=100.0),
  'llama_linear_tied': dict(kv_heads=4, rope_scaling=RopeScaling('linear', 2.0), tied=True),
  'qwen2': dict(kv_heads=2, qkv_bias=True),
  'qwen3': dict(kv_heads=1, qk_norm=True, tied=True),
}


def peer() -> int:
  import torch
  import transformers

  transformers.utils.logging.disable_progress_bar()
  compare, random = Comparison(), np.random.default_rng(0)
  for name, kinds in PEERS.items():
    architecture = Architecture(32, 12, d_model=24, d_ff=40, layers=2, heads=4, d_head=6, context=64, **kinds)
    tokens = random.integers(0, architecture.vocabulary, (2, 9)).astype(np.int32)
    adapters = LoRAConfig(rank=3, alpha=6.0)
    start = np.zeros((1, 1), np.int32)
    shapes = jax.eval_shape(Llama(architecture, adapters).init, jax.random.key(0), start, start, start)['params']
    params = jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape) * 0.3, jnp.float32), shapes)
    with tempfile.TemporaryDirectory() as folder, jax.default_matmul_precision('highest'):
      ours, theirs = pathlib.Path(folder, 'ours'), pathlib.Path(folder, 'theirs')
      llama_weights.write(ours, lora.merge(params, adapters), architecture, None)
      model = transformers.AutoModelForCausalLM.from_pretrained(ours, dtype=torch.float32).eval()
      with torch.no_grad():
        expected = model(torch.tensor(tokens, dtype=torch.long)).logits.numpy()
      hidden = Llama(architecture, adapters).apply(
        {'params': params}, tokens, np.ones_like(tokens), np.broadcast_to(np.arange(9), tokens.shape)
      )
      compare(
        f'{name}/written_here',
        Llama(architecture).apply({'params': params}, hidden, method=Llama.logits),
        expected,
        1e-4,
      )
      model.save_pretrained(theirs, max_shard_size='20KB')
      assert (theirs / llama_weights.INDEX).exists()
      again, base = _read(theirs, architecture.new_tokens)
      new = {'new_embedding': model.get_input_embeddings().weight.detach().numpy()[32:]}
      if not again.tied:
        new['new_head'] = model.get_output_embeddings().weight.detach().numpy()[32:]
      compare(
        f'{name}/written_there', _logits(again, {**base, **new}, tokens, np.ones(tokens.shape, bool)), expected, 1e-4
      )
      compare.equal(f'{name}/architecture', repr(again), repr(architecture))
  return compare.exit_code()


if __name__ == '__main__':
  if len(sys.argv) != 2:
    sys.exit(__doc__)
  sys.exit(peer() if sys.argv[1] == '--peer' else main(sys.argv[1]))
