"""The flags of the commands, each written once: name, default, meaning."""

import dataclasses
from typing import Any

from absl import flags

from letter_jax.system import home

STANDARD = '-'


def _flag(default: Any, meaning: str) -> Any:
  return dataclasses.field(default=default, metadata={'meaning': meaning})


def _paths(default: Any, meaning: str) -> Any:
  return dataclasses.field(default=default, metadata={'meaning': meaning, 'paths': True})


@dataclasses.dataclass(frozen=True)
class Options:
  """What a command is asked to do, besides the recipe."""

  overwrite: bool = _flag(False, 'redo a stage whose settings or input changed, and the stages after it')
  topology: str = _flag('', 'plan: the TPU, such as v5e:2x4')
  input: str = _paths(STANDARD, 'recommend: users, {"user": ..., "history": [items]} per line; -: stdin')
  output: str = _paths(STANDARD, 'recommend: file for the recommendations, one line per user; -: stdout')
  k: int | None = _flag(None, 'recommend: items for each user; by default the smaller of 10 and --beam')
  beam: int = _flag(20, 'recommend, serve, export: beams of the search')
  exclude_history: bool | None = _flag(
    None, 'recommend: exclude the items of the history; by default what was better on validation'
  )
  repeat: str = _paths('', 'recommend: file of the only items that users may get again, one raw id per line')
  allow: str = _paths('', 'recommend: file of the only items that may be recommended, one raw id per line')
  deny: str = _paths('', 'recommend: file of items that may not be recommended, one raw id per line')
  skip_unknown: bool = _flag(False, 'recommend: ignore items of --allow that are unknown')
  cold_items: str = _paths(
    '', 'recommend, serve: file of items newer than the training, {"id": ..., "title": ...} a line'
  )
  host: str = _flag('127.0.0.1', 'serve: address to listen on; 0.0.0.0: all of this machine')
  port: int = _flag(8080, 'serve: port to listen on; 0: any that is free')
  wait_ms: int = _flag(1, 'serve: milliseconds that a user waits for others, to be searched for together')
  queue_users: int = _flag(4096, 'serve: users who may wait; a request beyond them is answered with 503')
  searches: int = _flag(3, 'serve: searches that run at a time, some more than cores, as each waits now and then')
  max_users: int = _flag(1024, 'serve: users of a request, at most, and no more than --queue_users')
  max_history: int = _flag(1024, 'serve: items of a history, at most')
  admin_token_file: str = _paths('', 'serve: file with the token that POST /-/reload asks for; none: no such route')
  platforms: tuple[str, ...] = _flag(('cpu', 'cuda', 'tpu'), 'export: platforms that the search is lowered for')
  workdirs: tuple[str, ...] = _paths((), 'compare: the runs; the others are compared with the first')


def define() -> None:
  """Defines an absl flag for each option."""
  for field in dataclasses.fields(Options):
    meaning: str = field.metadata['meaning']
    default: Any = field.default
    if field.type in (bool, bool | None):
      flags.DEFINE_bool(field.name, default, meaning)
    elif field.type in (int, int | None):
      flags.DEFINE_integer(field.name, default, meaning)
    elif isinstance(default, tuple):
      flags.DEFINE_list(field.name, list(default), meaning)
    else:
      flags.DEFINE_string(field.name, default, meaning)


def read() -> Options:
  """The options as they were given, `~` in paths expanded; InputError where there is no home folder."""
  arguments: dict[str, Any] = {}
  for field in dataclasses.fields(Options):
    value: Any = flags.FLAGS[field.name].value
    if isinstance(value, list):
      value = tuple(home.expanded(part, f'--{field.name}') if 'paths' in field.metadata else part for part in value)
    elif 'paths' in field.metadata:
      value = home.expanded(value, f'--{field.name}')
    arguments[field.name] = value
  return Options(**arguments)
