"""The launch scripts say what they would do; what runs here is run."""

import os
import pathlib
import subprocess
import sys

import pytest
import yaml

from tests.forked import HANG_SECONDS
from tests.paths import ROOT
from tests.small_data import run_settings, write_recipe

LAUNCH = ROOT / 'launch'
SCRIPTS = sorted(LAUNCH.glob('*.sh'))
TPU = ['--name=run-1', '--project=p', '--zone=us-west4-a']
PROGRAM = ['--', '--config=configs/letter_tiger.py:beauty', "--workdir=/mnt/letter/it's here"]
GKE = [
  '--name=run-1',
  '--image=i',
  '--accelerator=tpu-v5-lite-podslice',
  '--topology=2x4',
  '--hosts=2',
  '--chips=4',
  '--claim=c',
]


def launch(script, *arguments, **environment):
  return subprocess.run(
    ['bash', LAUNCH / script, *map(str, arguments)],
    text=True,
    capture_output=True,
    env={**os.environ, **environment},
    cwd=LAUNCH.parent,
    timeout=HANG_SECONDS,
  )


def test_shellcheck_has_nothing_to_say():
  shellcheck = pathlib.Path(sys.executable).parent / 'shellcheck'
  checked = subprocess.run([shellcheck, '-x', '-P', LAUNCH, *SCRIPTS], text=True, capture_output=True)
  assert checked.returncode == 0, checked.stdout
  assert len(SCRIPTS) == 5


@pytest.mark.parametrize(
  'script, arguments, said',
  [
    (
      'tpu_vm.sh',
      ['create', *TPU, '--type=v5litepod-8', '--spot'],
      'queued-resources create run-1 --node-id=run-1 --project=p --zone=us-west4-a --accelerator-type=v5litepod-8 '
      '--runtime-version=v2-alpha-tpuv5-lite --spot',
    ),
    ('tpu_vm.sh', ['wait', *TPU], 'queued-resources describe run-1'),
    ('tpu_vm.sh', ['setup', *TPU, '--nfs=10.0.0.2:/share'], '10.0.0.2:/share'),
    ('tpu_vm.sh', ['logs', *TPU], '--worker=0 --command=tail'),
    ('tpu_vm.sh', ['delete', *TPU], 'queued-resources delete run-1 --project=p --zone=us-west4-a --force --quiet'),
    (
      'slurm.sh',
      ['--nodes=2', '--gpus=8', '--partition=big', *PROGRAM],
      '--nodes=2 --ntasks-per-node=8 --gpus-per-node=8',
    ),
    ('local.sh', ['--processes=2', '--devices=4', *PROGRAM], '--coordinator=localhost:12355 --processes=2 --process=1'),
    ('gke.sh', ['logs', '--name=run-1'], 'kubectl logs --follow --selector=jobset.sigs.k8s.io/jobset-name=run-1'),
    ('gke.sh', ['delete', '--name=run-1'], 'kubectl delete jobset run-1'),
  ],
)
def test_a_dry_run_prints_the_commands(script, arguments, said):
  action = arguments[:1] if not arguments[0].startswith('--') else []
  shown = launch(script, *action, '--dry-run', *arguments[len(action) :])
  assert shown.returncode == 0 and said in shown.stdout, shown.stdout + shown.stderr


def test_what_the_remote_shell_gets_is_what_was_meant():
  shown = launch('tpu_vm.sh', 'run', '--dry-run', *TPU, *PROGRAM).stdout
  # Split once for the command, and once more for the program's own flags.
  command = _words(shown)[-1].removeprefix('--command=')
  inner = command[command.index('.venv/bin/python') : command.index(' > run.log')]
  assert _words(inner)[3:] == ['--distributed', *PROGRAM[1:]]


def _words(line: str) -> list[str]:
  listed = subprocess.run(['bash', '-c', f'printf "%s\\n" {line}'], text=True, capture_output=True, check=True)
  return listed.stdout.splitlines()


def test_the_manifest_is_a_job_set():
  shown = launch('gke.sh', 'apply', '--dry-run', *GKE, *PROGRAM, '--config.seed=1')
  manifest = yaml.safe_load(shown.stdout)
  assert manifest['kind'] == 'JobSet' and manifest['metadata']['name'] == 'run-1'
  job = manifest['spec']['replicatedJobs'][0]['template']['spec']
  assert job['parallelism'] == job['completions'] == 2
  pod = job['template']['spec']
  assert pod['nodeSelector']['cloud.google.com/gke-tpu-topology'] == '2x4'
  container = pod['containers'][0]
  assert container['command'][3:] == ['--distributed', *PROGRAM[1:], '--config.seed=1']
  assert container['resources']['limits'] == {'google.com/tpu': 4} and '{{' not in shown.stdout


@pytest.mark.parametrize(
  'script, arguments, missing',
  [
    ('tpu_vm.sh', ['create', '--name=a', '--project=p'], 'zone'),
    ('tpu_vm.sh', ['create', *TPU], 'type'),
    ('slurm.sh', ['--nodes=2'], 'gpus'),
    ('local.sh', [], 'processes'),
    ('gke.sh', ['apply', *GKE[:-1], *PROGRAM], 'claim'),
  ],
)
def test_what_is_not_set_is_named(script, arguments, missing):
  refused = launch(script, *arguments)
  assert refused.returncode == 2 and not refused.stdout
  assert f'--{missing} is not set; expected --{missing}=VALUE, or LETTER_{missing.upper()} in' in refused.stderr


@pytest.mark.parametrize(
  'script, arguments, said',
  [
    (
      'tpu_vm.sh',
      ['create', *TPU, '--type=v5litepod-8', '--spto=1'],
      '--spto does not exist; expected --name --project',
    ),
    ('tpu_vm.sh', ['create', *TPU, '--type=v5e-8'], 'expected v4-N, v5litepod-N (v5e)'),
    ('local.sh', ['--processes=2', '--config=c.py'], '--config does not exist'),
    ('local.sh', ['--processes=2', '--config.mesh.model=2'], 'and flags of letter_jax.main behind --'),
    ('local.sh', ['--processes=0'], 'expected a number from 1 on'),
    ('local.sh', ['--processes=two'], 'from 1 on'),
    ('slurm.sh', ['nodes'], 'expected --NAME=VALUE'),
  ],
)
def test_flags_that_do_not_exist(script, arguments, said):
  refused = launch(script, *arguments, '--dry-run')
  assert refused.returncode == 2 and said in refused.stderr and not refused.stdout


@pytest.mark.parametrize('script', [script.name for script in SCRIPTS if script.name != 'common.sh'])
def test_help(script):
  shown = launch(script, '--help')
  assert shown.returncode == 0 and f'launch/{script}' in shown.stdout


def test_the_environment_sets_what_flags_do_not():
  shown = launch(
    'tpu_vm.sh', 'delete', '--dry-run', '--name=flag', LETTER_NAME='variable', LETTER_PROJECT='p', LETTER_ZONE='z'
  )
  assert 'delete flag --project=p --zone=z' in shown.stdout


@pytest.mark.parametrize(
  'script, arguments',
  [('tpu_vm.sh', ['run', *TPU]), ('slurm.sh', ['--nodes=1', '--gpus=1']), ('gke.sh', ['apply', *GKE])],
)
def test_a_run_of_nothing_is_refused(script, arguments):
  refused = launch(script, *arguments)
  assert refused.returncode == 2 and 'expected -- --config=... --workdir=...' in refused.stderr


@pytest.mark.parametrize('script', ['tpu_vm.sh', 'gke.sh'])
def test_no_such_action(script):
  refused = launch(script, 'start')
  assert refused.returncode == 2 and f'launch/{script} ' in refused.stderr


@pytest.mark.slow
def test_two_processes_on_this_machine(tmp_path):
  write_recipe(tmp_path / 'recipe.py', run_settings())
  run = ['--processes=2', f'--python={sys.executable}', '--port=18473', '--', f'--config={tmp_path / "recipe.py"}']
  ended = subprocess.run(
    ['bash', LAUNCH / 'local.sh', *run, f'--workdir={tmp_path / "workdir"}', '--stage=dataset'],
    text=True,
    capture_output=True,
    cwd=LAUNCH.parent,
    timeout=HANG_SECONDS,
  )
  assert ended.returncode == 0, ended.stderr
  assert 'dataset: done in' in ended.stdout and (tmp_path / 'workdir/dataset/summary.json').exists()
  (LAUNCH.parent / 'process_1.log').unlink()
  ended = subprocess.run(
    ['bash', LAUNCH / 'local.sh', *run, f'--workdir={tmp_path / "workdir"}', '--stage=nothing'],
    text=True,
    capture_output=True,
    cwd=LAUNCH.parent,
    timeout=HANG_SECONDS,
  )
  assert ended.returncode != 0
  (LAUNCH.parent / 'process_1.log').unlink()
