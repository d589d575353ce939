import json
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from oasis_cli.media.timeline import Timeline

BASE = Fraction(1, 90000)


@given(st.lists(st.one_of(st.none(), st.integers(-(2**40), 2**40)), min_size=1, max_size=60))
def test_times_always_rise_whatever_comes(times):
    line = Timeline(BASE, nominal=3600)
    for pts in times:
        line.append(pts)

    assert all(a < b for a, b in zip(line.pts, line.pts[1:], strict=False))
    assert len(line) == len(times)


@given(st.lists(st.integers(-(2**33), 2**33), min_size=1, max_size=60, unique=True).map(sorted))
def test_rising_times_are_kept_exactly(times):
    line = Timeline(BASE, nominal=3600)
    for pts in times:
        line.append(pts)

    assert list(line.pts) == times
    assert line.repaired == 0


def test_times_and_durations_that_only_damage_can_write_count_as_missing():
    line = Timeline(BASE, nominal=3600)
    for pts, duration in ((0, 3600), (2**63, 2**63), (7200, 3600)):
        line.append(pts, duration)

    assert list(line.pts) == [0, 3600, 7200]
    assert (list(line.durations), line.repaired) == ([3600] * 3, 1)


def test_it_survives_json():
    line = Timeline(Fraction(1001, 30000), nominal=1)
    for pts in (0, 1, None, 2, 9):
        line.append(pts, 2)

    assert Timeline.from_json(json.loads(json.dumps(line.to_json()))) == line


def test_a_clock_that_starts_again_goes_on():
    line = Timeline(BASE, nominal=3600)
    for pts in (9_000_000, 9_003_600, 0, 3600):
        line.append(pts)

    assert list(line.pts) == [9_000_000, 9_003_600, 9_007_200, 9_010_800]


def test_decoding_times_before_the_first_frame_continue_its_first_interval():
    line = Timeline(BASE, nominal=3600)
    line.append(100)
    assert line.at(-2) == 100 - 7200
    line.append(400)
    assert line.at(-2) == 100 - 600


def test_variable_or_not():
    even, uneven = Timeline(BASE, 3600), Timeline(BASE, 3600)
    for k in range(9):
        even.append(k * 3003)
        uneven.append(k * 3003 + (500 if k == 4 else 0))

    assert not even.variable
    assert uneven.variable
