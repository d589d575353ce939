"""Headers that claim much: refused before memory is taken, in every reader."""

import json
import struct
import subprocess
import sys
import zlib
from fractions import Fraction

import av
import numpy as np
import pytest

from oasis_cli.errors import MediaError
from oasis_cli.media.input.probe import probe
from oasis_cli.media.input.reader import Reader

BOMBS = ["gif", "png", "apng", "webp", "y4m", "bmp", "jpg", "tiff"]
CHILD = """
import json, resource, sys
from oasis_cli.errors import OasisError
from oasis_cli.media.input.probe import probe
import numpy, av
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    try:
        probe(path)
        said = ""
    except OasisError as error:
        said = str(error)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([path, said, (after - before) * 1024]))
"""


def png_chunk(name, data):
    checked = name + data
    return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))


def png(size, *chunks):
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0))
    body = png_chunk(b"IDAT", zlib.compress(bytes(64 * 48 * 3 + 48)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + body + png_chunk(b"IEND", b"")


def webp_chunk(name, data):
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) & 1)


def webp(canvas, frame=((0, 0), (64, 48)), coded=(64, 48)):
    def number(n):
        return n.to_bytes(3, "little")

    encoder = av.CodecContext.create("libwebp", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 64, 48, "bgra"
    encoder.time_base, encoder.options = Fraction(1, 25), {"lossless": "1"}
    picture = av.VideoFrame.from_ndarray(np.zeros((48, 64, 4), np.uint8), format="bgra")
    whole = b"".join(bytes(p) for p in [*encoder.encode(picture), *encoder.encode(None)])
    lossless = bytearray(whole[whole.index(b"VP8L") + 8 :])
    size = int.from_bytes(lossless[1:5], "little") >> 28 << 28
    lossless[1:5] = struct.pack("<I", size | (coded[0] - 1) | (coded[1] - 1) << 14)
    (x, y), (width, height) = frame
    place = b"".join(map(number, (x // 2, y // 2, width - 1, height - 1, 40))) + b"\0"
    body = webp_chunk(b"VP8X", b"\x02\0\0\0" + number(canvas[0] - 1) + number(canvas[1] - 1))
    body += webp_chunk(b"ANIM", bytes(6))
    body += webp_chunk(b"ANMF", place + webp_chunk(b"VP8L", bytes(lossless)))
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def gif(size):
    picture = b"," + struct.pack("<HHHHB", 0, 0, *size, 0) + b"\2\2\x4c\1\0;"
    return b"GIF89a" + struct.pack("<HH", *size) + b"\x80\0\0\0\0\0\xff\xff\xff" + picture


def bomb(kind, size):
    """A file of a few kilobytes that claims to be this large."""
    w, h = size
    jpeg = struct.pack(">BBHBHHB", 0xFF, 0xC0, 11, 8, h, w, 1) + b"\1\x11\0"
    tags = [(256, w), (257, h), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, h),
            (279, w * h % 2**32)]  # fmt: skip
    ifd = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", t, 4, 1, v) for t, v in tags)
    made = {
        "gif": gif(size),
        "png": png(size),
        "apng": png(size, png_chunk(b"acTL", struct.pack(">II", 2, 0)),
                    png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, w, h, 0, 0, 1, 25, 0, 0))),
        "webp": webp(size),
        "y4m": f"YUV4MPEG2 W{w} H{h} F25:1 Ip C420jpeg\nFRAME\n".encode() + bytes(6000),
        "bmp": b"BM" + struct.pack("<IIIIiiHHIIIIII", 10000, 0, 54, 40, w, h, 1, 24, 0, 0, 0, 0, 0,
                                   0) + bytes(10000),
        "jpg": b"\xff\xd8" + jpeg + b"\xff\xda\0\x08\1\1\0\0\x3f\0" + bytes(6000) + b"\xff\xd9",
        "tiff": b"II*\0\x08\0\0\0" + ifd + bytes(6000),
    }  # fmt: skip
    return made[kind]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak is counted differently")
def test_a_small_file_that_claims_much_is_refused_before_memory_is_taken(tmp_path):
    paths = []
    for kind in BOMBS:
        for size in ((65535, 65535), (32000, 32000), (16000, 16000), (12000, 11000)):
            path = tmp_path / f"{size[0]}.{kind}"
            path.write_bytes(bomb(kind, size))
            paths.append(path)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *paths], capture_output=True, text=True, timeout=120
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and len(lines) == len(paths), done.stderr[-2000:]
    for path, said, memory in lines:
        assert said and memory < 200e6, (path, said, memory)


@pytest.mark.parametrize("kind", ["gif", "png", "webp", "y4m", "bmp"])
def test_ordinary_sizes_are_taken(tmp_path, kind):
    path = tmp_path / f"in.{kind}"
    path.write_bytes(bomb(kind, (64, 48)))
    assert probe(path).video.width == 64


@pytest.mark.parametrize("head", [b"zTXt|a\0\0", b"iTXt|a\0\1\0\0\0", b"iCCP|a\0\0"])
def test_texts_of_a_png_are_not_unpacked_without_a_limit(tmp_path, head):
    name, start = head.split(b"|")
    path = tmp_path / "in.png"
    path.write_bytes(png((64, 48), png_chunk(name, start + zlib.compress(bytes(1 << 27)))))
    with pytest.raises(MediaError, match="unpacks to more than 16 MiB"):
        probe(path)


def test_short_texts_of_a_png_are_fine(tmp_path):
    path = tmp_path / "in.png"
    texts = (b"zTXt", b"a\0\0" + zlib.compress(b"hello")), (b"iTXt", b"a\0\0\0\0\0hello")
    path.write_bytes(png((64, 48), *(png_chunk(*text) for text in texts)))
    assert probe(path).video.width == 64


@pytest.mark.parametrize("broken", [
    {"frame": ((40, 0), (64, 48))}, {"frame": ((0, 200), (64, 48))}, {"coded": (32, 24)},
    {"coded": (16000, 16000)}, {"frame": ((0, 0), (32, 24))},
])  # fmt: skip
def test_frames_that_do_not_fit_an_animated_webp_are_refused(tmp_path, broken):
    path = tmp_path / "in.webp"
    path.write_bytes(webp((64, 48), **broken))
    with pytest.raises(MediaError, match="animated WebP"):
        probe(path)


def test_a_picture_that_grows_on_the_way_is_not_believed(kit, tmp_path):
    """A stream of MJPEG whose second picture claims to fill the memory."""
    source = kit.video(tmp_path / "in.avi", codec="mjpeg", pix_fmt="yuvj420p", frames=3)
    data = bytearray(source.read_bytes())
    places = [i for i in range(len(data)) if data[i : i + 3] == b"\xff\xc0\0"]
    data[places[1] + 5 : places[1] + 9] = struct.pack(">HH", 16000, 16000)
    source.write_bytes(data)
    with Reader(probe(source)) as reader:
        frames = sum(1 for _ in reader)
    assert 1 <= frames <= 2 and reader.report.bad_packets + reader.report.missing_frames >= 1
