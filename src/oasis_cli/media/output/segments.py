"""Pieces of the output: encoded apart, each complete or absent, joined without loss at the end.

A segment is a Matroska file with one closed-GOP video stream whose clock means nothing: the rank
of a packet's time within its segment is the frame's number. Container rounding and the shifts
that muxers make for negative times therefore cannot hurt, and the joined file gets its times from
the timeline, as a plain run does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer, OutputContainer

from oasis_cli.errors import MediaError
from oasis_cli.media.atomic import commit, discard, temporary_beside
from oasis_cli.media.faults import writing
from oasis_cli.media.info import MediaInfo
from oasis_cli.media.input.reader import SideChannel
from oasis_cli.media.output.encoders import codec_tag
from oasis_cli.media.output.mux import Muxer
from oasis_cli.media.output.plan import OutputPlan
from oasis_cli.media.output.writer import KEY, DecodingOrder, add_encoder, video_frame
from oasis_cli.media.scheduling import usual_scheduling
from oasis_cli.media.timeline import Timeline
from oasis_cli.runtime.processors import processors

TICK = Fraction(1, 10)
"""Seconds between frames in a segment file: coarse, so that no rounding makes two times equal."""

JOINABLE = {"mp4", "mov", "matroska", "webm", "mpegts", "nut"}
"""Containers a segment's packets can be copied into."""

LEAST_THREADS, MOST_THREADS = 4, 16
"""Fewer lose speed even on two processors; more gain little, and each holds pictures."""


def obstacle(plan: OutputPlan, info: MediaInfo) -> str:
    """Why this output cannot be made of segments, and so not be continued; "" when it can."""
    if info.is_pipe or plan.is_pipe:
        return "a pipe passes only once"
    if info.is_still or plan.muxer == "images":
        return "pictures are written one by one"
    if plan.keep_alpha:
        return "transparency goes past the segments"
    if plan.muxer not in JOINABLE or plan.codec in ("rawvideo", "gif"):
        return f"{plan.muxer} cannot be joined from parts"
    return ""


def encoder_threads() -> int:
    """Threads for the encoders of a job that begins on this machine."""
    return max(LEAST_THREADS, min(MOST_THREADS, processors()))


def segment_plan(plan: OutputPlan, threads: int) -> OutputPlan:
    """The same encoder with that many threads, on which the packets of some depend."""
    options = dict(plan.options)
    if plan.codec == "libx264":
        options["threads"] = str(threads)
    elif plan.codec == "libx265":
        options["x265-params"] += f":frame-threads={1 + threads // 4}"
    return replace(plan, options=options, muxer="matroska")


class SegmentWriter:
    """Encodes one segment. The file appears under its name when it is complete."""

    def __init__(
        self, plan: OutputPlan, path: Path, threads: int, keys: frozenset[int] = frozenset()
    ) -> None:
        """threads: the same for all segments of a job, wherever they are made. keys: frames of the
        segment, counted from 0, that come after a hole."""
        self._keys = keys
        self.plan, self.path = segment_plan(plan, threads), path
        self.frames = 0
        self._packets = 0
        self._order = DecodingOrder()
        with writing(path):
            # Of our own, since a dying process may hold another; not named as a segment is.
            self._part = temporary_beside(path, suffix="")
            try:
                self._output = av.open(f"file:{self._part}", "w", format="matroska")
                self._stream = add_encoder(self._output, self.plan, closed=True)
                self._stream.time_base = TICK
                with usual_scheduling():
                    self._output.start_encoding()
            except BaseException:
                self.discard()
                raise

    def __enter__(self) -> SegmentWriter:
        return self

    def __exit__(self, *raised: object) -> None:
        self.discard()

    def write(self, planes: tuple[np.ndarray, ...]) -> None:
        """Encode the next frame: planes as `plan.spec` says."""
        frame = video_frame(planes, self.plan)
        frame.pts, frame.time_base = self.frames, 1 / self.plan.rate
        if self.frames in self._keys:
            frame.pict_type = KEY
        self.frames += 1
        self._encode(frame)

    def _encode(self, frame: av.VideoFrame | None) -> None:
        with writing(self.path):
            for packet in self._stream.codec_context.encode(frame):
                shown = packet.pts
                decoded = self._order(shown, packet.dts)
                packet.time_base = TICK
                packet.pts, packet.dts, packet.duration = shown, decoded, 1
                packet.stream = self._stream
                self._output.mux(packet)
                self._packets += 1

    def close(self) -> None:
        """Flush the encoder and give the file its name."""
        self._encode(None)
        if self._packets != self.frames:
            raise MediaError(f"{self.plan.codec} returned {self._packets} of {self.frames} frames")
        with writing(self.path):
            self._output.close()
            commit(self._part, self.path)

    def discard(self) -> None:
        """Leave no trace of a segment that is not complete; nothing when it is."""
        with suppress(AttributeError, OSError, RuntimeError, ValueError, av.FFmpegError):
            self._output.close()  # there is none where it could not be opened
        discard(self._part)


@dataclass(frozen=True, slots=True)
class SegmentFacts:
    """What joining needs to know of a segment."""

    frames: int
    depth: int
    """How many frames the decoder must hold back to put frames in order."""
    setup: str
    """Hash of the decoder's set-up data: equal in segments that can be joined."""


def inspect_segment(path: Path) -> SegmentFacts | None:
    """Read a segment's packets; None when the file is damaged."""
    try:
        with av.open(f"file:{path}") as container:
            order = _ranks(container)
            setup = container.streams.video[0].codec_context.extradata or b""
    except (av.FFmpegError, OSError, IndexError):
        return None
    depth = max((place - rank for place, rank in enumerate(order)), default=0)
    return SegmentFacts(len(order), depth, hashlib.sha256(setup).hexdigest())


def _ranks(container: InputContainer) -> list[int]:
    """For each packet in decoding order, the number of its frame within the segment."""
    times = [p.pts for p in container.demux(video=0) if p.size]
    rank = {pts: number for number, pts in enumerate(sorted(t for t in times if t is not None))}
    if len(rank) != len(times):
        raise MediaError("a segment has packets without a time of their own")
    return [rank[t] for t in times if t is not None]


def join(
    plan: OutputPlan,
    info: MediaInfo,
    timeline: Timeline,
    segments: Sequence[Path],
    captions: dict[int, bytes] | None = None,
    check: Callable[[], None] = lambda: None,
) -> list[str]:
    """Copy the packets of all segments and everything else of the input into the target.

    captions: by frame number; they are used up. The target appears when it is complete. check:
    called once the input is open, and once all of
    it has been read; it raises when it is another input than the segments are of. Returns warnings.
    Raises MediaError when the segments do not hold exactly the timeline's frames.
    """
    facts = []
    for path in segments:
        found = inspect_segment(path)
        if found is None:
            raise MediaError(f"{path} is damaged", hint="delete it and run the command again")
        facts.append(found)
    total = sum(f.frames for f in facts)
    if total != len(timeline) or len({f.setup for f in facts}) != 1:
        raise MediaError(f"the segments hold {total} of {len(timeline)} frames, or do not match")
    depth = max(f.depth for f in facts)
    with av.open(f"file:{segments[0]}") as first:
        muxer = Muxer(
            plan,
            info,
            timeline,
            SideChannel(captions=captions or {}),
            lambda out: _add_copy(out, first, plan),
        )
        try:
            check()
            offset = 0
            for path, fact in zip(segments, facts, strict=True):
                _copy(path, muxer, offset, depth)
                offset += fact.frames
            muxer.finish(check)
        except BaseException:
            muxer.abandon()
            raise
    return muxer.losses


def _add_copy(output: OutputContainer, segment: InputContainer, plan: OutputPlan) -> Any:
    stream: Any = output.add_stream_from_template(segment.streams.video[0], opaque=True)
    if tag := codec_tag(plan.codec, plan.muxer):
        stream.codec_tag = tag
    return stream


def _copy(path: Path, muxer: Muxer, offset: int, depth: int) -> None:
    with av.open(f"file:{path}") as container:
        order = _ranks(container)
    with av.open(f"file:{path}") as container:
        packets = (p for p in container.demux(video=0) if p.size)
        for place, (packet, rank) in enumerate(zip(packets, order, strict=True)):
            muxer.write(packet, offset + rank, offset + place - depth)
