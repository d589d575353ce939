"""Render neighbouring segments of a job in one go, wherever: this process, a worker, a node.

    frames -> windows -> pictures -> planes -> segment 1 | segment 2 | ...
      ^ asks for the next segment before the last frame of this one is read

Windows depend on a frame's scene and number alone, so who renders what changes nothing. Neighbours
share the windows at their border; the model goes on over it, and while one segment's encoder is
flushed, the next one's takes frames.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice

from oasis_cli.errors import MediaError
from oasis_cli.jobs.job import Job, Segment
from oasis_cli.media.input.reader import Frame, Reader
from oasis_cli.media.output.segments import SegmentWriter
from oasis_cli.media.picture import Planes
from oasis_cli.pipeline.plan import Plan
from oasis_cli.pipeline.run import Seen, queue_depth, restore, to_planes
from oasis_cli.pipeline.threads import Stop, ThreadedPipeline
from oasis_cli.pipeline.window_runner import WindowRunner
from oasis_cli.pipeline.windows import reach


def nothing(segment: Segment) -> None:
    """The callback of a caller who needs none."""


def render(
    job: Job,
    plan: Plan,
    segments: Iterable[Segment],
    runner: WindowRunner,
    stop: Stop,
    tick: Callable[[str], None],
    done: Callable[[Segment], None] = nothing,
) -> str:
    """Render segments, each the neighbour of the one before; a file appears when it is complete.

    segments: the next one is asked for, in another thread, when the frames of the one before are
    nearly read. tick: called with the limiting stage for every frame made. done: called, in another
    thread, for every complete segment. Returns the limiting stage.
    """
    coming = iter(segments)
    opening = next(coming)
    windows = plan.options.windows
    first, last = reach(job.scenes, len(job.timeline), windows, opening.start, opening.stop)
    sink = _Segments(job, plan, opening, done)

    def frames() -> Iterator[Seen]:
        until = last
        seen = with_scenes(frames_from(job, plan, first), job, first)
        for number, frame in enumerate(seen, first):
            while number == until - 1 and (following := next(coming, None)) is not None:
                sink.expect(following)  # before the window is full whose frames may belong to it
                until = reach(
                    job.scenes, len(job.timeline), windows, opening.start, following.stop
                )[1]
            yield frame
            if number == until - 1:
                return

    try:
        with ThreadedPipeline(stop, queue_depth(windows)) as stages:
            put = stages.sink(sink.write)
            source = stages.source(frames())
            spec = plan.output.source_spec
            pictures = restore(source, plan, spec, runner, stages.stop, first)
            for planes in to_planes(pictures, plan, sink.wanted):
                put(planes)
                tick(stages.limiting())
        sink.close()
    finally:
        sink.discard()
    return stages.limiting()


def with_scenes(frames: Iterable[Frame], job: Job, first: int) -> Iterator[Seen]:
    """Mark the cuts that the analysis found. frames: from number `first` on."""
    scenes = set(job.scenes)
    for number, frame in enumerate(frames, first):
        yield Seen(frame, number in scenes)


def frames_from(job: Job, plan: Plan, first: int) -> Iterator[Frame]:
    """The input's frames from number `first` on: by seeking where that is exact."""
    read = plan.options.read
    if first and job.manifest["seekable"]:
        start = (read.start or 0) + job.timeline.seconds(first)
        with Reader(plan.info, replace(read, start=start)) as reader:
            frames = iter(reader)
            found = next(frames, None)
            if found is not None and found.pts == 0:
                yield found
                yield from frames
                return
    with Reader(plan.info, read) as reader:
        yield from islice(reader, first, None)


class _Segments:
    """Takes frames in order and writes them into the segments they belong to."""

    def __init__(
        self, job: Job, plan: Plan, opening: Segment, done: Callable[[Segment], None]
    ) -> None:
        self._job, self._plan, self._done = job, plan, done
        self._left = deque([opening])
        self._start, self._stop = opening.start, opening.stop
        self._writer: SegmentWriter | None = None
        self._closer = ThreadPoolExecutor(1, "oasis-closer")
        self._closing: Future[None] | None = None

    def expect(self, segment: Segment) -> None:
        """Its frames follow."""
        self._left.append(segment)
        self._stop = segment.stop

    def wanted(self, number: int) -> bool:
        """Whether a frame belongs to a segment, or only to a window at the ends."""
        return self._start <= number < self._stop

    def write(self, planes: Planes) -> None:
        """The next frame."""
        segment = self._left[0]
        if self._writer is None:
            numbers = range(segment.start, segment.stop)
            keys = (n - segment.start for n in numbers if self._job.timeline.after_hole(n))
            self._writer = SegmentWriter(
                self._plan.output,
                self._job.path(segment),
                self._job.encoder_threads,
                frozenset(keys),
            )
        self._writer.write(planes)
        if self._writer.frames == segment.frames:
            self._closed()  # two encoders at a time, no more
            self._closing = self._closer.submit(self._finish, self._writer, segment)
            self._writer = None
            self._left.popleft()

    def _finish(self, writer: SegmentWriter, segment: Segment) -> None:
        try:
            self._job.check_frames(self._plan.info)
            writer.close()
        except BaseException:
            writer.discard()
            raise
        self._done(segment)

    def _closed(self) -> None:
        closing, self._closing = self._closing, None
        if closing is not None:
            closing.result()

    def close(self) -> None:
        """Wait until all segments are under their names. Raises what went wrong with one."""
        self._closed()
        if self._left:
            at = self._left[0].start + (self._writer.frames if self._writer else 0)
            had = len(self._job.timeline)
            raise MediaError(
                f"the input ends at frame {at}; it had {had} when the job began",
                hint="if it is as it should be, start over with --no-resume",
            )

    def discard(self) -> None:
        """Drop the segment that is not complete."""
        self._closer.shutdown()
        if self._writer is not None:
            self._writer.discard()
            self._writer = None
