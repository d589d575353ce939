"""What is known of a container's packets and tracks where its clock may break: see `joins`."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from math import inf
from typing import Any

from oasis_cli.media.input.packets import Packet
from oasis_cli.media.native import sound_layout

HALF_TURN = 2**32 / 90000
"""Seconds after which MPEG's clock of 33 bits is half round: no recording is as long."""
NEVER = -(1 << 62)


@dataclass(frozen=True, slots=True)
class Join:
    """A place where the clock breaks or the tracks change."""

    at: float
    """Seconds on the mended clock."""
    step: float
    """Seconds by which the container's own clock jumps."""
    tracks: dict[int, int] = field(default_factory=dict)
    """Streams that begin there -> the streams that they continue. Numbers past the container's are
    of streams that were not there when it was opened."""
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


class Facts:
    """What a stream is. Copied: the container that it came from may be closed by now."""

    def __init__(self, stream: Any, number: int) -> None:
        self.number, self.id, self.kind = number, int(stream.id), str(stream.type)
        self.counts = self.kind in ("video", "audio")
        """Whether it can break the clock: picture and sound can."""
        self.base: Fraction = stream.time_base
        self.scale = float(self.base)
        context = stream.codec_context
        self.codec = None if context is None else str(context.name)
        self.rate = int(context.sample_rate) if context is not None and self.kind == "audio" else 0
        """Of sound; 0 when it is not known yet."""
        self.channels = sound_layout(context).channels if self.rate else 0
        self.language = stream.metadata.get("language", "und")

    def continues(self, old: Facts) -> bool:
        """Whether it can go on as `old`: by the same codec, for sound at the same rate."""
        languages = {self.language, old.language} - {"und"}
        rates = {self.rate, old.rate} - {0}
        known = self.codec is not None and self.codec == old.codec
        return known and len(languages) < 2 and len(rates) < 2

    def is_as(self, old: Facts) -> bool:
        """Whether it can go on as a stream of another file: also by its channels."""
        channels = {self.channels, old.channels} - {0}
        return self.kind == old.kind and self.continues(old) and len(channels) < 2


Setup = tuple[bytes | None, int, int]
"""What a decoder is told ahead of the packets: its extra data, width and height."""


def setup_of(stream: Any) -> Setup:
    """That of a stream; the sizes are 0 unless it is a picture."""
    context = stream.codec_context
    if context is None or stream.type != "video":
        return None, 0, 0
    return context.extradata, context.width, context.height


@dataclass(slots=True)
class TimedPacket:
    """A packet, and what is asked of it more than once."""

    packet: Packet
    of: Facts
    """Its stream."""
    place: int
    """Byte of the file where it lies; 0 when that is not known."""
    time: int | None
    """When it is decoded, in ticks; None when it has no time or cannot break the clock, as all but
    picture and sound."""

    @property
    def number(self) -> int:
        return self.of.number

    @property
    def seconds(self) -> float:
        return -inf if self.time is None else self.time * self.of.scale

    @property
    def shown(self) -> int:
        ticks = self.packet.pts if self.packet.pts is not None else self.time
        return 0 if ticks is None else ticks


@dataclass(slots=True)
class Track:
    """A picture or sound stream, in ticks of its own clock as the container counts them."""

    of: Facts
    last: int | None = None
    """Decoding time of its newest packet; None when any may follow."""
    step: int = 0
    """Ticks between its two newest packets."""
    end: int = NEVER
    """When everything before has been shown."""
    begun: int | None = None
    """Byte at which it began."""
    ended: int | None = None
    """Byte at which another track took over."""

    @property
    def seconds(self) -> float:
        return -inf if self.last is None else self.last * self.of.scale

    def take(self, item: TimedPacket) -> None:
        """Note a packet with a time."""
        assert item.time is not None
        if self.ended is not None or self.begun is None:
            self.begun = item.place
        self.step = max(0, item.time - self.last) if self.last is not None else self.step
        self.last, self.ended = item.time, None
        self.end = max(self.end, item.shown + (item.packet.duration or self.step))

    def misses(self, first: TimedPacket, second: TimedPacket) -> bool:
        """Whether the first of two times is wrong, and the second where it belongs."""
        if self.last is None or first.time is None or second.time is None:
            return False
        near = 4 * self.step
        return 0 <= second.time - self.last <= near and abs(second.time - first.time) > near


def of_first(held: list[TimedPacket]) -> list[TimedPacket]:
    """The packets of the first one's stream."""
    return [item for item in held if item.number == held[0].number and item.time is not None]


def side_by_side(held: list[TimedPacket], old: int, new: int) -> bool:
    """Whether a track runs beside one that begins: its packets lie between that one's."""
    place = between = held[0].place
    newest = -inf
    for item in held:
        if item.number == old:
            between = max(between, item.place)
        elif item.number == new and item.time is not None:
            if item.time < newest:
                return False  # it comes back
            newest = item.time
            if item.place > between > place:
                return True
    return False
