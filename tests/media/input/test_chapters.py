"""Chapters of files written one behind the other: each stays with the frame that it named."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from oasis_cli.cli.info import info_lines
from oasis_cli.errors import MediaError
from oasis_cli.media.input import chapters as module
from oasis_cli.media.input.chapters import _Skim
from oasis_cli.media.input.probe import probe
from oasis_cli.media.input.reader import ReadOptions
from oasis_cli.media.output.plan import EncodeOptions

RATE, FRAME = 25, Fraction(1, 25)
CODECS = {"mkv": ("libx264", "aac"), "webm": ("libvpx-vp9", "libopus"), "nut": ("mpeg4", "mp2")}
QUICK = {
    "libx264": {"preset": "ultrafast", "bf": "2"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
}


def part(
    path: Path,
    kit: Any,
    frames: int,
    marks: tuple[int, ...] = (),
    *,
    at: int = 0,
    sound: float = 0,
) -> bytes:
    """A film whose frame n is shown at (n + at) / 25; chapters begin at the frames `marks`.

    sound: seconds by which it is longer than the picture.
    """
    video_codec, sound_codec = CODECS[path.suffix[1:]]
    with av.open(str(path), "w") as out:
        quick = QUICK.get(video_codec, {})
        video: Any = out.add_stream(video_codec, rate=RATE, options=quick | {"g": "25"})
        video.width, video.height, video.pix_fmt = 32, 24, "yuv420p"
        audio: Any = out.add_stream(sound_codec, rate=48000, layout="mono")
        ends = (*marks[1:], frames)
        out.set_chapters([
            {"id": n, "start": (a + at) * 40, "end": (b + at) * 40,
             "time_base": Fraction(1, 1000), "metadata": {"title": f"{path.stem} {a}"}}
            for n, (a, b) in enumerate(zip(marks, ends, strict=True))
        ] if marks else [])  # fmt: skip
        length = frames + round(sound * RATE)
        for number in range(max(frames, length)):
            if number < frames:
                picture = av.VideoFrame.from_ndarray(kit.ramp(number, 32, 24), "rgb24")
                picture.pts, picture.time_base = number + at, FRAME
                out.mux(video.encode(picture))
            if number < length:
                chunk = av.AudioFrame.from_ndarray(np.zeros((1, 1920), np.int16), "s16", "mono")
                chunk.sample_rate, chunk.time_base = 48000, Fraction(1, 48000)
                chunk.pts = (number + at) * 1920
                out.mux(audio.encode(chunk))
        out.mux(video.encode(None))
        out.mux(audio.encode(None))
    return path.read_bytes()


def joined(path: Path, *parts: bytes) -> Path:
    path.write_bytes(b"".join(parts))
    return path


def written(path: Path) -> dict[str, Fraction]:
    """Title -> start in seconds. An mp4 may begin with one that has none."""
    with av.open(str(path)) as file:
        return {c["metadata"]["title"]: c["start"] * c["time_base"] for c in file.chapters()
                if c["metadata"]["title"]}  # fmt: skip


def near(found: dict[str, Fraction], wanted: dict[str, Fraction]) -> bool:
    """Whether these are the chapters, each less than half a frame from its place."""
    assert list(found) == list(wanted)
    return all(abs(found[title] - wanted[title]) < FRAME / 2 for title in wanted)


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
@pytest.mark.parametrize("kind", ["mkv", "webm", "nut"])
def test_chapters_of_later_files_begin_with_the_frames_they_named(kit, tmp_path, kind, suffix):
    a = part(tmp_path / f"a.{kind}", kit, 15, (0, 7), sound=0.3)
    b = part(tmp_path / f"b.{kind}", kit, 20, sound=-0.2)
    c = part(tmp_path / f"c.{kind}", kit, 10, (0, 6), at=50)
    source = joined(tmp_path / f"in.{kind}", a, b, c)
    target = tmp_path / f"out.{suffix}"
    at = {"a 0": 0, "a 7": 7, "c 0": 35, "c 6": 41}
    until = {"a 0": 7, "a 7": 15, "c 0": 41, "c 6": 45}

    done = kit.enlarge(source, target, scale=1)
    times = kit.shown(target)
    assert len(times) == 45 and not done.plan.losses
    assert near(written(target), {title: times[n] for title, n in at.items()})
    told = {c["metadata"]["title"]: c["start"] * c["time_base"] for c in done.info.chapters}
    assert near(told, {title: times[n] for title, n in at.items()})
    assert sum(line.startswith("chapter: ") for line in info_lines(done.info)) == 4

    for first, last in ((3, None), (20, None), (38, None), (0, 10), (0, 38), (10, 38)):
        start = done.line.pts[first] * done.line.time_base
        end = None if last is None else done.line.pts[last] * done.line.time_base
        read = ReadOptions(start=start or None, end=end)
        kept = [t for t in at if until[t] > first and (last is None or at[t] < last)]
        kit.enlarge(source, target, scale=1, read=read)
        times = kit.shown(target)
        places = {title: times[max(0, at[title] - first)] for title in kept}
        assert near(written(target), places)


def test_chapters_that_a_container_cannot_hold_are_said_and_fail_under_strict(kit, tmp_path):
    one = part(tmp_path / "one.mkv", kit, 5, (0,))
    source = joined(tmp_path / "in.mkv", one, one)
    done = kit.enlarge(source, tmp_path / "out.ts", scale=1)
    assert "2 chapters: mpegts holds none" in done.plan.losses
    with pytest.raises(MediaError, match="2 chapters: mpegts holds none"):
        kit.enlarge(source, tmp_path / "strict.ts", encode=EncodeOptions(strict=True))


@pytest.mark.parametrize("kind", ["mkv", "webm", "nut"])
def test_large_parts_are_read_at_their_ends_and_give_the_same_chapters(
    kit, tmp_path, monkeypatch, kind
):
    one = part(tmp_path / f"one.{kind}", kit, 700, (0, 350), sound=0.4)
    two = part(tmp_path / f"two.{kind}", kit, 60, (0, 50), at=9, sound=0.1)
    source = joined(tmp_path / f"in.{kind}", one, one, two)
    placed, read = _Skim._placed, []

    def noted(skim, item):
        read.append(item)
        return placed(skim, item)

    monkeypatch.setattr(_Skim, "_placed", noted)
    whole, count = probe(source).chapters, len(read)
    monkeypatch.setattr(module, "SMALL", 0)
    read.clear()
    assert probe(source).chapters == whole and len(whole) == 6
    assert len(read) < count * 0.6


def test_where_a_large_part_ends_in_doubt_later_chapters_are_left_out(kit, tmp_path, monkeypatch):
    early = part(tmp_path / "early.mkv", kit, 500, (0,), sound=-10)
    one = part(tmp_path / "one.mkv", kit, 10, (0, 5))
    source = joined(tmp_path / "in.mkv", early, one)
    assert len(probe(source).chapters) == 3
    monkeypatch.setattr(module, "SMALL", 0)
    info = probe(source)
    assert (len(info.chapters), info.left_behind) == (1, {len(early): ["2 chapters"]})
