"""Closed captions (CEA-608 and CEA-708) that travel inside the pictures of a video stream.

They are taken from decoded frames, as A/53 `cc_data` triplets, and put into the packets of the new
stream: by frame number, whatever encoder made them and wherever its segment was rendered.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import av

CARRIERS = {
    "libx264": "h264", "h264_nvenc": "h264", "libx265": "hevc", "hevc_nvenc": "hevc",
    "libsvtav1": "av1", "av1_nvenc": "av1",
}  # fmt: skip
"""Encoders whose packets can hold captions, and what they make."""
SOURCES = {"h264", "hevc", "mpeg2video", "mpegvideo", "mpeg1video", "av1", "libdav1d"}
"""Decoders that find them."""
HEADER = b"\xb5\x00\x31GA94\x03"
"""ITU-T T.35: the United States, ATSC, captions."""
MPEG2_HEADER = b"\x00\x00\x01\xb2GA94\x03"
MOST = 31
"""Triplets in one message."""


def are_in(packet: bytes) -> bool:
    """Whether a packet of H.264, HEVC, AV1 or MPEG-2 holds captions."""
    return HEADER in packet or MPEG2_HEADER in packet


def with_captions(
    packet: av.Packet[Any], codec: str, triplets: bytes, *, prefixed: bool = False
) -> av.Packet[Any]:
    """The packet with captions in front of its picture.

    codec: the encoder, one of `CARRIERS`. triplets: three bytes for each pair of caption bytes, as
    decoders give them. prefixed: the packet's units are led by their length in four bytes, as in a
    Matroska file, and not by start codes.
    """
    kind, messages = CARRIERS[codec], list(_messages(triplets))
    if kind == "av1":
        data = _into_av1(bytes(packet), messages)
    else:
        data = _into_units(bytes(packet), kind, messages, prefixed)
    made: av.Packet[Any] = av.Packet(data)
    made.time_base = packet.time_base
    made.pts, made.dts, made.duration = packet.pts, packet.dts, packet.duration
    made.is_keyframe = packet.is_keyframe
    for side in packet.iter_sidedata():
        made.set_sidedata(side)
    return made


def _messages(triplets: bytes) -> Iterable[bytes]:
    for start in range(0, len(triplets) - len(triplets) % 3, 3 * MOST):
        part = triplets[start : start + 3 * MOST]
        part = part[: len(part) - len(part) % 3]
        yield HEADER + bytes([0x40 | len(part) // 3, 0xFF]) + part + b"\xff"


def _into_units(data: bytes, kind: str, messages: list[bytes], prefixed: bool) -> bytes:
    """NAL units with an SEI unit before the first slice."""
    at = _first_slice(data, kind, prefixed)
    if at is None:
        return data
    body = b"".join(bytes([4, len(message)]) + message for message in messages) + b"\x80"
    unit = (b"\x06" if kind == "h264" else b"\x4e\x01") + _escaped(body)
    start = struct.pack(">I", len(unit)) if prefixed else b"\0\0\0\1"
    return data[:at] + start + unit + data[at:]


def _first_slice(data: bytes, kind: str, prefixed: bool) -> int | None:
    """Where the first unit that is part of a picture begins, with its start code or length."""
    at = 0 if prefixed else data.find(b"\0\0\1")
    while 0 <= at < len(data) - 4:
        head = data[at + (4 if prefixed else 3)]
        if 1 <= head & 31 <= 5 if kind == "h264" else head >> 1 & 63 < 32:
            longer = not prefixed and at and data[at - 1] == 0  # a start code of four bytes
            return at - 1 if longer else at
        if prefixed:
            at += 4 + int.from_bytes(data[at : at + 4], "big")
        else:
            at = data.find(b"\0\0\1", at + 3)
    return None


def _escaped(body: bytes) -> bytes:
    """No start code within: a 3 goes between two zeros and a byte up to 3."""
    out, zeros = bytearray(), 0
    for byte in body:
        if zeros == 2 and byte <= 3:
            out.append(3)
            zeros = 0
        out.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return bytes(out)


def _into_av1(data: bytes, messages: list[bytes]) -> bytes:
    """OBUs with metadata before the last frame of the unit, which is the one that is shown."""
    at, place = 0, None
    while at < len(data):
        kind, size, start = data[at] >> 3 & 15, 0, at + 1 + (data[at] >> 2 & 1)
        if not data[at] & 2:
            return data  # an OBU without its size ends the unit: nothing can come before it
        for shift in range(0, 56, 7):
            size |= (data[start] & 127) << shift
            start += 1
            if not data[start - 1] & 128:
                break
        if kind in (3, 6):  # a frame's header, or a whole frame
            place = at
        at = start + size
    if place is None:
        return data
    obus = b"".join(b"\x2a" + bytes([len(m) + 2]) + b"\x04" + m + b"\x80" for m in messages)
    return data[:place] + obus + data[place:]


def save_captions(path: Path, captions: Mapping[int, bytes]) -> None:
    """Write captions by frame number."""
    with path.open("wb") as file:
        for index, triplets in captions.items():
            file.write(struct.pack("<IH", index, len(triplets)) + triplets)


def load_captions(path: Path) -> dict[int, bytes]:
    """What `save_captions` wrote; nothing where there is no file."""
    data = path.read_bytes() if path.exists() else b""
    found, at = {}, 0
    while at + 6 <= len(data):
        index, size = struct.unpack_from("<IH", data, at)
        found[index] = data[at + 6 : at + 6 + size]
        at += 6 + size
    return found
