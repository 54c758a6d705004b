"""python -m letter_jax: the same as `letter-jax` and `python -m letter_jax.main`."""

from letter_jax.main import run

run()
