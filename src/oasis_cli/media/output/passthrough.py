"""Every stream but the enlarged one: packets copied (or converted) beside the video.

Files are opened a second time, so that decoding and copying advance at their own pace; a pipe
can be read once, so its packets wait in the relay, which back-pressure keeps short.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from math import ceil, floor
from typing import Any

import av
from av.container import InputContainer, OutputContainer
from av.stream import Stream

from oasis_cli.media.faults import reading
from oasis_cli.media.info import MediaInfo
from oasis_cli.media.input.codecs import other_sound
from oasis_cli.media.input.joins import Joins, may_break
from oasis_cli.media.input.packets import demuxed
from oasis_cli.media.input.source import CHANGING, open_input
from oasis_cli.media.output.containers import clean_tags
from oasis_cli.media.output.convert import Converter, make_converter
from oasis_cli.media.output.plan import OutputPlan
from oasis_cli.media.output.streams import StreamPlan

JUMP = Fraction(10)
"""Seconds by which a clock must fall back to count as restarted; see `timeline`."""
EDIT_LISTS = ("mp4", "mov")
ONE_CODEC = ("mp4", "mov")
"""Muxers whose tracks hold one codec each. Packets of another one may end the whole run."""
MOV_LANGUAGES = {
    "deu": "ger", "fre": "fra", "nld": "dut", "swe": "sve", "ell": "gre", "isl": "ice",
    "zho": "chi", "ces": "cze", "ron": "rum", "slk": "slo", "fas": "per", "msa": "may",
}  # fmt: skip
"""QuickTime's list knows languages by one of their two ISO codes, not always the usual one."""


class Passthrough:
    """Adds the other streams to `output`, then hands over their packets in time order."""

    def __init__(
        self,
        info: MediaInfo,
        plan: OutputPlan,
        output: OutputContainer,
        held: deque[av.Packet[Any]] | None,
    ) -> None:
        self._info, self._plan, self._output, self._held = info, plan, output, held
        self._own: InputContainer | None = None
        if held is None and any(s.action in ("copy", "convert", "attach") for s in plan.streams):
            with reading(info.path):
                self._own = open_input(info.path, info.raw)
        self._source = self._own or (info.live.container if info.live else None)
        self._copies: dict[int, Stream] = {}
        self._converters: dict[int, Converter] = {}
        self._clocks: dict[int, _Clock] = {}
        self._subtitles = {s.index for s in plan.streams if s.kind == "subtitle"}
        self._hidden: dict[int, av.Packet[Any]] = {}
        self._next: av.Packet[Any] | None = None
        self._packets: Iterator[av.Packet[Any] | None] | None = None
        start = plan.read.start
        self._origin = info.start + (start or 0)
        self._cut_start = start is not None
        self._delayed = Fraction(0)
        self._end = None if plan.read.end is None else plan.read.end - (start or 0)
        self._passed: Counter[int] = Counter()
        self._lost: Counter[int] = Counter()
        self._strange: Counter[int] = Counter()
        """Packets of copied streams that are of another codec than theirs."""
        self._changing = self._source is not None and self._source.format.name in CHANGING
        self._unread = 0

    def add(self, plan: StreamPlan) -> None:
        """Create the output stream for one planned input stream."""
        if plan.action not in ("copy", "convert", "attach") or self._source is None:
            return
        source = self._source.streams[plan.index]
        if plan.action == "attach":
            self._attach(source)
            return
        stream: Stream
        if plan.action == "copy":
            stream = self._output.add_stream_from_template(source, opaque=True)
            self._copies[plan.index] = stream
        else:
            converter = make_converter(self._output, source, plan.to)
            self._converters[plan.index] = converter
            stream = converter.stream
        stream.metadata.update(clean_tags(source.metadata))
        if self._plan.muxer == "mov":
            language = source.metadata.get("language", "und")
            stream.metadata["language"] = MOV_LANGUAGES.get(language, language)
        stream.disposition = source.disposition
        self._clocks[plan.index] = _Clock()

    def delay(self, seconds: Fraction) -> None:
        """Move all packets by this much: the video had to be moved. Before the first `push`."""
        self._origin -= seconds
        self._delayed = seconds
        if self._end is not None:
            self._end += seconds

    def _attach(self, source: Any) -> None:
        data = self._cover(source.index)
        if data is not None:
            name = source.codec_context.name.replace("mjpeg", "jpeg")
            suffix = "jpg" if name == "jpeg" else name
            self._output.add_attachment(f"cover.{suffix}", f"image/{name}", data)

    def _cover(self, index: int) -> bytes | None:
        if self._held is not None:
            found = (bytes(p) for p in list(self._held) if p.stream_index == index)
            return next(found, None)
        with open_input(self._info.path, self._info.raw) as source:
            for packet in source.demux(source.streams[index]):
                if packet.size:
                    return bytes(packet)
        return None

    def push(self, until: Fraction | None, mux: Callable[[av.Packet[Any]], None]) -> None:
        """Hand all packets up to `until` seconds (None: all that are left) to `mux`."""
        while (packet := self._peek()) is not None:
            seconds = self._seconds(packet)
            if until is not None and seconds is not None and seconds > until:
                return
            self._next = None
            index = packet.stream_index
            for ready in self._prepared(packet):
                self._write(index, ready, mux)
        if until is None:
            for index, converter in self._converters.items():
                for ready in self._converted(index, converter.flush):
                    self._write(index, ready, mux)

    def _write(
        self, index: int, packet: av.Packet[Any], mux: Callable[[av.Packet[Any]], None]
    ) -> None:
        """One packet that the container rejects must not end the run: it is counted."""
        try:
            mux(packet)
            self._passed[index] += 1
        except (av.ArgumentError, av.InvalidDataError):
            self._lost[index] += 1

    def losses(self) -> list[str]:
        """What could not be read, converted or written so far, by stream."""
        found = []
        for plan in self._plan.streams:
            lost = self._lost[plan.index]
            if lost:
                amount = f"{lost} packet{'s' if lost > 1 else ''}"
                amount = amount if self._passed[plan.index] else f"all its {amount}"
                what = "converted" if plan.action == "convert" else "written"
                name = f"stream {plan.index}, {plan.kind} {plan.codec}"
                found.append(f"{name}: {amount} could not be {what}")
            if strange := self._strange[plan.index]:
                what = "which players will not expect"
                if self._plan.muxer in ONE_CODEC:
                    what = f"which {self._plan.muxer} does not hold: left out; mkv keeps them"
                found.append(
                    f"stream {plan.index}, {plan.kind} {plan.codec}: {strange} packets are of "
                    f"another codec, {what}"
                )
        if self._unread:
            found.append(f"{self._unread} times packets of other streams could not be read")
        return found

    def close(self) -> None:
        """Release the second handle."""
        self._packets = None
        if self._own is not None:
            self._own.close()
            self._own = None

    def _peek(self) -> av.Packet[Any] | None:
        if self._next is None:
            if self._packets is None:
                self._packets = self._from_file() if self._held is None else self._from_relay()
            self._next = next(self._packets, None)
        return self._next

    def _wanted(self) -> list[int]:
        return [*self._copies, *self._converters]

    def _from_relay(self) -> Iterator[av.Packet[Any] | None]:
        assert self._held is not None
        wanted = set(self._wanted())
        while True:
            try:
                packet = self._held.popleft()
            except IndexError:
                yield None  # nothing yet: the reader has not come this far
                continue
            if packet.stream_index in wanted:
                yield packet

    def _from_file(self) -> Iterator[av.Packet[Any]]:
        wanted = self._wanted()
        if self._own is None or not wanted:
            return
        if may_break(self._own.format.name, self._info.path):
            # All packets pass, the picture's too: they tell where its clock breaks.
            packets = Joins(self._own, self._info.path).packets(self._failed)
        else:
            streams = tuple(self._own.streams[i] for i in wanted)
            packets = demuxed(self._own, streams, self._failed)
        for packet in packets:
            if packet.stream_index in wanted:
                yield packet

    def _failed(self) -> None:
        self._unread += 1

    def _seconds(self, packet: av.Packet[Any]) -> Fraction | None:
        ticks = packet.dts if packet.dts is not None else packet.pts
        return None if ticks is None else ticks * packet.time_base - self._origin

    def _prepared(self, packet: av.Packet[Any]) -> Iterator[av.Packet[Any]]:
        """The packet, shifted to the output's clock and cut to --start and --end."""
        index, base = packet.stream_index, packet.time_base
        if packet.is_discard and not self._keeps_hidden(packet):
            return
        shift = round(self._origin / base)
        packet.pts = None if packet.pts is None else packet.pts - shift
        packet.dts = None if packet.dts is None else packet.dts - shift
        cover = index in self._copies and bool(self._copies[index].disposition & 0x400)
        if not cover and not self._inside(packet):
            self._hidden.pop(index, None)  # it belongs to a beginning that is left out
            return
        if index in self._converters:
            yield from self._converted(index, lambda: self._converters[index].feed(packet))
            return
        if self._changing and self._copies[index].type == "audio":
            context = self._copies[index].codec_context
            if context and other_sound(bytes(packet)[:2], context.name):
                self._strange[index] += 1
                if self._plan.muxer in ONE_CODEC:
                    return
        before = self._hidden.pop(index, None)
        for ready in (before, packet):
            if ready is not None:
                self._clocks[index].mend(ready, base)
                if self._copies[index].type == "audio":
                    self._clocks[index].give_duration(ready)
                ready.stream = self._copies[index]
                yield ready

    def _inside(self, packet: av.Packet[Any]) -> bool:
        """Whether a packet lies between --start and --end. One of subtitles that are shown across
        either is shortened instead of lost, or of lasting longer than the film."""
        shown, base = packet.pts if packet.pts is not None else packet.dts, packet.time_base
        words = packet.stream_index in self._subtitles
        if shown is None:
            return True
        if self._cut_start and shown * base < self._delayed:
            first = ceil(self._delayed / base)
            over = shown + (packet.duration or 0)
            if not words or over <= first:
                return False
            packet.pts = packet.dts = shown = first
            packet.duration = over - first
        if self._end is None:
            return True
        if words and packet.duration:
            packet.duration = min(packet.duration, max(1, floor(self._end / base) - shown))
        return shown * base < self._end

    def _keeps_hidden(self, packet: av.Packet[Any]) -> bool:
        """Whether a packet that an edit list hides is passed on.

        Containers with edit lists hide it again. Elsewhere it would become audible; the last one
        is kept because decoders need it to start.
        """
        if self._plan.muxer in EDIT_LISTS:
            return True
        if packet.stream_index in self._copies:
            shift = round(self._origin / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts - shift
            packet.dts = None if packet.dts is None else packet.dts - shift
            self._hidden[packet.stream_index] = packet
        return False

    def _converted(
        self, index: int, make: Callable[[], Iterator[av.Packet[Any]]]
    ) -> Iterator[av.Packet[Any]]:
        try:
            for ready in make():
                ready.stream = self._converters[index].stream
                yield ready
        except (av.FFmpegError, ValueError):
            self._lost[index] += 1


class _Clock:
    """Keeps one stream's decoding times rising, as every container demands."""

    def __init__(self) -> None:
        self._last: int | None = None
        self._step = 0
        self._rebase = 0

    def give_duration(self, packet: av.Packet[Any]) -> None:
        """NUT stores no durations, and without one an mp4 hides its last packet."""
        if not packet.duration and self._step > 0:
            packet.duration = self._step

    def mend(self, packet: av.Packet[Any], base: Fraction) -> None:
        dts = packet.dts if packet.dts is not None else packet.pts
        if dts is None:
            dts = 0 if self._last is None else self._last + 1 - self._rebase
        if self._last is not None and (self._last - dts - self._rebase) * base > JUMP:
            self._rebase = self._last - dts + max(1, packet.duration or 1)
        dts += self._rebase
        pts = dts if packet.pts is None else packet.pts + self._rebase
        if self._last is not None and dts <= self._last:
            dts = self._last + 1
        self._step = 0 if self._last is None else dts - self._last
        self._last = dts
        if (pts - dts) * base > JUMP:
            pts = dts  # no stream reorders by this much: the time is damaged
        packet.dts, packet.pts = dts, max(pts, dts)
