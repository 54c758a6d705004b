"""Tallies: counts of anything that Beam workers meet, as elements ((kind, detail), (count, place)) of collections.

`place` is (span, line, refused value) of the first, or NOWHERE. Counts are data rather than Beam metrics, which count
retried work twice.
"""

import sys
from typing import Any

import apache_beam as beam

NOWHERE = (sys.maxsize, sys.maxsize, '')
Collection = Any  # a beam.PCollection


def one(kind: str, detail: str | int = '', count: int = 1, place: tuple[int, int, str] = NOWHERE) -> Any:
  """A tally."""
  return (kind, detail), (count, place)


def tally(
  kind: str, detail: str | int = '', count: int = 1, place: tuple[int, int, str] = NOWHERE
) -> beam.pvalue.TaggedOutput:
  """A tally, as an element of the output 'tallies' of a DoFn."""
  return beam.pvalue.TaggedOutput('tallies', one(kind, detail, count, place))


def with_tallies(function: beam.DoFn, *others: str) -> beam.ParDo:
  """A DoFn with the outputs 'main', 'tallies' and `others`."""
  return beam.ParDo(function).with_outputs('tallies', *others, main='main')
