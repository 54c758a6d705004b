"""Which items of the two raw files are left out, and why, and which are in only one file, as Beam transforms."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import apache_beam as beam

from letter_jax.data import left_out
from letter_jax.data.beam.tallies import Collection, one, tally, with_tallies
from letter_jax.data.raw.common_ids import SHOWN

EXAMPLE = 'example of '  # the kind of tally whose details are a few raw ids


@dataclasses.dataclass
class Fate(beam.DoFn):
  """(item, {number, described, within_dates, short}) -> (item, step) of each item that was bought and is left out.

  The outputs 'only_bought' and 'only_described' have the items of only one file.
  """

  core: int

  def process(self, grouped: Any) -> Iterator[Any]:
    """Yields an item, if it is left out, and tallies."""
    item, group = grouped
    number, described, within_dates, short = (
      list(group[name]) for name in ('number', 'described', 'within_dates', 'short')
    )
    which = 'only_described' if not within_dates else 'common' if described else 'only_bought'
    yield tally(which)
    if which != 'common':
      yield beam.pvalue.TaggedOutput(which, item)
    if within_dates and not number:
      step = left_out.outside_core(self.core) if any(within_dates) else left_out.DATES
      if short:
        step = left_out.SHORT
      yield tally('left out', step)
      yield item, step


def left_out_items(
  numbers: Collection, texts: Collection, within_dates: Collection, short: Collection, core: int
) -> tuple[Collection, list[Collection]]:
  """Joins what is known of each item.

  Args:
    numbers: (raw id, number) of the items that are kept.
    texts: (raw id, its texts) of the items that are described.
    within_dates: (raw id, whether it is within the dates) of the items that were bought.
    short: (raw id, None) of items of users who are too short.
    core: minimum number of interactions in the k-core.

  Returns:
    (raw id, step) of the items that were left out, and collections of tallies.
  """
  described = texts | 'Described' >> beam.Map(lambda pair: (pair[0], None))
  fates = (
    {'number': numbers, 'described': described, 'within_dates': within_dates, 'short': short}
    | 'Items of both files' >> beam.CoGroupByKey()
    | 'Fates' >> with_tallies(Fate(core), 'only_bought', 'only_described')
  )
  examples = [
    names
    | f'Smallest {kind}' >> beam.combiners.Top.Smallest(SHOWN)
    | f'Examples {kind}' >> beam.FlatMap(_example_tallies, kind)
    for kind, names in (('only_bought', fates.only_bought), ('only_described', fates.only_described))
  ]
  return fates.main, [fates.tallies, *examples]


def _example_tallies(names: list[str], kind: str) -> list[Any]:
  return [one(f'{EXAMPLE}{kind}', name) for name in names]
