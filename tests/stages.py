"""Parts of a run, for tests that need no whole one."""

import pathlib
import shutil
from collections.abc import Sequence

from letter_jax.configuration import Config
from letter_jax.pipeline import run as pipeline
from letter_jax.pipeline.graph import STAGES


def up_to(last: str) -> tuple[str, ...]:
  """The stages of a run from the first to this one."""
  return STAGES[: STAGES.index(last) + 1]


def run_stages(config: Config, workdir: pathlib.Path, stages: Sequence[str]) -> None:
  """Runs some stages, one after the other."""
  for stage in stages:
    pipeline.run(config, workdir, stage)


def copy_without(workdir: pathlib.Path, copy: pathlib.Path, *names: str) -> pathlib.Path:
  """Copies a workdir but for some of its folders and files; returns the copy."""
  return shutil.copytree(workdir, copy, ignore=lambda where, _: names if where == str(workdir) else ())
