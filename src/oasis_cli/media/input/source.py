"""Decoded frames from a container, whatever state its packets are in."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.video.stream import VideoStream

from oasis_cli.media.input.codecs import HEAD, other_codec
from oasis_cli.media.input.joins import BREAKING, Joins, may_break
from oasis_cli.media.input.limits import check_png, file_size, most_pixels
from oasis_cli.media.input.packets import MAX_FAILURES, Packet, demuxed
from oasis_cli.media.input.parts import FORMATS
from oasis_cli.media.input.pipes import Pipe, SeekableFile
from oasis_cli.media.input.playlists import check_format, check_reach, whitelist
from oasis_cli.media.input.raw import RawInput
from oasis_cli.media.input.tracks import setup_of
from oasis_cli.media.picture import PictureSpec

# FFmpeg must not write into progress or --json. Not `set_level(PANIC)`: with that its threads call
# into Python, and a decoder closed while one of them logs waits for the interpreter for ever.
av.logging.set_level(None)

LEAD = 16
"""Frames without times that may precede the first one with."""
MOST_CODECS = 10
"""Changes of the codec that are told."""
KEYS_BEFORE = 2
"""Key frames kept before a start: the nearest may be one that only calls itself so."""
MOST_BEFORE = 3000
"""Packets kept behind each of them."""
FRAME_THREADS = 1920 * 1088
"""Pixels above which frames are decoded in parallel. Below, one core decodes 200 frames/s, and
damage stays with the packet it is in: PyAV loses the frames that other threads hold."""
CHANGING = ("mpegts", "mpeg")
"""Formats in which another codec may follow in the same track."""
STEP_BACK = Fraction(1, 5)
"""Seconds by which a key frame may be early before it counts as a clock that starts anew."""
READ_AHEAD = 1 << 17
"""Bytes that FFmpeg reads at once: each read takes Python's lock."""


def open_input(
    path: str | Path,
    raw: RawInput | None = None,
    *,
    cuda: bool = False,
    pipe: Pipe | None = None,
) -> InputContainer:
    """Open a file or a pipe. Errors are PyAV's own, OSError, and the refusals of `playlists`.

    FFmpeg gets an open file and may open nothing else, whatever the input names, but for the
    protocols in `raw`.

    cuda: decode on the graphics card what it can decode; raises OSError when there is none.
    pipe: the open pipe, when `path` is one.
    """
    raw = raw or RawInput()
    options = raw.options()
    check_format(raw.format, raw.protocols)
    most = str(most_pixels(None if pipe else file_size(path)))
    options |= {"protocol_whitelist": whitelist(raw.protocols), "max_pixels": most}
    file: Any = pipe or SeekableFile(path)
    check_reach(path, file.head(), raw.protocols)
    if pipe is None:
        check_png(path, file)
    file.cut(raw.format)
    card = HWAccel(device_type="cuda", allow_software_fallback=True) if cuda else None
    container = av.open(
        file, "r", format=raw.format, options=options, metadata_errors="replace", hwaccel=card,
        buffer_size=READ_AHEAD,
    )  # fmt: skip
    raw.check_used(path, container.format.name)
    for stream in container.streams.video:
        context: Any = stream.codec_context
        if context is not None:
            context.options = {"max_pixels": most}
    return container


class FrameSource:
    """The decoded frames of one video stream, in presentation order.

    Damaged packets are counted in `bad_packets` and skipped; packets of other streams go to
    `others` (a pipe passes every packet once). Where the container's clock may break, `joins`
    mends it, and `start` (seconds of that clock) says what need not be decoded.
    """

    def __init__(
        self,
        container: InputContainer,
        stream: VideoStream,
        *,
        path: str = "-",
        decoder: str | None = None,
        others: Callable[[Packet], None] | None = None,
        start: Fraction | None = None,
        pipe: Pipe | None = None,
    ) -> None:
        self.container, self.stream, self.others = container, stream, others
        self.bad_packets = 0
        self.earliest, self.latest = Fraction(0), Fraction(0)
        """The first and the last time of a picture's packet, in seconds."""
        name = container.format.name
        self.joins = Joins(container, path, pipe) if may_break(name, path, pipe) else None
        self.steps_back = 0
        """Key frames that belong before what came already, where `joins` mends nothing."""
        self.codecs: list[str] = []
        """Those that the stream changed to on the way."""
        self._start = start
        self._setup = setup_of(stream)
        self._may_restart = name in FORMATS and name not in BREAKING
        self._may_change = name in CHANGING
        self.context: Any = stream.codec_context
        """The decoder."""
        if decoder is not None:
            self.context = self._other_decoder(decoder)
            self.context.extradata = stream.codec_context.extradata
        elif stream.codec_context.width * stream.codec_context.height > FRAME_THREADS:
            stream.thread_type = "AUTO"

    def __iter__(self) -> Iterator[av.VideoFrame]:
        for packet in self._from_start(self._own()):
            yield from self._decoded(packet)
        yield from self._flushed()

    def _own(self) -> Iterator[Packet]:
        if self.joins is not None:
            packets = self.joins.packets(self._failed)
        else:
            wanted = () if self.others is not None else (self.stream,)
            packets = demuxed(self.container, wanted, self._failed)
        for packet in packets:
            if packet.stream_index == self.stream.index:
                self._note_time(packet)
                yield packet
            elif self.others is not None:
                self.others(packet)

    def _note_time(self, packet: Packet) -> None:
        if packet.pts is not None:
            time = packet.pts * packet.time_base
            back = packet.is_keyframe and time < self.latest - STEP_BACK
            self.steps_back += back and self._may_restart
            self.earliest = min(self.earliest or time, time)
            self.latest = max(self.latest, time)

    def _failed(self) -> None:
        self.bad_packets += 1

    def _from_start(self, packets: Iterator[Packet]) -> Iterator[Packet]:
        """Without what lies before the last key frame but one that is shown before the start."""
        if self._start is None:
            yield from packets
            return
        groups: deque[deque[Packet]] = deque([deque()], KEYS_BEFORE)
        for packet in packets:
            decoded = packet.dts if packet.dts is not None else packet.pts
            shown = packet.pts if packet.pts is not None else decoded
            before = shown is not None and shown * packet.time_base <= self._start
            if packet.is_keyframe and before:
                groups.append(deque(maxlen=MOST_BEFORE))
            groups[-1].append(packet)
            if decoded is not None and decoded * packet.time_base > self._start:
                break
        for group in groups:
            yield from group
        yield from packets

    def _decoded(self, packet: Packet) -> Iterator[av.VideoFrame]:
        yield from self._set_up()
        for part, codec in self._parts(packet):
            if codec is not None:
                yield from self._flushed()
                self.context = self._other_decoder(codec)
                if len(self.codecs) < MOST_CODECS:
                    self.codecs.append(codec)
            try:
                yield from self._decode(part)
            except (av.FFmpegError, OSError):
                self.bad_packets += 1

    def _set_up(self) -> Iterator[av.VideoFrame]:
        """A new decoder where a part of the file begins whose pictures are coded otherwise."""
        setup = self.joins.setups.get(self.stream.index) if self.joins else None
        if setup is None or setup == self._setup:
            return
        yield from self._flushed()
        self._setup = setup
        self.context = self._other_decoder(self.context.name)
        self.context.extradata, self.context.width, self.context.height = setup

    def _parts(self, packet: Packet) -> list[tuple[Packet, str | None]]:
        """A packet, and the codec that begins with it; where the last picture of one codec and the
        first of the next one came as one packet, the two."""
        if not self._may_change:
            return [(packet, None)]
        data = bytes(packet)
        mixed = packet.is_keyframe or packet.pts is None
        at, codec = other_codec(data if mixed else data[:HEAD], self.context.name) or (0, None)
        if not at:
            return [(packet, codec)]
        parts: list[Packet] = [av.Packet(data[:at]), av.Packet(data[at:])]
        parts[0].pts, parts[0].dts = packet.pts, packet.dts
        for part in parts:
            part.time_base = packet.time_base
        return [(parts[0], None), (parts[1], codec)]

    def _other_decoder(self, codec: str) -> Any:
        context: Any = av.CodecContext.create(codec, "r")
        context.options = self.stream.codec_context.options
        return context

    def _flushed(self) -> Iterator[av.VideoFrame]:
        """What the decoder still holds; an error costs one frame, not all that follow."""
        for _ in range(MAX_FAILURES):
            try:
                yield from self._decode(None)
                return
            except EOFError:
                return
            except (av.FFmpegError, OSError):
                self.bad_packets += 1

    def _decode(self, packet: av.Packet[Any] | None) -> list[av.VideoFrame]:
        frames: list[av.VideoFrame] = self.context.decode(packet)
        return frames


def with_first_times(frames: Iterator[av.VideoFrame], rate: Fraction) -> Iterator[av.VideoFrame]:
    """Give frames that lead a stream without times the ones before the first known time.

    At most `LEAD` frames are held back; a stream without any times passes unchanged.
    """
    lead: list[av.VideoFrame] = []
    for frame in frames:
        if frame.pts is None and len(lead) < LEAD:
            lead.append(frame)
            continue
        if lead and frame.pts is not None and frame.time_base:
            step = 1 / (rate * frame.time_base)
            for back, early in enumerate(reversed(lead), start=1):
                early.pts, early.time_base = frame.pts - round(back * step), frame.time_base
        yield from lead
        lead = []
        yield frame
        if frame.pts is None:
            yield from frames
            return
    yield from lead


def samples(plane: Any, kind: Any) -> np.ndarray:
    """The memory of a plane: (rows, columns and the padding behind them), not copied."""
    return np.frombuffer(plane, kind).reshape(plane.height, -1)


def planes_of(frame: av.VideoFrame, spec: PictureSpec) -> tuple[np.ndarray, ...]:
    """Copies of a planar frame's samples, without the padding at the end of each row."""
    kind = np.uint8 if spec.layout.depth == 8 else np.uint16
    found = []
    for plane, (rows, columns) in zip(frame.planes, spec.plane_shapes(), strict=True):
        found.append(samples(plane, kind)[:rows, :columns].copy())
    return tuple(found)


class LiveInput:
    """An input that passes once, a pipe or what a playlist names, opened and looked into: `frames`
    still gives every frame, from the first."""

    def __init__(
        self,
        container: InputContainer,
        stream: VideoStream,
        decoder: str | None,
        pipe: Pipe | None = None,
    ) -> None:
        self.container, self.stream, self.pipe = container, stream, pipe
        self.held: deque[av.Packet[Any]] = deque()
        self.source = FrameSource(
            container, stream, decoder=decoder, others=self.held.append, pipe=pipe
        )
        self._iterator = iter(self.source)
        self._seen: list[av.VideoFrame] = []

    def first(self) -> av.VideoFrame | None:
        """The first frame, which stays in `frames`."""
        if not self._seen:
            self._seen.extend(f for f in [next(self._iterator, None)] if f is not None)
        return self._seen[0] if self._seen else None

    def cancel(self) -> None:
        """Let whoever waits for the pipe's next bytes give up."""
        if self.pipe is not None:
            self.pipe.cancel()

    def frames(self) -> Iterator[av.VideoFrame]:
        """All frames; to be called once."""
        while self._seen:
            yield self._seen.pop(0)
        yield from self._iterator
