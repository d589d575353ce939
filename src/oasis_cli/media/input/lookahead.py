"""What the first packets of a video tell that its first frame does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from oasis_cli.media.captions import SOURCES, are_in
from oasis_cli.media.info import MediaInfo
from oasis_cli.media.input.codecs import HEAD, other_codec
from oasis_cli.media.input.joins import BREAKING, SETTLED, Joins, may_break
from oasis_cli.media.input.limits import file_size
from oasis_cli.media.input.packets import demuxed
from oasis_cli.media.input.raw import RawInput
from oasis_cli.media.input.source import open_input

FIRST_PACKETS, FIRST_BYTES = 100, 4 << 20
"""How far is looked, behind the first frame."""
COUNTED = 32 << 20
"""Bytes of the largest file whose packets are counted: that takes a tenth of a second."""


@dataclass(frozen=True, slots=True)
class Ahead:
    """What is in the packets behind the first frame."""

    captions: bool = False
    second_view: bool = False
    """HEVC with pictures for the other eye, which decoders leave out."""


def look_ahead(container: InputContainer, stream: VideoStream) -> Ahead:
    """Read on in the packets of a file; a pipe must not be read on.

    Stops as soon as there is nothing more to learn.
    """
    codec = stream.codec_context.name
    if codec not in SOURCES:
        return Ahead()
    setup = bytes(stream.codec_context.extradata or b"")
    captions = views = False
    for packet in _first_packets(container, stream):
        if other_codec(packet[:HEAD], codec):
            continue
        captions = captions or are_in(packet)
        views = views or (codec == "hevc" and _has_layers(packet, setup[:1] == b"\x01"))
        if captions and (views or codec != "hevc"):
            break
    return Ahead(captions, views)


def count_frames(path: str | Path, raw: RawInput, index: int) -> int:
    """Packets of stream `index` of a small file, 0 of a larger one.

    Its length does not tell them where the picture stands still for an hour.
    """
    if (file_size(path) or COUNTED) >= COUNTED:
        return 0
    with open_input(path, raw) as container:
        if may_break(container.format.name, str(path)):
            packets = Joins(container, str(path)).packets(lambda: None)
            return sum(packet.stream_index == index for packet in packets)
        return sum(1 for _ in demuxed(container, (container.streams[index],), lambda: None))


def whole_until(info: MediaInfo, end: Fraction | None, place: int | None = None) -> bool:
    """Whether everything before `end`, in seconds from the beginning, lies before byte `place`, at
    which another film begins; None: before the end of a file that is cut off.

    Reads packets until picture and sound have come that far, or the other film's picture begins. A
    sound track of which nothing has come for a while is over.
    """
    if end is None or info.raw is None:
        return False
    with open_input(info.path, info.raw) as container:
        sound = (s.index for s in container.streams if s.type == "audio")
        clock: dict[int, Fraction | None] = dict.fromkeys((info.video.index, *sound))
        joins, shown = Joins(container, info.path), Fraction(0)
        for packet in joins.packets(lambda: None):
            if place is not None and (behind := [at for at in joins.begins if at >= place]):
                return joins.begins[behind[0]] - info.start >= end
            time = packet.dts if packet.dts is not None else packet.pts
            if time is None or packet.stream_index not in clock:
                continue
            clock[packet.stream_index] = time * packet.time_base - info.start
            if packet.stream_index == info.video.index and packet.pts is not None:
                over = (packet.pts + (packet.duration or 0)) * packet.time_base - info.start
                shown = max(shown, over)
            reached = clock[info.video.index]
            if (
                reached is not None
                and reached >= end
                and all(
                    its is None or its >= end or its < reached - SETTLED for its in clock.values()
                )
            ):
                return True
    return place is not None and shown >= end


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
    count = len(container.streams)
    others = {new: old for join in joins.found for new, old in join.others.items() if new < count}
    return {new: old for new, old in joins.root.items() if new < count and new != old}, others


def _first_packets(container: InputContainer, stream: VideoStream) -> Iterator[bytes]:
    seen = 0
    try:
        for number, packet in enumerate(container.demux(stream)):
            yield bytes(packet)
            seen += packet.size
            if number > FIRST_PACKETS or seen > FIRST_BYTES:
                return
    except (av.FFmpegError, OSError):
        return  # the reader meets the same damage, and reports it


def _has_layers(packet: bytes, prefixed: bool) -> bool:
    """Whether a unit of HEVC is of another layer than the first.

    prefixed: units are led by their length in four bytes, and not by start codes.
    """
    at = 0 if prefixed else packet.find(b"\0\0\1")
    while 0 <= at < len(packet) - 6:
        first = at + (4 if prefixed else 3)
        kind = packet[first] >> 1 & 63
        if kind < 32 and (packet[first] & 1) << 5 | packet[first + 1] >> 3:
            return True  # a slice: parameter sets of other layers alone show nothing
        if prefixed:
            at += 4 + int.from_bytes(packet[at : at + 4], "big")
        else:
            at = packet.find(b"\0\0\1", at + 3)
    return False
