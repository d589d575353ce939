"""Damaged, truncated and unwritable files: a sentence, the right kind, nothing left behind."""

import errno
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from oasis_cli.errors import MediaError, UsageError
from oasis_cli.media.faults import writing
from oasis_cli.media.input.probe import probe
from oasis_cli.media.input.raw import RawInput
from oasis_cli.media.input.reader import Reader, ReadOptions
from oasis_cli.media.output.passthrough import Passthrough
from oasis_cli.media.output.plan import EncodeOptions, plan_output
from oasis_cli.media.output.writer import Writer


def names(folder):
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize(
    "content", [b"", b"I am a text file\n", b"\x00" * 5000, b"\x1aE\xdf\xa3" * 50]
)
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "png", "webp"])
def test_what_is_no_video_is_said_to_be_none(tmp_path, content, suffix):
    path = tmp_path / f"in.{suffix}"
    path.write_bytes(content)
    with pytest.raises(MediaError) as caught:
        probe(path)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 1


def test_missing_directory_and_unreadable_files_are_wrong_usage(tmp_path, monkeypatch):
    (tmp_path / "folder.mp4").mkdir()
    for path in (tmp_path / "none.mp4", tmp_path / "folder.mp4", tmp_path / "none" / "f_%05d.png"):
        with pytest.raises(UsageError) as caught:
            probe(path)
        assert caught.value.exit_code == 2
    path = tmp_path / "secret.mp4"
    path.write_bytes(b"x")

    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root may read everything
    with pytest.raises(UsageError, match="may not be read"):
        probe(path)


@pytest.mark.parametrize("cover", [False, True])
def test_sound_alone_is_no_video(kit, tmp_path, cover):
    path = tmp_path / "in.m4a"
    with av.open(str(path), "w", format="mp4") as out:
        sound = out.add_stream("aac", rate=48000, layout="mono")
        if cover:
            picture = out.add_stream("mjpeg", rate=1, width=64, height=48, pix_fmt="yuvj420p")
            picture.disposition = Disposition.attached_pic
            out.mux(picture.encode(av.VideoFrame(64, 48, "yuvj420p")))
            out.mux(picture.encode(None))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
        out.mux(sound.encode(frame))
        out.mux(sound.encode(None))
    only = "only audio and a cover picture$" if cover else "only audio$"
    with pytest.raises(MediaError, match=only):
        probe(path)


@pytest.mark.parametrize("name", ["in.yuv", "in.RAW"])
def test_raw_pixels_are_asked_for_their_size(tmp_path, name):
    (tmp_path / name).write_bytes(bytes(range(256)) * 100)
    with pytest.raises(MediaError) as caught:
        probe(tmp_path / name)
    assert "--input-format rawvideo --input-size" in caught.value.hint
    found = probe(tmp_path / name, RawInput(format="rawvideo", size="64x48"))
    assert (found.video.width, found.video.height) == (64, 48)


def damaged(path, target, *, at=0.5, width=40):
    data = bytearray(path.read_bytes())
    middle = int(len(data) * at)
    for k in range(middle, min(middle + width, len(data))):
        data[k] ^= 0xFF
    target.write_bytes(data)
    return target


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_damage_in_the_middle_costs_little_and_is_counted(kit, tmp_path, suffix):
    source = kit.video(tmp_path / f"in.{suffix}", frames=50, size=(128, 96),
                       container={"movflags": "faststart"} if suffix == "mp4" else {},
                       options={"g": "10"})  # fmt: skip
    broken = damaged(source, tmp_path / f"broken.{suffix}", at=0.6, width=300)

    done = kit.enlarge(broken, tmp_path / "out.mp4", scale=1)

    report = done.report
    assert 35 <= report.frames <= 50  # Matroska is read again from its next cluster
    assert report.bad_packets + report.corrupt_frames + report.missing_frames > 0
    assert report.warnings
    assert len(kit.shown(tmp_path / "out.mp4")) == report.frames


def test_strict_fails_on_the_first_damage_and_leaves_nothing(kit, tmp_path):
    source = kit.video(tmp_path / "in.mp4", frames=50, size=(128, 96), options={"g": "10"},
                       container={"movflags": "faststart"})  # fmt: skip
    broken = damaged(source, tmp_path / "broken.mp4", at=0.6, width=300)
    with pytest.raises(MediaError, match="damaged"):
        kit.enlarge(broken, tmp_path / "out.mp4", read=ReadOptions(strict=True))
    assert names(tmp_path) == ["broken.mp4", "in.mp4"]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_a_truncated_file_gives_what_is_there(kit, tmp_path, suffix):
    source = kit.video(tmp_path / f"in.{suffix}", frames=60, size=(128, 96),
                       container={"movflags": "faststart"} if suffix == "mp4" else {})  # fmt: skip
    data = source.read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(data[: len(data) * 6 // 10])

    done = kit.enlarge(cut, tmp_path / "out.mp4", scale=1)

    assert 20 < done.report.frames < 60
    assert len(kit.shown(tmp_path / "out.mp4")) == done.report.frames
    if suffix == "mp4":
        assert any("cut off" in w for w in done.report.warnings)


def test_an_index_that_is_missing_is_explained(kit, tmp_path):
    source = kit.video(tmp_path / "in.mp4", frames=20)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(source.read_bytes()[:800])
    with pytest.raises(MediaError) as caught:
        probe(cut)
    assert "index" in caught.value.hint


def start(kit, tmp_path, name="out.mp4", **options):
    info = probe(kit.video(tmp_path / "in.mp4", sound=False))
    plan = plan_output(info, tmp_path / name, (32, 24), EncodeOptions(overwrite=True, **options))
    return info, plan


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.gif", "o_%03d.png"])
def test_a_run_that_fails_leaves_the_target_as_it_was(kit, tmp_path, name):
    info, plan = start(kit, tmp_path, name)
    if "%" not in name:
        (tmp_path / name).write_bytes(b"precious")
    before = names(tmp_path)

    with (
        pytest.raises(ZeroDivisionError),
        Reader(info) as reader,
        Writer(plan, info, reader.timeline, reader.relay) as writer,
    ):
        from oasis_cli.media.color import clip_to_planes, frames_to_clip

        for frame in reader:
            clip = frames_to_clip([frame], plan.source_spec)
            writer.write(clip_to_planes(clip, plan.spec)[0])
        raise ZeroDivisionError

    assert names(tmp_path) == before
    if "%" not in name:
        assert (tmp_path / name).read_bytes() == b"precious"


def test_a_writer_without_frames_is_an_error(kit, tmp_path):
    info, plan = start(kit, tmp_path)
    with (
        Reader(info) as reader,
        Writer(plan, info, reader.timeline) as writer,
        pytest.raises(MediaError, match="no frame"),
    ):
        writer.close()
    assert names(tmp_path) == ["in.mp4"]


FULL = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from oasis_cli.errors import MediaError
import numpy as np
from oasis_cli.media.output.plan import EncodeOptions, plan_output
from oasis_cli.media.input.probe import probe
from oasis_cli.media.input.reader import Reader
from oasis_cli.media.output.writer import Writer
info = probe(sys.argv[1])
plan = plan_output(info, sys.argv[2], (320, 240), EncodeOptions(codec="ffv1"))
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
noise = np.random.default_rng(0).integers(0, 255, (3, 240, 320)).astype(np.uint8)
planes = (noise[0], noise[1, :120, :160], noise[2, :120, :160])
try:
    with Reader(info) as reader, Writer(plan, info, reader.timeline) as writer:
        for frame in reader:
            writer.write(planes)
        writer.close()
except MediaError as error:
    print(error)
"""


def test_a_file_that_cannot_grow_ends_the_run_with_a_sentence(kit, tmp_path):
    source = kit.video(tmp_path / "in.mp4", frames=12)
    target = tmp_path / "out.mkv"
    done = subprocess.run(
        [sys.executable, "-c", FULL, source, target], capture_output=True, text=True, timeout=60
    )
    assert "cannot be written" in done.stdout, done.stderr
    assert names(tmp_path) == ["in.mp4"]


def test_a_full_disk_has_its_own_sentence():
    with pytest.raises(MediaError, match="disk is full"), writing("out.mp4"):
        raise av.error.OSError(errno.ENOSPC, "No space left on device", "out.mp4")
    hidden = RuntimeError("callback failed")
    hidden.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(MediaError, match="disk is full"), writing("out.mp4"):
        raise hidden
    with pytest.raises(BrokenPipeError), writing("-"):
        raise av.error.BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_bugs_are_not_hidden():
    with pytest.raises(ValueError, match="a bug"), writing("out.mp4"):
        raise ValueError("a bug")


@pytest.mark.parametrize("case", ["folder", "exists", "input", "directory", "link"])
def test_targets_that_must_not_be_written(kit, tmp_path, case):
    info = probe(kit.video(tmp_path / "in.mp4"))
    (tmp_path / "there.mp4").write_bytes(b"precious")
    (tmp_path / "dir.mp4").mkdir()
    (tmp_path / "link.mp4").symlink_to(tmp_path / "in.mp4")
    target, kind = {
        "folder": ("no/out.mp4", UsageError), "exists": ("there.mp4", MediaError),
        "input": ("in.mp4", UsageError), "directory": ("dir.mp4", UsageError),
        "link": ("link.mp4", UsageError),
    }[case]  # fmt: skip
    options = EncodeOptions(overwrite=case in ("input", "link"))
    with pytest.raises(kind) as caught:
        plan_output(info, tmp_path / target, (64, 48), options)
    assert caught.value.hint
    assert (tmp_path / "there.mp4").read_bytes() == b"precious"


def test_a_packet_the_container_rejects_does_not_end_the_run(kit, tmp_path, monkeypatch):
    source = kit.video(tmp_path / "in.mkv", sound=True)
    original = Passthrough._write
    calls = []

    def reject(self, index, packet, mux):
        calls.append(1)
        if len(calls) == 3:
            packet.dts = packet.pts = -(2**40)  # falls back: the muxer refuses it
        original(self, index, packet, mux)

    monkeypatch.setattr(Passthrough, "_write", reject)
    done = kit.enlarge(source, tmp_path / "out.mp4")
    assert done.warnings == ["stream 1, audio pcm_s16le: 1 packet could not be written"]


def test_ffmpeg_never_writes_to_the_terminal(kit, tmp_path):
    broken = damaged(kit.video(tmp_path / "in.mp4", frames=30, container={"movflags": "faststart"}),
                     tmp_path / "broken.mp4", width=200)  # fmt: skip
    code = (
        "import sys; from oasis_cli.media.input.probe import probe\n"
        "from oasis_cli.media.input.reader import Reader\n"
        "with Reader(probe(sys.argv[1])) as reader: print(sum(1 for _ in reader))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, broken], capture_output=True, text=True, timeout=60
    )
    assert int(done.stdout) > 20
    assert done.stderr == ""
    assert os.path.exists(broken)


def test_without_a_card_decoding_and_encoding_fall_back_to_software(kit, tmp_path):
    """On a machine with a card this test sees the card used, and then no note."""
    source = kit.video(tmp_path / "in.mp4", size=(256, 144))
    done = kit.enlarge(source, tmp_path / "out.mp4", read=ReadOptions(hwaccel="cuda"), scale=1,
                       encode=EncodeOptions(codec="h264_nvenc"))  # fmt: skip

    assert len(kit.shown(tmp_path / "out.mp4")) == 8
    if done.plan.codec == "libx264":
        assert any("h264_nvenc does not open here" in note for note in done.plan.notes)
    assert all("in software" in warning for warning in done.report.warnings)


def test_an_input_that_vanishes_before_writing_leaves_nothing(kit, tmp_path):
    source = kit.video(tmp_path / "in.mkv", sound=True)
    info = probe(source)
    plan = plan_output(info, tmp_path / "out.mp4", (64, 48))
    with Reader(info) as reader:
        next(iter(reader))
        source.unlink()
        with pytest.raises(UsageError, match="does not exist"):
            Writer(plan, info, reader.timeline, reader.relay)
    assert names(tmp_path) == []
