"""Makes tests/golden/llama_reference.npz and qwen3_reference.npz: tiny random models of transformers and their numbers.

    pip install torch transformers
    python -m tests.parity.llama_golden tests/golden

Each file has 'config' (config.json), 'new_tokens' (how many of the last tokens are new ones), 'param/NAME', 'tokens'
[4, T] with 'lengths' [4], 'logits' [4, T, V + N], 'loss' (mean over all tokens but the first of each example) and
'grad/NAME' of it.
"""

import pathlib
import sys

import numpy as np

LENGTHS = (9, 6, 7, 8)
NEW_TOKENS = 12


def main(folder: str) -> None:
  import torch
  import transformers

  sizes = dict(
    vocab_size=44,
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=64,
    initializer_range=0.3,
    rms_norm_eps=1e-5,
  )
  # Waves on both sides of the blend and within it.
  llama3 = {
    'rope_type': 'llama3',
    'rope_theta': 100.0,
    'factor': 4.0,
    'low_freq_factor': 1.0,
    'high_freq_factor': 4.0,
    'original_max_position_embeddings': 32,
  }
  models = {
    'llama': (transformers.LlamaForCausalLM, transformers.LlamaConfig(**sizes, rope_parameters=llama3)),
    'qwen3': (transformers.Qwen3ForCausalLM, transformers.Qwen3Config(**sizes, tie_word_embeddings=True)),
  }
  for name, (kind, config) in models.items():
    torch.manual_seed(0)
    model = kind(config)
    with torch.no_grad():
      for weights in model.parameters():
        if weights.ndim == 1:
          weights += 0.3 * torch.randn_like(weights)
    tokens = torch.randint(0, config.vocab_size, (len(LENGTHS), max(LENGTHS)))
    real = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    result = model(tokens, attention_mask=real.long(), labels=torch.where(real, tokens, -100))
    result.loss.backward()
    config.architectures = [kind.__name__]
    np.savez_compressed(
      pathlib.Path(folder, f'{name}_reference.npz'),
      config=config.to_json_string(use_diff=False),
      new_tokens=NEW_TOKENS,
      tokens=tokens.numpy().astype(np.int32),
      lengths=np.array(LENGTHS, np.int32),
      logits=result.logits.detach().numpy(),
      loss=result.loss.detach().numpy(),
      **{f'param/{key}': value.detach().numpy() for key, value in model.named_parameters()},
      **{f'grad/{key}': value.grad.numpy() for key, value in model.named_parameters()},
    )


if __name__ == '__main__':
  if len(sys.argv) != 2:
    sys.exit(__doc__)
  main(sys.argv[1])
