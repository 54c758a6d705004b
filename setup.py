"""The packages of a distribution; everything else about it is in pyproject.toml.

Recipes stay in `configs/`, at the top of the repository, and are installed as `letter_jax/configs`, where the program
finds them by name.
"""

from setuptools import find_packages, setup

setup(
  packages=[*find_packages(include=['letter_jax', 'letter_jax.*']), 'letter_jax.configs'],
  package_dir={'letter_jax.configs': 'configs'},
)
