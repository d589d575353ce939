"""Teletext, telemetry, second views and the like: kept, or named with what keeps them."""

from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest

from oasis_cli.errors import UsageError
from oasis_cli.media.input.probe import probe
from oasis_cli.media.input.reader import ReadOptions
from oasis_cli.media.output.plan import EncodeOptions, plan_output

TICK = Fraction(1, 90000)
SAMPLES = {
    "dvb_teletext": b"\x10" + (b"\x03\x2c\xe4\xe4" + bytes(42)) * 3,
    "dvb_subtitle": b"\x0f\x10\x00\x01\x00\x02\x00\x00",
    "klv": b"\x06\x0e\x2b\x34" + bytes(30),
    "bin_data": b"DEVC" + bytes(60),
    "eia_608": b"\x00\x00\x00\x0acdat\x94\x20",
}


def make_with(path, codec):
    """A film with a second stream of packets that no encoder here makes."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        other = out.add_mux_stream(codec)
        other.time_base = TICK
        for number in range(25):
            frame = av.VideoFrame(64, 48, "yuv420p")
            frame.pts = number
            out.mux(video.encode(frame))
            if number % 5 == 0:
                packet = av.Packet(SAMPLES[codec])
                packet.pts = packet.dts = number * 3600
                packet.duration, packet.time_base = 3600, TICK
                packet.stream, packet.is_keyframe = other, True
                out.mux(packet)
        out.mux(video.encode(None))
    return path


@pytest.mark.parametrize(
    "source, codec, target, said",
    [
        ("in.ts", "dvb_teletext", "out.mkv", "subtitle teletext: DROPPED"),
        ("in.ts", "dvb_teletext", "out.ts", "subtitle teletext: DROPPED"),
        ("in.ts", "dvb_subtitle", "out.mkv", "copied"),
        ("in.ts", "dvb_subtitle", "out.ts", "copied"),
        ("in.ts", "dvb_subtitle", "out.mp4", "mkv does"),
        ("in.ts", "klv", "out.ts", "data klv: copied"),
        ("in.ts", "klv", "out.mkv", "data klv: DROPPED"),
        ("in.ts", "bin_data", "out.mov", "DROPPED"),
        ("in.mp4", "bin_data", "out.mp4", "copied"),
        ("in.mp4", "bin_data", "out.mkv", "DROPPED"),
        ("in.mov", "eia_608", "out.mov", "copied"),
        ("in.mov", "eia_608", "out.mp4", "mov does"),
        ("in.mov", "eia_608", "out.ts", "mov does"),
    ],
)
def test_each_is_kept_or_named(kit, tmp_path, source, codec, target, said):
    done = kit.enlarge(make_with(tmp_path / source, codec), tmp_path / target)

    plan = done.plan.streams[1]
    assert said in str(plan)
    if plan.action == "copy":
        kind = "data" if plan.kind == "data" else "subtitle"
        before = kit.payloads(tmp_path / source, kind)[0]
        assert kit.payloads(tmp_path / target, kind)[0] == before
    else:
        assert any("stream 1" in loss for loss in done.plan.losses)
    assert not done.warnings


def test_a_second_view_is_named(kit, tmp_path):
    """Slices of layer 1 behind those of layer 0, as MV-HEVC has them; decoders skip them."""
    source = kit.video(tmp_path / "in.mp4", codec="libx265", size=(64, 48))
    assert not probe(source).video.second_view
    with av.open(str(source)) as box, av.open(str(tmp_path / "mv.mp4"), "w") as out:
        copy = out.add_stream_from_template(box.streams.video[0], opaque=True)
        for packet in box.demux(video=0):
            if packet.size:
                slice_ = b"\x00\x00\x00\x08" + bytes([1 << 1, 1 << 3 | 1]) + bytes([0xAF] * 6)
                more = av.Packet(bytes(packet) + slice_)
                more.pts, more.dts, more.duration = packet.pts, packet.dts, packet.duration
                more.time_base, more.is_keyframe = packet.time_base, packet.is_keyframe
                more.stream = copy
                out.mux(more)
    info = probe(tmp_path / "mv.mp4")
    assert info.video.second_view
    plan = plan_output(info, tmp_path / "out.mp4", (64, 48))
    assert any("the second view (MV-HEVC) is lost" in loss for loss in plan.losses)


@pytest.mark.parametrize("transfer, words", [(16, "base layer is written"), (2, "look wrong")])
def test_dolby_vision_is_named_with_what_is_left(kit, tmp_path, transfer, words):
    info = probe(kit.video(tmp_path / "in.mp4"))
    color = replace(info.video.color, transfer=transfer)
    info = replace(info, video=replace(info.video, dolby_vision=True, color=color))
    plan = plan_output(info, tmp_path / "out.mp4", (64, 48))
    assert any("DOLBY VISION" in loss and words in loss for loss in plan.losses)


def test_what_mov_does_not_hold_is_refused_before_any_work(tiny_clip, tmp_path):
    with pytest.raises(UsageError, match="mov does not hold libsvtav1"):
        plan_output(
            probe(tiny_clip), tmp_path / "out.mov", (64, 48), EncodeOptions(codec="libsvtav1")
        )


def captioned(path, kit):
    """A film of 2 s with AAC, whose first packet lies before 0, and words from 0.4 to 1.4 s and
    from 1.4 to 2.4 s."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 32, 24, "yuv420p"
        sound = out.add_stream("aac", rate=48000, layout="mono")
        words = out.add_mux_stream("mov_text" if path.suffix == ".mp4" else "subrip")
        words.time_base = Fraction(1, 1000)
        for number in range(50):
            picture = av.VideoFrame.from_ndarray(kit.ramp(number, 32, 24), "rgb24")
            out.mux(video.encode(picture))
            tone = av.AudioFrame.from_ndarray(np.zeros((1, 1920), np.float32), "fltp", "mono")
            tone.sample_rate, tone.pts, tone.time_base = 48000, number * 1920, Fraction(1, 48000)
            out.mux(sound.encode(tone))
            if number in (10, 35):
                text = f"line {number}".encode()
                data = len(text).to_bytes(2, "big") + text if path.suffix == ".mp4" else text
                packet = av.Packet(data)
                packet.pts = packet.dts = number * 40
                packet.duration, packet.time_base, packet.stream = 1000, Fraction(1, 1000), words
                out.mux(packet)
        out.mux(video.encode(None))
        out.mux(sound.encode(None))
    return path


@pytest.mark.parametrize("target", ["out.mkv", "out.mp4", "out.webm"])
@pytest.mark.parametrize("source", ["in.mkv", "in.mp4"])
def test_a_cut_moves_nothing_and_keeps_the_words_that_are_shown_across_it(
    kit, tmp_path, source, target
):
    read = ReadOptions(start=Fraction(1), end=Fraction(9, 5))
    kit.enlarge(captioned(tmp_path / source, kit), tmp_path / target, read=read)

    times = {"video": [], "audio": [], "subtitle": []}
    with av.open(str(tmp_path / target)) as box:
        for packet in box.demux():
            kind = packet.stream.type
            if packet.size and (kind != "subtitle" or b"line" in bytes(packet)):
                span = packet.pts * packet.time_base, (packet.duration or 0) * packet.time_base
                times[kind].append(tuple(map(float, span)))
    assert times["subtitle"] == [pytest.approx(t, abs=0.002) for t in [(0, 0.4), (0.4, 0.4)]]
    assert times["video"][0][0] == pytest.approx(0, abs=0.002)
    assert min(times["audio"])[0] == pytest.approx(0.01, abs=0.025)
    assert max(at for kind in times.values() for at, _ in kind) < 0.81
