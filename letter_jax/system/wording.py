"""Numbers in messages."""


def counted(count: int, noun: str, plural: str = '') -> str:
  """A number with its noun: '1 user', '1,200 users', '0 histories'.

  Args:
    count: how many.
    noun: in the singular.
    plural: its plural, where that is not the singular with an s.
  """
  return f'{count:,} {noun if count == 1 else plural or f"{noun}s"}'
