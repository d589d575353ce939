"""Sound of any number and order of channels: described, copied, converted or named as lost."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

RATE = 48000


def make_film(path, layout, *, codec="pcm_s16le", frames=10, loud=0):
    """A short film whose channel number `loud` alone is not silent."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 32, 24, "yuv420p"
        sound = out.add_stream(codec, rate=RATE, layout=layout)
        channels = av.AudioLayout(layout).nb_channels
        for number in range(frames):
            picture = av.VideoFrame(32, 24, "yuv420p")
            picture.pts = number
            out.mux(video.encode(picture))
            wave = np.zeros((RATE // 25, channels), np.int16)
            wave[:, loud] = 8000 * np.sin(np.arange(RATE // 25) * 0.0625)
            chunk = av.AudioFrame.from_ndarray(wave.reshape(1, -1), format="s16", layout=layout)
            chunk.sample_rate, chunk.pts = RATE, number * RATE // 25
            out.mux(sound.encode(chunk))
        out.mux(video.encode(None))
        out.mux(sound.encode(None))
    return path


OWN_ORDER = {"5.1": 123 << 16 | 6, "6.1": 125 << 16 | 7, "7.1": 128 << 16 | 8}
"""QuickTime's numbers for other orders of the same channels."""


def reorder(path, layout):
    """Declare another order of the same channels in a MOV."""
    data = path.read_bytes()
    at = data.index(b"chan") + 8
    path.write_bytes(data[:at] + struct.pack(">II", OWN_ORDER[layout], 0) + data[at + 8 :])
    return path


CHILD = """
import gc, json, sys
sys.path.insert(0, sys.argv[1])
from conftest import enlarge
from oasis_cli.media.info import plain
from oasis_cli.media.probe import probe
if len(sys.argv) == 3:
    print(json.dumps([s.detail for s in probe(sys.argv[2]).streams]))
else:
    done = enlarge(sys.argv[2], sys.argv[3], scale=2)
    print(json.dumps([str(s) for s in done.plan.streams] + done.warnings))
gc.collect()
"""


def in_child(*arguments):
    """What a process of its own says: it may die of a signal. Raises when it does."""
    command = [sys.executable, "-c", CHILD, str(Path(__file__).parent), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("layout, channels", [("5.1", 6), ("6.1", 7), ("7.1", 8)])
def test_channels_in_an_order_of_their_own_do_not_end_the_process(tmp_path, layout, channels):
    source = reorder(make_film(tmp_path / "in.mov", layout), layout)

    assert f"{channels} channels (F" in in_child(source)[1]


@pytest.mark.parametrize("layout", ["mono", "5.1", "7.1"])
def test_channels_in_the_usual_order_are_named(tmp_path, layout):
    assert layout in in_child(make_film(tmp_path / "in.mov", layout))[1]


@pytest.mark.parametrize("suffix, action", [("mov", "copied"), ("webm", "converted to libopus")])
def test_channels_in_an_order_of_their_own_reach_the_output(tmp_path, suffix, action):
    source = reorder(make_film(tmp_path / "in.mov", "7.1", loud=4), "7.1")
    target = tmp_path / f"out.{suffix}"

    said = in_child(source, target)

    assert action in said[1]
    if suffix == "webm":  # what was the fifth channel in QuickTime's order is still the loud one
        with av.open(str(target)) as box:
            # PyAV reads past the planes of a frame that has 8 of them: in one plane, then.
            packed = av.AudioResampler(format="s16", layout="7.1")
            pieces = [p for f in box.decode(audio=0) for p in packed.resample(f)]
            wave = np.concatenate([p.to_ndarray().reshape(-1, 8) for p in pieces])
        names = [channel.name for channel in av.AudioLayout("7.1").channels]
        assert names[int(np.abs(wave.astype(float)).sum(axis=0).argmax())] == "SL"
