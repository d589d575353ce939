"""Colour profiles of pictures (ICC.1): what they are called, and how each format stores them.

FFmpeg's encoders take a profile from their frame, where PyAV cannot put one: it is added to the
finished file.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace

from oasis_cli.media.info import Color, VideoInfo
from oasis_cli.media.picture import Family

Size = tuple[int, int]

TAGS = {"sRGB": (1, 13), "Display P3": (12, 13)}
"""Primaries and transfer (ISO/IEC 23091-2) of the profiles that video can say by two numbers."""
UNTAGGED = ("images", "gif", "apng", "yuv4mpegpipe", "rawvideo")
"""Outputs without such tags: they count as sRGB."""
JPEG_PIECE = 65519
"""Bytes of a profile that fit into one JPEG segment."""
TIFF_PROFILE = 34675


def profile_of(side: dict[str, bytes]) -> bytes:
    """The profile among a frame's side data, or nothing; WebP's decoder adds a byte to odd ones."""
    found = side.get("ICC_PROFILE", b"")
    return found[: int.from_bytes(found[:4], "big")]


def profile_name(profile: bytes) -> str:
    """The name in the profile; "unnamed" when it has none."""
    count = int.from_bytes(profile[128:132], "big")
    for number in range(min(count, 100)):
        name, offset, size = struct.unpack(">4sII", profile[132 + 12 * number :][:12].ljust(12))
        if name == b"desc":
            return _text(profile[offset : offset + size]) or "unnamed"
    return "unnamed"


def _text(tag: bytes) -> str:
    if tag[:4] == b"desc":  # version 2: ASCII
        size = int.from_bytes(tag[8:12], "big")
        return tag[12 : 12 + size].split(b"\0")[0].decode("ascii", "replace").strip()
    if tag[:4] == b"mluc":  # version 4: UTF-16 in several languages
        size, offset = struct.unpack(">II", tag[20:28].ljust(8, b"\0"))
        return tag[offset : offset + size].decode("utf-16-be", "replace").strip("\0 ")
    return ""


def video_tags(profile: bytes) -> tuple[int, int] | None:
    """Primaries and transfer that say the same as the profile; None where no tags do."""
    name = profile_name(profile)
    return next((tags for start, tags in TAGS.items() if name.startswith(start)), None)


def keep_profile(
    video: VideoInfo, muxer: str, codec: str, color: Color, family: Family, losses: list[str]
) -> tuple[bytes, Color]:
    """What becomes of the input's profile: (for the pictures of the output, the output's tags).

    Pictures store it; video says the usual ones by tags. Adds to `losses` what neither can say.
    """
    profile = video.icc
    if not profile:
        return b"", color
    wanted = b"GRAY" if family == "gray" else b"RGB "
    if muxer == "images" and codec in ADD and profile[16:20] == wanted:
        return profile, color
    tags = video_tags(profile)
    if tags is None or (muxer in UNTAGGED and tags != TAGS["sRGB"]):
        losses.append(f"the colour profile {profile_name(profile)} is lost: {codec} holds none")
    elif video.color.primaries == 2:
        color = replace(color, primaries=tags[0], transfer=tags[1])
    return b"", color


def add_profile(picture: bytes, profile: bytes, codec: str, size: Size) -> bytes:
    """The file with the profile in it.

    codec: the encoder that made it, one of `ADD`. size: (width, height) of the picture.
    """
    return ADD[codec](picture, profile, size)


def _into_png(picture: bytes, profile: bytes, size: Size) -> bytes:
    body = b"ICC profile\0\0" + zlib.compress(profile, 9)
    added = _png_chunk(b"iCCP", body)
    out = bytearray(picture[:8])
    for name, chunk in _png_chunks(picture):
        if name != b"sRGB":  # a picture has one of the two
            out += chunk
        if name == b"IHDR":
            out += added
    return bytes(out)


def _png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _png_chunks(picture: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at < len(picture):
        size = 12 + int.from_bytes(picture[at : at + 4], "big")
        yield picture[at + 4 : at + 8], picture[at : at + size]
        at += size


def _into_jpeg(picture: bytes, profile: bytes, size: Size) -> bytes:
    pieces = [profile[i : i + JPEG_PIECE] for i in range(0, len(profile), JPEG_PIECE)]
    segments = b"".join(
        b"\xff\xe2" + struct.pack(">H", 16 + len(piece)) + b"ICC_PROFILE\0"
        + bytes([number, len(pieces)]) + piece
        for number, piece in enumerate(pieces, start=1)
    )  # fmt: skip
    at = 2
    if picture[2:4] == b"\xff\xe0":  # JFIF comes first
        at += 2 + int.from_bytes(picture[4:6], "big")
    return picture[:at] + segments + picture[at:]


def _into_webp(picture: bytes, profile: bytes, size: Size) -> bytes:
    added = b"ICCP" + struct.pack("<I", len(profile)) + profile + b"\0" * (len(profile) % 2)
    body = picture[12:]
    if body[:4] == b"VP8X":
        head, rest = bytearray(body[:18]), body[18:]
    else:
        width, height = ((side - 1).to_bytes(3, "little") for side in size)
        head, rest = bytearray(b"VP8X\x0a\0\0\0" + bytes(4) + width + height), body
    head[8] |= 0x20
    body = bytes(head) + added + rest
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def _into_tiff(picture: bytes, profile: bytes, size: Size) -> bytes:
    order = "<" if picture[:2] == b"II" else ">"
    (at,) = struct.unpack_from(order + "I", picture, 4)
    (count,) = struct.unpack_from(order + "H", picture, at)
    entries = [picture[at + 2 + 12 * n : at + 14 + 12 * n] for n in range(count)]
    end = picture[at + 2 + 12 * count : at + 6 + 12 * count]
    start = len(picture) + len(picture) % 2
    entries.append(struct.pack(order + "HHII", TIFF_PROFILE, 7, len(profile), start))
    entries.sort(key=lambda entry: struct.unpack(order + "H", entry[:2]))
    directory = struct.pack(order + "H", len(entries)) + b"".join(entries) + end
    where = start + len(profile) + len(profile) % 2
    return (
        picture[:4] + struct.pack(order + "I", where) + picture[8:].ljust(start - 8, b"\0")
        + profile.ljust(where - start, b"\0") + directory
    )  # fmt: skip


ADD = {"png": _into_png, "mjpeg": _into_jpeg, "tiff": _into_tiff, "libwebp": _into_webp}
"""By encoder, for the formats that hold a profile."""
