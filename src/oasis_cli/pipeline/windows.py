"""Cut a stream of frames into overlapping windows, and blend the windows' results back.

    frames -> cut -> Window -> (model) -> Blend -> frames, as many and in the same order

Window positions depend on where a scene starts and on the frame's number, on nothing else. So a run
that starts in the middle (a resumed one, or one worker of many) makes the same windows: `reach`
says which frames it has to read.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from oasis_cli.errors import UsageError

Frame = TypeVar("Frame")


SHORT = 9
"""Frames of the shortest window worth using. Fewer flicker: only short memory is a reason for them.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowOptions:
    """How much of the video the model sees at once."""

    frames: int = 17
    """Frames in one window, 4k + 1. More is steadier and takes more memory."""

    overlap: int = 4
    """Frames two neighbours share; the seam is cross-faded over them."""

    def __post_init__(self) -> None:
        if self.frames < 1 or self.frames % 4 != 1:
            near = max(1, self.frames // 4 * 4 + 1)
            raise UsageError(
                f"a window of {self.frames} frames is not possible: the model works on 4k + 1",
                hint=f"choose --window {near} or {near + 4}",
            )
        if not 0 <= self.overlap <= self.frames // 2:
            raise UsageError(
                f"a window of {self.frames} frames cannot overlap by {self.overlap}",
                hint=f"choose --overlap from 0 to {self.frames // 2}",
            )

    def of(self, frames: int) -> "WindowOptions":
        """The same with windows of `frames`, which overlap by half of them at most."""
        return WindowOptions(frames=frames, overlap=min(self.overlap, frames // 2))

    @property
    def stride(self) -> int:
        """Frames from the start of one window to the start of the next."""
        return self.frames - self.overlap


@dataclass(frozen=True, slots=True)
class Window(Generic[Frame]):
    """Frames of one scene that go through the model together."""

    start: int
    """Number of the first frame."""
    frames: list[Frame]
    opens_scene: bool
    """True for the first window of a scene: nothing before it may be blended into it."""


def cut(
    frames: Iterable[Frame],
    options: WindowOptions,
    is_cut: Callable[[Frame], bool] = lambda frame: False,
    first: int = 0,
) -> Iterator[Window[Frame]]:
    """Yield the windows of a stream, holding one at a time.

    is_cut: asked once for each frame in order, says whether a new scene starts with it. first: the
    number of the first frame. No window crosses a cut; the last window of a scene slides back so
    that it is full, and only a scene shorter than a window makes a short one.

    >>> options = WindowOptions(frames=5, overlap=2)
    >>> [(w.start, "".join(w.frames)) for w in cut("abcdefghi", options)]
    [(0, 'abcde'), (3, 'defgh'), (4, 'efghi')]
    >>> [(w.start, "".join(w.frames)) for w in cut("abcdefXYZ", options, is_cut="X".__eq__)]
    [(0, 'abcde'), (1, 'bcdef'), (6, 'XYZ')]
    """
    held: deque[Frame] = deque(maxlen=options.frames)
    number = opened = covered = first  # next frame, start of the scene, end of the last window

    def window() -> Window[Frame]:
        return Window(number - len(held), list(held), opens_scene=covered == opened)

    for frame in frames:
        if is_cut(frame) and number > opened:
            if number > covered:
                yield window()
            held.clear()
            opened = covered = number
        held.append(frame)
        number += 1
        due = opened + options.frames if covered == opened else covered + options.stride
        if number == due:
            yield window()
            covered = number
    if number > covered:
        yield window()


def window_spans(start: int, stop: int, options: WindowOptions) -> list[tuple[int, int]]:
    """The windows [first, last) that `cut` makes of a scene [start, stop).

    >>> window_spans(0, 9, WindowOptions(frames=5, overlap=2))
    [(0, 5), (3, 8), (4, 9)]
    """
    if stop - start <= options.frames:
        return [(start, stop)]
    firsts = list(range(start, stop - options.frames + 1, options.stride))
    if firsts[-1] + options.frames < stop:
        firsts.append(stop - options.frames)
    return [(first, first + options.frames) for first in firsts]


def reach(
    scenes: Sequence[int], total: int, options: WindowOptions, start: int, stop: int
) -> tuple[int, int]:
    """Which frames must be read to make frames [start, stop) exactly as a whole run makes them.

    scenes: the number of the first frame of each scene, ascending, beginning with 0. total: frames
    in the video. Feeding frames [first, last) to `cut` and `Blend`, and keeping [start, stop) of
    what comes out, equals the same frames of a run over the whole video.

    >>> reach([0, 40], 90, WindowOptions(frames=17, overlap=4), 20, 30)
    (13, 40)
    """
    bounds = [*scenes, total]
    scene_of = max(n for n, at in enumerate(bounds[:-1]) if at <= start)
    windows = window_spans(bounds[scene_of], bounds[scene_of + 1], options)
    first = next(a for a, b in windows if b > start)
    scene_of = max(n for n, at in enumerate(bounds[:-1]) if at < stop)
    windows = window_spans(bounds[scene_of], bounds[scene_of + 1], options)
    last = windows[0][1]
    for before, window in zip(windows, windows[1:], strict=False):
        if before[1] - options.overlap < stop:
            last = window[1]
    return first, last


class Waiting:
    """How the frames of an overlap wait for the next window: here as they are."""

    def keep(self, frame: Any) -> Any:
        """A frame as it is stored: a copy, where the frame would keep a whole window in memory."""
        return frame

    def fade(self, held: Any, frame: Any, weight: float) -> Any:
        """(1 - weight) of what was stored and `weight` of `frame`, which may be overwritten."""
        return held * (1 - weight) + frame * weight

    def release(self, held: Any) -> Any:
        """The frame again."""
        return held


class Blend:
    """Join the results of consecutive windows; each frame comes out once, in order.

    The last `overlap` frames of a window wait for the next one and are cross-faded into it:

    >>> blend, halves = Blend(overlap=1), WindowOptions(frames=5, overlap=1)
    >>> out = []
    >>> for value, window in enumerate(cut(range(9), halves)):
    ...     out += blend.add(window, [float(value)] * len(window.frames))
    >>> out + list(blend.flush())  # doctest: +NORMALIZE_WHITESPACE
    [(0, 0.0), (1, 0.0), (2, 0.0), (3, 0.0), (4, 0.5), (5, 1.0), (6, 1.0), (7, 1.0), (8, 1.0)]
    """

    def __init__(self, overlap: int, waiting: "Waiting | None" = None) -> None:
        """waiting: how frames are kept until the next window comes."""
        self.overlap = overlap
        self._waiting = waiting or Waiting()
        self._tail: list[Any] = []
        self._next = 0

    def add(self, window: Window[Any], high: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Yield (number, frame) for every frame that no later window will touch.

        high: one result for each frame of the window; any values that can be added and multiplied
        by a float. A window that slid back repeats frames that are already out: they are context.
        """
        if len(high) != len(window.frames):
            raise ValueError(f"{len(window.frames)} frames went in, {len(high)} came out")
        if window.opens_scene:
            yield from self.flush()
            self._next = window.start
        held, self._tail = self._tail, []
        steps = len(held) + 1
        fresh = high[self._next - window.start :]
        ready = len(fresh) - self.overlap
        for place, frame in enumerate(fresh):
            if place < len(held):
                frame = self._waiting.fade(held[place], frame, (place + 1) / steps)
                held[place] = None  # one frame at a time: at 4K each has 100 MB
            if place < ready:
                yield from self._number([frame])
            else:
                self._tail.append(self._waiting.keep(frame))
            del frame

    def flush(self) -> Iterator[tuple[int, Any]]:
        """Yield the frames still held: the scene is over."""
        tail, self._tail = self._tail, []
        yield from self._number(self._waiting.release(frame) for frame in tail)

    def _number(self, frames: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        for frame in frames:
            yield self._next, frame
            self._next += 1
