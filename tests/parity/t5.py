"""Do this project's T5, its loss and its beam search give Hugging Face's numbers?

    python -m tests.parity.t5 FILE.npz

prints `name  relative_error` per quantity and exits 0 only when all hold: losses to 1e-5, outputs and gradients to
1e-4, the beams' items equal. FILE.npz is of the form of tests/golden/t5_reference.npz. Useful on a new accelerator.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np

from letter_jax.configuration import T5Config
from letter_jax.decoding.beam_search import beam_search
from letter_jax.generators.losses import ranking_guided_loss
from letter_jax.generators.tiger import weights as t5_weights
from letter_jax.generators.tiger.search import t5_step
from letter_jax.generators.tiger.t5 import T5
from letter_jax.semantic_ids.item_trie import ItemTrie
from letter_jax.semantic_ids.vocabulary import FIRST_CODE, Vocabulary
from tests.parity.comparison import Comparison


def main(path: str) -> int:
  golden = dict(np.load(path, allow_pickle=False))
  vocabulary_size, d_model, d_kv, d_ff, layers, heads = (int(n) for n in golden['config'])
  config = T5Config(d_model=d_model, d_kv=d_kv, d_ff=d_ff, layers=layers, heads=heads, dropout=0.0)
  model = T5(config, vocabulary_size)
  tensors = {name[len('param/') :]: value for name, value in golden.items() if name.startswith('param/')}
  params = t5_weights.from_hugging_face(tensors, config, path)
  tokens, labels = jnp.asarray(golden['input_ids']), jnp.asarray(golden['labels'])[:, None]
  segments = (tokens != 0).astype(jnp.int32)
  compare = Comparison()

  def losses(params):
    logits = model.apply({'params': params}, tokens, segments, labels)

    def mean(tau, length):
      total, count = ranking_guided_loss(
        logits[:, :, :length], labels[:, :, :length], jnp.ones(labels[:, :, :length].shape), tau
      )
      return total / count

    length, codes = labels.shape[-1], golden['codes'].shape[1]
    values = {
      'loss': mean(1.0, length),
      'loss_tau07': mean(0.7, length),
      'loss_codes': mean(1.0, codes),
      'loss_codes_tau07': mean(0.7, codes),
    }
    return values['loss'], (values, logits[:, 0])

  with jax.default_matmul_precision('highest'):
    encoded = model.apply({'params': params}, tokens, segments, method=T5.encode)
    # Padding gets no definite encoding, neither here nor there.
    real = np.asarray(segments, bool)
    compare('encoder_output', np.asarray(encoded)[real], golden['encoder_output'][real], 1e-4)
    (_, (values, logits)), gradient = jax.jit(jax.value_and_grad(losses, has_aux=True))(params)
    compare('logits', logits, golden['logits'], 1e-4)
    for name, value in values.items():
      compare(name, value, golden[name], 1e-5)
    for name, value in t5_weights.to_hugging_face(gradient, config).items():
      compare(f'grad/{name}', value, golden[f'grad/{name}'], 1e-4)

    codes_NxL = golden['codes'].astype(np.int32)
    levels = codes_NxL.shape[1]
    vocabulary = Vocabulary(levels, (vocabulary_size - FIRST_CODE) // levels)
    trie = ItemTrie.build(codes_NxL)
    beams = int(golden['num_beams'])
    search = jax.jit(
      lambda params, width: beam_search(
        *t5_step(model, params, vocabulary, tokens, segments > 0), trie, width, len(tokens)
      ),
      static_argnums=1,
    )
    found = search(params, beams)
    sequences = vocabulary.tokens(jnp.asarray(codes_NxL))[found.items_BxW]
    compare.equal('beam_sequences', sequences, golden['beam_sequences'][..., 1:])
    compare('beam_scores', found.scores_BxW / levels, golden['beam_scores'], 1e-4)
    # As many beams as items: the search is exhaustive, every item's score is exact.
    complete = search(params, len(codes_NxL))
    scores = np.full(golden['item_log_likelihood'].shape, np.nan)
    np.put_along_axis(scores, np.asarray(complete.items_BxW), np.asarray(complete.scores_BxW), axis=1)
    compare('item_log_likelihood', scores, golden['item_log_likelihood'], 1e-4)
  return compare.exit_code()


if __name__ == '__main__':
  if len(sys.argv) != 2:
    sys.exit(__doc__)
  sys.exit(main(sys.argv[1]))
