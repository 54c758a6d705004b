"""python -m letter_jax.main --config=FILE[:ARG] --workdir=DIR [--stage=NAME] [--config.x.y=V] [--overwrite]"""

import pathlib

from absl import app, flags, logging
from ml_collections import config_flags

from letter_jax import configuration
from letter_jax.cli import command_line, commands
from letter_jax.cli.command_line import define_flags, drop_noise, options, parse, require_flags, told
from letter_jax.pipeline import run as pipeline
from letter_jax.pipeline import sweep
from letter_jax.system import malloc as malloc
from letter_jax.system import processes

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file('config', None, 'recipe, as FILE or FILE:ARGUMENT; --config.a.b=V changes a value')
define_flags()
flags.adopt_module_key_flags(command_line)  # so that --help tells of them
flags.DEFINE_bool('distributed', False, 'one of several processes, as a TPU pod or Slurm says')
flags.DEFINE_string('coordinator', None, 'or HOST:PORT of process 0, with --processes and --process')
flags.DEFINE_integer('processes', None, 'how many processes there are', lower_bound=1)
flags.DEFINE_integer('process', None, 'which of them this is, from 0', lower_bound=0)


def main(_) -> None:
  require_flags()
  malloc.reuse_freed_memory()
  logging.set_verbosity(logging.FATAL)  # Orbax logs a lot; what matters it raises
  drop_noise()
  import jax  # after the flags: --help and their errors need not wait for it

  cache = pathlib.Path.home() / '.cache' / 'letter_jax' / 'compiled'
  if jax.config.jax_compilation_cache_dir is None:
    jax.config.update('jax_compilation_cache_dir', str(cache))
  with told():
    config = configuration.from_config_dict(FLAGS.config) if FLAGS.config else None
    if FLAGS.distributed or {FLAGS.coordinator, FLAGS.processes, FLAGS.process} != {None}:
      processes.initialize(FLAGS.coordinator, FLAGS.processes, FLAGS.process)
    with processes.fail_together():
      if FLAGS.stage in commands.COMMANDS:
        commands.run(FLAGS.stage, pathlib.Path(FLAGS.workdir), options(), config)
      else:
        run = sweep.run if config.sweep else pipeline.run
        run(config, pathlib.Path(FLAGS.workdir), FLAGS.stage, FLAGS.overwrite)


if __name__ == '__main__':
  app.run(main, flags_parser=parse)
