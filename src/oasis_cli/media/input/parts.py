"""Files in a file: MKV, NUT or FLV written one behind the other (`cat a.mkv b.mkv`).

FFmpeg reads MKV and NUT on with the first one's headers, and FLV to the first one's end only. Each
part is opened as a file of its own instead, the first one too: it has its own tracks, clock and
codec set-up.
"""

from __future__ import annotations

import os
import re
import struct
from functools import lru_cache

FORMATS = {"matroska,webm": "matroska", "nut": "nut", "flv": "flv"}
"""Formats, by FFmpeg's name -> that of the demuxer."""
_SIGNS = {
    "matroska": re.compile(rb"\x1a\x45\xdf\xa3.{1,60}?\x42\x82.(?:webm|matroska)", re.DOTALL),
    "nut": re.compile(rb"nut/multimedia container\0"),
    "flv": re.compile(rb"FLV\x01[\0\1\4\5]\0\0\0\x09\0\0\0\0"),
}
"""How a file of each begins."""
_MAGIC = {"matroska": b"\x1a\x45\xdf\xa3", "nut": b"nut/", "flv": b"FLV\x01"}
"""The first bytes of that."""
LONGEST = 96
"""Bytes of the longest beginning."""
_FLV_SIZE = re.compile(rb"filesize\0(.{8})", re.DOTALL)
SURE, MOST_BYTES = 0.95, 1 << 50
"""Part of the length that an FLV tells below which it is cut off, and what no file has."""
HEAD = 4096
"""Bytes in which an FLV tells it."""
HEADER = 4 + 8 + 256
"""Bytes of an MKV file that tell how long it is."""
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
    return [] if form is None else starts_of(path, form, place)


def starts_of(path: str, form: str, place: int = 0) -> list[int]:
    """The same. form: of the demuxer."""
    if not os.path.isfile(path):
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


def missing_bytes(path: str, name: str) -> int:
    """How many bytes a file, or the last of several in it, lacks of the length that it tells; 0 of
    a pipe and where it tells none. name: FFmpeg's of the format."""
    form = FORMATS.get(name)
    if form is None or not os.path.isfile(path):
        return 0
    start = (starts_of(path, form) or [0])[-1]
    with open(path, "rb") as file:
        file.seek(start)
        head = file.read(HEAD)
    there = os.path.getsize(path) - start
    if form == "matroska":
        return max(0, segment_length(head) - there)
    told = _FLV_SIZE.search(head) if form == "flv" else None
    length = struct.unpack(">d", told[1])[0] if told else 0
    # Other tools than the first one may have written it and not changed that.
    return round(length) - there if there < SURE * length < MOST_BYTES else 0


class Cutter:
    """Bytes that pass once, cut where another file begins: what `part_starts` is for a file.

    `take` gives those of the part that is read, until it gives none and `at_end` is true.
    """

    def __init__(self, form: str) -> None:
        """form: of the demuxer."""
        self._form = form
        self._held = b""
        self._place = self._from = 0
        """Bytes that were given out, and from where on another file may begin."""
        self._begun = self._ended = False

    def feed(self, data: bytes) -> None:
        """The next bytes; b"" at the end."""
        self._held += data
        self._ended = self._ended or not data
        self._begin()

    def take(self, size: int) -> bytes:
        """At most so many bytes that belong to the part; none while that is not known."""
        count = min(size, self._count()) if self._begun else 0
        data, self._held = self._held[:count], self._held[count:]
        self._place += count
        return data

    @property
    def at_end(self) -> bool:
        """Whether the part is over."""
        return self._begun and (self._sign() == 0 if self._held else self._ended)

    @property
    def missing(self) -> int:
        """How many bytes the part lacks of the length that it tells, at its end."""
        return max(0, self._from - self._place) if self._ended else 0

    def next_part(self) -> int | None:
        """Go on to the part that begins at this end. Returns its byte, None at the last end."""
        if self._sign() != 0:
            return None
        self._begun = False
        self._begin()
        return self._place

    def _begin(self) -> None:
        """Learn from a part's first bytes how long it is, when they are there."""
        if not self._begun and (self._ended or len(self._held) >= HEADER):
            self._begun = True
            mkv = self._form == "matroska"
            self._from = self._place + (segment_length(self._held[:HEADER]) if mkv else 1)

    def _sign(self) -> int | None:
        """Where in the held bytes the next part begins."""
        match = _SIGNS[self._form].search(self._held, max(0, self._from - self._place))
        return None if match is None else match.start()

    def _count(self) -> int:
        """How many of the held bytes surely belong to the part."""
        sign = self._sign()
        if sign is not None or self._ended:
            return len(self._held) if sign is None else sign
        first = max(0, len(self._held) - LONGEST, self._from - self._place)
        magic = _MAGIC[self._form]
        may = (n for n in range(first, len(self._held)) if magic.startswith(self._held[n : n + 4]))
        return next(may, len(self._held))


def form_of(head: bytes, named: str | None) -> str | None:
    """The demuxer of a file that may have others behind it, by its first bytes.

    named: the one that the user names, and no other; None for the one that fits.
    """
    fits = (form for form, sign in _SIGNS.items() if named in (None, form) and sign.match(head))
    return next(fits, None)


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
        return place + segment_length(file.read(HEADER))


def segment_length(head: bytes) -> int:
    """Bytes of an MKV file by its first ones; the length of its head where it tells none."""
    size, at = _number(head, 4)
    at += size or 0
    if head[at : at + 4] != SEGMENT:
        return 4
    size, at = _number(head, at + 4)
    return at + (size or 0)


def _number(data: bytes, at: int) -> tuple[int | None, int]:
    """A size of EBML, None where it is unknown, and the byte behind it."""
    first = data[at] if at < len(data) else 0
    length = 9 - first.bit_length()
    if length > 8:
        return None, at + 1
    mask = (1 << 7 * length) - 1
    size = int.from_bytes(data[at : at + length], "big") & mask
    return None if size == mask else size, at + length
