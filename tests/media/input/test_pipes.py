"""`-` as input and output: nothing seeks, nothing else reaches stdout, nobody waits for ever."""

import io
import os
import sys
import threading
from fractions import Fraction
from types import SimpleNamespace

import av
import pytest

from oasis_cli.errors import MediaError, UsageError
from oasis_cli.media.input.probe import probe
from oasis_cli.media.input.raw import RawInput
from oasis_cli.media.input.reader import ReadOptions
from oasis_cli.media.output.plan import EncodeOptions, plan_output


class Narrow(io.RawIOBase):
    """A pipe: readable in small pieces, and nothing else."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self):
        return True

    def read(self, size=-1):
        return self._data.read(min(size, 1000) if size > 0 else size)

    def seek(self, *args):
        raise AssertionError("nothing may seek in a pipe")


@pytest.fixture
def stdin(monkeypatch):
    def give(data: bytes):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=Narrow(data)))

    return give


class Collector:
    """Reads the other end of our standard output."""

    def __init__(self, monkeypatch):
        self.reading, writing = os.pipe()
        self.writing = os.fdopen(writing, "wb", buffering=0)
        monkeypatch.setattr(sys, "stdout", self.writing)
        self.data = b""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        while piece := os.read(self.reading, 65536):
            self.data += piece

    def finish(self) -> bytes:
        self.writing.close()
        self._thread.join(10)
        os.close(self.reading)
        return self.data


@pytest.fixture
def collect(monkeypatch):
    """Called in the test itself: pytest puts its own stdout back after the fixtures."""
    return lambda: Collector(monkeypatch)


FORMATS = {
    "nut": {}, "matroska": {}, "mpegts": {}, "h264": {}, "yuv4mpegpipe": {},
    "mp4": {"movflags": "frag_keyframe+empty_moov+default_base_moof"},
}  # fmt: skip


@pytest.mark.parametrize("format", FORMATS)
def test_every_streamable_format_comes_in_through_a_pipe(kit, tmp_path, stdin, format):
    codec = "rawvideo" if format == "yuv4mpegpipe" else "libx264"
    sound = format in ("nut", "matroska")
    source = kit.video(tmp_path / "in.bin", format=format, container=FORMATS[format], codec=codec,
                       base=Fraction(1, 25) if codec == "rawvideo" else Fraction(1, 90000),
                       sound=sound, frames=10, seconds=0.4)  # fmt: skip
    stdin(source.read_bytes())

    done = kit.enlarge("-", tmp_path / "out.mkv")

    assert done.report.frames == len(kit.shown(tmp_path / "out.mkv")) == 10
    assert done.info.is_pipe
    if sound:
        assert b"".join(kit.payloads(tmp_path / "out.mkv")[0]) == b"".join(kit.payloads(source)[0])


def test_everything_of_a_rich_file_comes_through_a_pipe(kit, tmp_path, stdin):
    source = kit.rich(tmp_path / "in.mkv")
    stdin(source.read_bytes())
    kit.enlarge("-", tmp_path / "out.mkv")
    with av.open(str(tmp_path / "out.mkv")) as box:
        kinds = [s.type for s in box.streams]
        assert len(box.chapters()) == 2
    assert kinds == ["video", "audio", "audio", "subtitle", "attachment", "video"]
    assert kit.payloads(tmp_path / "out.mkv") == kit.payloads(source)


def test_raw_video_needs_its_size(kit, tmp_path, stdin):
    picture = bytes(32 * 24 * 3 // 2)
    stdin(picture * 5)
    raw = RawInput(format="rawvideo", size="32x24", rate="10", pix_fmt="yuv420p")
    kit.enlarge("-", tmp_path / "out.mp4", raw=raw)
    assert kit.shown(tmp_path / "out.mp4") == [Fraction(k, 10) for k in range(5)]

    stdin(picture)
    with pytest.raises(UsageError, match="size is not known"):
        probe("-", RawInput(format="rawvideo"))
    with pytest.raises(UsageError, match="no input format"):
        probe("-", RawInput(format="nothing"))


def test_an_mp4_with_its_index_at_the_end_is_explained(kit, tmp_path, stdin):
    stdin(kit.video(tmp_path / "in.mp4", sound=True, frames=60, seconds=2).read_bytes())
    with pytest.raises(MediaError) as caught:
        probe("-")
    assert "faststart" in caught.value.hint


def test_an_empty_pipe(stdin):
    stdin(b"")
    with pytest.raises(MediaError):
        probe("-")


@pytest.mark.parametrize("format", ["nut", "matroska", "mpegts", "mp4", "y4m", "rawvideo"])
def test_every_format_goes_out_through_a_pipe(kit, tmp_path, collect, format):
    source = kit.video(tmp_path / "in.mp4", sound=True)
    stdout = collect()
    done = kit.enlarge(source, "-", encode=EncodeOptions(format=format))
    data = stdout.finish()

    if format == "rawvideo":
        assert len(data) == 8 * 64 * 48 * 3 // 2
        return
    (tmp_path / "out.bin").write_bytes(data)
    times = kit.shown(tmp_path / "out.bin")
    assert [t - times[0] for t in times] == [Fraction(k, 25) for k in range(8)]
    with av.open(str(tmp_path / "out.bin")) as box:
        assert len(box.streams.audio) == (0 if format == "y4m" else 1)
    assert bool(done.plan.losses) is (format == "y4m")


def test_from_pipe_to_pipe(kit, tmp_path, stdin, collect):
    source = kit.video(tmp_path / "in.nut", ticks=[0, 40, 100, 120, 300], base=Fraction(1, 1000))
    stdin(source.read_bytes())
    stdout = collect()
    kit.enlarge("-", "-")
    (tmp_path / "out.nut").write_bytes(stdout.finish())
    assert kit.shown(tmp_path / "out.nut") == [Fraction(t, 1000) for t in (0, 40, 100, 120, 300)]


def test_varying_times_are_not_lost_in_silence(kit, tmp_path, collect):
    source = kit.video(tmp_path / "in.mp4", ticks=[0, 40, 100, 120, 300], base=Fraction(1, 1000))
    stdout = collect()
    done = kit.enlarge(source, "-", encode=EncodeOptions(format="y4m"))
    stdout.finish()
    assert any("frame times vary" in w for w in done.warnings)


@pytest.mark.parametrize("format", ["nut", "matroska", "mp4", "y4m"])
def test_a_reader_that_goes_away(kit, tmp_path, monkeypatch, format):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb", buffering=0) as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        source = kit.video(tmp_path / "in.mp4")
        with pytest.raises(BrokenPipeError):
            kit.enlarge(source, "-", encode=EncodeOptions(format=format))


def test_an_abandoned_pipe_gets_no_trailer(kit, tmp_path, collect):
    from oasis_cli.media.input.reader import Reader
    from oasis_cli.media.output.writer import Writer

    info = probe(kit.video(tmp_path / "in.mp4"))
    stdout = collect()
    plan = plan_output(info, "-", (32, 24), EncodeOptions(format="mp4"))
    with Reader(info) as reader, Writer(plan, info, reader.timeline, reader.relay):
        next(iter(reader))
    data = stdout.finish()
    assert b"mfra" not in data


def test_a_terminal_is_refused(kit, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda: True))
    info = probe(kit.video(tmp_path / "in.mp4"))
    with pytest.raises(UsageError, match="terminal"):
        plan_output(info, "-", (64, 48))
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda: False))
    with pytest.raises(UsageError, match="no output format"):
        plan_output(info, "-", (64, 48), EncodeOptions(format="avi"))


def test_an_end_in_a_pipe_still_lets_late_sound_arrive(kit, tmp_path, stdin):
    source = kit.video(tmp_path / "in.mkv", sound=True, frames=75, seconds=3)
    read = ReadOptions(end=Fraction(1, 2))
    kit.enlarge(source, tmp_path / "file.mkv", read=read)
    stdin(source.read_bytes())
    kit.enlarge("-", tmp_path / "pipe.mkv", read=read)

    assert len(kit.shown(tmp_path / "pipe.mkv")) == 13
    assert kit.payloads(tmp_path / "pipe.mkv") == kit.payloads(tmp_path / "file.mkv")


def test_what_nobody_wants_of_a_pipe_is_not_hoarded(kit, tmp_path, stdin):
    source = kit.video(tmp_path / "in.mkv", sound=True, frames=75, seconds=3)
    for target in ("o_%05d.png", "o.gif"):
        stdin(source.read_bytes())
        done = kit.enlarge("-", tmp_path / target, scale=1)
        assert done.report.frames == 75
        assert len(done.info.live.held) < 10


@pytest.mark.parametrize("late", [Fraction(0), Fraction(3, 25)])
def test_an_mp4_on_stdout_keeps_when_picture_and_sound_begin(kit, tmp_path, collect, late):
    source = kit.video(
        tmp_path / "in.mkv", ticks=[400 + 40 * n for n in range(8)], base=Fraction(1, 1000),
        options={"bf": "2"}, sound=True, sound_at=Fraction(2, 5) + late,
    )  # fmt: skip
    out = collect()
    kit.enlarge(source, "-", encode=EncodeOptions(format="mp4"))
    (tmp_path / "out.mp4").write_bytes(out.finish())

    with av.open(str(tmp_path / "out.mp4")) as box:
        times = {"video": [], "audio": []}
        for packet in box.demux():
            if packet.size:
                times[packet.stream.type].append(packet.pts * packet.time_base)
    seen, heard = sorted(times["video"]), sorted(times["audio"])
    assert heard[0] - seen[0] == pytest.approx(late, abs=0.001)
    for found, step in ((seen, 0.04), (heard, 0.02)):
        steps = [float(b - a) for a, b in zip(found, found[1:], strict=False)]
        assert steps == pytest.approx([step] * len(steps), abs=0.0015)
