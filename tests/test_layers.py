"""The direction of imports: a package imports only from those below it, and no two modules import each other."""

import ast
import collections
import re

import letter_jax
from tests.paths import ROOT

# From the bottom to the top; packages of one layer do not know each other.
LAYERS = (
  ('system',),
  ('configuration',),
  ('ops',),
  ('sharding',),
  ('data',),
  ('semantic_ids',),
  ('decoding',),
  ('training',),
  ('evaluation',),
  ('text_embeddings', 'collaborative'),
  ('tokenizer',),
  ('generators',),
  ('workdir',),
  ('planning', 'reporting', 'serving'),
  ('server',),
  ('pipeline',),
  ('cli',),
  ('main',),
  ('__main__',),
)
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
PACKAGE = ROOT / 'letter_jax'


def _module_of(path) -> str:
  parts = path.relative_to(PACKAGE).with_suffix('').parts
  return '.'.join(part for part in parts if part != '__init__')


def _imports(module: str, tree: ast.AST):
  """(imported module under letter_jax, line), type-checking imports left out: they do not run."""
  checked = {
    inner
    for node in ast.walk(tree)
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == 'TYPE_CHECKING'
    for inner in ast.walk(node)
  }
  for node in ast.walk(tree):
    if node in checked:
      continue
    if isinstance(node, ast.ImportFrom) and (node.module or '').split('.')[0] == 'letter_jax':
      base = node.module.partition('.')[2]
      for alias in node.names:
        full = '.'.join(filter(None, (base, alias.name)))
        if not base:  # a name of the public API
          full = PUBLIC.get(alias.name, full)
        yield (full if full in MODULES else base), node.lineno
    elif isinstance(node, ast.Import):
      for alias in node.names:
        if alias.name.startswith('letter_jax.'):
          yield alias.name.partition('.')[2], node.lineno


PUBLIC = {name: module.partition('.')[2] for name, module in letter_jax._MODULES.items()}
FILES = {_module_of(path): path for path in sorted(PACKAGE.rglob('*.py'))}
MODULES = set(FILES)
ARROWS = [
  (module, imported, line)
  for module, path in FILES.items()
  if module  # letter_jax itself is the public API, over everything
  for imported, line in _imports(module, ast.parse(path.read_text(encoding='utf-8')))
  if imported
]


def test_every_package_has_a_layer():
  assert {module.split('.')[0] for module in MODULES if module} == set(LEVEL)


def test_imports_point_downwards():
  upward = []
  for module, imported, line in ARROWS:
    room, other = module.split('.')[0], imported.split('.')[0]
    if room != other and LEVEL[other] >= LEVEL[room]:
      upward.append(f'letter_jax/{module.replace(".", "/")}.py:{line} imports {imported}')
  assert not upward, '\n'.join(upward)


def test_no_modules_import_each_other():
  below = collections.defaultdict(set)
  for module, imported, _ in ARROWS:
    below[module].add(imported)
  state: dict[str, str] = {}

  def visit(module, path):
    if state.get(module) == 'done':
      return
    assert state.get(module) != 'open', f'import cycle: {" -> ".join([*path[path.index(module) :], module])}'
    state[module] = 'open'
    for other in sorted(below[module]):
      visit(other, [*path, module])
    state[module] = 'done'

  for module in sorted(below):
    visit(module, [])


def test_nothing_but_the_interface_of_the_generators_knows_which_there_are():
  """What a third generator would have to change: see CONTRIBUTING, 'Where things go'."""
  kinds = {path.name for path in (PACKAGE / 'generators').iterdir() if (path / 'generator.py').is_file()}
  assert kinds == {'tiger', 'lc_rec'}
  imports, branches = [], []
  for module, imported, line in ARROWS:
    kind = imported.removeprefix('generators.').partition('.')[0] if imported.startswith('generators.') else ''
    if kind in kinds and not module.startswith(f'generators.{kind}') and module != 'generators.generator':
      imports.append(f'{module}:{line} imports {imported}')
  for module, path in FILES.items():
    if re.search(r'architecture (==|!=|in|not in) |isinstance\([^)]*(Tiger|LCRec)', path.read_text(encoding='utf-8')):
      branches.append(module)
  assert not imports, '\n'.join(imports)
  assert branches == ['configuration.checks', 'generators.generator']
