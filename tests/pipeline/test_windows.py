import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oasis_cli.errors import UsageError
from oasis_cli.pipeline.windows import Blend, WindowOptions, cut, reach, window_spans


@pytest.mark.parametrize("total", [0, 1, 4, 16, 17, 18, 30, 31, 100])
@pytest.mark.parametrize("overlap", [0, 4, 8])
def test_every_frame_is_in_a_full_window(total, overlap):
    windows = list(cut(range(total), WindowOptions(frames=17, overlap=overlap)))

    assert {f for w in windows for f in w.frames} == set(range(total))
    assert all(len(w.frames) == min(17, total) for w in windows)
    assert all(w.frames[0] == w.start for w in windows)


@pytest.mark.parametrize("frames", [0, 2, 4, 6, 16, -3])
def test_a_window_is_four_k_plus_one(frames):
    with pytest.raises(UsageError, match="4k \\+ 1"):
        WindowOptions(frames=frames, overlap=0)


@pytest.mark.parametrize("overlap", [-1, 9, 17])
def test_an_overlap_is_at_most_half_a_window(overlap):
    with pytest.raises(UsageError, match="overlap"):
        WindowOptions(frames=17, overlap=overlap)


@st.composite
def videos(draw):
    total = draw(st.integers(1, 90))
    cuts = draw(st.sets(st.integers(1, total), max_size=6)) - {total}
    frames = draw(st.sampled_from([1, 5, 9, 17]))
    overlap = draw(st.integers(0, frames // 2))
    return total, sorted({0, *cuts}), WindowOptions(frames=frames, overlap=overlap)


def result(number: int, window) -> float:
    """A stand-in for a model: what comes out depends on the whole window."""
    return number + 0.001 * window.start + 0.01 * len(window.frames)


def run(total, scenes, options, first=0, last=None):
    blend, out = Blend(options.overlap), []
    numbers = range(first, total if last is None else last)
    for window in cut(numbers, options, lambda n: n in scenes, first):
        out += blend.add(window, [result(n, window) for n in window.frames])
    return out + list(blend.flush())


@given(videos())
def test_no_window_crosses_a_cut_and_positions_are_as_planned(video):
    total, scenes, options = video
    made = [
        (w.start, w.start + len(w.frames)) for w in cut(range(total), options, scenes.__contains__)
    ]

    bounds = zip(scenes, [*scenes[1:], total], strict=True)
    assert made == [span for start, stop in bounds for span in window_spans(start, stop, options)]


@given(videos())
def test_every_frame_comes_out_once_in_order(video):
    total, scenes, options = video
    out = run(total, scenes, options)

    assert [n for n, _ in out] == list(range(total))
    assert all(abs(value - n) < 1 for n, value in out)


@given(videos(), st.data())
@settings(max_examples=200)
def test_a_part_equals_the_same_frames_of_the_whole(video, data):
    total, scenes, options = video
    start = data.draw(st.integers(0, total - 1))
    stop = data.draw(st.integers(start + 1, total))
    first, last = reach(scenes, total, options, start, stop)
    assert 0 <= first <= start < stop <= last <= total

    part = [(n, v) for n, v in run(total, scenes, options, first, last) if start <= n < stop]

    assert part == run(total, scenes, options)[start:stop]


def test_overlap_is_cross_faded():
    options = WindowOptions(frames=9, overlap=3)
    blend, out = Blend(3), []
    for value, window in enumerate(cut(range(15), options)):
        out += blend.add(window, [float(value)] * 9)
    out += blend.flush()

    assert [round(v, 2) for _, v in out] == [0] * 6 + [0.25, 0.5, 0.75] + [1] * 6


def test_memory_is_one_window():
    held = 0
    for window in cut(range(10_000), WindowOptions(frames=17, overlap=4)):
        held = max(held, len(window.frames))
    assert held == 17


def test_a_model_that_loses_frames_is_noticed():
    window = next(cut(range(5), WindowOptions(frames=5, overlap=0)))
    with pytest.raises(ValueError, match="5 frames went in, 4 came out"):
        list(Blend(0).add(window, [1.0] * 4))
