"""python -m letter_jax.main --config=RECIPE[:ARG] --workdir=DIR [--stage=NAME] [--config.x.y=V] [--overwrite]"""

import pathlib

from absl import flags

from letter_jax import configuration
from letter_jax.cli import commands, environment, options
from letter_jax.cli import flags as command_line
from letter_jax.cli.log_lines import stamped
from letter_jax.cli.one_line_errors import one_line_errors
from letter_jax.cli.termination import ends_at_once
from letter_jax.pipeline import run as pipeline
from letter_jax.pipeline import sweep
from letter_jax.system import machine, processes


def main(_) -> None:
  values, workdir = flags.FLAGS, pathlib.Path(flags.FLAGS.workdir)
  environment.configure_libraries()  # after the flags: --help and errors in flags need not wait for JAX
  with one_line_errors():
    config = configuration.from_config_dict(values.config) if values['config'].value else None
    if values.distributed or {values.coordinator, values.processes, values.process} != {None}:
      processes.initialize(values.coordinator, values.processes, values.process)
    with ends_at_once(), processes.fail_together():
      if values.stage != commands.COMPARE:
        machine.require_devices()
      if values.stage in commands.COMMANDS:
        commands.run(values.stage, workdir, options.read(), config)
      else:
        assert config is not None
        with stamped():
          (sweep.run if config.sweep else pipeline.run)(config, workdir, values.stage, values.overwrite)


def run() -> None:
  """The entry point `letter-jax`."""
  environment.prepare()
  command_line.define()
  command_line.run_app(main)


if __name__ == '__main__':
  run()
