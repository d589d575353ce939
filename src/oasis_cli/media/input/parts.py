"""Files in a file: MKV, NUT or FLV written one behind the other (`cat a.mkv b.mkv`).

FFmpeg reads MKV and NUT on with the first one's headers, and FLV to the first one's end only. Each
part is opened as a file of its own instead: it has its own tracks, clock and codec set-up.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache

FORMATS = {"matroska,webm": "matroska", "nut": "nut", "flv": "flv"}
"""Formats, by FFmpeg's name -> that of the demuxer."""
_SIGNS = {
    "matroska": re.compile(rb"\x1a\x45\xdf\xa3.{1,60}?\x42\x82.(?:webm|matroska)", re.DOTALL),
    "nut": re.compile(rb"nut/multimedia container\0"),
    "flv": re.compile(rb"FLV\x01[\0\1\4\5]\0\0\0\x09\0\0\0\0"),
}
"""How a file of each begins."""
LONGEST = 96
"""Bytes of the longest beginning."""
CHUNK = 1 << 20
SEARCHED = 1 << 30
"""Bytes that are searched for a beginning, at most."""
MOST_BOXES = 1000
"""Boxes of an MP4, at its top, that are looked at."""
SEGMENT = b"\x18\x53\x80\x67"


def part_starts(path: str, name: str, place: int = 0) -> list[int]:
    """The bytes at which the second part and those behind it begin; none of a pipe.

    name: FFmpeg's of the format. Looks behind byte `place`, which lies in a part.
    """
    form = FORMATS.get(name)
    if form is None or not os.path.isfile(path):
        return []
    about = os.stat(path)
    state = about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns
    return list(_starts(path, form, place, state))


@lru_cache(maxsize=64)
def _starts(path: str, form: str, place: int, state: tuple[int, ...]) -> tuple[int, ...]:
    """state: of the file as it is. Kept, for a file is asked about each time it is opened, and the
    search may read much of it."""
    found: list[int] = []
    while True:
        begin = _segment_end(path, place) if form == "matroska" else place + 1
        at = _next_sign(path, _SIGNS[form], begin)
        if at is None:
            return tuple(found)
        found.append(at)
        place = at


def film_behind(path: str, name: str) -> int:
    """The byte at which a second MP4 or MOV begins, of which FFmpeg reads nothing.

    0 without one, and where a film is in fragments, which FFmpeg reads on.
    """
    if "mp4" not in name.split(",") or not os.path.isfile(path):
        return 0
    begins: list[int] = []
    found, at = False, 0
    with open(path, "rb") as file:
        for _ in range(MOST_BOXES):
            file.seek(at)
            head = file.read(16)
            kind, size = head[4:8], int.from_bytes(head[:4], "big")
            if size == 1:
                size = int.from_bytes(head[8:], "big")
            if kind == b"moof" or len(head) < 8:
                return 0
            if kind == b"ftyp":
                begins.append(at)
            if kind == b"moov" and found:
                return begins[-1] if len(begins) > 1 else at
            found = found or kind == b"moov"
            if not 8 <= size < 1 << 60:
                return 0
            at += size
    return 0


def _next_sign(path: str, sign: re.Pattern[bytes], begin: int) -> int | None:
    """The byte at which the next file begins, at `begin` or behind it."""
    with open(path, "rb") as file:
        file.seek(begin)
        kept = b""
        for place in range(begin, begin + SEARCHED, CHUNK):
            data = kept + file.read(CHUNK)
            if match := sign.search(data):
                return place - len(kept) + match.start()
            if len(data) - len(kept) < CHUNK:
                return None
            kept = data[-LONGEST:]
    return None


def _segment_end(path: str, place: int) -> int:
    """Where the MKV file that begins at a byte says that it ends; the byte behind its head where
    it does not, as in a live recording."""
    with open(path, "rb") as file:
        file.seek(place)
        head = file.read(4 + 8 + 256)
        size, at = _number(head, 4)
        at += size or 0
        if head[at : at + 4] != SEGMENT:
            return place + 4
        size, at = _number(head, at + 4)
        return place + at + (size or 0)


def _number(data: bytes, at: int) -> tuple[int | None, int]:
    """A size of EBML, None where it is unknown, and the byte behind it."""
    first = data[at] if at < len(data) else 0
    length = 9 - first.bit_length()
    if length > 8:
        return None, at + 1
    mask = (1 << 7 * length) - 1
    size = int.from_bytes(data[at : at + length], "big") & mask
    return None if size == mask else size, at + length
