"""Inputs and targets that are no plain files, long names, and what else lies in folders."""

import os
import sys
import threading
from fractions import Fraction

import av
import pytest

from oasis_cli.errors import MediaError
from oasis_cli.media.input.probe import probe

posix = pytest.mark.skipif(os.name == "nt", reason="no FIFOs and devices there")


def feed(path, data):
    """Write to a FIFO from a thread, as another program would."""
    thread = threading.Thread(target=lambda: path.write_bytes(data), daemon=True)
    thread.start()
    return thread


@posix
def test_a_fifo_is_read_once_and_whole(kit, tmp_path):
    source = kit.video(tmp_path / "in.mkv", sound=True, frames=50, seconds=2)
    os.mkfifo(tmp_path / "fifo.mkv")
    writer = feed(tmp_path / "fifo.mkv", source.read_bytes())
    done = kit.enlarge(tmp_path / "fifo.mkv", tmp_path / "out.mkv")
    writer.join(10)
    assert done.report.frames == len(kit.shown(tmp_path / "out.mkv")) == 50
    assert kit.payloads(tmp_path / "out.mkv") == kit.payloads(source)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_an_inherited_pipe_is_read_by_its_name(kit, tmp_path):
    """What a shell makes of <(...), and /dev/stdin."""
    source = kit.video(tmp_path / "in.ts", frames=5)
    reading, writing = os.pipe()
    os.write(writing, source.read_bytes())
    os.close(writing)
    done = kit.enlarge(f"/dev/fd/{reading}", tmp_path / "out.mkv")
    os.close(reading)
    assert done.report.frames == 5


@posix
@pytest.mark.parametrize("device", ["/dev/null", "/dev/zero"])
def test_a_device_that_gives_no_video_is_said_to_be_none(device):
    with pytest.raises(MediaError, match=device):
        probe(device)


def test_what_else_lies_in_a_folder_of_pictures_is_skipped_and_said(kit, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    kit.enlarge(kit.video(tmp_path / "in.mkv", frames=3), folder / "f_%05d.png")
    others = ["._f_00001.png", ".DS_Store", "Thumbs.db", "desktop.ini", "notes.txt"]
    for name in others:
        (folder / name).write_bytes(b"\0\5\x16\7 no picture")
    (folder / "old.png").mkdir()

    done = kit.enlarge(folder, tmp_path / "out.mkv")

    assert done.report.frames == 3
    (note,) = [note for note in done.plan.notes if "skipped" in note]
    assert all(name in note for name in others)
    assert not done.plan.losses


def test_a_file_that_is_only_named_as_a_picture_is_refused_before_any_work(kit, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    kit.enlarge(kit.video(tmp_path / "in.mkv", frames=3), folder / "f_%05d.png")
    for content in (b"", b"no picture"):
        (folder / "f_00003.png").write_bytes(content)
        with pytest.raises(MediaError, match="f_00003.png is named as a picture"):
            probe(folder)


def with_chapters(path, chapters, base):
    """A clip with chapters at (start, end) in ticks of `base`."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 32, 24, "yuv420p"
        out.set_chapters(
            [{"id": n, "start": start, "end": end, "time_base": base,
              "metadata": {"title": str(n)}} for n, (start, end) in enumerate(chapters)]
        )  # fmt: skip
        for number in range(6):
            frame = av.VideoFrame(32, 24, "yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    return path


@pytest.mark.parametrize("target", ["out.mkv", "out.mp4", "out.mov", "out.nut"])
@pytest.mark.parametrize(("source", "base"), [
    ("in.nut", Fraction(1)), ("in.nut", Fraction(1, 1000)), ("in.mkv", Fraction(1, 10**9)),
])  # fmt: skip
def test_chapters_at_impossible_times_cost_only_themselves(kit, tmp_path, source, base, target):
    film = Fraction(6, 25) / base
    path = with_chapters(
        tmp_path / source,
        [(0, max(1, int(film))), (2**62, 2**63 - 1), (2**63 - 2, 2**63 - 1)],
        base,
    )
    done = kit.enlarge(path, tmp_path / target)
    assert done.report.frames == len(kit.shown(tmp_path / target)) == 6
    assert any("chapters at impossible times" in loss for loss in done.plan.losses)
    with av.open(str(tmp_path / target)) as box:
        assert len(box.chapters()) == 1
