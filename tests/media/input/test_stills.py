"""Stills, sequences, GIF, APNG and animated WebP."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from oasis_cli.errors import MediaError, UsageError
from oasis_cli.media.input.probe import probe
from oasis_cli.media.input.raw import RawInput
from oasis_cli.media.input.reader import Reader
from oasis_cli.media.input.stills import list_pictures
from oasis_cli.media.output.plan import EncodeOptions


def encode(image, codec, pix_fmt, **options):
    """The bytes of one picture file."""
    form = {2: "gray", 3: "rgb24", 4: "rgba"}[image.ndim if image.ndim == 2 else image.shape[2]]
    if image.dtype == np.uint16:
        form = "rgb48le"
    frame = av.VideoFrame.from_ndarray(image, format=form).reformat(format=pix_fmt)
    context = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt = frame.width, frame.height, pix_fmt
    context.time_base, context.options = Fraction(1, 25), options
    if codec == "mjpeg":
        context.color_range = 2
    frame.pts = 0
    return b"".join(bytes(p) for p in [*context.encode(frame), *context.encode(None)])


def planes(path):
    with Reader(probe(path)) as reader:
        return [f.planes for f in reader], reader


STILLS = {
    "a.png": ("png", "rgb24"), "a.jpg": ("mjpeg", "yuvj444p"), "a.tiff": ("tiff", "rgb24"),
    "a.webp": ("libwebp", "bgra"),
}  # fmt: skip


@pytest.mark.parametrize("name", STILLS)
@pytest.mark.parametrize("target", ["o.png", "o.jpg", "o.tiff", "o.webp", "o.mp4"])
def test_one_picture_in_one_picture_out(kit, tmp_path, name, target):
    codec, pix_fmt = STILLS[name]
    image = kit.ramp(0, 32, 24)
    options = {"lossless": "1"} if codec == "libwebp" else {}
    (tmp_path / name).write_bytes(encode(image, codec, pix_fmt, **options))

    kit.enlarge(tmp_path / name, tmp_path / target)

    with av.open(str(tmp_path / target)) as box:
        [frame] = list(box.decode(video=0))
    assert (frame.width, frame.height) == (64, 48)
    large = np.kron(image, np.ones((2, 2, 1))).astype(int)
    got = frame.to_ndarray(format="rgb24").astype(int)
    assert np.abs(large - got).mean() < (1 if {name[2:], target[2:]} <= {"png", "tiff"} else 8)


def test_sixteen_bits_stay_sixteen_bits(kit, tmp_path):
    image = np.arange(16 * 16 * 3, dtype=np.uint16).reshape(16, 16, 3) * 80
    (tmp_path / "a.png").write_bytes(encode(image, "png", "rgb48be"))

    kit.enlarge(tmp_path / "a.png", tmp_path / "o.png", scale=1)

    (before,), _ = planes(tmp_path / "a.png")
    (after,), reader = planes(tmp_path / "o.png")
    assert reader.spec.pix_fmt == "gbrp16le"
    for a, b in zip(before, after, strict=True):
        assert np.abs(a.astype(int) - b.astype(int)).max() <= 1  # float32 holds 24 bits


def sequence(folder, kit, numbers, width=5):
    folder.mkdir()
    for number in numbers:
        image = kit.ramp(number, 32, 24)
        (folder / f"f_{number:0{width}d}.png").write_bytes(encode(image, "png", "rgb24"))
    return folder


def test_a_folder_is_read_in_natural_order_over_gaps(kit, tmp_path):
    folder = sequence(tmp_path / "in", kit, [1, 2, 3, 10, 11, 100], width=0)
    assert [p.name for p in list_pictures(folder)][:4] == [
        "f_1.png",
        "f_2.png",
        "f_3.png",
        "f_10.png",
    ]

    frames, reader = planes(folder)

    assert len(frames) == 6
    for got, number in zip(frames, [1, 2, 3, 10, 11, 100], strict=True):
        assert (got[2] == kit.ramp(number, 32, 24)[..., 0]).all()
    assert reader.timeline.time_base == Fraction(1, 25)


def test_a_pattern_and_a_rate(kit, tmp_path):
    folder = sequence(tmp_path / "in", kit, [1, 2, 4])
    (folder / "other.png").write_bytes(b"not looked at")
    done = kit.enlarge(folder / "f_%05d.png", tmp_path / "o.mp4", raw=RawInput(rate="10"))
    assert kit.shown(tmp_path / "o.mp4") == [0, Fraction(1, 10), Fraction(2, 10)]
    assert done.info.format == "images"


def test_a_folder_of_mixed_pictures_is_refused(kit, tmp_path):
    folder = sequence(tmp_path / "in", kit, [1])
    (folder / "x.jpg").write_bytes(encode(kit.ramp(0, 32, 24), "mjpeg", "yuvj420p"))
    with pytest.raises(MediaError, match="mixes"):
        probe(folder)


def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(UsageError, match="directory"):
        probe(tmp_path)


def test_a_damaged_picture_is_named(kit, tmp_path):
    folder = sequence(tmp_path / "in", kit, [1, 2])
    (folder / "f_00002.png").write_bytes(b"no picture")
    with pytest.raises(MediaError, match="f_00002"):
        kit.enlarge(folder, tmp_path / "o.mp4")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]


@pytest.mark.parametrize("target", ["o_%05d.png", "o_%03d.jpg", "folder/"])
def test_a_sequence_out(kit, tmp_path, target):
    source = kit.video(tmp_path / "in.mp4", frames=3)
    kit.enlarge(source, f"{tmp_path}/{target}")

    folder = tmp_path / "folder" if target.endswith("/") else tmp_path
    names = sorted(p.name for p in folder.iterdir() if p.suffix in (".png", ".jpg"))
    assert len(names) == 3
    assert names[0] in ("o_00001.png", "o_001.jpg", "00001.png")
    assert not [p for p in tmp_path.iterdir() if "part" in p.name]
    with pytest.raises(MediaError, match="already"):
        kit.enlarge(source, f"{tmp_path}/{target}", encode=EncodeOptions())


def test_a_video_does_not_fit_one_picture(kit, tmp_path):
    source = kit.video(tmp_path / "in.mp4", frames=3)
    with pytest.raises(UsageError, match="one picture"):
        kit.enlarge(source, tmp_path / "o.png")


@pytest.mark.parametrize("target", ["o_%05d.png", "folder"])
def test_pictures_of_a_longer_run_before_are_named(kit, tmp_path, target):
    (tmp_path / "folder").mkdir()
    target = tmp_path / "folder" / target if "%" in target else tmp_path / target
    longer = kit.enlarge(kit.video(tmp_path / "in.mp4", frames=7), target, scale=1)
    shorter = kit.enlarge(kit.video(tmp_path / "in.mp4", frames=5), target, scale=1)

    assert longer.warnings == []
    assert len(shorter.warnings) == 1
    assert shorter.warnings[0].startswith("2 pictures from before stay among the new ones")
    assert shorter.warnings[0].endswith("00006.png, o_00007.png" if "%" in str(target) else ".png")


@pytest.mark.parametrize("target", ["o.gif", "o.apng", "o.mp4"])
@pytest.mark.parametrize("source", ["a.gif", "a.apng"])
def test_small_animations(kit, tmp_path, source, target):
    kit.video(tmp_path / "v.mkv", frames=5, codec="ffv1", pix_fmt="bgr0", base=Fraction(1, 1000),
              ticks=[0, 100, 200, 400, 500])  # fmt: skip
    kit.enlarge(tmp_path / "v.mkv", tmp_path / source, scale=1)

    kit.enlarge(tmp_path / source, tmp_path / target)

    times = kit.shown(tmp_path / target)
    assert [t - times[0] for t in times] == [Fraction(t, 10) for t in (0, 1, 2, 4, 5)]
    with av.open(str(tmp_path / target)) as box:
        frame = next(box.decode(video=0))
    large = np.kron(kit.ramp(0, 32, 24), np.ones((2, 2, 1)))
    assert np.abs(frame.to_ndarray(format="rgb24") - large).mean() < 12


def chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) & 1)


def animation(parts, width=32, height=24):
    """An animated WebP. parts: (image, x, y, milliseconds, blend, dispose)."""
    body = chunk(b"VP8X", bytes([0x12, 0, 0, 0]) + (width - 1).to_bytes(3, "little")
                 + (height - 1).to_bytes(3, "little"))  # fmt: skip
    body += chunk(b"ANIM", bytes(6))
    for image, x, y, milliseconds, blend, dispose in parts:
        still = encode(image, "libwebp", "bgra", lossless="1")
        start = 12
        if still[12:16] == b"VP8X":
            start = 12 + 18
        head = b"".join(
            v.to_bytes(3, "little")
            for v in (x // 2, y // 2, image.shape[1] - 1, image.shape[0] - 1, milliseconds)
        )
        flags = bytes([(0 if blend else 2) | (1 if dispose else 0)])
        body += chunk(b"ANMF", head + flags + still[start:])
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def solid(color, width=32, height=24, alpha=255):
    image = np.zeros((height, width, 4), np.uint8)
    image[..., :3], image[..., 3] = color, alpha
    return image


def test_animated_webp_is_composed_on_its_canvas(kit, tmp_path):
    path = tmp_path / "a.webp"
    path.write_bytes(
        animation(
            [
                (solid((200, 0, 0)), 0, 0, 100, True, False),
                (solid((0, 200, 0), 8, 8), 4, 6, 50, True, True),
                (solid((0, 0, 200), 8, 8, 0), 16, 0, 70, True, False),
            ]
        )
    )
    info = probe(path)
    with Reader(info, keep_alpha=True) as reader:
        frames = list(reader)
    red = [f.planes[2] for f in frames]
    green = [f.planes[0] for f in frames]

    assert [f.pts for f in frames] == [0, 100, 150]
    assert (red[0] == 200).all()
    assert (green[1][6:14, 4:12] == 200).all()
    assert (red[1][:6] == 200).all()
    assert (reader.relay.alpha[2][6:14, 4:12] == 0).all()  # disposed to transparent
    assert (red[2][0:6, 16:24] == 200).all()  # a transparent patch changes nothing

    kit.enlarge(path, tmp_path / "o.mp4")
    assert kit.shown(tmp_path / "o.mp4") == [0, Fraction(1, 10), Fraction(15, 100)]


def test_a_truncated_animated_webp_is_refused_or_shorter(tmp_path):
    whole = animation([(solid((200, 0, 0)), 0, 0, 100, True, False)] * 3)
    (tmp_path / "a.webp").write_bytes(whole[: len(whole) * 2 // 3])
    frames, _ = planes(tmp_path / "a.webp")
    assert 1 <= len(frames) < 3
    (tmp_path / "b.webp").write_bytes(whole[:60])
    with pytest.raises(MediaError):
        probe(tmp_path / "b.webp")
