"""The packets of an open container in file order, past those that cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeAlias

import av
from av.container import InputContainer
from av.stream import Stream

if TYPE_CHECKING:
    Packet: TypeAlias = av.Packet[Any]
else:
    Packet = av.Packet  # the class itself takes no parameter

MAX_FAILURES = 64
"""Failed reads in a row after which the rest of a file counts as lost."""


def demuxed(
    container: InputContainer, streams: tuple[Stream, ...], failed: Callable[[], None]
) -> Iterator[Packet]:
    """Packets of `streams`, of all when there are none; empty ones, which end a file, are left out.

    `failed` is called for each read that fails; after `MAX_FAILURES` in a row the file ends.
    """
    packets, failures = container.demux(*streams), 0
    while failures < MAX_FAILURES:
        try:
            packet = next(packets)
        except (StopIteration, IndexError):
            # PyAV ends with an IndexError where streams appeared after the file was opened.
            return
        except (av.FFmpegError, OSError):
            failures += 1
            failed()
            packets = container.demux(*streams)  # a generator that raised is finished
            continue
        failures = 0
        if packet.size:
            yield packet


def rescale(packet: Packet, base: Fraction) -> None:
    """Count a packet's times in another base, in seconds."""
    scale = packet.time_base / base
    for name in ("pts", "dts", "duration"):
        ticks = getattr(packet, name)
        setattr(packet, name, None if ticks is None else round(ticks * scale))
    packet.time_base = base
