"""INPUT: decoded frames as plain arrays, in order, with their times.

with Reader(info, ReadOptions(start=Fraction(2))) as reader:
    for frame in reader:
        frame.planes                  # arrays; reader.spec says what they mean
reader.timeline, reader.report        # filled while reading
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from math import inf
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import Interpolation

from oasis_cli.errors import MediaError, UsageError
from oasis_cli.media.faults import reading
from oasis_cli.media.info import LATEST, MediaInfo
from oasis_cli.media.input.deinterlace import Deinterlacer
from oasis_cli.media.input.joins import may_break
from oasis_cli.media.input.read_report import ReadReport, nothing_read
from oasis_cli.media.input.source import FrameSource, open_input, planes_of, with_first_times
from oasis_cli.media.input.stills import animated_webp, decode_picture
from oasis_cli.media.native import SideDataReader
from oasis_cli.media.picture import PictureSpec, Planes
from oasis_cli.media.timeline import Timeline, missing_frames

BACK_OFF = (Fraction(0), Fraction(2), Fraction(10))
"""Seconds before the wanted start at which seeking is tried, before reading from the beginning."""

LAG = 1
"""Seconds that a pipe is read past --end: sound may come later in it than its picture."""
SAME_SHAPE = Fraction(1, 100)
"""Part by which two shapes may differ: sizes are whole pixels."""
HELD_FRAMES = 20
"""More than a decoder of one thread holds back to put frames in order."""
BLIND = 0.3
"""Seconds without a frame, at either end of a joined file, that count as a picture lost."""
MOST_TOLD = 10
"""Joins, or changes of shape, that get a sentence each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """Which frames to read, and what to do to them on the way."""

    start: Fraction | None = None
    """Seconds from the beginning of the file; frames before it are left out."""
    end: Fraction | None = None
    """Seconds from the beginning of the file; frames at or after it are left out."""
    deinterlace: Literal["auto", "off", "bob"] = "auto"
    """auto: interlaced frames become progressive; bob: each field becomes a frame."""
    bake_rotation: bool = False
    """Turn the pixels instead of carrying the turn as metadata."""
    hwaccel: Literal["auto", "none", "cuda"] = "auto"
    """cuda: decode on an NVIDIA card when there is one. auto decodes in software: one core gives
    200 frames/s, so the model never waits for it."""
    strict: bool = False
    """Fail on the first damaged packet, corrupt frame or change of size."""

    def __post_init__(self) -> None:
        if self.start is not None and self.start < 0:
            raise UsageError("--start cannot be negative")
        if self.end is not None and self.end <= (self.start or 0):
            raise UsageError("--end must be later than --start")
        if max(self.start or 0, self.end or 0) > LATEST:
            raise UsageError("--start and --end are seconds of a film, not years")


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture, copied out of the decoder."""

    index: int
    planes: Planes
    """uint8 or uint16 (rows, columns), without alpha: see `Reader.spec`."""
    pts: int
    """In ticks of the timeline."""
    corrupt: bool = False
    """The decoder concealed damage in it."""


@dataclass
class SideChannel:
    """What goes past the model: alpha planes and captions by frame, a pipe's other packets."""

    alpha: dict[int, np.ndarray] = field(default_factory=dict)
    captions: dict[int, bytes] = field(default_factory=dict)
    packets: deque[av.Packet[Any]] | None = None


class Reader:
    """Iterates the frames of `info` once. One thread owns it."""

    def __init__(
        self, info: MediaInfo, options: ReadOptions | None = None, *, keep_alpha: bool = False,
        keep_captions: bool = False,
    ) -> None:  # fmt: skip
        """`keep_alpha` collects alpha planes in `relay.alpha`, `keep_captions` closed captions in
        `relay.captions`: somebody must take them out."""
        self.info, self.options = info, options or ReadOptions()
        video = info.video
        self.spec: PictureSpec = video.spec(bake_rotation=self.options.bake_rotation)
        base = video.time_base / 2 if self.options.deinterlace == "bob" else video.time_base
        rate = video.rate * (2 if self.options.deinterlace == "bob" else 1)
        self.timeline = Timeline(base, max(1, round(1 / (rate * base))))
        self.report = ReadReport()
        self.relay = SideChannel(packets=info.live.held if info.live else None)
        self._keep_alpha = keep_alpha and video.layout.alpha
        self._side_data = SideDataReader() if keep_captions else None
        self._container: InputContainer | None = None
        self._source: FrameSource | None = None
        self._read = 0
        self._latest: Fraction | None = None  # what was read last, in seconds behind the start
        self._shape: tuple[tuple[int, int], Fraction] | None = None
        self._changing = 0

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def cancel(self) -> None:
        """From another thread: let the one that waits for a pipe's next bytes give up."""
        if self.info.live is not None:
            self.info.live.cancel()

    def close(self) -> None:
        """Release the file. A pipe stays open: its other packets may still be wanted."""
        self._source = None
        if self._container is not None:
            self._container.close()
            self._container = None

    @property
    def origin(self) -> Fraction:
        """Seconds of the input's clock that become 0 in the output."""
        return self.info.start + (self.options.start or 0)

    def __iter__(self) -> Iterator[Frame]:
        with reading(self.info.path):
            for frame, pts, duration in self._progressive():
                yield self._take(frame, pts, duration)
        self._finish()

    def _take(self, frame: av.VideoFrame, pts: int | None, duration: int) -> Frame:
        index = self.timeline.append(pts, duration)
        planes = self._planes(frame)
        if self._keep_alpha:
            self.relay.alpha[index] = planes[-1]
        second_field = self.options.deinterlace == "bob" and index % 2  # the first one has them
        if self._side_data is not None and not second_field:
            captions = self._side_data(frame).get("A53_CC")
            if captions:
                self.relay.captions[index] = captions
        self.report.frames += 1
        self._look_at_shape(frame, index)
        if frame.is_corrupt:
            self.report.corrupt_frames += 1
            self._fault(f"frame {index} is damaged")
        colors = planes[:-1] if self.spec.layout.alpha else planes
        return Frame(index, colors, self.timeline.pts[index], bool(frame.is_corrupt))

    def _look_at_shape(self, frame: av.VideoFrame, index: int) -> None:
        """Count changes of the shape. The decoder tells the shape of a pixel ahead of the frames
        that it still holds, so a new one counts when a frame of another size comes, or when it
        has stayed for longer than a decoder holds frames."""
        if self._source is None:
            return
        size = frame.width, frame.height
        sar = self._source.context.sample_aspect_ratio or Fraction(1)
        if self._shape is None:
            self._shape = size, sar
        if size != self._shape[0] or sar == self._shape[1]:
            self._changing = index
        elif index - self._changing < HELD_FRAMES:
            return
        self._tell_shape(size, sar, min(index, self._changing + (size == self._shape[0])))

    def _tell_shape(self, size: tuple[int, int], sar: Fraction, index: int) -> None:
        assert self._shape is not None
        before, shape = (Fraction(*s) * a for s, a in (self._shape, (size, sar)))
        self._shape = size, sar
        if abs(shape / before - 1) > SAME_SHAPE:
            self.report.shape_changes += 1
            sentence = (
                f"about {float(self.timeline.seconds(index)):.2f} s the picture's shape changes "
                f"from {float(before):.2f}:1 to {float(shape):.2f}:1"
            )
            self._fault(sentence)
            if self.report.shape_changes <= MOST_TOLD:
                self.report.warnings.append(f"{sentence}: the first one's is kept")

    def _fault(self, sentence: str) -> None:
        if self.options.strict:
            raise MediaError(
                f"{self.info.path}: {sentence}", hint="without --strict the run goes on"
            )

    def _planes(self, frame: av.VideoFrame) -> Planes:
        video = self.info.video
        if (frame.width, frame.height) != (video.width, video.height):
            self.report.size_changes += 1
            self._fault(f"the picture changes to {frame.width}x{frame.height}")
            frame = frame.reformat(
                width=video.width,
                height=video.height,
                format=video.planar,
                interpolation=int(Interpolation.BICUBIC | Interpolation.ACCURATE_RND),
            )
        name = frame.format.name.replace("yuvj", "yuv")
        if name != video.planar:
            frame = frame.reformat(format=video.planar)  # unpacking only: no value changes
        return planes_of(frame, self.spec)

    def _progressive(self) -> Iterator[tuple[av.VideoFrame, int | None, int]]:
        """Frames inside --start and --end, deinterlaced, with ticks of the timeline."""
        mode = self.options.deinterlace
        filter_: Deinterlacer | None = None
        for frame, pts, duration in self._trimmed():
            self.report.interlaced_frames += bool(frame.interlaced_frame)
            if filter_ is None and mode != "off" and (frame.interlaced_frame or mode == "bob"):
                filter_ = Deinterlacer(bob=mode == "bob")
            if filter_ is None:
                yield frame, pts, duration
            else:
                yield from filter_.push(frame, pts, duration)
        if filter_ is not None:
            yield from filter_.flush()

    def _trimmed(self) -> Iterator[tuple[av.VideoFrame, int | None, int]]:
        base = self.timeline.time_base
        origin = round(self.origin / base)
        end = self.options.end
        seen: int | None = None
        clock = Timeline(base, self.timeline.nominal)  # mends times before they are compared
        told = self.info.raw is not None and self.info.raw.rate is not None
        for frame in with_first_times(self._frames(), self.info.video.rate):
            scale = (frame.time_base or self.info.video.time_base) / base
            shown = frame.pts
            if self.info.format == "avi":
                # AVI stores decoding times only; what looks like a pts there is a guess. The
                # frames that come when the file has ended repeat the last packet's time.
                shown, seen = (frame.dts if frame.dts != seen else None), frame.dts
            raw = None if shown is None else int(shown * scale)
            self._read += 1
            own = frame.duration if frame.pts is not None or not told else 0
            duration = int((own or 0) * scale)
            pts = clock.pts[clock.append(raw, duration)] - origin
            self._latest = pts * base
            del clock.pts[:-2], clock.durations[:-2]  # only the last two matter
            late = Fraction(-1) if end is None else pts * base + (self.options.start or 0) - end
            if late >= (0 if self.info.live is None else LAG):
                break
            if late >= 0:
                continue
            if self.options.start is None or pts >= 0:
                yield frame, pts, duration
        if clock.repaired < self._read:  # a raw stream has no times at all: nothing was mended
            self.report.repaired_times = clock.repaired

    def _frames(self) -> Iterator[av.VideoFrame]:
        info = self.info
        if info.live is not None:
            self._source = info.live.source
            yield from info.live.frames()
        elif info.files:
            yield from self._pictures(info.files)
        elif info.format == "webp":
            animation = animated_webp(info.path)
            assert animation is not None
            yield from animation
        else:
            yield from self._seek_and_decode()

    def _pictures(self, files: tuple[Path, ...]) -> Iterator[av.VideoFrame]:
        for number, path in enumerate(files):
            frame = decode_picture(path)
            frame.pts, frame.duration, frame.time_base = number, 1, self.info.video.time_base
            yield frame

    def _open(self, start: Fraction | None = None) -> FrameSource:
        if self._container is not None:
            self._container.close()
        self._container = self._open_on_card() or open_input(self.info.path, self.info.raw)
        stream: Any = self._container.streams[self.info.video.index]
        self._source = FrameSource(
            self._container, stream, path=self.info.path, decoder=self.info.video.decoder,
            start=start,
        )  # fmt: skip
        return self._source

    def _open_on_card(self) -> InputContainer | None:
        """The file with its decoder on the graphics card, or None when that is not to be."""
        video, mode = self.info.video, self.options.hwaccel
        if mode != "cuda" or video.decoder is not None:
            return None
        try:
            container = open_input(self.info.path, self.info.raw, cuda=True)
            if container.streams.video and self._on_card(container):
                return container
            container.close()
        except (av.FFmpegError, OSError, NotImplementedError, RuntimeError):
            pass
        if not self.report.warnings:
            self.report.warnings.append(
                "no card here decodes this video: it was decoded in software"
            )
        return None

    def _on_card(self, container: InputContainer) -> bool:
        context: Any = container.streams[self.info.video.index].codec_context
        return bool(context.is_hwaccel)

    def _seek_and_decode(self) -> Iterator[av.VideoFrame]:
        """Decode from a seek that provably lies before --start, else from the beginning.

        A plain seek misses frames in open-GOP files, AVI and MPEG-TS: the first frame decoded
        after it must not be later than the start.
        """
        base = self.info.video.time_base
        wanted = self.origin
        if may_break(self.info.format, str(self.info.path)):
            # Where the clock breaks a seek finds any of the places with that time.
            yield from self._open(wanted if self.options.start else None)
            return
        for back in BACK_OFF if self.options.start else ():
            source = self._open()
            assert self._container is not None
            try:
                target = max(Fraction(0), wanted - back)
                self._container.seek(int(target / base), stream=source.stream, backward=True)
            except (av.FFmpegError, OSError):
                continue
            frames = iter(source)
            first = next(frames, None)
            if first is not None and first.pts is not None and first.pts * base <= wanted:
                yield first
                yield from frames
                return
        yield from self._open()

    def _finish(self) -> None:
        report, source = self.report, self._source
        if source is not None and self._shape is not None:  # it changed in the last frames
            sar = source.context.sample_aspect_ratio or Fraction(1)
            self._tell_shape(self._shape[0], sar, min(self._changing + 1, len(self.timeline) - 1))
        if source is not None:
            report.bad_packets = source.bad_packets
            if source.codecs:
                sentence = f"the picture's codec changes: {', then '.join(source.codecs)}"
                self._fault(sentence)
                report.warnings.append(f"{sentence}; FFmpeg may lose the last frame before that")
            if source.bad_packets:
                self._fault(f"{source.bad_packets} packets are damaged")
            report.restarts = source.steps_back
            if report.restarts:
                self._fault(f"the clock starts anew {report.restarts} times")
            self._tell_joins(source)
        if not report.frames:
            raise nothing_read(self.info.path, self.options.start, self._latest)
        self._check_length()
        if self.info.format != "avi":  # an empty packet is AVI's way to leave a frame out
            joins = source.joins.found if source and source.joins else []
            breaks = [Fraction(join.at) - self.origin for join in joins]
            report.missing_frames = missing_frames(self.timeline, breaks)
        report.tell_counts()

    def _tell_joins(self, source: FrameSource) -> None:
        joins = source.joins
        if joins is None:
            return
        self.report.joins = len(joins.found)
        for join in joins.found:
            for new in join.others:
                self._fault(f"stream {new} begins where stream {join.others[new]} ends")
        start = float(self.info.start)
        if joins.found and len(self.timeline) and not (self.options.start or self.options.end):
            line, least = self.timeline, max(BLIND, 5 / float(self.info.video.rate))
            before = float(self.origin + line.seconds(0) - source.earliest)
            after = float(source.latest - self.origin - line.seconds(len(line) - 1))
            for seconds, which in ((before, "first"), (after, "last")):
                if seconds > least:
                    sentence = f"the {which} {seconds:.2f} s of the picture cannot be decoded"
                    self._fault(sentence)
                    self.report.warnings.append(f"{sentence}: they may be of another codec")
        self.report.warnings += [join.told(start) for join in joins.found[:MOST_TOLD]]
        if len(joins.found) > MOST_TOLD:
            self.report.warnings.append(f"{len(joins.found)} such places in all")
        end = inf if self.options.end is None else self.options.end + self.info.start
        for sentence in joins.losses(end):
            self._fault(sentence)
            self.report.warnings.append(sentence)

    def _check_length(self) -> None:
        info, line = self.info, self.timeline
        if self.report.joins:
            return  # what the container claims is the difference of two clocks
        stream = next((s for s in info.streams if s.index == info.video.index), None)
        claimed = (stream.duration if stream else None) or info.duration
        if not claimed or self.options.end is not None or info.is_still or info.files:
            return
        first = max(line.seconds(0), Fraction(0)) if not self.options.start else Fraction(0)
        end = float(line.seconds(len(line) - 1) + line.durations[-1] * line.time_base)
        expected = claimed - float(self.options.start or 0)
        has_sound_only_tail = stream is not None and stream.duration is None
        slack = 0.1 * claimed + 0.5
        if end - float(first) < expected - slack and not has_sound_only_tail:
            self.report.ended_at = end
            self.report.warnings.append(f"it ended at {end:.2f} s of {claimed:.2f} s: cut off?")
            self._fault(f"it ended at {end:.2f} s of {claimed:.2f} s")
