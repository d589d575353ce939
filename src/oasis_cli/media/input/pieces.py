"""Pieces of a file, of MPEG-TS above all, read as files of their own.

A demuxer gives a picture out when the next one of its track begins, so the last pictures of a
track that ends on the way come at the end of the file, far too late. And PyAV knows the streams
that a file has when it is opened: what begins later does not come at all. Both are found by
reading the bytes before, or from, the place where the tracks change.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import av
import numpy as np
from av.container import InputContainer

from oasis_cli.media.input.limits import file_size, most_pixels
from oasis_cli.media.input.packets import Packet, demuxed
from oasis_cli.media.input.pipes import SeekableFile
from oasis_cli.media.input.playlists import whitelist
from oasis_cli.media.input.tracks import Facts

LOOK_BACK = 8 << 20
"""Bytes before an end in which the last packets are looked for."""
CHUNK = 188 << 12
"""Bytes of a file that are searched at once: whole packets."""
READ_AHEAD = 1 << 17
"""Bytes that FFmpeg reads at once."""
SYNC = 0x47


class _Piece:
    """The bytes of a file from `start` to `stop`, to be read once. It holds no open file."""

    def __init__(self, path: str, start: int, stop: int) -> None:
        self._path, self._at, self._stop = path, start, stop

    def read(self, size: int) -> bytes:
        """At most so many bytes; none at the end."""
        with open(self._path, "rb", buffering=0) as file:
            file.seek(self._at)
            data = file.read(max(0, min(size, self._stop - self._at))) or b""
        self._at += len(data)
        return data


def open_piece(path: str, start: int, stop: int, form: str = "mpegts") -> InputContainer:
    """A container that holds those bytes. Errors are PyAV's own, and OSError."""
    return open_part(_Piece(path, start, stop), form, file_size(path))


def open_part(file: Any, form: str, size: int | None = None) -> InputContainer:
    """A container in what `file` reads. size: in bytes, when it is known. Errors as above."""
    limits = {"protocol_whitelist": whitelist(()), "max_pixels": str(most_pixels(size))}
    return av.open(
        file, "r", format=form, options=limits,
        metadata_errors="replace", buffer_size=READ_AHEAD,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Behind:
    """What there is in the files behind the first one in a file."""

    seconds: float | None = 0.0
    """How long they are together, each from its first time on; None where one does not tell."""
    left: dict[int, list[str]] = field(default_factory=dict)
    """Byte at which one begins -> what of it nothing takes, in words; chapters are not among it."""
    chapters: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    """Byte at which one begins -> its chapters on its own clock, of those that have some."""


def look_behind(main: InputContainer, path: str, starts: list[int], form: str) -> Behind:
    """Open them all. main: the first one. starts: the bytes at which they begin."""
    seconds: float | None = 0.0
    left: dict[int, list[str]] = {}
    chapters: dict[int, list[dict[str, Any]]] = {}
    for start, stop in pairwise([*starts, os.path.getsize(path)] if starts else []):
        length = None
        with (
            suppress(av.FFmpegError, OSError),
            open_part(SeekableFile(path, start, stop), form, stop - start) as part,
        ):
            if found := _tracks_left(main, part):
                left[start] = found
            if own := chapters_of(part):
                chapters[start] = own
            if part.duration:
                length = (part.duration - max(0, part.start_time or 0)) / 1e6
        seconds = None if seconds is None or length is None else seconds + length
    return Behind(seconds, left, chapters)


def left_in_part(main: InputContainer, part: InputContainer) -> list[str]:
    """What of a later file nothing in the first one takes."""
    return _tracks_left(main, part) + chapters_left(len(chapters_of(part)))


def chapters_of(container: InputContainer) -> list[dict[str, Any]]:
    """A container's own; none where they cannot be read."""
    with suppress(UnicodeDecodeError, ValueError):
        return [dict(chapter) for chapter in container.chapters()]
    return []


def chapters_left(count: int) -> list[str]:
    """So many chapters of a file, in words."""
    return [f"{count} chapter{'s' if count > 1 else ''}"] if count else []


def _tracks_left(main: InputContainer, part: InputContainer) -> list[str]:
    found: list[str] = []
    own = [Facts(stream, stream.index) for stream in main.streams]
    fonts = {stream.metadata.get("filename") for stream in main.streams}
    for stream in part.streams:
        facts = Facts(stream, -1)
        taker = next((o for o in own if facts.is_as(o)), None)
        if taker is not None:
            own.remove(taker)
        elif facts.kind != "attachment" or stream.metadata.get("filename") not in fonts:
            found.append(" ".join(filter(None, (facts.kind, facts.codec))))
    return found


def last_packets(path: str, begun: int, stop: int, wanted: Collection[int]) -> Iterator[Packet]:
    """The last packets of the streams with these ids before byte `stop`; also some before.

    begun: byte at which they are all there. Nothing comes where the piece cannot be read.
    """
    with suppress(av.FFmpegError, OSError):
        stop = min(stop, os.path.getsize(path))
        start = max(_table_before(path, begun), stop - LOOK_BACK)
        with open_piece(path, start, stop) as container:
            for packet in demuxed(container, (), lambda: None):
                if packet.stream.id in wanted:
                    yield packet


def _table_before(path: str, place: int) -> int:
    """The byte of the last table of programmes before a packet; 0 when there is none near."""
    start = max(0, place - CHUNK // 188 * 188)
    start += (place - start) % 188
    with open(path, "rb") as file:
        file.seek(start)
        tables = [at for at, number, _ in _units(file.read(place - start)) if number == 0]
    return start + tables[-1] if tables else 0


def unknown_streams(
    path: str, start: int, stop: int, known: Collection[int]
) -> tuple[int, set[int]] | None:
    """Streams of picture and sound between two bytes whose ids (PIDs) are not among the known.

    Returns (byte of the table of programmes before the first of them, ids), None without any.
    """
    table, found = start, set[int]()
    with suppress(OSError), open(path, "rb") as file:
        file.seek(start)
        head = file.read(4 * 188)
        synced = (n for n in range(188) if head[n : n + 1] == head[n + 188 : n + 189] == b"G")
        start += next(synced, 0)
        file.seek(start)
        while start < stop and (data := file.read(min(CHUNK, stop - start))):
            for place, number, media in _units(data):
                if number == 0 and not found:
                    table = start + place
                elif media and number not in known:
                    found.add(number)
            start += len(data)
    return (table, found) if found else None


def _units(data: bytes) -> Iterator[tuple[int, int, bool]]:
    """(byte, PID, whether it is of picture or sound) of all packets in which something begins."""
    rows = np.frombuffer(data[: len(data) // 188 * 188], np.uint8).reshape(-1, 188)
    for number in np.flatnonzero((rows[:, 0] == SYNC) & (rows[:, 1] & 0x40 != 0)):
        row = rows[number]
        at = 4 + (1 + int(row[4]) if row[3] & 0x20 else 0)
        head = row[at : at + 4].tobytes()
        media = len(head) == 4 and head[:3] == b"\0\0\1" and 0xC0 <= head[3] <= 0xEF
        yield int(number) * 188, (int(row[1]) & 0x1F) << 8 | int(row[2]), media
