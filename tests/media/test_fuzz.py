"""Five hundred damaged files: each gives frames or a sentence, and nothing is left behind.

They run in a few child processes, so that a crash of the interpreter or a hang would be seen, and
is reported with the seed that caused it.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

CHILD = Path(__file__).with_name("fuzz_child.py")
SEEDS = 100
"""Damaged files from each whole one."""


def sources(kit, folder):
    """One small file per demuxer and kind of stream."""
    made = {
        "mp4": kit.video(folder / "a.mp4", sound=True, container={"movflags": "faststart"}),
        "mkv": kit.rich(folder / "a.mkv"),
        "ts": kit.video(folder / "a.ts"),
        "avi": kit.video(folder / "a.avi", codec="mpeg4", sound=True),
        "gif": folder / "a.gif",
    }
    kit.enlarge(made["ts"], made["gif"], scale=1)
    return made


@pytest.mark.parametrize("kind", ["mp4", "mkv", "ts", "avi", "gif"])
def test_damaged_files_never_hang_crash_or_leave_anything(kit, tmp_path, kind):
    source = sources(kit, tmp_path)[kind]
    work = tmp_path / "work"
    work.mkdir()

    done = subprocess.run(
        [sys.executable, CHILD, source, work, str(SEEDS)],
        capture_output=True,
        text=True,
        timeout=240,
    )

    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"after {lines[-1:]}: {done.stderr[-2000:]}"
    assert len(lines) == SEEDS
    for line in lines:
        assert line["left"] == [], line
        assert line["frames"] > 0 or line["sentence"], line
        assert line["exit"] in (0, 1, 2), line
    assert any(line["frames"] for line in lines)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    data=st.binary(max_size=400), head=st.sampled_from([b"", b"RIFF", b"\x1aE\xdf\xa3", b"GIF89a"])
)
def test_noise_is_refused_with_a_sentence(data, head, tmp_path):
    from oasis_cli.errors import OasisError
    from oasis_cli.media.probe import probe

    path = tmp_path / "noise.bin"
    path.write_bytes(head + data)
    try:
        assert probe(path).video.width > 0
    except OasisError as error:
        assert str(error)
