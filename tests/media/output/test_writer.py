"""Frames out = frames in, every one at its own time, in every container."""

from fractions import Fraction

import av
import numpy as np
import pytest

from oasis_cli.errors import MediaError
from oasis_cli.media.output.plan import EncodeOptions

T = Fraction(1, 90000)
CASES = {
    "cfr": (T, [k * 3600 for k in range(12)]),
    "29.97": (Fraction(1, 30000), [k * 1001 for k in range(12)]),
    "1 fps": (Fraction(1, 16384), [0, 16384, 32768]),
    "120 fps": (Fraction(1, 15360), [k * 128 for k in range(12)]),
    "variable": (T, [0, 3360, 6000, 9003, 18000, 18090, 30000, 30300, 41000, 50000]),
    "starts late": (T, [45000 + k * 3600 for k in range(10)]),
    "one frame": (T, [0]),
    "two frames": (T, [0, 7000]),
}
SLACK = {"mp4": 0, "mov": 0, "mkv": Fraction(1, 2000), "webm": Fraction(1, 2000)}


@pytest.mark.parametrize("suffix", SLACK)
@pytest.mark.parametrize("case", CASES)
def test_every_time_is_kept(case, suffix, kit, tmp_path):
    base, ticks = CASES[case]
    source = kit.video(
        tmp_path / "in.mp4", ticks=ticks, base=base, options={"bf": "2"}, size=(64, 64)
    )
    before = kit.shown(source)

    target = tmp_path / f"out.{suffix}"
    kit.enlarge(source, target, scale=1)

    after = kit.shown(target)
    assert len(after) == len(before) == len(ticks)
    assert max(abs(a - b) for a, b in zip(after, before, strict=True)) <= SLACK[suffix]


@pytest.mark.parametrize("sound_at", [Fraction(0), Fraction(3, 10)])
@pytest.mark.parametrize("video_at", [0, 45000])
@pytest.mark.parametrize("source", ["in.mp4", "in.mkv", "in.ts"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov"])
def test_sound_stays_with_the_picture(kit, tmp_path, sound_at, video_at, source, suffix):
    ticks = [video_at + k * 3600 for k in range(10)]
    path = kit.video(tmp_path / source, ticks=ticks, base=T, sound=not source.endswith("ts"),
                     sound_at=sound_at)  # fmt: skip
    target = tmp_path / f"out.{suffix}"
    kit.enlarge(path, target, scale=1)

    def offset(path):
        with av.open(str(path)) as box:
            if not box.streams.audio:
                return Fraction(0)
            first = next(p for p in box.demux(audio=0) if p.size and not p.is_discard)
            return first.pts * first.time_base - kit.shown(path)[0]

    assert abs(offset(target) - offset(path)) <= Fraction(1, 1000)


def test_sound_longer_than_the_picture_is_kept_whole(kit, tmp_path):
    source = kit.video(tmp_path / "in.mkv", frames=4, sound=True, seconds=1.5)
    kit.enlarge(source, tmp_path / "out.mp4")
    assert b"".join(kit.payloads(source)[0]) == b"".join(kit.payloads(tmp_path / "out.mp4")[0])


def test_frames_before_zero_are_not_hidden(kit, tmp_path):
    ticks = [k * 40 - 200 for k in range(10)]
    source = tmp_path / "in.mkv"
    kit.video(
        source, ticks=ticks, base=Fraction(1, 1000), container={"avoid_negative_ts": "disabled"}
    )

    kit.enlarge(source, tmp_path / "out.mp4")

    assert kit.shown(tmp_path / "out.mp4") == [Fraction(k, 25) for k in range(10)]


def test_repeated_times_move_by_one_tick_and_are_reported(kit, tmp_path):
    ticks = [k // 2 * 80 for k in range(8)]
    source = kit.video(tmp_path / "in.mkv", ticks=ticks, base=Fraction(1, 1000), codec="mjpeg",
                       pix_fmt="yuvj420p")  # fmt: skip
    done = kit.enlarge(source, tmp_path / "out.mkv")

    assert list(done.line.pts) == [0, 1, 80, 81, 160, 161, 240, 241]
    assert done.report.repaired_times == 4
    assert len(kit.shown(tmp_path / "out.mkv")) == 8


@pytest.mark.parametrize("codec, suffix", [("libx264", "h264"), ("libx265", "hevc")])
def test_raw_streams_without_times_get_even_ones(kit, tmp_path, codec, suffix):
    source = kit.video(tmp_path / f"in.{suffix}", codec=codec, size=(64, 64))
    done = kit.enlarge(source, tmp_path / "out.mp4", scale=1)

    assert kit.shown(tmp_path / "out.mp4") == [Fraction(k, 25) for k in range(8)]
    assert done.report.repaired_times == 0  # there was nothing to mend


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_the_last_sound_packet_without_a_duration_is_kept(kit, tmp_path, suffix):
    source = tmp_path / "in.nut"
    with av.open(str(source), "w") as out:
        video = out.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 32, 24, "yuv420p"
        sound = out.add_stream("aac", rate=48000, layout="mono")
        for number in range(8):
            frame = av.VideoFrame.from_ndarray(kit.ramp(number, 32, 24), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(video.encode(frame))
            chunk = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            chunk.sample_rate, chunk.pts, chunk.time_base = 48000, number * 1024, Fraction(1, 48000)
            out.mux(sound.encode(chunk))
        out.mux(video.encode(None))
        out.mux(sound.encode(None))

    kit.enlarge(source, tmp_path / f"out.{suffix}")

    assert kit.payloads(source) == kit.payloads(tmp_path / f"out.{suffix}")


def waits(path):
    """Ticks from decoding to showing, and the ticks between decoding times, of all pictures."""
    with av.open(str(path)) as box:
        packets = [p for p in box.demux(video=0) if p.size]
    steps = [b.dts - a.dts for a, b in zip(packets, packets[1:], strict=False)]
    return [p.pts - p.dts for p in packets], steps


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libsvtav1"])
@pytest.mark.parametrize("hole", [60, 3000, 20000])
def test_no_frame_waits_across_a_hole_in_the_picture(kit, tmp_path, codec, hole):
    ticks = [k * 3600 + (k >= 13) * hole * 90000 for k in range(30)]
    source = kit.video(tmp_path / "in.mp4", ticks=ticks, base=T, size=(64, 64))
    target = tmp_path / "out.mp4"
    kit.enlarge(source, target, scale=1, encode=EncodeOptions(codec=codec))

    assert kit.shown(target) == kit.shown(source)
    later, steps = waits(target)
    assert min(later) >= 0
    assert max(later) < 90000
    assert min(steps) > 0


def test_a_hole_that_an_mp4_cannot_hold_is_refused_in_a_sentence(kit, tmp_path):
    ticks = [k * 40 + (k >= 3) * 60 * 3600 * 1000 for k in range(8)]
    source = kit.video(tmp_path / "in.mkv", ticks=ticks, base=Fraction(1, 1000))
    with pytest.raises(MediaError, match="stands still for 216000 s, which mp4 cannot hold") as no:
        kit.enlarge(source, tmp_path / "out.mp4")
    assert ".mkv" in no.value.hint
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mkv"]

    kit.enlarge(source, tmp_path / "out.mkv")
    assert kit.shown(tmp_path / "out.mkv") == kit.shown(source)


@pytest.mark.parametrize("rate", [Fraction(1, 10), Fraction(2, 3), Fraction(1, 3600)])
def test_rates_below_one_frame_a_second_are_kept(kit, tmp_path, rate):
    step = int(1 / rate / Fraction(1, 12800))
    source = kit.video(tmp_path / "in.mp4", ticks=[k * step for k in range(6)], options={"bf": "2"})
    done = kit.enlarge(source, tmp_path / "out.y4m", scale=1)
    kit.enlarge(source, tmp_path / "out.mp4", scale=1)

    head = (tmp_path / "out.y4m").read_bytes()[:60].split()
    assert b"F%d:%d" % (rate.numerator, rate.denominator) in head
    assert kit.shown(tmp_path / "out.y4m") == [k / rate for k in range(6)]
    assert kit.shown(tmp_path / "out.mp4") == kit.shown(source)
    assert done.plan.rate == rate
