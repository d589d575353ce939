"""Which of several video tracks is enlarged, and how that is said."""

import av
import pytest

from oasis_cli.errors import UsageError
from oasis_cli.media.input.probe import probe
from oasis_cli.media.input.source import RawInput
from oasis_cli.media.output.plan import plan_output

SIZES = ((32, 24), (48, 32))


def two_tracks(path, kit, default):
    """Two video tracks of different sizes; `default`: which is marked so."""
    with av.open(str(path), "w") as out:
        tracks = []
        for width, height in SIZES:
            video = out.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
            video.width, video.height, video.pix_fmt = width, height, "yuv420p"
            tracks.append(video)
        mark = av.stream.Disposition
        for number, video in enumerate(tracks):
            video.disposition = mark.default if number == default else mark(0)
        for video, size in zip(tracks, SIZES, strict=True):
            for number in range(4):
                frame = av.VideoFrame.from_ndarray(kit.ramp(number, *size), format="rgb24")
                frame.pts = number
                out.mux(video.encode(frame))
            out.mux(video.encode(None))
    return path


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
@pytest.mark.parametrize("default", [0, 1])
def test_the_default_video_track_is_enlarged_and_the_plan_says_so(kit, tmp_path, suffix, default):
    source = two_tracks(tmp_path / f"in.{suffix}", kit, default)
    done = kit.enlarge(source, tmp_path / "out.mkv", scale=2)

    assert done.info.video.index == default
    assert f"of 2 video tracks stream {default} is enlarged" in " ".join(done.plan.notes)
    with av.open(str(tmp_path / "out.mkv")) as box:
        sizes = [(s.width, s.height) for s in box.streams.video]
    wanted = list(SIZES)
    wanted[default] = (2 * SIZES[default][0], 2 * SIZES[default][1])
    assert sizes == wanted


def test_another_video_track_can_be_asked_for(kit, tmp_path):
    source = two_tracks(tmp_path / "in.mkv", kit, 1)
    info = probe(source, RawInput(track=0))
    assert (info.video.width, info.video.index) == (32, 0)
    plan = plan_output(info, tmp_path / "out.mkv", (64, 48))
    assert [s.action for s in plan.streams] == ["encode", "copy"]


def test_a_track_that_is_no_video_is_refused_with_those_that_are(kit, tmp_path):
    source = kit.rich(tmp_path / "in.mkv")
    with pytest.raises(UsageError, match="stream 1 of .* is no video track") as error:
        probe(source, RawInput(track=1))
    assert "its video tracks: 0" in error.value.hint


def test_a_pattern_in_quotes_gets_a_hint(kit, tmp_path):
    kit.video(tmp_path / "a.mp4")
    with pytest.raises(UsageError, match="does not exist") as error:
        probe(tmp_path / "*.mp4")
    assert "this one matches 1 file)" in error.value.hint
    assert "oasis batch" in error.value.hint
