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

from oasis_cli.errors import MediaError
from oasis_cli.media.atomic import commit, discard, temporary_beside
from oasis_cli.media.captions import with_captions
from oasis_cli.media.faults import writing
from oasis_cli.media.info import MediaInfo, chapter_base
from oasis_cli.media.input.reader import SideChannel
from oasis_cli.media.output.containers import CONSTANT_RATE, clean_tags
from oasis_cli.media.output.passthrough import Passthrough
from oasis_cli.media.output.plan import OutputPlan
from oasis_cli.media.scheduling import usual_scheduling
from oasis_cli.media.timeline import Timeline

MOV_TICKS = 10000
"""Ticks a second that the mp4 muxer counts at least."""
LONGEST_WAIT, LONGEST_STILL = 1 << 28, (1 << 31) - 1
"""Ticks from decoding to showing, and between two frames, that mp4 readers take."""
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
        relay: SideChannel | None,
        add_video: AddVideo,
    ) -> None:
        self.plan, self.timeline = plan, timeline
        self.losses: list[str] = []
        """Losses of other streams. The list is complete when the file is finished."""
        self.written = 0
        self._delay = 0
        self._whole = 0
        self._written: set[int] = set()
        self._last: int | None = None
        self._temporary: Path | None = None
        self._pipe: _WriteOnly | None = None
        with writing(plan.target):
            self._output = self._open()
            held = relay.packets if relay else None
            self._captions = relay.captions if relay else {}
            try:
                self._others = Passthrough(info, plan, self._output, held)
                self._add_streams(info, add_video)
                with usual_scheduling():
                    self._output.start_encoding()
                setup = self.video.codec_context.extradata or b""
                self._prefixed = bytes(setup[:1]) == b"\x01"  # avcC, hvcC: of segments
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
        if captions := self._captions.pop(shown, None):
            packet = with_captions(packet, self.plan.codec, captions, prefixed=self._prefixed)
        if not self.written:
            # Players hide what lies before 0. A film that starts there is moved, sound and all.
            self._delay = max(0, -line.pts[0])
            self._others.delay(self._delay * line.time_base)
        if self.plan.muxer in CONSTANT_RATE:
            packet.time_base = 1 / self.plan.rate
            packet.pts, packet.dts, packet.duration = shown, decoded, 1
        else:
            packet.time_base = line.time_base
            packet.pts = line.at(shown) + self._delay
            packet.dts = self._decoding(shown, decoded) + self._delay
            packet.duration = line.durations[shown]
            self._check_wait(packet)
        packet.stream = self.video
        with writing(self.plan.target):
            self._others.push(Fraction(packet.dts) * packet.time_base, self._output.mux)
            self._output.mux(packet)
        self.written += 1

    def _decoding(self, shown: int, decoded: int) -> int:
        """Ticks at which the packet of frame `shown` is decoded: the time of frame `decoded`.

        Once all frames in front of a hole are written, decoding goes on just before its end.
        """
        line = self.timeline
        self._written.add(shown)
        while self._whole in self._written:
            self._written.remove(self._whole)
            self._whole += 1
        for hole in range(min(shown, self._whole), max(decoded, 0), -1):
            if line.after_hole(hole):
                gap = line.pts[hole] - line.pts[hole - 1]
                step = max(1, min(line.nominal, gap // (2 * (hole - decoded))))
                return line.pts[hole] - (hole - decoded) * step
        return line.at(decoded)

    def _check_wait(self, packet: av.Packet[Any]) -> None:
        """Refuse times that an mp4 has no room for; players would drop all of them."""
        if self.plan.muxer not in ("mp4", "mov") or packet.pts is None or packet.dts is None:
            return
        base = self.timeline.time_base
        finer = 1
        while base.denominator * finer < MOV_TICKS:
            finer *= 2  # as the muxer does
        wait = packet.pts - packet.dts
        still = 0 if self._last is None else packet.dts - self._last
        self._last = packet.dts
        if wait * finer > LONGEST_WAIT or still * finer > LONGEST_STILL:
            seconds = float(max(wait, still) * base)
            raise MediaError(
                f"the picture stands still for {seconds:.0f} s, which {self.plan.muxer} cannot "
                "hold at this time base",
                hint="write .mkv, or leave the hole out with --start and --end",
            )

    def finish(self, check: Callable[[], None] = lambda: None) -> None:
        """Drain the other streams, write the trailer, and put the file in the target's place.

        check: called before that; it raises where the file must not get there. Raises MediaError
        under --strict when something of another stream was lost.
        """
        with writing(self.plan.target):
            self._others.push(None, self._output.mux)
            self.losses = self._others.losses()
            self._others.close()
            if self.losses and self.plan.read.strict:
                raise MediaError(
                    f"--strict: something was lost: {'; '.join(self.losses)}",
                    hint="an .mkv copies nearly everything; without --strict the rest is written",
                )
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


NOTICED = Fraction(1, 2)
"""Seconds by which a chapter may begin early rather than that another one goes before it."""


def moved_chapters(info: MediaInfo, plan: OutputPlan) -> list[Any]:
    """The chapters, moved and cut as the frames are.

    The first one of an mp4 counts from 0, wherever it begins: one without a title goes before it
    if that is noticed.
    """
    start = info.start + (plan.read.start or 0)
    end = plan.read.end
    found = []
    for chapter in info.chapters:
        base = chapter_base(chapter)
        first = chapter["start"] - round(start / base)
        last = chapter["end"] - round(start / base)
        if end is not None:
            last = min(last, round((end - (plan.read.start or 0)) / base))
        if last > max(first, 0):
            found.append({**chapter, "start": max(first, 0), "end": last})
    if plan.muxer in ("mp4", "mov") and found:
        first = found[0]["start"]
        if first * chapter_base(found[0]) >= NOTICED:
            found.insert(0, {**found[0], "start": 0, "end": first, "metadata": {"title": ""}})
    return found
