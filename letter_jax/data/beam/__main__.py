"""Prepares raw files with Apache Beam, on one machine or many.

    python -m letter_jax.data.beam --config=configs/letter_tiger.py:beauty \\
        --config.data.source=amazon2014 --config.data.path=FOLDER --directory=DIRECTORY -- --runner=DirectRunner

What follows `--` are Beam's own options, so it runs wherever Beam does; every worker has to see FOLDER and DIRECTORY
(gs://..., a shared disk). DIRECTORY then holds what the `dataset` stage writes, record for record, and
`--config.data.source=prepared --config.data.path=DIRECTORY` trains on it.
"""

import logging

from absl import app, flags
from ml_collections import config_flags

from letter_jax import configuration
from letter_jax.cli.command_line import fail, parse
from letter_jax.system.errors import InputError

config_flags.DEFINE_config_file('config', None, 'recipe, as FILE or FILE:ARGUMENT; --config.a.b=V changes a value')
flags.DEFINE_string('directory', None, 'new folder for the prepared data set')
flags.mark_flags_as_required(['config', 'directory'])


def main(arguments: list[str]) -> None:
  logging.disable(logging.ERROR)  # Beam logs a lot; what matters it raises
  try:
    from letter_jax.data.beam.pipelines import prepare
  except ImportError as error:
    fail(f'Apache Beam is not installed ({error}); expected: pip install apache-beam')
  try:
    config = configuration.from_config_dict(flags.FLAGS.config)
    summary = prepare(config.data, flags.FLAGS.directory, arguments[1:])
  except InputError as error:
    fail(str(error))
  except KeyboardInterrupt:
    fail('interrupted; the same command starts again')
  print(
    f'dataset: {summary["name"]}: {summary["users"]:,} users, {summary["items"]:,} items, '
    f'{summary["interactions"]:,} interactions, {summary["training_examples"]:,} training examples'
  )


if __name__ == '__main__':
  app.run(main, flags_parser=parse)
