"""JAX's persistent cache of compiled programs, in the user's cache folder."""

from letter_jax.system import home


def use() -> None:
  """Sets JAX's cache where none is set and the user's cache folder can be written."""
  import jax
  from jax.experimental.compilation_cache import compilation_cache

  if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
    folder = home.cache_folder('compiled')
    if folder is not None:
      jax.config.update('jax_compilation_cache_dir', str(folder))
      compilation_cache.reset_cache()  # what was compiled before has settled that there is none
