"""The chapters of files written one behind the other, on the one clock that `joins` makes of them.

A later file's chapters move by what its packets move by. `Joins` itself tells how much: it is given
the packets at the beginning and at the end of each part, for those between move nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
from av.container import InputContainer
from av.stream import Disposition

from oasis_cli.media.info import LATEST, chapter_base
from oasis_cli.media.input.joins import SETTLED, Joins
from oasis_cli.media.input.packets import Packet
from oasis_cli.media.input.parts import FORMATS
from oasis_cli.media.input.pieces import Behind, chapters_left, chapters_of, open_part
from oasis_cli.media.input.pipes import SeekableFile
from oasis_cli.media.input.raw import RawInput
from oasis_cli.media.input.source import open_input
from oasis_cli.media.input.tracks import TimedPacket

Chapter = dict[str, Any]
"""As PyAV gives it: id, start, end, time_base, metadata."""
SMALL = 32 << 20
"""Bytes of the largest part that is read whole."""
MOST_READ = 256 << 20
"""Bytes that are read of a larger part, at most, at its beginning and again at its end."""
TAIL = 5
"""Seconds of a part's end that are read, and what lies before them from a key frame on."""
ENOUGH = 10
"""Packets of each track by which decoding times count right again, where reading began midway."""


class _Unsure(Exception):
    """Where a part ends cannot be told without reading it whole."""


@dataclass(slots=True)
class _Place:
    """Where a part's packets went, in seconds."""

    shifts: set[Fraction] = field(default_factory=set)
    begin: Fraction | None = None
    """The first time of picture and sound there."""


def all_chapters(
    container: InputContainer, path: str, raw: RawInput, behind: Behind
) -> tuple[list[Chapter], int, dict[int, list[str]]]:
    """Those of a file, and of the files `behind` the first one in it.

    Returns (chapters on the joined clock, how many more have times that no film has and no
    container could write, byte of a file behind -> what of it nothing takes, in words).
    """
    found = chapters_of(container)
    places = _places(path, raw) if behind.chapters else {}
    left = dict(behind.left)
    for at, own in behind.chapters.items():
        place = places.get(at, _Place())
        if place.begin is None or len(place.shifts) > 1:
            left[at] = left.get(at, []) + chapters_left(len(own))
        else:
            found += [_moved(c, max(place.shifts), place.begin) for c in own]
    if behind.chapters:  # their numbers begin anew in each file
        found = [{**c, "id": number} for number, c in enumerate(found, 1)]
    sane = [
        c for c in found if all(abs(c[at] * chapter_base(c)) < LATEST for at in ("start", "end"))
    ]
    return sane, len(found) - len(sane), left


def _moved(chapter: Chapter, shift: Fraction, begin: Fraction) -> Chapter:
    """A chapter `shift` seconds later, and not before second `begin`."""
    base = chapter_base(chapter)
    start = max(chapter["start"] + round(shift / base), round(begin / base))
    return {**chapter, "start": start, "end": max(start, chapter["end"] + round(shift / base))}


def _places(path: str, raw: RawInput) -> dict[int, _Place]:
    """Byte of each part -> where it went; without those behind a part whose end is not sure."""
    with open_input(path, raw) as container:
        skim = _Skim(container, path)
        with suppress(_Unsure):
            for _ in skim.packets(lambda: None):
                pass
        return skim.places


class _Skim(Joins):
    """Reads of each large part the beginning, past where the clock may break, and the end."""

    def __init__(self, container: InputContainer, path: str) -> None:
        super().__init__(container, path)
        self.places: dict[int, _Place] = {}
        self._skipped: set[int] = set()
        """Bytes at which the parts begin of which not everything is read."""

    def _placed(self, item: TimedPacket) -> Iterator[Packet]:
        counts = item.time is not None and not _is_cover(item.packet.stream)
        for packet in super()._placed(item):
            if counts and packet.pts is not None:
                place = self.places.setdefault(self._piece_at, _Place())
                place.shifts.add(self._shift)
                if len(place.shifts) > 1 and self._piece_at in self._skipped:
                    raise _Unsure  # it may come of the leap alone
                time = packet.pts * item.of.base
                place.begin = time if place.begin is None else min(time, place.begin)
            yield packet

    def _read(self, failed: Callable[[], None]) -> Iterator[Packet]:
        start = self._piece_at
        stop = self._parts[0] if self._parts else os.path.getsize(self._path)
        packets = super()._read(failed)
        if stop - start <= SMALL:
            yield from packets
            return
        streams = [s for s in self._container.streams if s.type in ("video", "audio")]
        tracks = {s.index: float(s.time_base or 1) for s in streams if not _is_cover(s)}
        first: dict[int, int] = {}
        newest: dict[int, int] = {}
        size = 0
        for packet in packets:
            size += packet.size
            number, time = packet.stream_index, packet.dts
            if time is not None:
                first.setdefault(number, time)
                newest[number] = time
            yield packet  # which moves it
            past = all(
                n in first and (newest[n] - first[n]) * scale >= 2 * SETTLED
                for n, scale in tracks.items()
            )
            if past and not self._held:
                break
            if size > MOST_READ:
                raise _Unsure
        else:
            return
        if self._parts:
            self._skipped.add(start)
            yield from self._tail(start, stop, {n: newest[n] for n in tracks})

    def _tail(self, start: int, stop: int, newest: dict[int, int]) -> Iterator[Packet]:
        """The part's last packets. newest: decoding times of the last ones before, in ticks."""
        counts, last = dict.fromkeys(newest, 0), dict(newest)
        file = _Rationed(self._path, start, stop)
        try:
            with open_part(file, FORMATS[self._main.format.name], stop - start) as part:
                if not part.duration:
                    raise _Unsure
                part.seek(max(0, part.duration - TAIL * 10**6))
                for packet in part.demux():
                    number, time = packet.stream_index, packet.dts
                    if number not in counts or not packet.size:
                        continue
                    if time is None or time <= newest[number]:
                        continue
                    counts[number] += 1
                    if counts[number] < ENOUGH:
                        continue
                    if time < last[number] or not (packet.duration or counts[number] > ENOUGH):
                        raise _Unsure  # one without a length would be as long as what was left out
                    last[number] = time
                    yield packet
        except (av.FFmpegError, OSError):
            raise _Unsure from None
        if file.left <= 0 or min(counts.values(), default=0) < 2 * ENOUGH:
            raise _Unsure


class _Rationed(SeekableFile):
    """A piece of a file that gives `MOST_READ` bytes, then fails: a seek may read all of it."""

    def __init__(self, path: str, start: int, stop: int) -> None:
        self.left = MOST_READ
        super().__init__(path, start, stop)

    def read(self, size: int) -> bytes:
        """The next bytes; b"" at the end."""
        if self.left <= 0:
            raise OSError("enough was read")
        data = super().read(size)
        self.left -= len(data)
        return data


def _is_cover(stream: Any) -> bool:
    return bool(stream.disposition & Disposition.attached_pic)
