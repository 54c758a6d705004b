"""Whether the two raw files of a source name their items alike: '1.0' in one and '1' in the other never meet."""

import pathlib
from collections.abc import Iterable, Iterator, Sequence

from letter_jax.data.raw.reader import Texts
from letter_jax.system.errors import InputError

SHOWN = 3  # ids of each file that the error shows


def require_common_ids(
  files: tuple[pathlib.Path, pathlib.Path],
  common: int,
  bought: int,
  described: int,
  only_bought: Sequence[str],
  only_described: Sequence[str],
) -> None:
  """Raises InputError if less than half of the items of the file that has fewer are in the other file, too.

  Either file may have many items that the other lacks: a catalogue that is hardly described, or hardly sold.

  Args:
    files: the file with the events and the file with the texts.
    common: how many ids are in both.
    bought: how many items the first file has, before any preparation.
    described: how many items the second file has.
    only_bought, only_described: SHOWN examples of ids that the other file lacks.
  """
  if 2 * common >= min(bought, described):
    return
  first, second = (path.name for path in files)
  raise InputError(
    f'{files[0]} and {second} name their items differently: of the {bought:,} items of {first} and the '
    f'{described:,} of {second} only {common:,} are the same; {first} has {_listed(only_bought)}, {second} has '
    f'{_listed(only_described)}; expected one id for an item in both files'
  )


def _listed(ids: Sequence[str]) -> str:
  return ', '.join(map(repr, ids))


class DescribedItems:
  """Counts the described items that were bought, and those that were not, while their texts are read."""

  def __init__(self, bought: Iterable[str]):
    """`bought` has the raw ids of all items of the file with the events."""
    self._is_described = dict.fromkeys(bought, False)
    self._others, self._first_others = 0, list[str]()

  def watch(self, texts: Iterable[tuple[str, Texts]]) -> Iterator[tuple[str, Texts]]:
    """Yields what it is given, (item, its texts)."""
    for item, of_item in texts:
      if item in self._is_described:
        self._is_described[item] = True
      else:
        self._others += 1
        if len(self._first_others) < SHOWN:
          self._first_others.append(item)
      yield item, of_item

  def require_common_ids(self, files: tuple[pathlib.Path, pathlib.Path]) -> None:
    """As the function of this name, for the files of which all texts were watched."""
    only_bought = sorted(item for item, is_described in self._is_described.items() if not is_described)
    bought = len(self._is_described)
    common = bought - len(only_bought)
    require_common_ids(files, common, bought, common + self._others, only_bought[:SHOWN], self._first_others)
