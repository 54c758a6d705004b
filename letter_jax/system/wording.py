"""Numbers in messages."""


def counted(count: int, noun: str, plural: str = '') -> str:
  """A number with its noun: '1 user', '1,200 users', '0 histories'.

  Args:
    count: how many.
    noun: in the singular.
    plural: its plural, where that is not the singular with an s.
  """
  return f'{count:,} {noun if count == 1 else plural or f"{noun}s"}'


def part_of(count: int, whole: int, noun: str) -> str:
  """How many of a whole: '1,200 of 6,000 users', or '6,000 users' for all of them."""
  return counted(count, noun) if count == whole else f'{count:,} of {counted(whole, noun)}'
