"""A part of a video: exactly its frames, and the sound and chapters that belong to them."""

from fractions import Fraction

import av
import pytest

from oasis_cli.errors import MediaError, UsageError
from oasis_cli.media.input.probe import probe
from oasis_cli.media.input.reader import Reader, ReadOptions


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts"])
@pytest.mark.parametrize(
    "start, end",
    [(Fraction(1, 5), None), (None, Fraction(2, 5)), (Fraction(8, 25), Fraction(13, 25))],
)
def test_start_and_end_choose_exactly_their_frames(kit, tmp_path, suffix, start, end):
    codec = "mpeg4" if suffix == "avi" else "libx264"
    source = kit.video(tmp_path / f"in.{suffix}", frames=20, base=Fraction(1, 90000), codec=codec,
                       options={"g": "7", "bf": "2"})  # fmt: skip
    with Reader(probe(source)) as reader:
        everything = [f.planes[0] for f in reader]
    times = [reader.timeline.seconds(k) for k in range(20)]
    slack = Fraction(1, 1000) if suffix == "mkv" else 0
    expected = [k for k in range(20) if (start or 0) <= times[k] + slack and times[k] < (end or 9)]
    with Reader(probe(source), ReadOptions(start=start, end=end)) as reader:
        chosen = [f.planes[0] for f in reader]

    assert len(chosen) == len(expected) > 3
    assert all((a == everything[k]).all() for a, k in zip(chosen, expected, strict=True))
    assert (
        all(b - a == times[1] - times[0] for a, b in zip(times, times[1:], strict=False)) or slack
    )
    assert abs(reader.timeline.seconds(0) - (times[expected[0]] - (start or 0))) <= slack


def test_sound_and_chapters_are_cut_with_the_picture(kit, tmp_path):
    source = kit.rich(tmp_path / "in.mkv")
    read = ReadOptions(start=Fraction(4, 25))
    kit.enlarge(source, tmp_path / "out.mkv", read=read)

    with av.open(str(tmp_path / "out.mkv")) as box:
        assert [c["metadata"]["title"] for c in box.chapters()] == ["Zweites Kapitel"]
    assert len(kit.shown(tmp_path / "out.mkv")) == 4
    assert 0 < len(kit.payloads(tmp_path / "out.mkv")[0]) < len(kit.payloads(source)[0])


@pytest.mark.parametrize("start, end", [(-1, None), (2, 1), (2, 2)])
def test_impossible_cuts_are_refused(start, end):
    with pytest.raises(UsageError):
        ReadOptions(start=Fraction(start), end=None if end is None else Fraction(end))


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        (Fraction(99), None, r"no frame of .* lies behind --start 99: its last one is at 0.28 s"),
        (Fraction(3, 10), 4, r"behind --start 0.3: its last one is at 0.28 s"),
        (Fraction(121, 1000), Fraction(13, 100), "lies between --start and --end"),
    ],
)
def test_a_cut_without_a_frame_is_an_error_that_says_where_the_frames_are(
    kit, tmp_path, start, end, said
):
    source = kit.video(tmp_path / "in.mp4")
    with pytest.raises(MediaError, match=said):
        kit.enlarge(source, tmp_path / "out.mp4", read=ReadOptions(start=start, end=end))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4"]
