"""Commands that use a finished workdir, or plan a run. They never produce input for a stage.

All but 'plan' take the settings from the workdir's own record; a recipe only says how the devices are arranged.
"""

import pathlib
import sys

from letter_jax.cli.log_lines import time_stamp
from letter_jax.cli.options import Options
from letter_jax.configuration import Config, MeshConfig
from letter_jax.pipeline.run import require_complete
from letter_jax.pipeline.run import run as run_pipeline
from letter_jax.system import artifacts, processes
from letter_jax.system.errors import InputError
from letter_jax.workdir import Workdir

RECOMMEND, SERVE, EXPORT, COMPARE, PLAN = COMMANDS = 'recommend', 'serve', 'export', 'compare', 'plan'


def run(command: str, workdir: pathlib.Path, options: Options, config: Config | None = None) -> None:
  """Runs one of COMMANDS.

  Raises:
    InputError: a wrong input, or a workdir that lacks what the command needs.
  """
  if processes.count() > 1:
    raise InputError(f'--stage={command} runs as one process; expected no --coordinator and no --distributed')
  mesh = config.mesh if config else MeshConfig()
  if config and command != PLAN:
    use = 'is not used' if command == COMPARE else 'only arranges the devices (config.mesh)'
    message = f'{command}: --config {use}; all settings are those of the workdir'
    print(f'{time_stamp(sys.stderr)}{message}', file=sys.stderr, flush=True)
  if command == PLAN:
    if config is None:
      raise InputError(f'--stage={PLAN} needs --config')
    _plan(config, workdir, options)
  elif command == RECOMMEND:
    from letter_jax.cli.recommend import recommend

    require_complete(workdir, 'semantic_ids', 'generator')
    recommend(workdir, options, mesh)
  elif command == SERVE:
    from letter_jax.cli.serve import serve

    serve(workdir, options, mesh)
  elif command == EXPORT:
    _export(workdir, options, mesh)
  else:
    _compare(workdir, options)


def _plan(config: Config, workdir: pathlib.Path, options: Options) -> None:
  from letter_jax.planning.plan import plan, plan_mesh

  plan_mesh(config, options.topology)
  run_pipeline(config, workdir, 'dataset', options.overwrite)
  plan(config, workdir, options.topology)


def _compare(workdir: pathlib.Path, options: Options) -> None:
  from letter_jax.reporting.compare import compare

  folders = [pathlib.Path(folder) for folder in options.workdirs]
  for folder in folders:
    require_complete(folder, 'evaluate')
  print(compare(folders, workdir))


def _export(root: pathlib.Path, options: Options, mesh: MeshConfig) -> None:
  from letter_jax.evaluation.history import excludes
  from letter_jax.generators.generator import NAMES
  from letter_jax.serving import export
  from letter_jax.serving.catalogue import Catalogue
  from letter_jax.serving.loaded_generator import LoadedGenerator, serving_config

  export.require_platforms(options.platforms)
  require_complete(root, 'semantic_ids', 'generator')
  workdir = Workdir(root)
  config = serving_config(workdir, mesh)
  catalogue, folder = Catalogue.of_workdir(workdir, workdir.read_semantic_ids()), workdir.export
  loaded = LoadedGenerator.for_serving(workdir, config, catalogue.ids)
  loaded.require_beam(options.beam)
  fusion = workdir.read_fusion()
  exclude_history = excludes(workdir.read_served_protocol(fused=fusion is not None))
  with processes.locked(root), artifacts.replaced_folder(folder) as new:
    loaded.ids.write(new, workdir.read_raw_ids())
    export.export_hugging_face(new / export.HUGGING_FACE, loaded, catalogue)
    export.export_search(new, loaded, catalogue, options.beam, options.platforms, fusion, exclude_history)
  name = NAMES[loaded.config.generator.architecture]
  print(f'export: {name} for transformers, in {folder / export.HUGGING_FACE}', flush=True)
  search = f'its search, with {" and ".join(fusion["partners"])},' if fusion else 'its search'
  print(
    f'export: {search} for {", ".join(options.platforms)}, in {folder}; try: python {folder / "recommend.py"} < '
    'users.jsonl',
    flush=True,
  )
