"""Two fields -> one frame (or two), with FFmpeg's bwdif filter."""

from __future__ import annotations

from collections.abc import Iterator

import av
from av.filter import Graph

Timed = tuple[av.VideoFrame, int | None, int]


class Deinterlacer:
    """Push frames with their ticks, get progressive frames with theirs.

    Progressive frames between interlaced ones pass unchanged. The filter doubles the time base
    (a field can lie between two ticks); in frame mode the ticks are therefore handed around it.
    """

    def __init__(self, *, bob: bool) -> None:
        self._bob = bob
        self._graph: Graph | None = None
        self._shape: tuple[int, int, str] | None = None
        self._ticks: dict[int, tuple[int | None, int]] = {}
        self._pushed = 0

    def push(self, frame: av.VideoFrame, pts: int | None, duration: int) -> Iterator[Timed]:
        """One frame in, none to two out: the filter looks one frame ahead."""
        shape = (frame.width, frame.height, frame.format.name)
        if shape != self._shape:
            yield from self.flush()
            self._build(frame)
            self._shape = shape
        assert self._graph is not None
        self._ticks[self._pushed] = (pts, duration)
        frame.pts = self._pushed
        self._pushed += 1
        self._graph.vpush(frame)
        yield from self._pull()

    def flush(self) -> Iterator[Timed]:
        """The frames that the filter still holds."""
        if self._graph is not None:
            self._graph.vpush(None)
            yield from self._pull()
            self._graph = None

    def _build(self, frame: av.VideoFrame) -> None:
        graph = Graph()
        source = graph.add_buffer(
            width=frame.width,
            height=frame.height,
            format=frame.format,
            time_base=frame.time_base,
        )
        mode = "send_field" if self._bob else "send_frame"
        which = "all" if self._bob else "interlaced"
        filter_ = graph.add("bwdif", f"mode={mode}:parity=auto:deint={which}")
        sink = graph.add("buffersink")
        source.link_to(filter_)
        filter_.link_to(sink)
        graph.configure()
        self._graph = graph

    def _pull(self) -> Iterator[Timed]:
        assert self._graph is not None
        while True:
            try:
                frame = self._graph.vpull()
            except (av.BlockingIOError, EOFError):
                return
            assert isinstance(frame, av.VideoFrame)
            number, second = divmod(int(frame.pts or 0), 2)
            pts, duration = self._ticks[number]
            for old in [k for k in self._ticks if k < number]:
                del self._ticks[old]
            if self._bob:
                duration //= 2
                if second and pts is not None:
                    following = self._ticks.get(number + 1, (None, 0))[0]
                    pts = (pts + following) // 2 if following is not None else pts + duration
            yield frame, pts, duration
