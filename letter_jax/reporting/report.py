"""`WORKDIR/report.html`: one page on a finished run, the same for the same workdir."""

import pathlib

from letter_jax.configuration import Config
from letter_jax.reporting import accuracy, code_usage, item_space, origin, page, recommendations, training_curves
from letter_jax.reporting.finished import read_finished
from letter_jax.system import artifacts
from letter_jax.workdir import Workdir


def write_report(config: Config, workdir: pathlib.Path) -> None:
  """Reads what the stages wrote and writes the page.

  Raises:
    InputError: the evaluation is not complete, or a file is damaged.
  """
  run = read_finished(config, Workdir(workdir))
  sections = [
    ('results', 'Results', accuracy.section(run)),
    ('training', 'Training', training_curves.section(run)),
    ('codes', 'Codes', code_usage.section(run)),
    ('collisions', 'Collisions', code_usage.collisions(run)),
    ('map', 'Map', item_space.map_section(run)),
    ('neighbours', 'Neighbours', item_space.neighbours_section(run)),
    ('users', 'Users', recommendations.section(run)),
    ('origin', 'Settings, times, machine', origin.section(run)),
  ]
  subtitle = ', '.join(f'{run.summary[what]:,} {what}' for what in ('users', 'items', 'interactions'))
  content = page.page(f'{run.generator_name} on {run.summary["name"]}', subtitle, sections)
  artifacts.write(Workdir(workdir).report, lambda path: path.write_text(content, encoding='utf-8'))
