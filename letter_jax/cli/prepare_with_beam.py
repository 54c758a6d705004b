"""Prepares raw files with Apache Beam, on one machine or many.

    python -m letter_jax.cli.prepare_with_beam --config=configs/letter_tiger.py:beauty \\
        --config.data.source=amazon2014 --config.data.path=FOLDER --directory=DIRECTORY -- --runner=DirectRunner

The arguments after `--` are Beam's own options, so any Beam runner can be used; every worker must see FOLDER and
DIRECTORY (gs://..., a shared disk). The command writes to DIRECTORY the same records as the `dataset` stage;
`--config.data.source=prepared --config.data.path=DIRECTORY` trains on them.
"""

import logging

from absl import app, flags

from letter_jax import configuration
from letter_jax.cli.flags import parse
from letter_jax.cli.one_line_errors import fail
from letter_jax.data import left_out
from letter_jax.data.dataset import described
from letter_jax.system import home
from letter_jax.system.errors import InputError


def define_flags() -> None:
  """Defines the command's own flag, --directory."""
  flags.DEFINE_string('directory', None, 'new folder for the prepared data set')
  flags.mark_flags_as_required(['directory'])


def main(arguments: list[str]) -> None:
  """Prepares the data set of --config in --directory.

  Args:
    arguments: the program's name, then Beam's options.
  """
  logging.disable(logging.ERROR)  # Beam logs a lot, and raises what matters
  try:
    from letter_jax.data.beam.pipelines import prepare_with_beam
  except ImportError as error:
    fail(f'Apache Beam is not installed ({error}); expected: pip install apache-beam')
  try:
    if flags.FLAGS['config'].value is None:
      fail('--config is missing; expected a recipe such as letter_tiger:beauty')
    config = configuration.from_config_dict(flags.FLAGS.config)
    directory = home.expanded(flags.FLAGS.directory, '--directory')
    summary = prepare_with_beam(config.data, directory, arguments[1:])
  except InputError as error:
    fail(str(error))
  except KeyboardInterrupt:
    fail('interrupted; the same command starts again')
  print(f'dataset: {described(summary)}')
  for phrase in left_out.in_words(summary):
    print(f'dataset: {phrase}')


if __name__ == '__main__':
  define_flags()
  app.run(main, flags_parser=parse)
