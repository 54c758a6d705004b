"""The preparation of raw files with Apache Beam; `letter_jax.cli.prepare_with_beam` is its command."""
