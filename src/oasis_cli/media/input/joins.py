"""One clock for containers whose own starts anew: joined recordings, a receiver without signal.

    packets of all streams, in file order -> Joins -> the same packets, with times that go on

The parts of a joined file are put behind each other: all streams of a part move by one amount,
such that none overlaps with the part before. Who reads does not matter: the reader of the picture
and the copier of the other streams open the file apart, see the same packets and move them alike.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from fractions import Fraction
from math import inf
from typing import Any

import av
from av.container import InputContainer

from oasis_cli.media.info import left_out
from oasis_cli.media.input import pieces
from oasis_cli.media.input.packets import Packet, demuxed, rescale
from oasis_cli.media.input.parts import FORMATS, part_starts
from oasis_cli.media.input.pipes import Pipe
from oasis_cli.media.input.tracks import (
    NEVER,
    Facts,
    Join,
    Setup,
    TimedPacket,
    Track,
    of_first,
    setup_of,
    side_by_side,
)

BREAKING = ("mpegts", "mpeg", "flv", "live_flv")
"""Formats that can be joined byte by byte, or whose clock may be another one after a loss."""
HOLE = 10.0
"""Seconds without a packet of any stream that count as a break: the time that is missing is left
out. A step back counts however small it is."""
SETTLED = 2.0
"""Seconds after a break by which all streams are expected to have crossed it."""
SILENCE, PAUSE = 1 << 19, 0.5
"""Bytes, and seconds, without a known stream's packet in which others are looked for."""
MOST_HELD = 2000
"""Packets after which a break is decided with what is known."""


def may_break(name: str, path: str, pipe: Pipe | None = None) -> bool:
    """Whether a file may need `Joins`. name: FFmpeg's of its format."""
    return name in BREAKING or bool(part_starts(path, name)) or (pipe is not None and pipe.is_cut)


class Joins:
    """Mends the clock of one open container. `packets` is to be iterated once."""

    def __init__(self, container: InputContainer, path: str, pipe: Pipe | None = None) -> None:
        """pipe: what `container` reads, where that passes once."""
        self.found: list[Join] = []
        self.root: dict[int, int] = {}
        """Stream -> the one that it continues; its packets become that one's."""
        self.seen: set[int] = set()
        """Streams whose first packet has been given out."""
        self.late = 0
        """Packets left out because their track had ended; only where `path` is no file."""
        self.left: dict[int, list[str]] = {}
        """Byte of a part -> what of it nothing takes; of a pipe: a plan tells a file's."""
        self.begins: dict[int, Fraction] = {}
        """Byte of a part -> second of the mended clock at which its picture does."""
        self._path, self._pipe = path, pipe
        self._in_format = container.format.name in BREAKING
        self._again = os.path.isfile(path)  # a pipe cannot be looked into twice
        self._main = self._container = container
        self._piece_at = 0
        self._numbers = {s.id: s.index for s in container.streams}
        """Streams of pieces are known by their ids, those of parts by their places."""
        self._parts = part_starts(path, container.format.name)
        """Bytes at which the parts behind the one that is read begin."""
        self._in_part = self._over = False
        self._crossed: set[int] = set()
        """Streams of the part that is read of which a packet has come."""
        self.setups: dict[int, Setup] = {}
        """Stream -> what its decoder is told in the part that is read, from the second one on."""
        self._place = 0
        self._facts: dict[int, Facts] = {}
        self._tracks: dict[int, Track] = {}
        self._shift = Fraction(0)
        self._newest = -inf
        self._held: list[TimedPacket] = []
        rates = [s.average_rate for s in container.streams.video if s.average_rate]
        self._hole = max([HOLE, *(float(10 / rate) for rate in rates)])

    def losses(self, end: Fraction | float) -> list[str]:
        """A sentence for each kind of thing before `end` that a pipe's reader had to leave out."""
        late = f"{self.late} packets at a track's end came too late: read a file, not a pipe"
        reached = min((self._tracks[n].seconds for n in self._recent()), default=-inf)
        short = self._over and reached + float(self._shift) < end
        lacking = self._pipe.missing if self._pipe is not None and short else 0
        cut = f"the last {lacking} bytes did not come: it is shorter than it tells, cut off?"
        unseen = -inf if self._over else inf  # who had enough had seen all before it
        left = {at: s for at, s in self.left.items() if s and self.begins.get(at, unseen) < end}
        said = (late, self.late), (left_out(left), left), (cut, lacking)
        return [text for text, there in said if there]

    def packets(self, failed: Callable[[], None]) -> Iterator[Packet]:
        """All packets, on one clock. `failed` is called for each that cannot be read."""
        while True:
            following = None
            for packet in self._read(failed):
                item = self._item(packet)
                if self._silent(item):
                    following = self._unknown(item.place)
                    if following is not None:
                        break
                self._place = max(self._place, item.place)
                yield from self._feed(item)
            while self._held:
                yield from self._settle()
            if following is not None:  # what the demuxer still holds of the tracks here
                yield from self._tails(self._recent(), self._piece_at)
            elif self._again:
                following = self._unknown(os.path.getsize(self._path)) or self._part(failed)
            else:
                following = self._part(failed)
            if self._container is not self._main:
                self._container.close()
            if following is None:
                self._over = True  # not where who reads has enough before
                return
            self._container = following

    def _read(self, failed: Callable[[], None]) -> Iterator[Packet]:
        return demuxed(self._container, (), failed)

    def _silent(self, item: TimedPacket) -> bool:
        """Whether streams that nobody told of may lie between this packet and those before."""
        if item.place <= self._place:
            return False
        track = self._tracks.get(item.number)
        if track is not None and track.last is not None and item.time is not None:
            usual = max(4 * track.step * track.of.scale, PAUSE)
            if not 0 <= item.seconds - track.seconds <= usual:
                return True
        return item.place > self._place + SILENCE

    def _unknown(self, stop: int) -> InputContainer | None:
        """The file from here on, where streams begin that were not there when it was opened."""
        if self._main.format.name != "mpegts" or not self._again:
            return None
        found = pieces.unknown_streams(self._path, self._place, stop, self._numbers)
        if found is None:
            return None
        at, new = found
        with suppress(av.FFmpegError, OSError):
            piece = pieces.open_piece(self._path, at, os.path.getsize(self._path))
            ids = {s.id for s in piece.streams}
            if ids & new:
                self._piece_at = self._place = at
                for number in sorted(ids - set(self._numbers)):
                    self._numbers[number] = len(self._numbers)
                return piece
            piece.close()
        for number in new:  # not in any programme's table
            self._numbers[number] = len(self._numbers)
        return None

    def _part(self, failed: Callable[[], None]) -> InputContainer | None:
        """The next of several files in this one; `failed` is called for each that is none."""
        form = FORMATS.get(self._main.format.name, "")
        while (at := self._next_part()) is not None:
            try:
                if self._pipe is not None:
                    part = pieces.open_part(self._pipe, form)
                    self.left[at] = pieces.left_in_part(self._main, part)
                else:
                    stop = self._parts[0] if self._parts else os.path.getsize(self._path)
                    part = pieces.open_piece(self._path, at, stop, form)
            except (av.FFmpegError, OSError):
                failed()
                continue
            self._piece_at = self._place = at
            self._in_part, self._numbers = True, {}
            self._crossed.clear()
            return part
        return None

    def _next_part(self) -> int | None:
        """The byte at which it begins."""
        if self._pipe is not None:
            return self._pipe.next_part()
        if self._in_format and not self._parts:  # FFmpeg has stopped, maybe not at the file's end
            self._parts = part_starts(self._path, self._main.format.name, self._place)
        return self._parts.pop(0) if self._parts else None

    def _number_in_part(self, stream: Any) -> int:
        """The stream that a part's goes on as: the first like it. A new number without one."""
        facts, taken = Facts(stream, -1), self._numbers.values()
        for own in self._main.streams:
            if own.index not in taken and facts.is_as(Facts(own, own.index)):
                return own.index
        return max(len(self._main.streams), *(n + 1 for n in self._facts), *(n + 1 for n in taken))

    def _item(self, packet: Packet) -> TimedPacket:
        number, place = packet.stream_index, packet.pos or 0
        if self._container is not self._main:
            key = packet.stream_index if self._in_part else packet.stream.id
            if key not in self._numbers:
                self._numbers[key] = self._number_in_part(packet.stream)
            number = self._numbers[key]
            place += self._piece_at if place else 0
        facts = self._facts.get(number)
        if facts is None:
            facts = self._facts[number] = Facts(packet.stream, number)
        if packet.time_base != facts.base:
            rescale(packet, facts.base)
        time = packet.dts if packet.dts is not None else packet.pts
        if packet.dts is None and not self._in_format and not packet.is_keyframe:
            time = None  # MKV and NUT tell when it is shown only, and it waits for others
        return TimedPacket(packet, facts, place, time if facts.counts else None)

    def _feed(self, item: TimedPacket) -> Iterator[Packet]:
        if not self._held:
            track = self._tracks.get(item.number)
            if track and track.ended is not None and item.place <= track.ended:
                self.late += not self._again
                return
            if not self._breaks(item):
                yield from self._placed(item)
                return
        self._held.append(item)
        if len(self._held) >= MOST_HELD or self._decided(self._held):
            yield from self._settle()

    def _begins(self, item: TimedPacket) -> bool:
        """Whether its track was not there until now."""
        track = self._tracks.get(item.number)
        return item.time is not None and (track is None or track.ended is not None)

    def _breaks(self, item: TimedPacket) -> bool:
        if not self._in_format and not self._in_part:
            return False
        return bool(self._before(item)) if self._begins(item) else self._jumps(item)

    def _jumps(self, item: TimedPacket) -> bool:
        track = self._tracks.get(item.number)
        if track is None or track.last is None or item.time is None:
            return False
        ahead = item.seconds - max(self._newest, track.seconds)
        hole = ahead > self._hole and (self._in_format or item.number not in self._crossed)
        return item.time < track.last or hole

    def _recent(self) -> list[int]:
        return [n for n, t in self._tracks.items() if t.seconds > self._newest - SETTLED]

    def _before(self, item: TimedPacket) -> list[int]:
        """Tracks of the same kind that were there until just now."""
        same = (n for n in self._recent() if self._tracks[n].of.kind == item.of.kind)
        return [n for n in same if n != item.number]

    def _decided(self, held: list[TimedPacket]) -> bool:
        """Whether `held` tells what happened at its first packet."""
        trigger, own = held[0], of_first(held)
        back = len(own) > 1 and own[-1].seconds < own[-2].seconds
        if back or own[-1].seconds - trigger.seconds >= SETTLED:
            return True
        if self._begins(trigger):
            return all(side_by_side(held, n, trigger.number) for n in self._before(trigger))
        if len(own) < 2:
            return False
        if self._tracks[trigger.number].misses(own[0], own[1]):
            return True
        return {item.number for item in held if self._jumps(item)}.issuperset(self._recent())

    def _settle(self) -> Iterator[Packet]:
        """Give out what was held back, up to where the clock may break again."""
        held, self._held = self._held, []
        trigger, own = held[0], of_first(held)
        rest = held[1:]
        if self._begins(trigger):
            if all(side_by_side(held, n, trigger.number) for n in self._before(trigger)):
                yield from self._placed(trigger)
            else:
                rest = yield from self._cross(held)
        elif len(own) > 1 and self._tracks[trigger.number].misses(own[0], own[1]):
            trigger.packet.pts = trigger.packet.dts = trigger.time = None  # mended by who takes it
            yield from self._placed(trigger)
        else:
            rest = yield from self._cross(held)
        for item in rest:
            yield from self._feed(item)

    def _cross(self, held: list[TimedPacket]) -> Generator[Packet, None, list[TimedPacket]]:
        """Go over a break; returns the packets from where the clock breaks once more."""
        trigger, begins = held[0], self._begins(held[0])
        old, new, firsts, rest = self._sorted(held)
        tracks, others = self._successors(held, firsts)
        for item in old:
            yield from self._placed(item)
        yield from self._tails([*tracks.values(), *others.values()], trigger.place)
        step = self._step(firsts, tracks | others)
        passing = any(item.time is not None and item.place > trigger.place for item in old)
        if begins and (passing or -self._hole < step <= 0):
            step = Fraction(0)  # only the tracks change, the clock goes on
        else:
            self._newest = -inf
            for track in self._tracks.values():
                track.last, track.end = None, NEVER
        self._shift += step
        for number, before in tracks.items():
            self.root[number] = self.root.get(before, before)
        for number in (*tracks.values(), *others.values()):
            self._tracks[number].ended, self._tracks[number].last = trigger.place, None
        at = float(firsts[trigger.number] * trigger.of.base + self._shift)
        if step or tracks or others:
            self.found.append(Join(at, -float(step), tracks, others))
        for item in new:
            yield from self._placed(item)
        return rest

    def _sorted(
        self, held: list[TimedPacket]
    ) -> tuple[list[TimedPacket], list[TimedPacket], dict[int, int], list[TimedPacket]]:
        """Packets before the break, behind it, the first time of each track there, and the rest."""
        place, begun = held[0].place, self._begins(held[0])
        old: list[TimedPacket] = []
        new: list[TimedPacket] = []
        firsts: dict[int, int] = {}
        last: dict[int, int] = {}
        kinds: set[str] = set()
        for number, item in enumerate(held):
            if item.time is None:
                (old if 0 < item.place < place else new).append(item)
                continue
            begins, kind = self._begins(item), item.of.kind
            again = item.number in firsts and item.time < last[item.number]
            # The track before comes back: another change, behind this one.
            again |= kind in kinds and not begins and item.place > place
            if again and number and not side_by_side(held, item.number, held[0].number):
                return old, new, firsts, held[number:]
            if begins:
                kinds.add(kind)
            crosses = number == 0 or item.number in firsts or begins or self._jumps(item)
            if crosses or (not begun and item.place > place):
                firsts[item.number] = min(firsts.get(item.number, item.shown), item.shown)
                last[item.number] = item.time
                new.append(item)
            else:
                old.append(item)
        return old, new, firsts, []

    def _successors(
        self, held: list[TimedPacket], firsts: dict[int, int]
    ) -> tuple[dict[int, int], dict[int, int]]:
        """Tracks that begin -> those that end there: of the same codec, of another one."""
        same: dict[int, int] = {}
        others: dict[int, int] = {}
        taken = set(firsts)
        for item in held:
            if item.number not in firsts or not self._begins(item) or item.number in same | others:
                continue
            ended = [
                n for n in self._before(item)
                if n not in taken and not side_by_side(held, n, item.number)
            ]  # fmt: skip
            like = [n for n in ended if item.of.continues(self._tracks[n].of)]
            if ended:
                chosen = (like or ended)[0]
                (same if like else others)[item.number] = chosen
                taken.add(chosen)
        return same, others

    def _tails(self, ended: list[int], place: int) -> Iterator[Packet]:
        """The last packets of tracks that end; the container has them at the file's end."""
        if not ended or not self._again or self._main.format.name != "mpegts":
            return
        ids = {self._tracks[number].of.id: number for number in ended}
        begun = max(self._tracks[number].begun or 0 for number in ended)
        for packet in pieces.last_packets(self._path, begun, place, ids):
            track = self._tracks[ids[packet.stream.id]]
            time = packet.dts if packet.dts is not None else packet.pts
            if time is not None and track.last is not None and time > track.last:
                yield from self._placed(TimedPacket(packet, track.of, place, time))

    def _step(self, firsts: dict[int, int], before: dict[int, int]) -> Fraction:
        """Seconds to add to the clock so that no track overlaps with itself."""
        ends = {n: self._tracks.get(before.get(n, n)) for n in firsts}
        steps = ((t.end - firsts[n]) * t.of.base for n, t in ends.items() if t and t.end != NEVER)
        return max(steps, default=Fraction(0))

    def _placed(self, item: TimedPacket) -> Iterator[Packet]:
        """Note a packet's time, then move it to the mended clock."""
        packet = item.packet
        self.seen.add(item.number)
        if self._in_part:
            self._crossed.add(item.number)
        if item.time is not None:
            track = self._tracks.get(item.number)
            if track is None:
                track = self._tracks[item.number] = Track(item.of)
            track.take(item)
            self._newest = max(self._newest, track.seconds)
            if self._in_part and item.of.kind == "video" and item.number < len(self._main.streams):
                self.begins.setdefault(self._piece_at, item.shown * item.of.base + self._shift)
        if self._shift:
            ticks = round(self._shift / item.of.base)
            packet.pts = None if packet.pts is None else packet.pts + ticks
            packet.dts = None if packet.dts is None else packet.dts + ticks
        number = self.root.get(item.number, item.number)
        if self._in_part:
            self.setups[number] = setup_of(packet.stream)
        if number < len(self._main.streams):  # else nothing takes it: it came too late
            packet.stream = self._main.streams[number]
            yield packet
