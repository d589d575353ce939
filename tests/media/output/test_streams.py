"""Every other stream comes through, or the plan says what happens to it and why."""

import threading
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest

from oasis_cli.errors import MediaError, UsageError
from oasis_cli.jobs.job import identity
from oasis_cli.media.input.probe import probe
from oasis_cli.media.output.plan import EncodeOptions, plan_output
from oasis_cli.pipeline.plan import Options, make_plan

FATES = {  # of kit.rich: aac, flac, srt, font, cover
    "mkv": ["copy", "copy", "copy", "copy", "attach"],
    "mp4": ["copy", "copy", "convert", "drop", "copy"],
    "mov": ["copy", "convert", "convert", "drop", "drop"],
    "webm": ["convert", "convert", "convert", "drop", "drop"],
    "ts": ["copy", "convert", "drop", "drop", "drop"],
}


def fates(plan):
    order = {"audio": 0, "subtitle": 1, "attachment": 2, "cover": 3}
    others = [s for s in plan.streams if s.action != "encode"]
    return [s.action for s in sorted(others, key=lambda s: (order[s.kind], s.index))]


@pytest.mark.parametrize("suffix", FATES)
def test_the_plan_names_the_fate_of_every_stream(kit, tmp_path, suffix):
    info = probe(kit.rich(tmp_path / "in.mkv"))
    plan = plan_output(info, tmp_path / f"out.{suffix}", (64, 64))

    assert fates(plan) == FATES[suffix]
    for stream in plan.streams:
        if stream.action == "drop":
            assert stream.reason
            assert any(str(stream) == loss for loss in plan.losses)
    assert all(str(s) in plan.lines() for s in plan.streams)


@pytest.mark.parametrize("suffix", FATES)
def test_what_is_copied_is_copied_byte_for_byte(kit, tmp_path, suffix):
    source, target = kit.rich(tmp_path / "in.mkv"), tmp_path / f"out.{suffix}"
    done = kit.enlarge(source, target, scale=4)

    before, after = kit.payloads(source), kit.payloads(target)
    assert len(before) == len(after) == 2
    audio = [s for s in done.plan.streams if s.kind == "audio"]
    for plan, packets, copied in zip(audio, before, after, strict=True):
        if plan.action == "copy" and suffix != "ts":  # MPEG-TS wraps AAC in ADTS
            assert packets == copied
        assert copied
    assert len(kit.shown(target)) == 8
    assert not done.warnings


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mov", "webm"])
def test_names_languages_dispositions_chapters_and_order(kit, tmp_path, suffix):
    source, target = kit.rich(tmp_path / "in.mkv"), tmp_path / f"out.{suffix}"
    kit.enlarge(source, target, scale=4)

    with av.open(str(target)) as box:
        tags = {k.lower(): v for k, v in box.metadata.items()}
        chapters = [
            (c["metadata"]["title"], float(c["start"] * c["time_base"])) for c in box.chapters()
        ]
        kinds = [s.type for s in box.streams if s.type in ("video", "audio", "subtitle")]
        languages = [s.language for s in box.streams if s.type in ("audio", "subtitle")]
        comment = box.streams.audio[1].disposition
    assert tags["title"] == "Case title"
    assert "major_brand" not in tags or tags["major_brand"] != "isom" or suffix == "mp4"
    assert "MAJOR_BRAND" not in tags
    assert chapters == [("First", 0.0), ("Zweites Kapitel", 0.16)]
    assert kinds[:4] == ["video", "audio", "audio", "subtitle"]
    usual = {"ger": "deu", "fra": "fre"}  # QuickTime's own choice of code
    assert [usual.get(name, name) for name in languages] == ["eng", "deu", "fre"]
    if suffix in ("mkv", "mp4"):
        assert comment & av.stream.Disposition.comment


def words(path):
    with av.open(str(path)) as box:
        found = []
        for packet in box.demux(box.streams.subtitles[0]):
            if packet.size:
                start = packet.pts * packet.time_base
                for subtitle in packet.decode():
                    text = subtitle.dialogue or subtitle.ass
                    found.append((round(float(start), 2), text.decode()))
        return found


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mov", "webm"])
def test_words_and_their_times_survive_conversion(kit, tmp_path, suffix):
    source, target = kit.rich(tmp_path / "in.mkv"), tmp_path / f"out.{suffix}"
    kit.enlarge(source, target, scale=4)
    assert words(target) == [(0.01, "Hello"), (0.17, "World")]


def test_words_come_back_from_mp4(kit, tmp_path):
    kit.enlarge(kit.rich(tmp_path / "in.mkv"), tmp_path / "a.mp4", scale=4)
    kit.enlarge(tmp_path / "a.mp4", tmp_path / "b.mkv", scale=1)
    first = float(
        kit.shown(tmp_path / "b.mkv")[0]
    )  # the muxer moves all streams, for AAC's priming
    found = [(round(t - first, 2), w) for t, w in words(tmp_path / "b.mkv")]
    assert found == [(0.01, "Hello"), (0.17, "World")]


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_the_cover_stays_a_cover(kit, tmp_path, suffix):
    source, target = kit.rich(tmp_path / "in.mkv"), tmp_path / f"out.{suffix}"
    kit.enlarge(source, target, scale=4)

    covers = []
    for path in (source, target):
        with av.open(str(path)) as box:
            cover = next(s for s in box.streams.video if int(s.disposition) & 0x400)
            covers.append(next(bytes(p) for p in box.demux(cover) if p.size))
    assert covers[0] == covers[1]


def test_attachments_reach_matroska(kit, tmp_path):
    kit.enlarge(kit.rich(tmp_path / "in.mkv"), tmp_path / "out.mkv", scale=4)
    with av.open(str(tmp_path / "out.mkv")) as box:
        [font] = [s for s in box.streams if s.type == "attachment"]
        assert (font.metadata["filename"], font.data) == ("font.ttf", b"not really a font")


def test_strict_turns_a_loss_into_an_error(kit, tmp_path):
    info = probe(kit.rich(tmp_path / "in.mkv"))
    strict = EncodeOptions(strict=True)
    with pytest.raises(MediaError, match="attachment"):
        plan_output(info, tmp_path / "out.mp4", (64, 64), strict)
    assert not plan_output(info, tmp_path / "out.mkv", (64, 64), strict).losses


def test_picture_subtitles_only_go_to_matroska(kit, tmp_path):
    source = tmp_path / "in.mkv"
    with av.open(str(source), "w") as out:
        video = out.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 32, 24, "yuv420p"
        pgs = out.add_mux_stream("hdmv_pgs_subtitle")
        for number in range(4):
            frame = av.VideoFrame.from_ndarray(kit.ramp(number, 32, 24), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        packet = av.Packet(b"\x80\x00\x00")
        packet.pts = packet.dts = 40
        packet.time_base, packet.stream = Fraction(1, 1000), pgs
        out.mux(packet)
    info = probe(source)
    assert fates(plan_output(info, tmp_path / "o.mkv", (64, 48))) == ["copy"]
    for suffix in ("mp4", "mov", "webm"):
        plan = plan_output(info, tmp_path / f"o.{suffix}", (64, 64))
        assert fates(plan) == ["drop"]
        assert "mkv does" in plan.losses[0] or suffix == "webm"


def test_a_second_video_stream_is_copied(kit, tmp_path):
    source = tmp_path / "in.mkv"
    with av.open(str(source), "w") as out:
        for size in ((32, 24), (48, 32)):
            video = out.add_stream("libx264", rate=25, options={"bf": "0", "tune": "zerolatency"})
            video.width, video.height, video.pix_fmt = *size, "yuv420p"
        for number in range(6):
            for video in out.streams.video:
                frame = av.VideoFrame.from_ndarray(
                    kit.ramp(number, video.width, video.height), format="rgb24"
                )
                frame.pts, frame.time_base = number, Fraction(1, 25)
                out.mux(video.encode(frame))
        for video in out.streams.video:
            out.mux(video.encode(None))
    kit.enlarge(source, tmp_path / "out.mp4")

    with av.open(str(tmp_path / "out.mp4")) as box:
        assert [(s.width, s.height) for s in box.streams.video] == [(64, 48), (48, 32)]
    assert (
        kit.payloads(source, "video")[1]
        and len(kit.payloads(tmp_path / "out.mp4", "video")[1]) == 6
    )


@pytest.mark.parametrize("suffix, expected", [("mov", "tmcd"), ("mp4", "tmcd"), ("mkv", "tag")])
def test_timecode_is_written_anew(kit, tmp_path, suffix, expected):
    def with_timecode(video):
        video.metadata["timecode"] = "01:00:00:00"

    source = kit.video(tmp_path / "in.mov", setup=with_timecode)
    done = kit.enlarge(source, tmp_path / f"out.{suffix}")

    assert Counter(s.to for s in done.plan.streams)[expected] == 1
    assert not done.plan.losses
    with av.open(str(tmp_path / f"out.{suffix}")) as box:
        tags = {k.lower(): v for k, v in box.streams.video[0].metadata.items()}
        assert tags["timecode"] == "01:00:00:00"


@pytest.mark.parametrize("suffix, codec", [("webm", "opus"), ("mov", "alac"), ("ts", "aac")])
def test_converted_sound_keeps_its_place_in_time(kit, tmp_path, suffix, codec):
    """A click at 0.5 s is still there, whatever an encoder puts before it."""
    source = tmp_path / "in.mkv"
    with av.open(str(source), "w") as out:
        video = out.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 32, 24, "yuv420p"
        sound = out.add_stream("flac", rate=48000, layout="mono")
        for number in range(25):
            frame = av.VideoFrame.from_ndarray(kit.ramp(number, 32, 24), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        wave = np.zeros((1, 48000), np.int16)
        wave[0, 24000:24200] = 20000
        for start in range(0, 48000, 4800):
            chunk = av.AudioFrame.from_ndarray(
                wave[:, start : start + 4800], format="s16", layout="mono"
            )
            chunk.sample_rate, chunk.pts, chunk.time_base = 48000, start, Fraction(1, 48000)
            out.mux(sound.encode(chunk))
        out.mux(sound.encode(None))
    target = tmp_path / f"out.{suffix}"
    kit.enlarge(source, target, scale=4)

    first_video = kit.shown(target)[0]
    with av.open(str(target)) as box:
        assert box.streams.audio[0].codec_context.name == codec
        peak = (0.0, Fraction(0))
        for frame in box.decode(audio=0):
            samples = np.abs(frame.to_ndarray().astype(float))[0]
            scale = 32768.0 if frame.format.name.startswith("s16") else 1.0
            loud = np.flatnonzero(samples / scale > 0.3)
            if loud.size and not peak[0]:
                peak = (1.0, frame.pts * frame.time_base + Fraction(int(loud[0]), 48000))
    slack = Fraction(3, 1000) + (Fraction(1024, 48000) if suffix == "ts" else 0)
    assert abs(peak[1] - first_video - Fraction(1, 2)) < slack


def test_a_codec_the_container_does_not_hold_is_wrong_usage(kit, tmp_path):
    info = probe(kit.video(tmp_path / "in.mp4"))
    with pytest.raises(UsageError, match="webm does not hold libx264"):
        plan_output(info, tmp_path / "out.webm", (64, 48), EncodeOptions(codec="libx264"))
    with pytest.raises(UsageError, match="no codec called"):
        plan_output(info, tmp_path / "out.mp4", (64, 48), EncodeOptions(codec="divx"))
    with pytest.raises(UsageError, match="no container"):
        plan_output(info, tmp_path / "out.xyz", (64, 48))
    with pytest.raises(MediaError, match="does not start"):
        plan_output(info, tmp_path / "out.mp4", (64, 48), EncodeOptions(preset="warp"))


def test_the_plan_is_plain_data(kit, tmp_path):
    import json

    info = probe(kit.rich(tmp_path / "in.mkv"))
    plan = plan_output(info, tmp_path / "out.mp4", (64, 48))
    assert json.loads(json.dumps(plan.to_json()))["size"] == [64, 48]
    assert json.loads(json.dumps(info.to_json()))["video"]["width"] == 32


# What a plan may not depend on -------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["mov", "webm", "ts", "nut"])
def test_reasons_are_the_same_whatever_else_runs(kit, tmp_path, suffix):
    """Another thread logs errors meanwhile."""
    info, done = probe(kit.rich(tmp_path / "in.mkv")), threading.Event()
    (tmp_path / "broken.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(400))

    def log_errors():
        while not done.is_set():
            with suppress(av.FFmpegError, OSError):
                av.open(str(tmp_path / "broken.mp4")).close()

    alone = plan_output(info, tmp_path / f"out.{suffix}", (64, 64)).streams
    other = threading.Thread(target=log_errors)
    other.start()
    try:
        beside = [plan_output(info, tmp_path / f"o{n}.{suffix}", (64, 64)) for n in range(3)]
    finally:
        done.set()
        other.join()
    assert all(plan.streams == alone for plan in beside)


def test_a_stream_that_no_container_of_the_kind_holds_says_so(kit, tmp_path):
    source = tmp_path / "in.mkv"
    with av.open(str(source), "w") as out:
        video = out.add_stream("ffv1", rate=25)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        audio = out.add_stream("wavpack", rate=48000, layout="stereo", format="s16p")
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        out.mux([*video.encode(frame), *video.encode(None)])
        sound = av.AudioFrame.from_ndarray(
            np.zeros((2, 4096), np.int16), format="s16p", layout="stereo"
        )
        sound.sample_rate, sound.pts = 48000, 0
        out.mux([*audio.encode(sound), *audio.encode(None)])
    plan = plan_output(probe(source), tmp_path / "out.mp4", (64, 64))
    (fate,) = [s for s in plan.streams if s.kind == "audio"]
    assert (fate.action, fate.reason) == ("convert", "mp4 does not hold wavpack")
    assert str(fate) == f"{fate.fate} (mp4 does not hold wavpack)"


def test_planning_leaves_the_log_level_alone(kit, tmp_path):
    info = probe(kit.rich(tmp_path / "in.mkv"))
    before = av.logging.get_level()
    av.logging.set_level(av.logging.FATAL)
    try:
        plan_output(info, tmp_path / "out.mov", (64, 64))
        assert av.logging.get_level() == av.logging.FATAL
    finally:
        av.logging.set_level(before)


def test_a_job_is_not_known_by_the_words_of_its_plan(kit, tmp_path):
    source = kit.rich(tmp_path / "in.mkv")
    plan = make_plan(probe(source), str(tmp_path / "out.mov"), Options(scale=1, device="cpu"))
    assert any(stream.reason for stream in plan.output.streams)
    reworded = tuple(replace(s, reason="better words") for s in plan.output.streams)
    other = replace(plan, output=replace(plan.output, streams=reworded))
    assert identity(other, "weights") == identity(plan, "weights")
    dropped = tuple(replace(s, action="drop", to="") for s in plan.output.streams)
    other = replace(plan, output=replace(plan.output, streams=dropped))
    assert identity(other, "weights") != identity(plan, "weights")
