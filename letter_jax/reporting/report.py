"""Writes `WORKDIR/report.html`, one page about a finished run; equal workdirs give equal pages.

It begins with what everybody wants to know, and ends with what only those need who train models.
"""

import pathlib

from letter_jax.configuration import Config
from letter_jax.reporting import (
  accuracy,
  code_usage,
  item_space,
  lists,
  origin,
  overview,
  page,
  recommendations,
  training_curves,
)
from letter_jax.reporting.finished import read_finished
from letter_jax.workdir import Workdir


def write_report(config: Config, workdir: pathlib.Path) -> None:
  """Reads the files of all stages under `workdir` and writes the page.

  Raises:
    InputError: the evaluation is not complete, or a file is damaged.
  """
  run = read_finished(config, Workdir(workdir))
  test_lists = lists.read_lists(run)
  sections = [
    overview.section(run, test_lists),
    recommendations.section(run, test_lists),
    accuracy.section(run),
    training_curves.section(run),
    code_usage.section(run),
    code_usage.collisions_section(run),
    item_space.map_section(run),
    item_space.neighbours_section(run),
    origin.section(run),
  ]
  page.write(Workdir(workdir).report, page.document(run.data_title, overview.sentence(run), sections))
