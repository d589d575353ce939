"""Colour profiles: read without harm, kept in pictures, said by tags in videos."""

import gc
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from oasis_cli.errors import MediaError
from oasis_cli.media.icc import ADD, add_profile, profile_name, profile_of
from oasis_cli.media.input.probe import probe
from oasis_cli.media.native import SideDataReader
from oasis_cli.media.output.plan import EncodeOptions, plan_output

CODECS = {"png": "png", "jpg": "mjpeg", "tiff": "tiff", "webp": "libwebp"}
FORMATS = {"png": "rgb24", "mjpeg": "yuvj420p", "tiff": "rgb24", "libwebp": "yuv420p"}


def make_profile(name="Test RGB", space=b"RGB ", padding=0):
    """The head of a profile and its name."""
    text = b"desc\0\0\0\0" + struct.pack(">I", len(name) + 1) + name.encode() + b"\0"
    text += bytes(padding)
    size = 144 + len(text)
    head = struct.pack(">I", size) + b"test" + b"\x02\0\0\0" + b"mntr" + space + b"XYZ "
    head = head.ljust(36, b"\0") + b"acsp"
    return head.ljust(128, b"\0") + struct.pack(">I4sII", 1, b"desc", 144, len(text)) + text


def make_picture(path, profile, codec=None, size=(33, 24)):
    """A picture file with a profile."""
    codec = codec or CODECS[path.suffix[1:]]
    context = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt = *size, FORMATS[codec]
    context.time_base = Fraction(1, 25)
    x = np.arange(size[0] * size[1] * 3) % 251
    frame = av.VideoFrame.from_ndarray(
        x.astype(np.uint8).reshape(size[1], size[0], 3), format="rgb24"
    ).reformat(format=FORMATS[codec])
    if codec == "mjpeg":
        context.color_range = 2
    frame.pts = 0
    data = b"".join(bytes(p) for p in [*context.encode(frame), *context.encode(None)])
    path.write_bytes(add_profile(data, profile, codec, size))
    return path


def read_profile(path):
    with av.open(str(path)) as box:
        [frame] = box.decode(video=0)
        return profile_of(SideDataReader()(frame))


def test_a_profile_does_not_end_the_process(tmp_path):
    """In a child, which names each picture when it is through it."""
    sources = [make_picture(tmp_path / f"in.{suffix}", make_profile()) for suffix in CODECS]
    code = (
        "import gc, sys; sys.path.insert(0, sys.argv[1]); from conftest import enlarge\n"
        "for source in sys.argv[3:]:\n"
        "    for _ in range(3): enlarge(source, sys.argv[2]); gc.collect()\n"
        "    print(source, flush=True)"
    )
    words = [Path(__file__).parent, tmp_path / "o.png", *sources]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == [str(source) for source in sources], done.stderr[-1000:]
    assert done.returncode == 0, done.stderr[-1000:]


@pytest.mark.parametrize("source", CODECS)
@pytest.mark.parametrize("target", CODECS)
@pytest.mark.parametrize("padding", [0, 1, 70000])
def test_pictures_keep_their_profile(kit, tmp_path, source, target, padding):
    profile = make_profile(padding=padding)
    done = kit.enlarge(
        make_picture(tmp_path / f"a.{source}", profile), tmp_path / f"b.{target}", scale=2
    )

    assert not [loss for loss in done.plan.losses if "profile" in loss]
    assert read_profile(tmp_path / f"b.{target}") == profile
    gc.collect()


@pytest.mark.parametrize("codec", ADD)
def test_a_profile_changes_no_pixel(tmp_path, codec):
    suffix = next(s for s, c in CODECS.items() if c == codec)
    pictures = []
    for number, profile in enumerate((make_profile(), make_profile(padding=999))):
        path = make_picture(tmp_path / f"{number}.{suffix}", profile, codec, size=(32, 24))
        with av.open(str(path)) as box:
            pictures.append(next(box.decode(video=0)).to_ndarray())
    assert np.array_equal(*pictures)


def test_every_picture_of_a_sequence_gets_the_profile(kit, tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(3):
        make_picture(tmp_path / "in" / f"{number}.png", make_profile())
    kit.enlarge(tmp_path / "in", tmp_path / "out_%d.jpg")
    assert [read_profile(tmp_path / f"out_{n}.jpg") for n in (1, 2, 3)] == [make_profile()] * 3


@pytest.mark.parametrize(
    "name, tags", [("sRGB IEC61966-2.1", (1, 13)), ("Display P3", (12, 13)), ("Mine", None)]
)
def test_a_video_says_the_usual_profiles_by_tags_and_the_plan_names_others(
    kit, tmp_path, name, tags
):
    source = make_picture(tmp_path / "in.png", make_profile(name))
    done = kit.enlarge(source, tmp_path / "out.mp4")

    lost = [loss for loss in done.plan.losses if f"the colour profile {name} is lost" in loss]
    assert bool(lost) == (tags is None)
    if tags:
        color = probe(tmp_path / "out.mp4").video.color
        assert (color.primaries, color.transfer) == tags
    else:
        with pytest.raises(MediaError, match="colour profile Mine"):
            plan_output(probe(source), tmp_path / "o.mp4", (66, 48), EncodeOptions(strict=True))


def test_a_profile_of_other_colours_is_not_put_on_a_picture(kit, tmp_path):
    source = make_picture(tmp_path / "in.png", make_profile("Press", b"CMYK"))
    done = kit.enlarge(source, tmp_path / "out.png")
    assert any("the colour profile Press is lost" in loss for loss in done.plan.losses)
    assert not read_profile(tmp_path / "out.png")


def test_names_of_both_versions_are_read():
    assert profile_name(make_profile("Old")) == "Old"
    words = "Neu".encode("utf-16-be")
    text = b"mluc\0\0\0\0" + struct.pack(">IIHHII", 1, 12, 0x656E, 0x5553, len(words), 28) + words
    new = bytes(128) + struct.pack(">I4sII", 1, b"desc", 144, len(text)) + text
    assert profile_name(new) == "Neu"
    assert profile_name(b"") == profile_name(bytes(500)) == "unnamed"


def test_an_animated_webp_has_the_profile_of_its_file(tmp_path):
    from PIL import Image, ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pictures = [Image.new("RGB", (64, 48), color) for color in ("red", "blue")]
    path = tmp_path / "in.webp"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], icc_profile=profile)
    found = probe(path).video
    assert found.icc == profile
