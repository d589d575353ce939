"""Damaged files of every kind: each gives frames or a sentence, and nothing is left behind.

They run in a child process, so that a crash of the interpreter or a hang is seen; it is reported
with the seed that caused it, and another child goes on behind it. By hand, thousands of each kind:

    OASIS_MUTATIONS=5000 python -m pytest tests/media/test_fuzz.py -k damaged
"""

import json
import os
import select
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

CHILD = Path(__file__).with_name("fuzz_child.py")
COUNT = int(os.environ.get("OASIS_MUTATIONS", "16"))
"""Damaged files of each kind."""
FIRST = int(os.environ.get("OASIS_MUTATIONS_FROM", "0"))
"""The first seed."""
KINDS = os.environ.get(
    "OASIS_MUTATIONS_OF", "mp4 mov mkv webm avi ts flv wmv gif apng webp y4m nut ogg"
).split()
MS, RATE = Fraction(1, 1000), Fraction(1, 25)
PATIENCE = 20.0
"""Seconds that one file may take; the first of a child is given as long to start as well."""
MEMORY = 1.5e9
"""Bytes that one may take."""


def animated_webp(path):
    with av.open(str(path), "w") as out:
        video = out.add_stream("libwebp_anim", rate=25, options={"lossless": "1"})
        video.width, video.height, video.pix_fmt = 32, 24, "bgra"
        for number in range(4):
            frame = av.VideoFrame(32, 24, "bgra")
            frame.planes[0].update(bytes([number * 50]) * frame.planes[0].buffer_size)
            frame.pts, frame.time_base = number, RATE
            out.mux(video.encode(frame))
        out.mux(video.encode(None))


def sources(kit, folder):
    """One small file of each kind."""
    tiny = {"frames": 6, "size": (64, 48)}
    clip = kit.video(folder / "clip.mp4", **tiny)
    small = kit.video(folder / "small.mp4", frames=4)
    made = {
        "mp4": lambda p: kit.video(p, sound=True, container={"movflags": "faststart"}, **tiny),
        "mov": lambda p: kit.video(p, sound=True, codec="mjpeg", pix_fmt="yuvj420p", **tiny),
        "mkv": kit.rich,
        "webm": lambda p: kit.video(p, codec="libvpx-vp9", base=MS, **tiny),
        "avi": lambda p: kit.video(p, codec="mpeg4", sound=True, base=RATE, **tiny),
        "ts": lambda p: kit.video(p, base=Fraction(1, 90000), **tiny),
        "flv": lambda p: kit.video(p, base=MS, **tiny),
        "wmv": lambda p: kit.video(p, codec="wmv2", format="asf", base=MS, **tiny),
        "gif": lambda p: kit.enlarge(small, p, scale=1),
        "apng": lambda p: kit.enlarge(small, p, scale=1),
        "webp": animated_webp,
        "y4m": lambda p: kit.enlarge(clip, p, scale=1),
        "nut": lambda p: kit.video(p, sound=True, **tiny),
        "ogg": lambda p: kit.video(p, codec="libvpx", base=RATE, **tiny),
    }
    for kind in KINDS:
        made[kind](folder / f"a.{kind}")
    return [folder / f"a.{kind}" for kind in KINDS]


def run_all(work, files):
    """Every line that children wrote, and what ended those that did not come to their end."""
    lines, faults = [], []
    number, last = FIRST * len(files), (FIRST + COUNT) * len(files)
    while number < last:
        with (work.parent / "stderr").open("w+") as errors:
            child = subprocess.Popen(
                [sys.executable, CHILD, work, str(number), str(last), *files],
                stdout=subprocess.PIPE, bufsize=0, stderr=errors,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
            with child:
                end = "hung"
                patience = 4 * PATIENCE  # to start
                while select.select([child.stdout], [], [], patience)[0]:
                    if not (line := child.stdout.readline()):
                        end = f"exit code {child.wait()}"
                        break
                    lines.append(json.loads(line))
                    number, patience = lines[-1]["number"] + 1, PATIENCE
                child.kill()
            errors.seek(0)
            if number < last:
                place = f"{files[number % len(files)].name}, seed {number // len(files)}"
                faults.append(f"{place}: {end}: {errors.read()[-2000:]}")
                number += 1
    return lines, faults


@pytest.mark.skipif(os.name == "nt", reason="select waits for sockets only")
def test_damaged_files_never_hang_crash_fill_the_memory_or_leave_anything(kit, tmp_path):
    (tmp_path / "work").mkdir()
    files = sources(kit, tmp_path)

    lines, faults = run_all(tmp_path / "work", files)

    for line in lines:
        fine = line["frames"] > 0 or line["sentence"]
        fine = fine and line["exit"] in (0, 1, 2) and not line["bug"] and not line["left"]
        if not fine or line["memory"] > MEMORY or line["seconds"] > PATIENCE:
            faults.append(line)
    assert not faults, "\n".join(map(str, faults))
    assert {line["kind"] for line in lines if line["frames"]} == {path.suffix for path in files}


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    data=st.binary(max_size=400), head=st.sampled_from([b"", b"RIFF", b"\x1aE\xdf\xa3", b"GIF89a"])
)
def test_noise_is_refused_with_a_sentence(data, head, tmp_path):
    from oasis_cli.errors import OasisError
    from oasis_cli.media.input.probe import probe

    path = tmp_path / "noise.bin"
    path.write_bytes(head + data)
    try:
        assert probe(path).video.width > 0
    except OasisError as error:
        assert str(error)
