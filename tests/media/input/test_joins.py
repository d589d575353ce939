"""Recordings joined byte by byte: nothing is squeezed, lost or left small behind a join."""

import io
import re
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from oasis_cli.cli.info import info_lines
from oasis_cli.errors import MediaError
from oasis_cli.media.input.parts import Cutter
from oasis_cli.media.input.pipes import Pipe
from oasis_cli.media.input.probe import probe
from oasis_cli.media.input.reader import Reader, ReadOptions
from oasis_cli.media.output.plan import EncodeOptions

FRAMES, RATE = 15, 25
SOUND = 48000
OTHER_PIDS = {"mpegts_start_pid": "512", "mpegts_pmt_start_pid": "496"}


def part(
    path: Path,
    kit: Any,
    *,
    at: float = 0,
    frames: int = FRAMES,
    codec: str = "libx264",
    sound: str | None = "mp2",
    second_at: float | None = None,
    sar: Fraction | None = None,
    size: tuple[int, int] = (64, 48),
    first: int = 0,
    profile: str | None = None,
    **container: str,
) -> bytes:
    """A recording that begins at second `at`, n / 25; `second_at`: another picture from there."""
    form = "vob" if path.suffix == ".vob" else None
    with av.open(str(path), "w", format=form, container_options=container) as out:
        videos = [(_video(out, codec, size, sar), at)]
        if profile is not None:
            videos[0][0].options = {"preset": "ultrafast", "profile": profile}
        if second_at is not None:
            videos.append((_video(out, codec, size, None), at + second_at))
        audio: Any = out.add_stream(sound, rate=SOUND, layout="mono") if sound else None
        for number in range(frames):
            for video, begin in videos:
                picture = av.VideoFrame.from_ndarray(kit.ramp(first + number, *size), "rgb24")
                picture.pts, picture.time_base = number + round(begin * RATE), Fraction(1, RATE)
                out.mux(video.encode(picture))
            if audio is not None:
                for packet in _tone(audio, number, at):
                    out.mux(packet)
        for video, _ in videos:
            out.mux(video.encode(None))
        if audio is not None:
            out.mux(audio.encode(None))
    return path.read_bytes()


def _video(out: Any, codec: str, size: tuple[int, int], sar: Fraction | None) -> Any:
    options = {"preset": "ultrafast", "bf": "2"} if codec == "libx264" else {"bf": "2"}
    video = out.add_stream(codec, rate=RATE, options=options)
    video.width, video.height, video.pix_fmt = *size, "yuv420p"
    if sar is not None:
        video.codec_context.sample_aspect_ratio = sar
    return video


def _tone(audio: Any, number: int, at: float) -> list[Any]:
    """The sound of one frame."""
    count = SOUND // RATE
    samples = np.full((1, count), 500 * (number % 60), np.int16)
    chunk = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
    chunk.sample_rate, chunk.time_base = SOUND, Fraction(1, SOUND)
    chunk.pts = number * count + round(at * SOUND)
    return list(audio.encode(chunk))


def joined(path: Path, *parts: bytes) -> Path:
    path.write_bytes(b"".join(parts))
    return path


def sound_times(path: Path) -> list[Fraction]:
    with av.open(str(path)) as box:
        return [p.pts * p.time_base for p in box.demux(audio=0) if p.size]


def largest_step(times: list[Fraction]) -> float:
    return max(float(b - a) for a, b in zip(times, times[1:], strict=False))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize(
    "first, second",
    [(0, 0), (0.48, 0), (0, 0.32), (100, 0), (0, 100), (50_000, 0), (0, 5000), (95_300, 10)],
)
def test_the_second_part_follows_the_first_whatever_its_clock_says(
    kit, tmp_path, first, second, suffix
):
    a, b = (part(tmp_path / f"{n}.ts", kit, at=at) for n, at in enumerate((first, second)))
    done = kit.enlarge(joined(tmp_path / "in.ts", a, b), tmp_path / f"out.{suffix}", scale=1)

    times, sound = kit.shown(tmp_path / f"out.{suffix}"), sound_times(tmp_path / f"out.{suffix}")
    assert len(times) == 2 * FRAMES
    assert min(b - a for a, b in zip(times, times[1:], strict=False)) > Fraction(39, 1000)
    assert largest_step(times) < 0.11
    assert len(sound) == 2 * len(sound_times(tmp_path / "0.ts"))
    half = len(sound) // 2
    moved = times[FRAMES] - times[0]
    assert abs((sound[half] - sound[0]) - moved) <= Fraction(1, 500)  # by the same amount
    assert largest_step(sound) < 0.11
    assert (done.report.joins, done.report.repaired_times) == (1, 0)
    assert "the clock steps" in done.report.warnings[0]
    assert done.warnings == []


@pytest.mark.parametrize("suffix", ["ts", "vob"])
@pytest.mark.parametrize("sound", ["mp2", None])
def test_any_number_of_parts_can_be_joined(kit, tmp_path, suffix, sound):
    codec = "mpeg2video" if suffix == "vob" else "libx264"
    one = part(tmp_path / f"one.{suffix}", kit, codec=codec, sound=sound)
    done = kit.enlarge(joined(tmp_path / f"in.{suffix}", *[one] * 4), tmp_path / "out.mp4", scale=1)

    times = kit.shown(tmp_path / "out.mp4")
    assert len(times) == 4 * FRAMES
    assert largest_step(times) < 0.11
    assert done.report.joins == 3


def test_a_join_goes_through_a_pipe_too(kit, tmp_path, monkeypatch):
    one = part(tmp_path / "one.ts", kit)
    joined(tmp_path / "in.ts", one, one)
    with (tmp_path / "in.ts").open("rb") as pipe:
        monkeypatch.setattr("sys.stdin", type("Stdin", (), {"buffer": pipe}))
        with Reader(probe("-")) as reader:
            assert sum(1 for _ in reader) == 2 * FRAMES
    assert reader.report.joins == 1


@pytest.mark.parametrize("kind", ["mkv", "nut", "flv"])
def test_files_written_one_behind_the_other_are_read_one_behind_the_other(kit, tmp_path, kind):
    a = part(tmp_path / f"a.{kind}", kit, sound="aac")
    b = part(tmp_path / f"b.{kind}", kit, sound="aac", first=FRAMES, profile="baseline")
    done = kit.enlarge(joined(tmp_path / f"in.{kind}", a, b, a), tmp_path / "out.mkv", scale=1)

    times, sound = kit.shown(tmp_path / "out.mkv"), sound_times(tmp_path / "out.mkv")
    third = len(sound_times(tmp_path / f"a.{kind}"))
    assert (len(times), len(sound)) == (3 * FRAMES, 3 * third)
    assert min(b - a for a, b in pairs(times)) > Fraction(38, 1000)
    assert max(largest_step(times), largest_step(sound)) < 0.11
    for number in (1, 2):
        moved = times[number * FRAMES] - times[0]
        assert abs(sound[number * third] - sound[0] - moved) <= Fraction(2, 1000)
    assert (done.report.joins, done.report.repaired_times, done.report.bad_packets) == (2, 0, 0)
    with av.open(str(tmp_path / "out.mkv")) as box:
        pictures = [f.to_ndarray(format="rgb24").astype(int) for f in box.decode(video=0)]
    wanted = [kit.ramp(n, 64, 48) for n in (*range(2 * FRAMES), *range(FRAMES))]
    assert all(np.abs(p - w).mean() < 12 for p, w in zip(pictures, wanted, strict=True))


def test_a_file_of_another_codec_behind_the_first_is_said_and_fails_under_strict(kit, tmp_path):
    parts = [part(tmp_path / f"{c}.mkv", kit, codec=c, sound=None) for c in ("libx264", "mpeg4")]
    source = joined(tmp_path / "in.mkv", *parts)
    done = kit.enlarge(source, tmp_path / "out.mkv", scale=1)

    assert any("of another codec" in text for text in done.report.warnings)
    with pytest.raises(MediaError, match="stream 1 begins where stream 0 ends"):
        kit.enlarge(source, tmp_path / "strict.mkv", read=ReadOptions(strict=True))


def test_an_mp4_behind_another_is_said_to_be_left_and_fails_under_strict(kit, tmp_path):
    one = part(tmp_path / "one.mp4", kit, sound=None)
    fragments = part(tmp_path / "fragments.mp4", kit, sound=None, movflags="frag_keyframe")
    source = joined(tmp_path / "in.mp4", one, one)
    done = kit.enlarge(source, tmp_path / "out.mkv", scale=1)

    assert f"another film begins at byte {len(one)}: it is not read" in done.plan.losses
    with pytest.raises(MediaError, match="another film begins"):
        kit.enlarge(source, tmp_path / "strict.mkv", encode=EncodeOptions(strict=True))
    for whole in (one, fragments):
        assert not probe(joined(tmp_path / "whole.mp4", whole)).unread_at


def piped(monkeypatch: Any, data: bytes, at_once: int = 1 << 20) -> None:
    """Let standard input be a pipe with these bytes, which come in pieces of a size."""
    pipe = io.BytesIO(data)
    buffer = SimpleNamespace(read=lambda size: pipe.read(min(size, at_once)))
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=buffer))


@pytest.mark.parametrize("kind", ["mkv", "nut", "flv"])
def test_files_behind_each_other_in_a_pipe_come_out_as_from_a_file(
    kit, tmp_path, monkeypatch, kind
):
    a = part(tmp_path / f"a.{kind}", kit, sound="aac")
    b = part(tmp_path / f"b.{kind}", kit, sound="aac", first=FRAMES, profile="baseline")
    source = joined(tmp_path / f"in.{kind}", a, b, a)
    piped(monkeypatch, source.read_bytes(), at_once=1000)
    found = [
        kit.enlarge(given, tmp_path / name, scale=1, read=ReadOptions(strict=True))
        for given, name in ((source, "file.mkv"), ("-", "pipe.mkv"))
    ]
    files = tmp_path / "file.mkv", tmp_path / "pipe.mkv"
    assert [done.report.frames for done in found] == [3 * FRAMES] * 2
    assert found[0].report.warnings == found[1].report.warnings
    assert kit.shown(files[0]) == kit.shown(files[1])
    assert sound_times(files[0]) == sound_times(files[1])


@pytest.mark.parametrize("piece", [1, 97, 1 << 20])
@pytest.mark.parametrize("kind", ["mkv", "nut", "flv"])
def test_a_pipe_is_cut_to_the_byte_where_a_file_begins(kit, tmp_path, monkeypatch, kind, piece):
    parts = [part(tmp_path / f"{n}.{kind}", kit, frames=n, sound=None) for n in (2, 4, 3)]
    piped(monkeypatch, b"".join(parts), at_once=piece)
    pipe = Pipe("-")
    pipe.cut(None)
    for number, wanted in enumerate(parts):
        assert b"".join(iter(lambda: pipe.read(50), b"")) == wanted
        following = sum(map(len, parts[: number + 1]))
        assert pipe.next_part() == (following if number < 2 else None)


def test_an_mkv_in_an_mkv_is_no_part_of_it(kit, tmp_path):
    one = part(tmp_path / "one.mkv", kit, sound=None)
    with av.open(str(tmp_path / "two.mkv"), "w") as out, av.open(str(tmp_path / "one.mkv")) as box:
        video = out.add_stream_from_template(box.streams.video[0], opaque=True)
        out.add_attachment("one.mkv", "video/x-matroska", one)
        for packet in box.demux():
            if packet.size:
                packet.stream = video
                out.mux(packet)
    assert probe(tmp_path / "two.mkv").parts == 1
    cutter = Cutter("matroska")
    cutter.feed(whole := (tmp_path / "two.mkv").read_bytes())
    assert cutter.take(1 << 20) == whole


@pytest.mark.parametrize("kind", ["mkv", "nut", "flv"])
def test_the_length_of_files_behind_each_other_is_that_of_all(kit, tmp_path, kind):
    a = part(tmp_path / f"a.{kind}", kit, sound=None)
    b = part(tmp_path / f"b.{kind}", kit, frames=2 * FRAMES, sound=None)
    info = probe(joined(tmp_path / f"in.{kind}", a, b, a))

    assert info.duration == pytest.approx(4 * FRAMES / RATE, abs=0.1)
    assert (info.parts, info.video.claimed_frames) == (3, 4 * FRAMES)
    lines = info_lines(info)
    assert "parts: 3 files one behind the other, read as one" in lines
    assert lines[0].endswith("2.4 s") or lines[0].endswith("2.5 s")


def test_what_only_a_later_file_has_is_said_and_fails_under_strict(kit, tmp_path, monkeypatch):
    plain = part(tmp_path / "plain.mkv", kit, sound="aac", size=(32, 24))
    rich = kit.rich(tmp_path / "rich.mkv").read_bytes()
    source = joined(tmp_path / "in.mkv", plain, rich)
    at = f"(byte {len(plain)})"
    said = (
        f"left out of the files behind the first: audio flac {at}, subtitle srt {at}, "
        f"attachment {at}, video png {at}"
    )
    done = kit.enlarge(source, tmp_path / "out.mkv", scale=1)
    assert said in done.plan.losses and said not in done.report.warnings
    with pytest.raises(MediaError, match="left out of the files behind the first"):
        kit.enlarge(source, tmp_path / "strict.mkv", encode=EncodeOptions(strict=True))
    piped(monkeypatch, source.read_bytes())
    told = kit.enlarge("-", tmp_path / "out.mkv", scale=1).report.warnings
    assert f"{said}, 2 chapters {at}" in told  # a pipe's are seen when the output has begun
    for pair in ((rich, rich[:0]), (plain, plain)):
        assert not probe(joined(tmp_path / "same.mkv", *pair)).left_behind


def test_an_flv_that_breaks_off_takes_nothing_from_the_one_behind_it(kit, tmp_path, monkeypatch):
    one = part(tmp_path / "one.flv", kit, sound="aac")
    source = joined(tmp_path / "in.flv", one[:-100], one)
    piped(monkeypatch, source.read_bytes())
    for given in (source, "-"):
        done = kit.enlarge(given, tmp_path / "out.mkv", scale=1)
        assert done.report.frames >= 2 * FRAMES - 1
        assert (done.report.joins, done.report.bad_packets) == (1, 0)
        assert float(kit.shown(tmp_path / "out.mkv")[-1]) < 1.5
        assert len(sound_times(tmp_path / "out.mkv")) > 50


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("kind", ["mkv", "flv"])
def test_a_file_that_is_shorter_than_it_tells_is_said_and_fails_under_strict(
    kit, tmp_path, monkeypatch, kind, parts
):
    one = part(tmp_path / f"one.{kind}", kit, sound="aac")
    source = joined(tmp_path / f"in.{kind}", *[one] * parts)
    assert not probe(source).missing
    source.write_bytes(source.read_bytes()[:-2000])
    said = "the last 2000 bytes"
    assert "cut off: 2000 bytes are missing at its end" in info_lines(probe(source))
    done = kit.enlarge(source, tmp_path / "out.mkv", scale=1)
    assert any(said in loss for loss in done.plan.losses)
    with pytest.raises(MediaError, match=said):
        kit.enlarge(source, tmp_path / "strict.mkv", encode=EncodeOptions(strict=True))
    if kind == "mkv":
        piped(monkeypatch, source.read_bytes())
        done = kit.enlarge("-", tmp_path / "out.mkv", scale=1)
        assert any(said in text for text in done.report.warnings)


@pytest.mark.parametrize("parts", [1, 2])
def test_a_file_that_is_cut_off_behind_what_is_wanted_passes_strict(
    kit, tmp_path, monkeypatch, parts
):
    one = part(tmp_path / "one.mkv", kit, sound="aac", frames=50)
    source = joined(tmp_path / "in.mkv", *[one] * parts)
    source.write_bytes(source.read_bytes()[:-2000])
    strict = EncodeOptions(strict=True, overwrite=True)
    for given, frames in ((source, 5), ("-", 5), ("-", 40)):  # the end of a pipe is seen at 40
        frames += (parts - 1) * 50
        piped(monkeypatch, source.read_bytes())
        read = ReadOptions(end=Fraction(frames, RATE), strict=True)
        done = kit.enlarge(given, tmp_path / "out.mkv", scale=1, read=read, encode=strict)
        assert done.report.frames == frames
        assert not done.plan.losses
    for given in (source, "-"):
        piped(monkeypatch, source.read_bytes())
        read = ReadOptions(end=Fraction(parts * 50 - 1, RATE), strict=True)
        with pytest.raises(MediaError, match="the last 2000 bytes"):
            kit.enlarge(given, tmp_path / "strict.mkv", read=read, encode=strict)


@pytest.mark.parametrize("frames", [10, FRAMES])
def test_another_film_in_an_mp4_behind_what_is_wanted_passes_strict(kit, tmp_path, frames):
    one = part(tmp_path / "one.mp4", kit, sound="aac")
    source = joined(tmp_path / "in.mp4", one, one)
    strict = EncodeOptions(strict=True)
    read = ReadOptions(end=Fraction(frames, RATE), strict=True)
    done = kit.enlarge(source, tmp_path / "out.mkv", scale=1, read=read, encode=strict)
    assert done.report.frames == frames and not done.plan.losses
    for end in (None, Fraction(FRAMES + 2, RATE), Fraction(100)):
        with pytest.raises(MediaError, match="another film begins"):
            read = ReadOptions(end=end, strict=True)
            kit.enlarge(source, tmp_path / "strict.mkv", read=read, encode=strict)


@pytest.mark.parametrize("kind", ["mkv", "flv"])
def test_what_only_a_file_behind_what_is_wanted_has_passes_strict(kit, tmp_path, monkeypatch, kind):
    one = part(tmp_path / f"one.{kind}", kit, sound=None, frames=25)
    rich = part(tmp_path / f"rich.{kind}", kit, sound="aac")
    source = joined(tmp_path / f"in.{kind}", one, one, rich)
    strict = EncodeOptions(strict=True, overwrite=True)
    for given in (source, "-"):
        for frames in (20, 48, 50, 54):
            piped(monkeypatch, source.read_bytes())
            read = ReadOptions(end=Fraction(frames, RATE), strict=True)
            target = tmp_path / "out.mkv"
            if frames == 54:
                with pytest.raises(MediaError, match="left out of the files behind the first"):
                    kit.enlarge(given, target, scale=1, read=read, encode=strict)
                continue
            done = kit.enlarge(given, target, scale=1, read=read, encode=strict)
            assert done.report.frames == frames - (2 if kind == "flv" else 0)  # it begins at 0.08
            assert not done.plan.losses


@pytest.mark.parametrize("where", ["file", "pipe"])
def test_a_hole_inside_one_of_several_mkv_files_stays(kit, tmp_path, monkeypatch, where):
    one = kit.video(tmp_path / "one.mkv", ticks=[0, 40, 80, 30_000], base=Fraction(1, 1000))
    data = one.read_bytes()
    source = joined(tmp_path / "in.mkv", data, data)
    piped(monkeypatch, source.read_bytes())
    done = kit.enlarge(source if where == "file" else "-", tmp_path / "out.mkv", scale=1)

    shown = [float(time) for time in kit.shown(tmp_path / "out.mkv")]
    wanted = [0, 0.04, 0.08, 30, 30.04, 30.08, 30.12, 60.04]
    assert shown == pytest.approx(wanted, abs=0.1)
    assert done.report.joins == 1


def test_a_clock_that_wraps_is_no_join(kit, tmp_path):
    source = tmp_path / "in.ts"
    part(source, kit, at=2**33 / 90000 - 2.5, frames=60)
    done = kit.enlarge(source, tmp_path / "out.mp4", scale=1)

    times = kit.shown(tmp_path / "out.mp4")
    assert done.report.joins == 0
    assert all(abs(b - a - Fraction(1, 25)) <= Fraction(1, 90000) for a, b in pairs(times))


def pairs(values: list[Any]) -> list[tuple[Any, Any]]:
    return list(zip(values, values[1:], strict=False))


@pytest.mark.parametrize("wrong", [-0.4, -70, 70, 4000])
def test_one_damaged_time_is_no_join(kit, tmp_path, wrong):
    data = bytearray(part(tmp_path / "one.ts", kit, frames=50))
    heads = [m.start() for m in re.finditer(b"\x00\x00\x01\xe0", bytes(data))]
    move_pes(data, heads[20], round(wrong * 90000))
    done = kit.enlarge(joined(tmp_path / "in.ts", bytes(data)), tmp_path / "out.mp4", scale=1)

    times = kit.shown(tmp_path / "out.mp4")
    assert done.report.joins == 0
    assert len(times) == 50
    assert float(times[-1] - times[0]) == pytest.approx(49 / 25, abs=0.001)


def move_pes(data: bytearray, at: int, ticks: int) -> None:
    """Add ticks to the times in the PES header at a place."""
    places = [at + 9] + [at + 14] * (data[at + 7] >> 6 == 3)
    for place in places:
        bits = int.from_bytes(data[place : place + 5], "big")
        time = (bits >> 33 & 7) << 30 | (bits >> 17 & 0x7FFF) << 15 | bits >> 1 & 0x7FFF
        time = (time + ticks) % 2**33
        bits = bits >> 36 << 36 | (time >> 30) << 33 | (time >> 15 & 0x7FFF) << 17
        bits |= (time & 0x7FFF) << 1 | 1 << 32 | 1 << 16 | 1
        data[place : place + 5] = bits.to_bytes(5, "big")


def test_start_and_end_count_on_the_mended_clock(kit, tmp_path):
    a, b = part(tmp_path / "a.ts", kit, at=3), part(tmp_path / "b.ts", kit, first=FRAMES)
    source = joined(tmp_path / "in.ts", a, b, b)
    with Reader(probe(source)) as reader:
        frames = [f.planes[0] for f in reader]
    start = reader.timeline.seconds(FRAMES + 4)
    with Reader(probe(source), ReadOptions(start=start, end=start + Fraction(3, 10))) as reader:
        chosen = [f.planes[0] for f in reader]

    expected = frames[FRAMES + 4 : FRAMES + 4 + len(chosen)]
    assert 7 <= len(chosen) <= 8
    assert all((a == b).all() for a, b in zip(chosen, expected, strict=True))


@pytest.mark.parametrize(
    "second",
    [
        OTHER_PIDS,
        {"mpegts_start_pid": "512"},
        OTHER_PIDS | {"mpegts_service_id": "7"},
        OTHER_PIDS | {"at": 40},
        OTHER_PIDS | {"at": FRAMES / RATE + 0.12},
    ],
)
def test_tracks_with_other_numbers_go_on_as_the_same(kit, tmp_path, second):
    parts = part(tmp_path / "a.ts", kit), part(tmp_path / "b.ts", kit, first=FRAMES, **second)
    done = kit.enlarge(joined(tmp_path / "in.ts", *parts), tmp_path / "out.mp4", scale=2)

    with av.open(str(tmp_path / "out.mp4")) as box:
        assert [s.type for s in box.streams] == ["video", "audio"]
        pictures = [f.to_ndarray(format="rgb24") for f in box.decode(video=0)]
    assert [p.shape for p in pictures] == [(96, 128, 3)] * 2 * FRAMES
    for number, picture in enumerate(pictures):
        wanted = kit.ramp(number, 64, 48).repeat(2, 0).repeat(2, 1)
        assert np.abs(picture[:, ::2].astype(int) - wanted[:, ::2]).mean() < 12
    assert largest_step(kit.shown(tmp_path / "out.mp4")) < 0.2
    assert len(sound_times(tmp_path / "out.mp4")) == 2 * len(sound_times(tmp_path / "a.ts"))
    assert "2 continues 0, 3 continues 1" in " ".join(done.plan.notes)
    assert not done.plan.losses


def test_tracks_may_change_there_and_back(kit, tmp_path):
    a, b = part(tmp_path / "a.ts", kit), part(tmp_path / "b.ts", kit, **OTHER_PIDS)
    done = kit.enlarge(joined(tmp_path / "in.ts", a, b, a), tmp_path / "out.mkv", scale=1)

    assert len(kit.shown(tmp_path / "out.mkv")) == 3 * FRAMES
    assert [s.kind for s in done.info.streams] == ["video", "audio"]


def test_a_track_of_another_codec_is_said_to_be_left_and_fails_under_strict(kit, tmp_path):
    a, b = part(tmp_path / "a.ts", kit), part(tmp_path / "b.ts", kit, codec="mpeg2video",
                                              **OTHER_PIDS)  # fmt: skip
    source = joined(tmp_path / "in.ts", a, b)
    done = kit.enlarge(source, tmp_path / "out.mkv", scale=1)
    assert any("stream 0 ends where stream 2 begins" in loss for loss in done.plan.losses)

    with pytest.raises(MediaError, match="stream 0 ends where stream 2 begins"):
        kit.enlarge(source, tmp_path / "strict.mkv", encode=EncodeOptions(strict=True))


def test_two_pictures_side_by_side_are_two_tracks(kit, tmp_path):
    source = tmp_path / "in.ts"
    part(source, kit, frames=60, second_at=0.5)
    done = kit.enlarge(source, tmp_path / "out.mkv", scale=1)

    assert [s.kind for s in done.info.streams] == ["video", "video", "audio"]
    assert (done.report.joins, done.report.frames) == (0, 60)


@pytest.mark.parametrize("change", [{"sar": Fraction(16, 11)}, {"size": (96, 48)}])
def test_a_shape_that_changes_at_a_join_is_said(kit, tmp_path, change):
    a, b = part(tmp_path / "a.ts", kit), part(tmp_path / "b.ts", kit, **change)
    source = joined(tmp_path / "in.ts", a, b)
    done = kit.enlarge(source, tmp_path / "out.mp4", scale=1)

    assert any("shape changes from 1.33:1 to" in text for text in done.report.warnings)
    with pytest.raises(MediaError, match="changes"):
        kit.enlarge(source, tmp_path / "strict.mp4", read=ReadOptions(strict=True))


def test_a_larger_picture_of_the_same_shape_is_no_change_of_shape(kit, tmp_path):
    first = part(tmp_path / "a.ts", kit, sar=Fraction(1))
    second = part(tmp_path / "b.ts", kit, size=(96, 64), sar=Fraction(8, 9))
    done = kit.enlarge(joined(tmp_path / "in.ts", first, second), tmp_path / "out.mp4", scale=1)

    assert done.report.frames == 2 * FRAMES
    assert not [text for text in done.report.warnings if "shape" in text]


@pytest.mark.parametrize(("codecs", "frames"), [
    ("libx264 mpeg2video", FRAMES), ("mpeg2video libx264", FRAMES), ("libx264 libx265", FRAMES),
    ("libx265 libx264 mpeg2video libx264", FRAMES),
    ("mpeg2video libx264", 150),  # the second one begins behind what FFmpeg looks into
])  # fmt: skip
def test_a_codec_that_changes_inside_a_track_is_decoded_on(kit, tmp_path, codecs, frames):
    names = codecs.split()
    parts = [part(tmp_path / f"{c}.ts", kit, codec=c, frames=frames) for c in names]
    source = joined(tmp_path / "in.ts", *parts)
    done = kit.enlarge(source, tmp_path / "out.mkv", scale=1)

    assert done.report.frames >= len(names) * frames - 2 * (len(names) - 1)
    assert not [text for text in done.report.warnings if "cannot be decoded" in text]
    assert any("codec changes" in text for text in done.report.warnings)
    assert largest_step(kit.shown(tmp_path / "out.mkv")) < 0.2
    assert not done.info.video.second_view
    with pytest.raises(MediaError, match="codec changes|is damaged"):
        kit.enlarge(source, tmp_path / "strict.mkv", read=ReadOptions(strict=True))


@pytest.mark.parametrize("codecs", [("mp2", "ac3"), ("aac", "mp2")], ids=" ".join)
def test_sound_whose_codec_changes_inside_a_track_is_said_and_fails_under_strict(
    kit, tmp_path, codecs
):
    parts = [part(tmp_path / f"{c}.ts", kit, sound=c) for c in codecs]
    source = joined(tmp_path / "in.ts", *parts)
    done = kit.enlarge(source, tmp_path / "out.mkv", scale=1)

    assert any("packets are of another codec" in text for text in done.warnings)
    with pytest.raises(MediaError, match="packets are of another codec"):
        kit.enlarge(source, tmp_path / "strict.mkv", encode=EncodeOptions(strict=True),
                    read=ReadOptions(strict=True))  # fmt: skip
    kit.enlarge(tmp_path / f"{codecs[0]}.ts", tmp_path / "one.mkv", scale=1,
                encode=EncodeOptions(strict=True))  # fmt: skip


@pytest.mark.parametrize("frames, said", [(FRAMES, "18 packets could not be converted"),
                                          (75, "which mp4 does not hold: left out")])  # fmt: skip
def test_sound_of_another_codec_that_mp4_cannot_hold_costs_that_sound_only(
    kit, tmp_path, frames, said
):
    first, last = (part(tmp_path / f"{c}.ts", kit, sound=c, frames=frames) for c in ("ac3", "aac"))
    source = joined(tmp_path / "in.ts", first, last)
    done = kit.enlarge(source, tmp_path / "out.mp4", scale=1)

    assert len(kit.shown(tmp_path / "out.mp4")) == 2 * frames
    assert any(said in text for text in done.warnings)
    with pytest.raises(MediaError, match=said):
        kit.enlarge(source, tmp_path / "strict.mp4", encode=EncodeOptions(strict=True),
                    read=ReadOptions(strict=True))  # fmt: skip
    assert not (tmp_path / "strict.mp4").exists()


def test_tracks_that_begin_after_the_file_was_opened_are_not_lost(kit, tmp_path):
    long = part(tmp_path / "a.ts", kit, frames=150)
    other = part(tmp_path / "b.ts", kit, **OTHER_PIDS)
    source = joined(tmp_path / "in.ts", long, other, long)
    with av.open(str(source)) as box:
        assert len(box.streams) == 2  # or the file shows nothing
    done = kit.enlarge(source, tmp_path / "out.mp4", scale=1)

    assert len(kit.shown(tmp_path / "out.mp4")) == 150 + FRAMES + 150
    assert largest_step(kit.shown(tmp_path / "out.mp4")) < 0.11
    alone = [len(sound_times(tmp_path / name)) for name in ("a.ts", "b.ts")]
    assert len(sound_times(tmp_path / "out.mp4")) == 2 * alone[0] + alone[1]
    assert done.report.joins == 2
