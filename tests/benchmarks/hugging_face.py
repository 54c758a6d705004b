"""The peer of the generators: Hugging Face's T5, trained and searched as LETTER-TIGER's users do it."""

import numpy as np
import torch
import transformers

from letter_jax.configuration import T5Config
from letter_jax.semantic_ids.vocabulary import PAD, Vocabulary


def t5(config: T5Config, vocabulary_size: int, tensors: dict[str, np.ndarray] | None = None):
  """T5ForConditionalGeneration of these sizes, with these weights (`t5_weights.to_hugging_face`) or new ones."""
  torch.manual_seed(0)
  model = transformers.T5ForConditionalGeneration(
    transformers.T5Config(
      vocab_size=vocabulary_size,
      d_model=config.d_model,
      d_kv=config.d_kv,
      d_ff=config.d_ff,
      num_layers=config.layers,
      num_decoder_layers=config.layers,
      num_heads=config.heads,
      dropout_rate=config.dropout,
      relative_attention_num_buckets=config.relative_buckets,
      relative_attention_max_distance=config.relative_distance,
      feed_forward_proj='relu',
      tie_word_embeddings=True,
      decoder_start_token_id=PAD,
      pad_token_id=PAD,
      eos_token_id=None,
    )
  )
  if tensors is not None:
    model.load_state_dict({name: torch.tensor(value) for name, value in tensors.items()}, strict=False)
    model.tie_weights()
  return model


def item_tokens(vocabulary: Vocabulary, codes_NxL: np.ndarray):
  """A function from items int [..., C], negative on padding, to tokens int64 [..., C * L]; all on the host."""
  # Row 0 is that of padding.
  tokens = np.asarray(vocabulary.item_tokens(np.arange(-1, len(codes_NxL))[:, None], codes_NxL), np.int64)
  return lambda items: tokens[np.maximum(items, -1) + 1].reshape(*items.shape[:-1], -1)


class Training:
  """AdamW steps on batches that are padded to their longest history, the loss with tau."""

  def __init__(self, config: T5Config, vocabulary_size: int, temperature: float, bfloat16: bool):
    self.model = t5(config, vocabulary_size).train()
    self._optimizer = torch.optim.AdamW(self.model.parameters(), lr=5e-4, weight_decay=0.01)
    self._temperature, self._bfloat16 = temperature, bfloat16

  def step(self, tokens: np.ndarray, targets: np.ndarray) -> float:
    """tokens int [B, R], PAD behind each history; targets int [B, L]."""
    tokens, targets = torch.as_tensor(tokens).long(), torch.as_tensor(targets).long()
    with torch.autocast('cpu', torch.bfloat16, enabled=self._bfloat16):
      logits = self.model(input_ids=tokens, attention_mask=tokens != PAD, labels=targets).logits / self._temperature
      loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
    self._optimizer.zero_grad()
    loss.backward()
    self._optimizer.step()
    return loss.item()


class Search:
  """`generate` with `prefix_allowed_tokens_fn`, a dictionary from prefixes to the tokens that continue them."""

  def __init__(self, model, item_tokens: np.ndarray, beam: int, bfloat16: bool = False):
    """item_tokens: int [items, L], the semantic IDs."""
    self._model, self._beam, self._bfloat16 = model.eval(), beam, bfloat16
    self._levels = item_tokens.shape[1]
    continuations: dict[tuple, set] = {}
    for sequence in item_tokens.tolist():
      for length, token in enumerate(sequence):
        continuations.setdefault(tuple(sequence[:length]), set()).add(token)
    self._allowed = {prefix: sorted(tokens) for prefix, tokens in continuations.items()}

  def __call__(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Token sequences [B, beam, L] and their log-likelihoods [B, beam] for histories int [B, R]."""
    tokens = torch.as_tensor(tokens).long()
    with torch.inference_mode(), torch.autocast('cpu', torch.bfloat16, enabled=self._bfloat16):
      found = self._model.generate(
        input_ids=tokens,
        attention_mask=(tokens != PAD).long(),
        max_new_tokens=self._levels,
        min_new_tokens=self._levels,
        num_beams=self._beam,
        num_return_sequences=self._beam,
        do_sample=False,
        prefix_allowed_tokens_fn=lambda _, prefix: self._allowed[tuple(prefix[1:].tolist())],
        output_scores=True,
        return_dict_in_generate=True,
        early_stopping=False,
        length_penalty=0.0,
      )
    shape = (len(tokens), self._beam)
    return (found.sequences[:, 1:].reshape(*shape, -1).numpy(), found.sequences_scores.float().reshape(shape).numpy())
