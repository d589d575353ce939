"""The command under bad conditions: silent inputs, full and closed streams, hostile names."""

import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toys import invoke
from typer.testing import CliRunner

from oasis_cli.cli.console import to_json
from oasis_cli.cli.main import app
from oasis_cli.jobs.folders import Item
from oasis_cli.jobs.items import Record
from oasis_cli.jobs.job import folder_for
from oasis_cli.media.input.probe import probe
from oasis_cli.media.input.reader import ReadOptions
from oasis_cli.pipeline.plan import Options, expected_frames

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and devices of POSIX")

EVIL = "e\x1b[2J\x1b]0;owned\x07\nerror: x\u202e\x9b31m"
"""Clears the screen, names the window, starts a line, turns text around."""


def command(*args):
    return [sys.executable, "-m", "oasis_cli", *map(str, args)]


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}


def oasis(*args, **options):
    return subprocess.run(
        command(*args), timeout=120, env=ENVIRONMENT, text=True, stderr=subprocess.PIPE, **options
    )


def ended_by(number, process, *, ready=lambda: True, seconds=15.0):
    """The exit code after one signal, sent when the process waits; seconds: it may take."""
    until = time.monotonic() + 60
    while time.monotonic() < until and not (ready() and waits(process)):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    process.send_signal(number)
    try:
        return process.wait(seconds)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def waits(process):
    """Whether our handler is set, and the process did next to nothing for half a second."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = int(status.split("SigCgt:")[1].split()[0], 16)
    if not caught >> (signal.SIGTERM - 1) & 1:
        return False
    spent = [cpu(process), time.sleep(0.5), cpu(process)]
    return spent[2] - spent[0] <= 3


def cpu(process):
    """Hundredths of a second that a process has worked."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def start(*args, **options):
    return subprocess.Popen(
        command(*args), env=ENVIRONMENT, text=True, stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL, **options,
    )  # fmt: skip


linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc tells when a process waits")


@linux
@pytest.mark.parametrize(("verb", "number"), [("info", signal.SIGTERM), ("upscale", signal.SIGINT)])
def test_the_first_signal_ends_the_wait_for_a_fifo(tmp_path, tiny_weights, verb, number):
    os.mkfifo(tmp_path / "in.mkv")
    more = [tmp_path / "out.mkv", "--model", tiny_weights] if verb == "upscale" else []
    process = start(verb, tmp_path / "in.mkv", *more)
    assert ended_by(number, process) == 128 + number
    assert [p.name for p in tmp_path.iterdir()] == ["in.mkv"]


@linux
def test_the_first_signal_ends_the_wait_for_the_rest_of_a_pipe(make_clip, tiny_weights, tmp_path):
    source, target = make_clip("in.ts", frames=60), tmp_path / "out.mkv"
    process = start(
        "upscale", "-", target, "--scale", 1, "--model", tiny_weights, stdin=subprocess.PIPE
    )
    process.stdin.buffer.write(source.read_bytes())
    process.stdin.flush()
    code = ended_by(
        signal.SIGTERM, process, ready=lambda: list(tmp_path.glob(".oasis-*.part*")) != []
    )
    process.stdin.close()
    assert code == 143
    assert [p.name for p in tmp_path.iterdir()] == ["in.ts"]


@linux
@pytest.mark.parametrize("verb", ["info", "upscale"])
def test_the_first_signal_ends_a_live_playlist(make_clip, tiny_weights, tmp_path, verb):
    make_clip("part.ts", frames=20, sound=False)
    live = tmp_path / "live.m3u8"
    live.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:0.8,\npart.ts\n")
    more = [tmp_path / "out.mkv", "--model", tiny_weights] if verb == "upscale" else []
    process = start(verb, live, *more, "--allow-protocols", "file")
    assert ended_by(signal.SIGTERM, process) == 143
    assert sorted(p.name for p in tmp_path.iterdir()) == ["live.m3u8", "part.ts"]


def test_a_playlist_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "in.mp4").write_text("#EXTM3U\n#EXTINF:1,\nin.mp4\n#EXT-X-ENDLIST\n")
    result = CliRunner().invoke(app, ["info", str(tmp_path / "in.mp4")])
    assert result.exit_code == 1
    assert "--allow-protocols file" in result.stderr


@pytest.mark.parametrize("args", [["info", "IN"], ["--help"]])
def test_a_full_disk_behind_stdout_is_a_sentence(tiny_clip, args):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    args = [str(tiny_clip) if arg == "IN" else arg for arg in args]
    with open("/dev/full", "w") as full:
        result = oasis(*args, stdout=full)
    assert result.returncode == 1
    assert result.stderr == (
        "error: the standard output cannot be written: No space left on device\n"
    )


def test_a_closed_stdout_is_a_sentence(tiny_clip):
    result = oasis("info", tiny_clip, preexec_fn=lambda: os.close(1))
    assert result.returncode == 1
    assert "the standard output cannot be written" in result.stderr


def test_a_run_needs_no_stderr(tiny_clip, tiny_weights, tmp_path, look):
    args = ["upscale", tiny_clip, "--scale", "1", "--codec", "libx265", "--model", tiny_weights]
    closed = subprocess.Popen(  # while the other works
        command(*args, tmp_path / "closed.mp4"), env=ENVIRONMENT, preexec_fn=lambda: os.close(2)
    )
    if Path("/dev/full").exists():
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                command(*args, tmp_path / "full.mp4"), env=ENVIRONMENT, stderr=full
            )
        assert done.returncode == 0
        assert len(look.frames(tmp_path / "full.mp4")) == 8
    assert closed.wait(timeout=60) == 0
    assert len(look.frames(tmp_path / "closed.mp4")) == 8


def test_escape_sequences_of_names_and_tags_are_shown_not_obeyed(make_clip, tmp_path):
    import av

    name = tmp_path / f"{EVIL}.mkv"
    make_clip("in.mkv").rename(name)
    with av.open(str(tmp_path / "tagged.mkv"), "w") as out:
        out.metadata["title"] = EVIL
        video = out.add_stream("libx264", rate=25, width=32, height=24, pix_fmt="yuv420p")
        video.metadata["title"] = EVIL
        out.mux(video.encode(av.VideoFrame(32, 24, "yuv420p")))
        out.mux(video.encode(None))
    runs = [
        ["info", name], ["info", tmp_path / "tagged.mkv"], ["info", tmp_path / f"no{EVIL}"],
        ["upscale", name, tmp_path / f"out{EVIL}"], ["upscale", name, "x.mp4", f"--codec={EVIL}"],
        ["info", name, "--json"], ["jobs", "list", tmp_path / f"no{EVIL}"],
        ["upscale", name, tmp_path / f"o{EVIL}.mkv", "--dry-run", "--precision", f"fp32{EVIL}"],
    ]  # fmt: skip
    for args in runs:
        result = CliRunner().invoke(app, [str(arg) for arg in args])
        text = result.output + result.stderr
        assert not set(text) & set("\x1b\x07\u202e\x9b"), text
        assert not any(line.startswith("error: x") for line in text.splitlines()), text
        assert "x1b" in text or "u001b" in text, text
    about = CliRunner().invoke(app, ["info", str(name), "--json"])
    assert json.loads(about.stdout)["path"] == str(name)


def test_a_name_that_is_no_text_is_shown(make_clip, tmp_path):
    name = os.fsencode(tmp_path) + b"/\xff\xe9.mkv"
    os.rename(make_clip("in.mkv"), name)
    result = oasis("info", os.fsdecode(name), stdout=subprocess.PIPE)
    assert result.returncode == 0, result.stderr
    assert "\\xff\\xe9.mkv" in result.stdout
    assert json.loads(to_json({"name": os.fsdecode(name)}))["name"] == os.fsdecode(name)
    assert to_json({"name": os.fsdecode(name)}).isascii()


@pytest.mark.parametrize("length", [245, 248, 255])
def test_jobs_and_records_of_long_names_fit_the_disk(tmp_path, length):
    target = tmp_path / ("x" * (length - 4) + ".mkv")
    for folder in (folder_for(str(target), None), folder_for(str(target), str(tmp_path))):
        folder.mkdir()
    (tmp_path / "in.mkv").write_bytes(b"x")
    record = Record(tmp_path, Item(tmp_path / "in.mkv", target), Options(), "oasis-small")
    record.begin("oasis-small")
    target.write_bytes(b"x")
    record.finish("run", {})
    assert record.is_valid() and record.is_ours()


def test_ordinary_jobs_keep_their_names(tmp_path):
    assert folder_for(str(tmp_path / "out.mp4"), None).name == ".out.mp4.oasis"


def test_a_long_job_of_a_long_name_is_done(make_clip, tiny_weights, tmp_path, look):
    target = tmp_path / ("x" * 251 + ".mkv")
    words = ["--scale", 1, "--model", tiny_weights, "--resume", "--segment-frames", 15]
    words += ["--window", 5, "--overlap", 2]
    result = invoke("upscale", make_clip(frames=30), target, *words)
    assert result.exit_code == 0, result.stderr
    assert len(look.frames(target)) == 30
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", target.name]


@pytest.mark.parametrize("length", [9e15, 1e18, -5.0, float("inf"), float("nan")])
def test_a_length_that_the_file_cannot_hold_is_not_believed(make_clip, tmp_path, length):
    data = bytearray(make_clip("in.mkv").read_bytes())
    at = data.index(b"\x44\x89\x88") + 3
    data[at : at + 8] = struct.pack(">d", length)
    path = tmp_path / "long.mkv"
    path.write_bytes(data)
    frames = expected_frames(probe(path), ReadOptions())
    assert frames is None or 1 <= frames <= len(data)


def test_a_pipe_in_a_folder_of_videos_is_named_and_does_not_hold_up_the_others(make_clip, tmp_path):
    from oasis_cli.jobs.folders import FolderOptions, find_items

    (tmp_path / "in").mkdir()
    make_clip("in/a.mp4")
    os.mkfifo(tmp_path / "in" / "b.mp4")
    items, problems = find_items(tmp_path / "in", tmp_path / "out", FolderOptions())
    assert [item.source.name for item in items] == ["a.mp4"]
    assert "not a file" in problems[0].sentence


@pytest.mark.parametrize(("names", "said"), [(("", "o.mkv"), "input"), (("in.mp4", ""), "output")])
def test_an_empty_name_is_not_this_folder(tiny_clip, tiny_weights, monkeypatch, names, said):
    monkeypatch.chdir(tiny_clip.parent)
    before = sorted(tiny_clip.parent.iterdir())
    result = invoke("upscale", *names, "--model", tiny_weights, "-y")
    assert (result.exit_code, f"the {said} has no name" in result.stderr) == (2, True)
    assert sorted(tiny_clip.parent.iterdir()) == before
