"""The output container: the video's packets, stamped from the timeline, between all others."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import OutputContainer

from oasis_cli.media.atomic import commit, discard, temporary_beside
from oasis_cli.media.containers import CONSTANT_RATE, clean_tags
from oasis_cli.media.faults import writing
from oasis_cli.media.info import MediaInfo
from oasis_cli.media.output import OutputPlan
from oasis_cli.media.passthrough import Passthrough
from oasis_cli.media.reader import Relay
from oasis_cli.media.timeline import Timeline

AddVideo = Callable[[OutputContainer], Any]


class Muxer:
    """Writes to a temporary file beside the target; `finish` puts it in place, `abandon` does not.

    Closing a container writes a trailer that makes half a film look whole, so an abandoned file
    is removed and never renamed.
    """

    def __init__(
        self,
        plan: OutputPlan,
        info: MediaInfo,
        timeline: Timeline,
        relay: Relay | None,
        add_video: AddVideo,
    ) -> None:
        self.plan, self.timeline = plan, timeline
        self.skipped = 0
        self.written = 0
        self._delay = 0
        self._temporary: Path | None = None
        self._pipe: _WriteOnly | None = None
        with writing(plan.target):
            self._output = self._open()
            held = relay.packets if relay else None
            try:
                self._others = Passthrough(info, plan, self._output, held)
                self._add_streams(info, add_video)
                self._output.start_encoding()
            except BaseException:
                self.abandon()
                raise

    def _open(self) -> OutputContainer:
        plan = self.plan
        if plan.is_pipe:
            self._pipe = _WriteOnly(sys.stdout.fileno())
            return av.open(
                self._pipe, "w", format=plan.muxer, container_options=plan.container_options
            )
        self._temporary = temporary_beside(Path(plan.target))
        file = f"file:{self._temporary}"
        try:
            return av.open(file, "w", format=plan.muxer, container_options=plan.container_options)
        except BaseException:
            discard(self._temporary)
            raise

    def _add_streams(self, info: MediaInfo, add_video: AddVideo) -> None:
        plan, output = self.plan, self._output
        for stream in plan.streams:
            if stream.action != "encode":
                self._others.add(stream)
                continue
            self.video = add_video(output)
            source = next(s for s in info.streams if s.index == stream.index)
            even = plan.muxer in CONSTANT_RATE  # these write the time base down as the rate
            self.video.time_base = 1 / plan.rate if even else self.timeline.time_base
            self.video.metadata.update(clean_tags(source.metadata))
            self.video.disposition = av.stream.Disposition(source.disposition)
            if plan.display_matrix is not None:
                self.video.set_display_matrix(plan.display_matrix)
        output.metadata.update(plan.metadata)
        chapters = moved_chapters(info, plan)
        if chapters:
            output.set_chapters(chapters)

    def write(self, packet: av.Packet[Any], shown: int, decoded: int) -> None:
        """Mux one video packet: frame number `shown`, decoding position `decoded` (may be < 0)."""
        line = self.timeline
        if not self.written:
            # Players hide what lies before 0. A film that starts there is moved, sound and all.
            self._delay = max(0, -line.pts[0])
            self._others.delay(self._delay * line.time_base)
        if self.plan.muxer in CONSTANT_RATE:
            packet.time_base = 1 / self.plan.rate
            packet.pts, packet.dts, packet.duration = shown, decoded, 1
        else:
            packet.time_base = line.time_base
            packet.pts, packet.dts = line.at(shown) + self._delay, line.at(decoded) + self._delay
            packet.duration = line.durations[shown]
        packet.stream = self.video
        with writing(self.plan.target):
            self._others.push(Fraction(packet.dts) * packet.time_base, self._mux_other)
            self._output.mux(packet)
        self.written += 1

    def _mux_other(self, packet: av.Packet[Any]) -> None:
        try:
            self._output.mux(packet)
        except (av.ArgumentError, av.InvalidDataError):
            self.skipped += 1  # one packet that the container rejects must not end the run

    def finish(self, check: Callable[[], None] = lambda: None) -> None:
        """Drain the other streams, write the trailer, and put the file in the target's place.

        check: called before that; it raises where the file must not get there.
        """
        with writing(self.plan.target):
            self._others.push(None, self._mux_other)
            self.skipped += self._others.skipped
            self._others.close()
            self._output.close()
            check()
            if self._temporary is not None:
                commit(self._temporary, Path(self.plan.target))
                self._temporary = None

    def abandon(self) -> None:
        """Leave the target as it was. Never raises for what the disk or the pipe says."""
        if hasattr(self, "_others"):  # not when the input could not be opened a second time
            self._others.close()
        if self._pipe is not None:
            self._pipe.closed = True
        with suppress(OSError, RuntimeError, ValueError, av.FFmpegError):
            self._output.close()
        if self._temporary is not None:
            discard(self._temporary)
            self._temporary = None


class _WriteOnly:
    """A pipe as PyAV wants it: only `write`, so that no muxer tries to seek."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self.closed = False
        """Set when the run is abandoned: the trailer must not follow half a film."""

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        while view and not self.closed:
            view = view[os.write(self._handle, view) :]
        return len(data)


def moved_chapters(info: MediaInfo, plan: OutputPlan) -> list[Any]:
    """The chapters, moved and cut as the frames are."""
    start = info.start + (plan.read.start or 0)
    end = plan.read.end
    found = []
    for chapter in info.chapters:
        base = chapter["time_base"] or Fraction(1, 1000)
        first = chapter["start"] - round(start / base)
        last = chapter["end"] - round(start / base)
        if end is not None:
            last = min(last, round((end - (plan.read.start or 0)) / base))
        if last > max(first, 0):
            found.append({**chapter, "start": max(first, 0), "end": last})
    return found
