"""One clock for containers whose own starts anew: joined recordings, a receiver without signal.

    packets of all streams, in file order -> Joins -> the same packets, with times that go on

The parts of a joined file are put behind each other: all streams of a part move by one amount,
such that none overlaps with the part before. Who reads does not matter: the reader of the picture
and the copier of the other streams open the file apart, see the same packets and move them alike.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from math import inf
from typing import Any

from av.container import InputContainer

from oasis_cli.media.packets import Packet, demuxed
from oasis_cli.media.tails import tail_packets

BREAKING = ("mpegts", "mpeg", "flv", "live_flv")
"""Formats that can be joined byte by byte, or whose clock may be another one after a loss."""
HOLE = 10.0
"""Seconds without a packet of any stream that count as a break: the time that is missing is left
out. A step back counts however small it is."""
HALF_TURN = 2**32 / 90000
"""Seconds after which MPEG's clock of 33 bits is half round: no recording is as long."""
SETTLED = 2.0
"""Seconds after a break by which all streams are expected to have crossed it."""
NEVER = -(1 << 62)
MOST_HELD = 2000
"""Packets after which a break is decided with what is known."""


@dataclass(frozen=True, slots=True)
class Join:
    """A place where the clock breaks or the tracks change."""

    at: float
    """Seconds on the mended clock."""
    step: float
    """Seconds by which the container's own clock jumps."""
    tracks: dict[int, int] = field(default_factory=dict)
    """Streams that begin there -> the streams that they continue."""
    others: dict[int, int] = field(default_factory=dict)
    """Streams that begin where one of their kind ends, which is of another codec."""

    def told(self, start: float) -> str:
        """A sentence; `start` is the second of the mended clock that counts as 0."""
        where = f"at {self.at - start:.2f} s"
        for new, old in self.others.items():
            return (
                f"{where} stream {old} ends and stream {new} begins, of another codec or language: "
                "it is not joined to it"
            )
        what = []
        if self.tracks:
            pairs = ", ".join(f"{new} continues {old}" for new, old in self.tracks.items())
            what.append(f"the streams change ({pairs})")
        # To a clock that steps back far, libavformat adds a whole turn of MPEG's 33 bits.
        step = self.step - 2**33 / 90000 if self.step > HALF_TURN else self.step
        if abs(step) >= 0.001:
            way = "back" if step < 0 else "ahead"
            what.append(f"the clock steps {way} by {abs(step):.2f} s")
        return f"{where} {' and '.join(what)}: what follows goes on behind it"


@dataclass(slots=True)
class _Track:
    """A picture or sound stream, in ticks of its own clock as the container counts them."""

    base: Fraction
    last: int | None = None
    """Decoding time of its newest packet; None when any may follow."""
    step: int = 0
    """Ticks between its two newest packets."""
    end: int = NEVER
    """When everything before has been shown."""
    ended: int | None = None
    """Byte at which another track took over."""

    @property
    def seconds(self) -> float:
        return -inf if self.last is None else self.last * float(self.base)

    def take(self, packet: Packet) -> None:
        """Note a packet."""
        time = _time(packet)
        self.step = max(0, time - self.last) if self.last is not None else self.step
        self.last, self.ended = time, None
        shown = packet.pts if packet.pts is not None else time
        self.end = max(self.end, shown + (packet.duration or self.step))

    def misses(self, time: int, following: int) -> bool:
        """Whether the first of two times is wrong, and the second where it belongs."""
        if self.last is None:
            return False
        near = 4 * self.step
        return 0 <= following - self.last <= near and abs(following - time) > near


class Joins:
    """Mends the clock of one open container. `packets` is to be iterated once."""

    def __init__(self, container: InputContainer, path: str) -> None:
        self.found: list[Join] = []
        self.root: dict[int, int] = {}
        """Stream -> the one that it continues; its packets get that one's number."""
        self.seen: set[int] = set()
        """Streams whose first packet has been given out."""
        self.late = 0
        """Packets left out because their track had ended; only where `path` is no file."""
        self._container, self._path = container, path
        self._again = os.path.isfile(path)  # a pipe cannot be looked into twice
        self._tracks: dict[int, _Track] = {}
        self._shift = Fraction(0)
        self._newest = -inf
        self._held: list[Packet] = []
        rates = [s.average_rate for s in container.streams.video if s.average_rate]
        self._hole = max([HOLE, *(float(10 / rate) for rate in rates)])

    def packets(self, failed: Callable[[], None]) -> Iterator[Packet]:
        """All packets, on one clock. `failed` is called for each that cannot be read."""
        for packet in demuxed(self._container, (), failed):
            yield from self._feed(packet)
        while self._held:
            yield from self._settle()

    def _feed(self, packet: Packet) -> Iterator[Packet]:
        if not self._held:
            track = self._tracks.get(packet.stream_index)
            if track and track.ended is not None and (packet.pos or 0) <= track.ended:
                self.late += not self._again
                return
            if not self._breaks(packet):
                yield self._placed(packet)
                return
        self._held.append(packet)
        if len(self._held) >= MOST_HELD or self._decided(self._held):
            yield from self._settle()

    def _begins(self, packet: Packet) -> bool:
        """Whether its track was not there until now."""
        track = self._tracks.get(packet.stream_index)
        return track is None or track.ended is not None

    def _breaks(self, packet: Packet) -> bool:
        if not _counts(packet):
            return False
        if self._begins(packet):
            return bool(self._before(packet))
        return self._jumps(self._tracks[packet.stream_index], _time(packet))

    def _jumps(self, track: _Track, time: int) -> bool:
        if track.last is None:
            return False
        ahead = time * float(track.base) - max(self._newest, track.seconds)
        return time < track.last or ahead > self._hole

    def _recent(self) -> list[int]:
        return [i for i, t in self._tracks.items() if t.seconds > self._newest - SETTLED]

    def _before(self, packet: Packet) -> list[int]:
        """Tracks of the packet's kind that were there until just now."""
        streams, kind = self._container.streams, packet.stream.type
        return [
            i for i in self._recent() if i != packet.stream_index and streams[i].type == kind
        ]

    def _decided(self, held: list[Packet]) -> bool:
        """Whether `held` tells what happened at its first packet."""
        trigger, own = held[0], _of_first(held)
        passed = (_time(own[-1]) - _time(trigger)) * float(trigger.time_base)
        if passed >= SETTLED or (len(own) > 1 and _time(own[-1]) < _time(own[-2])):
            return True
        if self._begins(trigger):
            return all(_side_by_side(held, index) for index in self._before(trigger))
        if len(own) < 2:
            return False
        if self._tracks[trigger.stream_index].misses(_time(own[0]), _time(own[1])):
            return True
        tracks = self._tracks
        crossed = {
            p.stream_index
            for p in held
            if _counts(p) and (t := tracks.get(p.stream_index)) and self._jumps(t, _time(p))
        }
        return crossed.issuperset(self._recent())

    def _settle(self) -> Iterator[Packet]:
        """Give out what was held back, up to where the clock may break again."""
        held, self._held = self._held, []
        trigger, own = held[0], _of_first(held)
        rest = held[1:]
        if self._begins(trigger):
            if all(_side_by_side(held, index) for index in self._before(trigger)):
                yield self._placed(trigger)
            else:
                rest = yield from self._cross(held)
        elif len(own) > 1 and self._tracks[trigger.stream_index].misses(
            _time(trigger), _time(own[1])
        ):
            trigger.pts = trigger.dts = None  # mended by whoever takes it
            yield self._placed(trigger)
        else:
            rest = yield from self._cross(held)
        for packet in rest:
            yield from self._feed(packet)

    def _cross(self, held: list[Packet]) -> Generator[Packet, None, list[Packet]]:
        """Go over a break; returns the packets in which the clock breaks once more."""
        trigger, begins = held[0], self._begins(held[0])
        old, new, firsts, rest = self._sorted(held)
        tracks, others = self._successors(held, firsts)
        for packet in old:
            yield self._placed(packet)
        yield from self._tails([*tracks.values(), *others.values()], trigger.pos or 0)
        step = self._step(firsts, tracks | others)
        goes_on = begins and (
            -self._hole < step <= 0 or any((p.pos or 0) > (trigger.pos or 0) for p in old)
        )
        if goes_on:
            step = Fraction(0)
        else:
            self._newest = -inf
            for track in self._tracks.values():
                track.last, track.end = None, NEVER
        self._shift += step
        for index, root in tracks.items():
            self.root[index] = self.root.get(root, root)
        for index in (*tracks.values(), *others.values()):
            self._tracks[index].ended, self._tracks[index].last = trigger.pos or 0, None
        at = float(firsts[trigger.stream_index] * trigger.time_base + self._shift)
        if step or tracks or others:
            self.found.append(Join(at, -float(step), tracks, others))
        for packet in new:
            yield self._placed(packet)
        return rest

    def _sorted(
        self, held: list[Packet]
    ) -> tuple[list[Packet], list[Packet], dict[int, int], list[Packet]]:
        """Packets before the break, behind it, the first time of each track there, and the rest."""
        place = held[0].pos or 0
        old: list[Packet] = []
        new: list[Packet] = []
        firsts: dict[int, int] = {}
        last: dict[int, int] = {}
        kinds: set[str] = set()
        for number, packet in enumerate(held):
            index = packet.stream_index
            track = self._tracks.get(index)
            if not _counts(packet):
                (old if packet.pos is not None and packet.pos < place else new).append(packet)
                continue
            time = _time(packet)
            begins = self._begins(packet)
            back = index in firsts and time < last[index]
            # The track before comes back: another change, behind this one.
            back |= packet.stream.type in kinds and not begins and (packet.pos or 0) > place
            if back and number and not _side_by_side(held, index):
                return old, new, firsts, held[number:]
            if begins:
                kinds.add(packet.stream.type)
            crosses = (
                number == 0
                or index in firsts
                or begins
                or (track is not None and self._jumps(track, time))
                or (not self._begins(held[0]) and (packet.pos or 0) > place)
            )
            if crosses:
                shown = packet.pts if packet.pts is not None else time
                firsts[index], last[index] = min(firsts.get(index, shown), shown), time
            (new if crosses else old).append(packet)
        return old, new, firsts, []

    def _successors(
        self, held: list[Packet], firsts: dict[int, int]
    ) -> tuple[dict[int, int], dict[int, int]]:
        """Tracks that begin -> those that end there: of the same codec, of another one."""
        found: tuple[dict[int, int], dict[int, int]] = ({}, {})
        streams, taken = self._container.streams, set(firsts)
        for packet in held:
            index = packet.stream_index
            if index not in firsts or not self._begins(packet) or index in found[0] | found[1]:
                continue
            ended = [
                i for i in self._before(packet)
                if i not in taken and not _side_by_side(held, i, index)
            ]  # fmt: skip
            alike = [i for i in ended if _alike(streams[i], streams[index])]
            if ended:
                chosen = (alike or ended)[0]
                found[0 if alike else 1][index] = chosen
                taken.add(chosen)
        return found

    def _tails(self, ended: list[int], place: int) -> Iterator[Packet]:
        """The last packets of tracks that end; the container gives them at the file's end."""
        if not ended or not self._again:
            return
        streams = self._container.streams
        wanted = {streams[i].id: i for i in ended}
        for number, packet in tail_packets(self._path, place, self._container.format.name, wanted):
            track = self._tracks[number]
            if track.last is None or _time(packet) <= track.last:
                continue
            packet.stream = streams[number]
            yield self._placed(packet)

    def _step(self, firsts: dict[int, int], before: dict[int, int]) -> Fraction:
        """Seconds to add to the clock so that no track overlaps with itself."""
        steps = []
        for index, first in firsts.items():
            track = self._tracks.get(before.get(index, index))
            if track is not None and (track.last is not None or index in before):
                steps.append((track.end - first) * track.base)
        return max(steps, default=Fraction(0))

    def _placed(self, packet: Packet) -> Packet:
        """Note a packet's time, then move it to the mended clock."""
        index, base = packet.stream_index, packet.time_base
        self.seen.add(index)
        if _counts(packet):
            track = self._tracks.setdefault(index, _Track(base))
            track.take(packet)
            self._newest = max(self._newest, track.seconds)
        ticks = round(self._shift / base)
        packet.pts = None if packet.pts is None else packet.pts + ticks
        packet.dts = None if packet.dts is None else packet.dts + ticks
        if index in self.root:
            packet.stream = self._container.streams[self.root[index]]
        return packet


def _counts(packet: Packet) -> bool:
    """Whether a packet can break the clock: picture and sound, when they have a time."""
    timed = packet.dts is not None or packet.pts is not None
    return timed and packet.stream.type in ("video", "audio")


def _time(packet: Packet) -> int:
    """When it is decoded, in ticks."""
    time = packet.dts if packet.dts is not None else packet.pts
    assert time is not None
    return time


def _of_first(held: list[Packet]) -> list[Packet]:
    """The packets of the first one's stream."""
    return [p for p in held if p.stream_index == held[0].stream_index and _counts(p)]


def _side_by_side(held: list[Packet], index: int, beginning: int | None = None) -> bool:
    """Whether track `index` runs beside the one that begins: its packets lie between that one's."""
    number = held[0].stream_index if beginning is None else beginning
    place = between = held[0].pos or 0
    for packet in held:
        if packet.stream_index == index:
            between = max(between, packet.pos or 0)
        elif packet.stream_index == number and (packet.pos or 0) > between > place:
            return True
    return False


def _alike(old: Any, new: Any) -> bool:
    """Whether one track can go on as another: by the same codec, for sound at the same rate."""
    a, b = old.codec_context, new.codec_context
    if a is None or b is None or a.name != b.name:
        return False
    languages = {s.metadata.get("language") for s in (old, new)} - {None, "und"}
    rates = {c.sample_rate for c in (a, b) if old.type == "audio"} - {0}  # 0: not known yet
    return len(rates) < 2 and len(languages) < 2


def continued(container: InputContainer, path: str) -> tuple[dict[int, int], dict[int, int]]:
    """(streams that continue another -> that one, the same for those of another codec).

    Reads until every picture and sound stream has been seen, when two are of one kind.
    """
    waited = {
        kind: {s.index for s in container.streams if s.type == kind and s.start_time is not None}
        for kind in ("video", "audio")
    }
    joins = Joins(container, path)
    missing = set[int]().union(*(found for found in waited.values() if len(found) > 1))
    if missing and container.format.name in BREAKING:
        for _ in joins.packets(lambda: None):
            if missing <= joins.seen:
                break
    others = [join.others for join in joins.found]
    return joins.root, {new: old for found in others for new, old in found.items()}
