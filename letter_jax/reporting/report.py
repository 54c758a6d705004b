"""Writes `WORKDIR/report.html`, one page about a finished run; equal workdirs give equal pages."""

import pathlib

from letter_jax.configuration import Config
from letter_jax.data import left_out
from letter_jax.reporting import accuracy, code_usage, item_space, origin, page, recommendations, training_curves
from letter_jax.reporting.finished import read_finished
from letter_jax.workdir import Workdir


def write_report(config: Config, workdir: pathlib.Path) -> None:
  """Reads the files of all stages under `workdir` and writes the page.

  Raises:
    InputError: the evaluation is not complete, or a file is damaged.
  """
  run = read_finished(config, Workdir(workdir))
  sections = [
    accuracy.section(run),
    training_curves.section(run),
    code_usage.section(run),
    code_usage.collisions_section(run),
    item_space.map_section(run),
    item_space.neighbours_section(run),
    recommendations.section(run),
    origin.section(run),
  ]
  kept = ', '.join(f'{run.summary[kind]:,} {kind}' for kind in ('users', 'items', 'interactions'))
  subtitle = '; '.join((kept, *left_out.in_words(run.summary)))
  content = page.document(f'{run.generator_name} on {run.summary["name"]}', subtitle, sections)
  page.write(Workdir(workdir).report, content)
