"""python -m letter_jax.main --config=FILE[:ARG] --workdir=DIR [--stage=NAME] [--config.x.y=V] [--overwrite]"""

import errno
import pathlib
import signal

from absl import app, flags, logging
from ml_collections import config_flags

from letter_jax import configuration, host_memory, pipeline, processes
from letter_jax.command_line import drop_noise, fail, parse
from letter_jax.errors import InputError, Preempted

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file('config', None, 'recipe, as FILE or FILE:ARGUMENT; --config.a.b=V changes a value')
flags.DEFINE_string('workdir', None, 'folder for every result; the same folder resumes')
flags.DEFINE_enum('stage', 'all', ('all', *pipeline.STAGES, pipeline.EXPORT, pipeline.PLAN),
                  'one stage, or all in order; export: for transformers; plan: what they would need on --topology')
flags.DEFINE_string('topology', '', 'TPU to plan for, such as v5e:2x4')
flags.DEFINE_bool('overwrite', False, 'do a stage whose settings or input changed once more, and those after it')
flags.DEFINE_bool('distributed', False, 'one of several processes, as a TPU pod or Slurm says')
flags.DEFINE_string('coordinator', None, 'or HOST:PORT of process 0, with --processes and --process')
flags.DEFINE_integer('processes', None, 'how many processes there are', lower_bound=1)
flags.DEFINE_integer('process', None, 'which of them this is, from 0', lower_bound=0)
flags.mark_flags_as_required(['config', 'workdir'])


def main(_) -> None:
  host_memory.keep()
  logging.set_verbosity(logging.FATAL)  # Orbax logs a lot; what matters it raises
  drop_noise()
  import jax  # after the flags: --help and their errors need not wait for it
  cache = pathlib.Path.home() / '.cache' / 'letter_jax' / 'compiled'
  if jax.config.jax_compilation_cache_dir is None:
    jax.config.update('jax_compilation_cache_dir', str(cache))
  from letter_jax.training.loop import TrainingDiverged
  try:
    config = configuration.from_config_dict(FLAGS.config)
    if FLAGS.distributed or {FLAGS.coordinator, FLAGS.processes, FLAGS.process} != {None}:
      processes.initialize(FLAGS.coordinator, FLAGS.processes, FLAGS.process)
    with processes.together():
      pipeline.run(config, pathlib.Path(FLAGS.workdir), FLAGS.stage, FLAGS.overwrite, FLAGS.topology)
  except (InputError, TrainingDiverged) as error:
    fail(str(error))
  except Preempted as error:
    fail(f'{error}; the same command resumes', status=128 + signal.SIGTERM)
  except jax.errors.JaxRuntimeError as error:
    if processes.count() == 1:
      raise
    fail(f'{" ".join(str(error).split())[:300]} (another process may have ended; its output says why)', status=1)
  except OSError as error:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES):
      raise
    fail(f'{error}; what is complete is kept, and the same command goes on from it')
  except KeyboardInterrupt:
    fail('interrupted; the same command resumes')


if __name__ == '__main__':
  app.run(main, flags_parser=parse)
