"""python -m letter_jax.main --config=FILE[:ARG] --workdir=DIR [--stage=NAME] [--config.x.y=V] [--overwrite]"""

import pathlib
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from letter_jax import configuration, pipeline
from letter_jax.errors import InputError

config_flags.DEFINE_config_file('config', None, 'recipe, as FILE or FILE:ARGUMENT; --config.a.b=V changes a value')
flags.DEFINE_string('workdir', None, 'folder for every result; the same folder resumes')
flags.DEFINE_enum('stage', 'all', ('all', *pipeline.STAGES), 'run one stage, or all of them in order')
flags.DEFINE_bool('overwrite', False, 'do a stage whose settings or input changed once more, and those after it')
flags.mark_flags_as_required(['config', 'workdir'])


def parse(arguments: list[str]) -> list[str]:
  """absl's flags, with a recipe that is missing or does not fit told in one line."""
  recipe = next((a.partition('=')[2] for a in arguments if a.startswith('--config=')), '')
  if recipe and not pathlib.Path(recipe.partition(':')[0]).is_file():
    fail(f'--config={recipe} is not there; expected a recipe such as configs/letter_tiger.py:beauty')
  try:
    return flags.FLAGS(arguments)
  except (flags.Error, InputError) as error:
    fail(str(error))
  except (AttributeError, KeyError) as error:
    fail(f'--config={recipe} and its overrides: {error.args[0]}')
  except Exception as error:  # a recipe is code: whatever it raises is a wrong input
    fail(f'--config={recipe} raised {type(error).__name__}: {error}')


def main(_) -> None:
  logging.set_verbosity(logging.FATAL)  # Orbax logs a lot; what matters it raises
  import jax  # after the flags: --help and their errors need not wait for it

  cache = pathlib.Path.home() / '.cache' / 'letter_jax' / 'compiled'
  if jax.config.jax_compilation_cache_dir is None:
    jax.config.update('jax_compilation_cache_dir', str(cache))
  from letter_jax.training.loop import TrainingDiverged
  try:
    config = configuration.from_config_dict(flags.FLAGS.config)
    pipeline.run(config, pathlib.Path(flags.FLAGS.workdir), flags.FLAGS.stage, flags.FLAGS.overwrite)
  except (InputError, TrainingDiverged) as error:
    fail(str(error))
  except KeyboardInterrupt:
    fail('interrupted; the same command resumes')


def fail(message: str) -> None:
  print('letter_jax: error:', ' '.join(message.replace('\\n', ' ').split()), file=sys.stderr)
  sys.exit(2)


if __name__ == '__main__':
  app.run(main, flags_parser=parse)
