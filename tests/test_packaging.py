"""The distribution: what it needs and what it contains."""

import re
import tomllib

from tests.paths import ROOT


def _project() -> dict:
  return tomllib.loads((ROOT / 'pyproject.toml').read_text(encoding='utf-8'))['project']


def _requirements(path: str) -> list[str]:
  """The lines of a requirements file without comments and included files, quotes as in pyproject.toml."""
  lines = [line.partition('#')[0].strip() for line in (ROOT / path).read_text(encoding='utf-8').splitlines()]
  return [line.replace('"', "'") for line in lines if line and not line.startswith('-r')]


def _name(requirement: str) -> str:
  """The normalised name of a requirement's distribution."""
  return re.sub(r'[-_.]+', '-', re.match(r'[\w.-]+', requirement)[0]).lower()


def test_the_extra_for_tests_is_the_requirements_file_of_the_tests():
  assert sorted(_project()['optional-dependencies']['test']) == sorted(_requirements('tests/requirements.txt'))


def test_every_folder_with_modules_is_a_package():
  # What setup.py does not find as a package is not in the wheel.
  for module in (ROOT / 'letter_jax').rglob('*.py'):
    assert (module.parent / '__init__.py').is_file(), module


def test_the_lock_pins_every_requirement_and_names_no_host():
  pins = _requirements('requirements.lock')
  assert all(re.fullmatch(r"[\w.-]+==[\w.+!]+( ; sys_platform == 'linux')?", pin) for pin in pins)
  required = {_name(line) for path in ('requirements.txt', 'tests/requirements.txt') for line in _requirements(path)}
  assert required <= {_name(pin) for pin in pins}
