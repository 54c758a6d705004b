"""Timestamps: nothing that a source has is lost, and numbers of another unit are refused."""

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from letter_jax.data import times

SECOND = 10**6
NEITHER = 'timestamp in no known format: seconds, milliseconds or microseconds since 1970, or ISO 8601'


@pytest.mark.parametrize(
  'text, expected',
  [
    ('1714559400', 1714559400 * SECOND),
    ('1714559400.0', 1714559400 * SECOND),
    ('1714559400.25', 1714559400 * SECOND + 250_000),
    ('1714559400.1234569', 1714559400 * SECOND + 123_456),
    (' 1714559400.\t', 1714559400 * SECOND),
    ('1714559400123', 1714559400 * SECOND + 123_000),
    ('1714559400123.5', 1714559400 * SECOND + 123_500),
    ('1714559400123456', 1714559400 * SECOND + 123_456),
    ('1714559400123456.7', 1714559400 * SECOND + 123_456),
    ('2024-05-01', 1714521600 * SECOND),
    ('20240501', 1714521600 * SECOND),
    ('2024-05-01T10:30:00+02:00', 1714552200 * SECOND),
    ('2024-05-01 10:30:00.250Z', 1714559400 * SECOND + 250_000),
    ('2024-05-01T10:30:00.123456789', 1714559400 * SECOND + 123_456),
    ('0', 0),
    ('12345678', 12345678 * SECOND),  # no date
  ],
)
def test_a_timestamp_alone_in_a_file(text, expected):
  assert times.of_text(text, times.unit_of([text])) == expected


@pytest.mark.parametrize(
  'text',
  ['1_000', '-5', '', '1e9', 'inf', 'nan', '05/01/2024', '1.5.2', '1969-12-31', '20240501103000', '٣', '9' * 5000],
)
def test_what_is_no_timestamp_is_named(text):
  for unit in [*times.MICROSECONDS, times.DATES]:
    assert times.of_text(text, unit) is None and times.refusal(text, unit) == NEITHER


def test_a_number_of_another_unit_is_refused():
  texts = ['1714559400', '1714559400123', '1714559400123456', '20240501']
  units = [*times.MICROSECONDS, times.DATES]
  for unit in units:
    read = [times.of_text(text, unit) for text in texts]
    assert [time is not None for time in read] == [unit == other for other in units]
    assert times.refusal(texts[units.index(unit) - 1], unit) == f'timestamp not in {unit}, unlike most'
    assert times.of_text('2024-05-01', unit) == 1714521600 * SECOND  # a date has no unit
    assert times.unit_of([*texts, texts[units.index(unit)], 'soon', '2024-05-01', '2024-05-02']) == unit
  # A number among dates is not a time of the year 5138.
  assert times.unit_of(['2024-05-01', '2024-05-02T10:00', '9' * 17]) == times.DATES
  assert times.of_text('9' * 17, times.DATES) is None
  assert times.unit_of([]) == times.unit_of(['2024-05-01', 'soon', '9' * 19]) == times.DATES
  assert times.of_text('0', 'milliseconds') == 0 and times.of_text('0.0', 'seconds') == 0


@given(st.integers(10**8 * SECOND, 10**17 - 1))  # below that, eight digits may be a date
def test_every_way_to_write_a_time_gives_it_back(time):
  whole, rest = divmod(time, SECOND)
  assert times.of_text(f'{whole}.{rest:06}', 'seconds') == time
  assert times.of_text(str(whole), 'seconds') == whole * SECOND
  if 10**11 <= time // 1000 < 10**13:
    assert times.of_text(f'{time // 1000}.{time % 1000:03}', 'milliseconds') == time
    assert times.unit_of([str(time // 1000)]) == 'milliseconds'
  if 10**14 <= time:
    assert times.of_text(str(time), 'microseconds') == time and times.unit_of([str(time)]) == 'microseconds'


MOMENTS = st.datetimes(datetime.datetime(1970, 1, 2), datetime.datetime(9999, 1, 1))


@given(MOMENTS, st.integers(-12 * 60, 14 * 60))
def test_iso_dates_are_exact(moment, minutes):
  expected = (moment - datetime.datetime(1970, 1, 1)) // datetime.timedelta(microseconds=1)
  for unit in [*times.MICROSECONDS, times.DATES]:
    assert times.of_text(moment.isoformat(), unit) == expected == times.of_date(moment.isoformat(' '))
  zone = datetime.timezone(datetime.timedelta(minutes=minutes))
  shifted = times.of_text(moment.replace(tzinfo=zone).isoformat(), 'seconds')
  assert shifted == times.of_date(moment.isoformat()) - minutes * 60 * SECOND


@given(st.text(max_size=20) | st.from_regex(r'[0-9T:.\-+Z ]{1,30}', fullmatch=True))
def test_any_text_is_read_or_refused(text):
  for unit in [*times.MICROSECONDS, times.DATES]:
    time = times.of_text(text, unit)
    assert time is None and times.refusal(text, unit) or 0 <= time < 2**62


@given(st.integers() | st.integers(0, 10**18), st.sampled_from(list(times.MICROSECONDS)))
def test_numbers_of_a_known_unit(value, unit):
  low, high, scale = {
    'seconds': (0, 10**11, 10**6),
    'milliseconds': (10**11, 10**13, 10**3),
    'microseconds': (10**14, 10**17, 1),
  }[unit]
  assert times.of_number(value, unit) == (value * scale if value == 0 or low <= value < high else None)


@pytest.mark.parametrize(
  'value, unit, time',
  [
    (1_500_000_000, 'seconds', 1_500_000_000 * SECOND),
    (1_500_000_000_000, 'seconds', None),
    (1_500_000_000, 'milliseconds', None),  # not a time in January 1970
    (1_500_000_000_123, 'milliseconds', 1_500_000_000_123_000),
    (20_240_501, 'seconds', 20_240_501 * SECOND),
    (0, 'milliseconds', 0),
    (-1, 'seconds', None),
  ],
)
def test_numbers_of_another_range_are_refused(value, unit, time):
  assert times.of_number(value, unit) == time


def test_a_day_starts_at_midnight():
  assert times.day_start('1970-01-02') == 86400 * SECOND == times.of_date('1970-01-02')
  assert [times.day_of(86400 * SECOND + more) for more in (-1, 0)] == ['1970-01-01', '1970-01-02']
