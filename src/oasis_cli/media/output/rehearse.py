"""Prove a stream's fate before any work: with its own first packets, in memory.

What a container's header accepts may still fail when its trailer is written, after hours; what a
decoder's name promises may not decode. So each stream's first packets go the way that all will go.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias

import av
from av.container import InputContainer
from av.stream import Disposition

from oasis_cli.media.info import MediaInfo, StreamInfo
from oasis_cli.media.output.convert import Converter, make_converter

Packets: TypeAlias = "dict[int, list[av.Packet[Any]]]"

ENOUGH = {"audio": 24, "subtitle": 1, "data": 1, "video": 2}
"""Packets of a stream that are tried, by its kind."""
SYNC = {"truehd": 256, "mlp": 256}
"""As many for sound that begins in the middle: one packet in 128 can start a decoder."""
UNCOPIED = ("audio", "subtitle", "video")
"""Kinds that PyAV copies with their codec's help only."""
MOST_BYTES = 16 << 20
"""How far into the file packets are looked for."""


def first_packets(info: MediaInfo, source: InputContainer) -> Packets:
    """Copies of the first packets of every stream but the enlarged one, by number of stream.

    Streams that begin later than `MOST_BYTES` have none. A pipe gives those it has already held.
    """
    wanted = {s.index: _enough(s) for s in source.streams if _is_tried(s, info)}
    found: Packets = {index: [] for index in wanted}
    seen = 0
    for packet in _packets(info, source, wanted):
        held = found.get(packet.stream_index)
        if held is not None and packet.size and len(held) < wanted[packet.stream_index]:
            held.append(copy_packet(packet))
        seen += packet.size
        if seen > MOST_BYTES or all(len(found[i]) >= n for i, n in wanted.items()):
            break
    return found


def _is_tried(stream: Any, info: MediaInfo) -> bool:
    return stream.index != info.video.index and stream.type in ENOUGH


def _enough(stream: Any) -> int:
    if stream.disposition & Disposition.attached_pic:
        return 1
    context = stream.codec_context
    return SYNC.get(context.name if context else "", ENOUGH[stream.type])


def _packets(
    info: MediaInfo, source: InputContainer, wanted: dict[int, int]
) -> Iterator[av.Packet[Any]]:
    if info.live is not None:
        yield from list(info.live.held)
        return
    try:
        # The video as well: without it a sparse stream would be looked for through the whole file.
        yield from source.demux(*(source.streams[i] for i in {*wanted, info.video.index}))
    except (av.FFmpegError, OSError):
        return  # the reader meets the same damage, and reports it


def copy_packet(packet: av.Packet[Any]) -> av.Packet[Any]:
    """A packet of one's own: writing one changes its times and its stream."""
    copy: av.Packet[Any] = av.Packet(bytes(packet))
    copy.time_base = packet.time_base
    copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
    copy.is_keyframe = packet.is_keyframe
    for side in packet.iter_sidedata():
        copy.set_sidedata(side)
    return copy


def copying_fails(
    source: InputContainer, stream: StreamInfo, muxer: str, packets: list[av.Packet[Any]]
) -> str | None:
    """Why `muxer` cannot hold a stream, or None when it wrote a whole file with it.

    The query FFmpeg offers says yes to combinations that only fail when the header or the trailer
    is written. Its log would sometimes say more; but that is one for all threads, and a plan must
    not depend on what else runs.
    """
    template = source.streams[stream.index]
    if template.codec_context is None and template.type in UNCOPIED:
        return "nothing here knows its codec, and PyAV copies no such stream"
    try:
        with _in_memory(muxer) as output:
            written = output.add_stream_from_template(template, opaque=True)
            output.start_encoding()
            clock = 0
            for packet in packets:
                copy = copy_packet(packet)
                copy.pts = copy.dts = clock
                clock += max(1, copy.duration or 0)
                copy.stream = written
                output.mux(copy)
    except (ValueError, OSError, av.FFmpegError):
        return f"{muxer} does not hold {stream.codec}"
    return None


def converting_fails(
    source: InputContainer, index: int, muxer: str, codec: str, packets: list[av.Packet[Any]]
) -> str | None:
    """Why stream `index` cannot be made `codec` in `muxer`, or None when its first packets were.

    The decoder of `source` is as before afterwards.
    """
    made, failure = 0, ""
    try:
        with _in_memory(muxer) as output:
            converter = make_converter(output, source.streams[index], codec)
            output.start_encoding()
            for packet in packets:
                try:
                    made += _muxed(output, converter, converter.feed(copy_packet(packet)))
                except (av.FFmpegError, ValueError) as error:
                    failure = str(getattr(error, "strerror", None) or error)
            made += _muxed(output, converter, converter.flush())
    except (ValueError, OSError, av.FFmpegError) as error:
        return f"{codec} cannot be made of it: {_reason(error)}"
    finally:
        context = source.streams[index].codec_context
        if context.is_open:
            context.flush_buffers()
    if packets and not made and failure:
        return f"none of its first {len(packets)} packets can be decoded: {failure}"
    return None


def _muxed(output: Any, converter: Converter, packets: Iterator[av.Packet[Any]]) -> int:
    count = 0
    for packet in packets:
        packet.stream = converter.stream
        output.mux(packet)
        count += 1
    return count


def _reason(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error).strip().rstrip(".")


@contextmanager
def _in_memory(muxer: str) -> Iterator[Any]:
    """A container that is written nowhere; leaving it writes the trailer."""
    output = av.open(io.BytesIO(), "w", format=muxer)
    try:
        yield output
    except BaseException:
        with suppress(ValueError, OSError, av.FFmpegError):
            output.close()
        raise
    output.close()
