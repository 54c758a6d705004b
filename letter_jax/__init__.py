"""LETTER in JAX: `letter_jax.Recommender` is what a trained workdir is used by."""

__version__ = '0.2.0'


def __getattr__(name: str):
  # Imported when it is asked for: `python -m letter_jax.main --help` need not wait for JAX.
  if name == 'Recommender':
    from letter_jax.serving.recommender import Recommender

    return Recommender
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
