"""The container of the server and its deployment: linted, and consistent with the program."""

import json
import pathlib
import re
import shlex
import subprocess
import sys

import pytest
import yaml

from letter_jax.cli.options import Options
from tests.paths import ROOT

DOCKERFILE = (ROOT / 'Dockerfile').read_text()
OBJECTS = list(yaml.safe_load_all((ROOT / 'launch/serve.yaml').read_text()))


def test_hadolint_has_nothing_to_say():
  hadolint = pathlib.Path(sys.executable).parent / 'hadolint'
  checked = subprocess.run([hadolint, ROOT / 'Dockerfile'], text=True, capture_output=True)
  assert checked.returncode == 0, checked.stdout + checked.stderr


def test_what_is_copied_is_there_and_not_ignored():
  copied = [path for line in re.findall(r'^COPY (.*)$', DOCKERFILE, re.M) for path in shlex.split(line)[:-1]]
  ignored = (ROOT / '.dockerignore').read_text().splitlines()
  assert len(copied) == 8 and ignored[0] == '*'
  for path in copied:
    assert (ROOT / path).exists() and f'!{path}' in ignored


def test_the_command_is_one_of_the_program():
  entrypoint = json.loads(re.search(r'^ENTRYPOINT (.*)$', DOCKERFILE, re.M).group(1))
  container = OBJECTS[0]['spec']['template']['spec']['containers'][0]
  flags = [flag.partition('=')[0].removeprefix('--') for flag in (*entrypoint[1:], *container['args'])]
  assert entrypoint[0] == 'letter-jax' and '--stage=serve' in entrypoint
  assert set(flags) <= {'stage', 'workdir', *Options.__dataclass_fields__}
  port = next(flag for flag in entrypoint if flag.startswith('--port=')).removeprefix('--port=')
  assert f'EXPOSE {port}' in DOCKERFILE and f'127.0.0.1:{port}/healthz' in DOCKERFILE
  assert [int(port)] == [port['containerPort'] for port in container['ports']]


def test_the_deployment_is_hardened_and_probes_what_there_is():
  openapi = pytest.importorskip('letter_jax.server.openapi')
  from letter_jax.server.asked import Limits

  routes = openapi.description(None, Limits(), True)['paths']
  pod = OBJECTS[0]['spec']['template']
  (container,) = pod['spec']['containers']
  for probe in ('startupProbe', 'readinessProbe', 'livenessProbe'):
    assert container[probe]['httpGet']['path'] in routes
  assert pod['metadata']['annotations']['prometheus.io/path'] in routes
  assert container['securityContext']['readOnlyRootFilesystem'] and pod['spec']['securityContext']['runAsNonRoot']
  user = re.search(r'^USER (\d+)$', DOCKERFILE, re.M).group(1)
  assert pod['spec']['securityContext']['runAsUser'] == int(user)
  mounted = {mount['name'] for mount in container['volumeMounts']}
  assert mounted == {volume['name'] for volume in pod['spec']['volumes']}
  assert OBJECTS[1]['spec']['selector'] == pod['metadata']['labels']
