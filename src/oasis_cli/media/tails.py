"""The last packets of tracks that end in the middle of a file.

A demuxer knows that a picture is whole when the next one of its track begins. Where a track ends
and another one begins, that is at the end of the file: far too late. So the bytes before that
place are read as a file of their own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress

import av

from oasis_cli.media.packets import Packet, demuxed

LOOK_BACK = 8 << 20
"""Bytes before the end in which the last packets are looked for."""


class _Slice:
    """The bytes of a file from `start` to `stop`, for reading once."""

    def __init__(self, path: str, start: int, stop: int) -> None:
        self._file = open(path, "rb", buffering=0)
        self._file.seek(start)
        self._left = stop - start

    def read(self, size: int) -> bytes:
        data = self._file.read(max(0, min(size, self._left))) or b""
        self._left -= len(data)
        return data

    def close(self) -> None:
        self._file.close()


def tail_packets(
    path: str, stop: int, form: str, wanted: Mapping[int, int]
) -> Iterator[tuple[int, Packet]]:
    """The last packets before byte `stop` as (number, packet): `wanted` maps a stream's id to it.

    Some may have been seen before. Nothing comes where the part cannot be read.
    """
    with suppress(av.FFmpegError, OSError):
        piece = _Slice(path, max(0, min(stop, os.path.getsize(path)) - LOOK_BACK), stop)
        try:
            with av.open(piece, "r", format=form, metadata_errors="replace") as container:
                for packet in demuxed(container, (), lambda: None):
                    number = wanted.get(packet.stream.id)
                    timed = packet.dts is not None or packet.pts is not None
                    if number is not None and timed:
                        yield number, packet
        finally:
            piece.close()
