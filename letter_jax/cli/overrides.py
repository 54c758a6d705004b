"""Values on the command line, checked before absl and ml_collections parse them: errors say what was expected."""

import ast
import dataclasses
import difflib
from collections.abc import Iterator

import ml_collections
from absl import flags

from letter_jax.cli import recipes
from letter_jax.configuration import expected_value, flattened
from letter_jax.system.errors import InputError

_PARSERS: dict[type, flags.ArgumentParser] = {
  bool: flags.BooleanParser(),
  int: flags.IntegerParser(),
  float: flags.FloatParser(),
}


@dataclasses.dataclass(frozen=True)
class _Override:
  """--config.KEY=TEXT.

  Attributes:
    flag: as it was given, up to the equals sign.
    key: dotted.
    text: the value; None where none is given.
    word: the argument after it, which is its value where `text` is None.
  """

  flag: str
  key: str
  text: str | None
  word: str | None

  @property
  def negates(self) -> bool:
    """Whether it is --noconfig.KEY, which sets a value to false."""
    return self.flag.lstrip('-').startswith('no')


def check(arguments: list[str], config: ml_collections.ConfigDict) -> None:
  """Raises InputError for an override of a key that the recipe does not have, or with a value of a different type."""
  values = flattened(config.to_dict())
  for override in _overrides(arguments):
    key = override.key.partition('[')[0]
    _require_known(key, values)
    if key != override.key:
      raise InputError(
        f'{override.flag} is an entry of a list; expected the whole list, as in --config.{key}={values.get(key)!r}'
      )
    if key not in values:
      example = next(name for name in values if name.startswith(f'{key}.'))
      raise InputError(f'{override.flag} is a section; expected one of its settings, as in --config.{example}=VALUE')
    _require_value(override, type(values[key]), f'expected {expected_value(key)}')


def require_recipe(arguments: list[str]) -> None:
  """Raises InputError for an override, as there is no recipe."""
  for override in _overrides(arguments):
    raise InputError(f'{override.flag} is given without --config; {recipes.EXPECTED}')


def check_flags(arguments: list[str]) -> None:
  """Raises InputError for a flag of the program with a value of a different type."""
  for argument in arguments:
    name, equals, text = argument.lstrip('-').partition('=')
    if not argument.startswith('-') or not equals or name not in flags.FLAGS:
      continue
    parser = flags.FLAGS[name].parser
    if not isinstance(parser, flags.BooleanParser | flags.IntegerParser):
      continue
    try:
      parser.parse(text)
    except (ValueError, TypeError):
      expected = 'true or false' if isinstance(parser, flags.BooleanParser) else parser.syntactic_help
      raise InputError(f'--{name}={text}; expected {expected}') from None


def _overrides(arguments: list[str]) -> Iterator[_Override]:
  for argument, word in zip(arguments, [*arguments[1:], None]):
    flag, equals, text = argument.partition('=')
    for prefix in ('--config.', '-config.', '--noconfig.', '-noconfig.'):
      if flag.startswith(prefix):
        yield _Override(flag, flag.removeprefix(prefix), text if equals else None, word)


def _require_known(key: str, values: dict[str, object]) -> None:
  sections = {name.rsplit('.', depth)[0] for name in values for depth in range(1, name.count('.') + 1)}
  known = {*values, *sections}
  if key in known:
    return
  section, _, name = key.rpartition('.')
  siblings = {other.rpartition('.')[2]: other for other in sorted(known) if other.rpartition('.')[0] == section}
  close = [siblings[match] for match in difflib.get_close_matches(name, siblings, n=1)]
  close = close or difflib.get_close_matches(key, sorted(known), n=1, cutoff=0.7)
  elsewhere = {other.rpartition('.')[2]: other for other in sorted(known)}
  close = close or [elsewhere[match] for match in difflib.get_close_matches(name, elsewhere, n=1, cutoff=0.8)]
  hint = f'did you mean --config.{close[0]}?' if close else 'expected a key of letter_jax/configuration'
  raise InputError(f'--config.{key} does not exist; {hint}')


def _require_value(override: _Override, kind: type, expected: str) -> None:
  """Raises InputError for a text that ml_collections cannot parse as a value of type `kind`."""
  if override.negates and (kind is not bool or override.text is not None):
    raise InputError(f'{override.flag} sets a value to false; {expected}, as in --config.{override.key}=VALUE')
  if kind is bool and override.text is None:  # --config.KEY alone sets it to true
    return
  text = override.word if override.text is None else override.text
  if text is None:
    raise InputError(f'{override.flag} is given without a value; {expected}')
  try:
    if kind in _PARSERS:
      _PARSERS[kind].parse(text)
    elif kind is tuple:
      ast.literal_eval(text)
  except SyntaxError:
    raise InputError(f'{override.flag}={text}; {expected}') from None
  except (ValueError, TypeError):
    if kind is not tuple:  # else it is a word, an entry of a list of texts; `from_config_dict` checks the entries
      raise InputError(f'{override.flag}={text}; {expected}') from None
