"""The interface between a search and a model of codes."""

from collections.abc import Callable
from typing import Any

import jax

# (level, codes of the previous level or None, cache) -> (log-probabilities, cache); see `beam_search`.
Step = Callable[[int, jax.Array | None, Any], tuple[jax.Array, Any]]
