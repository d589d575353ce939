"""Sound of any number and order of channels: described, copied, converted or named as lost."""

import json
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from oasis_cli.errors import MediaError
from oasis_cli.media.input.probe import probe
from oasis_cli.media.input.reader import ReadOptions
from oasis_cli.media.output.plan import EncodeOptions, plan_output

RATE = 48000


def make_film(path, layout, *, codec="pcm_s16le", frames=10, loud=0, start=0):
    """A short film whose channel number `loud` alone is not silent."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 32, 24, "yuv420p"
        sound = out.add_stream(codec, rate=RATE, layout=layout)
        channels = av.AudioLayout(layout).nb_channels
        for number in range(start, start + frames):
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
from oasis_cli.media.input.probe import probe
for source, target in json.loads(sys.argv[2]):
    if target is None:
        said = [s.detail for s in probe(source).streams]
    else:
        done = enlarge(source, target, scale=2)
        said = [str(s) for s in done.plan.streams] + done.warnings
    gc.collect()
    print(json.dumps(said), flush=True)
"""


def in_child(pairs):
    """What a process of its own says of each (source, target or None): it may die of a signal.

    Raises when it does.
    """
    named = [[str(source), target and str(target)] for source, target in pairs]
    command = [sys.executable, "-c", CHILD, str(Path(__file__).parents[1]), json.dumps(named)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, (named[len(told) :][:1], done.stderr[-2000:])
    return told


def test_channels_in_an_order_of_their_own_are_named_and_do_not_end_the_process(tmp_path):
    own, usual = {"5.1": 6, "6.1": 7, "7.1": 8}, ["mono", "5.1", "7.1"]
    films = [reorder(make_film(tmp_path / f"own{x}.mov", x), x) for x in own]
    films += [make_film(tmp_path / f"usual{x}.mov", x) for x in usual]

    sounds = [streams[1] for streams in in_child((film, None) for film in films)]

    for number, channels in enumerate(own.values()):
        assert f"{channels} channels (F" in sounds[number]
    for number, layout in enumerate(usual, len(own)):
        assert layout in sounds[number]


def test_channels_in_an_order_of_their_own_reach_the_output(tmp_path):
    source = reorder(make_film(tmp_path / "in.mov", "7.1", loud=4), "7.1")
    target = tmp_path / "out.webm"

    copied, converted = in_child([(source, tmp_path / "out.mov"), (source, target)])

    assert "copied" in copied[1] and "converted to libopus" in converted[1]
    # What was the fifth channel in QuickTime's order is still the loud one.
    with av.open(str(target)) as box:
        # PyAV reads past the planes of a frame that has 8 of them: in one plane, then.
        packed = av.AudioResampler(format="s16", layout="7.1")
        pieces = [p for f in box.decode(audio=0) for p in packed.resample(f)]
        wave = np.concatenate([p.to_ndarray().reshape(-1, 8) for p in pieces])
    names = [channel.name for channel in av.AudioLayout("7.1").channels]
    assert names[int(np.abs(wave.astype(float)).sum(axis=0).argmax())] == "SL"


SUFFIXES = ["mp4", "mov", "mkv", "webm", "ts", "nut"]


@pytest.mark.parametrize("layout", ["mono", "stereo", "2.1", "quad", "5.0", "5.1", "6.1", "7.1"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_the_plan_says_of_sound_is_what_happens(kit, tmp_path, layout, suffix):
    """Matroska does not store which channels PCM has; an MP4 fails at its trailer without."""
    source = make_film(tmp_path / "in.mkv", layout)
    done = kit.enlarge(source, tmp_path / f"out.{suffix}", scale=4)

    plan = done.plan.streams[1]
    assert plan.action in ("copy", "convert"), plan
    assert not done.warnings
    with av.open(str(tmp_path / f"out.{suffix}")) as box:
        assert sum(p.size > 0 for p in box.demux(audio=0)) > 0
    if plan.action == "copy":
        assert b"".join(kit.payloads(source)[0]) == b"".join(
            kit.payloads(tmp_path / f"out.{suffix}")[0]
        )


@pytest.mark.parametrize("suffix", ["webm", "mov", "ts"])
def test_layouts_that_an_encoder_does_not_name_are_converted_all_the_same(kit, tmp_path, suffix):
    source = make_film(tmp_path / "in.mkv", "5.1(side)", codec="flac")
    done = kit.enlarge(source, tmp_path / f"out.{suffix}", scale=4)
    assert done.plan.streams[1].action == "convert"
    assert "mixed" not in done.plan.streams[1].reason
    assert not done.warnings


def test_more_channels_than_an_encoder_takes_are_said_to_be_mixed(kit, tmp_path):
    source = make_film(tmp_path / "in.mkv", "7.1.2", codec="pcm_s16le")
    info = probe(source)
    plan = plan_output(info, tmp_path / "out.webm", (64, 48))
    assert "10 channels are mixed to stereo" in str(plan.streams[1]) or any(
        "stream 1" in loss for loss in plan.losses
    )


def spoiled(path, target, codec, keep):
    """A film whose packets of sound behind the first `keep` are noise."""
    with av.open(str(path)) as box, av.open(str(target), "w") as out:
        copies = {s.index: out.add_stream_from_template(s, opaque=True) for s in box.streams}
        seen = 0
        for packet in box.demux():
            if not packet.size:
                continue
            again = packet
            if packet.stream.type == "audio":
                seen += 1
                if seen > keep:
                    again = av.Packet(b"\x55" * packet.size)
                    again.pts, again.dts, again.duration = packet.pts, packet.dts, packet.duration
                    again.time_base = packet.time_base
            again.stream = copies[packet.stream_index]
            out.mux(again)
    return target


def test_sound_that_cannot_be_decoded_is_a_loss_before_the_run(kit, tmp_path):
    good = make_film(tmp_path / "good.mkv", "stereo", codec="flac")
    source = spoiled(good, tmp_path / "in.mkv", "flac", keep=0)

    done = kit.enlarge(source, tmp_path / "out.webm", scale=4)

    [loss] = done.plan.losses
    assert "stream 1, audio flac: DROPPED" in loss
    assert "can be decoded" in loss
    assert "mkv keeps it" in loss
    assert not kit.enlarge(source, tmp_path / "out.mkv", scale=4).plan.losses
    with pytest.raises(MediaError, match="stream 1"):
        plan_output(done.info, tmp_path / "o.webm", (64, 48), EncodeOptions(strict=True))


def test_sound_that_fails_later_is_named_and_an_error_when_strict(kit, tmp_path):
    good = make_film(tmp_path / "good.mkv", "stereo", codec="flac", frames=200)
    source = spoiled(good, tmp_path / "in.mkv", "flac", keep=40)

    done = kit.enlarge(source, tmp_path / "out.webm", scale=4)
    [warning] = [w for w in done.warnings if "stream 1, audio flac" in w]
    assert "could not be converted" in warning

    strict = tmp_path / "strict.webm"
    with pytest.raises(MediaError, match="stream 1, audio flac") as caught:
        kit.enlarge(source, strict, scale=4, read=ReadOptions(strict=True),
                    encode=EncodeOptions(strict=True))  # fmt: skip
    assert "mkv" in caught.value.hint
    assert sorted(p.name for p in tmp_path.iterdir()) == ["good.mkv", "in.mkv", "out.webm"]


def test_a_rate_that_an_encoder_does_not_take_becomes_the_nearest(kit, tmp_path):
    with av.open(str(tmp_path / "in.mkv"), "w") as out:
        video = out.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 32, 24, "yuv420p"
        sound = out.add_stream("pcm_s24le", rate=192000, layout="6.1")
        for number in range(10):
            picture = av.VideoFrame(32, 24, "yuv420p")
            picture.pts = number
            out.mux(video.encode(picture))
            chunk = av.AudioFrame.from_ndarray(
                np.zeros((1, 7 * 7680), np.int32), format="s32", layout="6.1"
            )
            chunk.sample_rate, chunk.pts = 192000, number * 7680
            chunk.time_base = Fraction(1, 192000)
            out.mux(sound.encode(chunk))
        out.mux(video.encode(None))
        out.mux(sound.encode(None))

    done = kit.enlarge(tmp_path / "in.mkv", tmp_path / "out.mp4")

    assert done.plan.streams[1].action == "convert"
    with av.open(str(tmp_path / "out.mp4")) as box:
        assert box.streams.audio[0].codec_context.sample_rate == 96000


def test_the_parameters_of_sound_may_change_on_the_way(kit, tmp_path):
    """Broadcasts go from stereo to 5.1 and back; converted sound follows."""
    parts = []
    for number, layout in enumerate(("stereo", "5.1", "stereo")):
        path = tmp_path / f"{number}.ts"
        part = make_film(path, layout, codec="ac3", frames=50, start=number * 60)
        parts.append(part.read_bytes())
    (tmp_path / "in.ts").write_bytes(b"".join(parts))

    done = kit.enlarge(tmp_path / "in.ts", tmp_path / "out.webm", scale=4)

    assert done.plan.streams[1].action == "convert"
    assert not [w for w in done.warnings if "could not be converted" in w]


def test_sound_of_which_the_decoder_knows_no_format_is_no_bug(kit, tmp_path):
    data = kit.rich(tmp_path / "in.mkv").read_bytes()
    rate, broken = b"\xe1\x91\x9f\x81\x01\xb5", b"\xe1\x91\x80\x3e\x80\x3e"
    start = data.index(b"A_FLAC")
    assert rate in data[start : start + 40]
    (tmp_path / "in.mkv").write_bytes(data[:start] + data[start:].replace(rate, broken, 1))

    done = kit.enlarge(tmp_path / "in.mkv", tmp_path / "out.mov", scale=1)

    assert done.report.frames >= 1  # more are behind what FFmpeg skips
