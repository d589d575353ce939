"""The verb: one video in, one larger video out.

    probe -> plan -> reader | queue | windows -> model -> blend | queue | writer
             thread 1 ------^                  thread 2         ^------ thread 3

>>> from oasis_cli.pipeline.run import Options, upscale
>>> result = upscale("in.mp4", "out.mp4", Options(scale=2))            # doctest: +SKIP
>>> result.frames, result.size                                         # doctest: +SKIP
(250, (640, 360))
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from oasis_cli.media.atomic import in_work
from oasis_cli.media.color import frames_to_clip, planes_later
from oasis_cli.media.input.probe import probe
from oasis_cli.media.input.reader import Frame, Reader
from oasis_cli.media.output.writer import Writer
from oasis_cli.media.picture import PictureSpec, Planes
from oasis_cli.pipeline.blend_storage import Compact, Copies
from oasis_cli.pipeline.fidelity import FidelityControl
from oasis_cli.pipeline.plan import Options as Options
from oasis_cli.pipeline.plan import Plan, make_plan
from oasis_cli.pipeline.scenes import CutDetector, thumbnail
from oasis_cli.pipeline.threads import Stop, ThreadedPipeline
from oasis_cli.pipeline.window_runner import WindowRunner
from oasis_cli.pipeline.windows import Blend, WindowOptions, cut
from oasis_cli.runtime.backend import Model
from oasis_cli.runtime.device_memory import release_freed_memory
from oasis_cli.runtime.devices import capabilities

Report = Callable[[dict[str, Any]], None]
"""Told what happens, as plain dicts with an "event" key; see `console`."""

PROGRESS_EVERY = 0.2
"""Seconds between two progress events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a run made."""

    source: str
    target: str
    frames: int
    size: tuple[int, int]
    """(width, height)"""
    seconds: float
    limiting: str
    """The stage that the others waited for: reading, model or writing."""
    warnings: tuple[str, ...] = ()
    """Damage found in the input, and what was done about it."""

    @property
    def fps(self) -> float:
        """Frames of output a second."""
        return self.frames / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        """The "done" event."""
        return {"event": "done", **asdict(self), "fps": round(self.fps, 3)}


def upscale(
    source: str | Path,
    target: str | Path,
    options: Options | None = None,
    *,
    report: Report | None = None,
    stop: Stop | None = None,
    model: Model | None = None,
) -> Result:
    """Enlarge `source` and write it to `target`, whole or not at all.

    model: anything callable as model(low, size, tile), used as it is, in one go. When None the one
    that options name, as `oasis_cli.Upscaler` does it: that keeps a model for further files.
    Raises OasisError: UsageError for what cannot be meant, MediaError for what failed, Interrupted
    when `stop` was set by a signal.
    """
    if model is None:
        from oasis_cli.upscaler import Upscaler

        return Upscaler(options).file(source, target, report=report, stop=stop)
    options = options or Options()
    plan = make_plan(probe(source, options.raw), str(target), options)
    report = report or (lambda event: None)
    return in_one_go(plan, model, report, stop or Stop())


def claim(plan: Plan) -> AbstractContextManager[None]:
    """Around a run: nobody else writes its target meanwhile. Raises MediaError when one does."""
    return nullcontext() if plan.output.is_pipe else in_work(Path(plan.target))


def in_one_go(plan: Plan, model: Model, report: Report, stop: Stop) -> Result:
    """Carry a plan out with a model, without segments."""
    with claim(plan):
        return run(plan, make_runner(plan, model, report), report, stop)


def load(plan: Plan) -> Model:
    """The model a plan names, on its device, with the head table and fidelity asked for."""
    return with_fidelity(plan.backend.load(plan.spec), plan.options)


def with_fidelity(model: Model, options: Options) -> Model:
    """The model, kept as near to its input as options ask for."""
    if options.strength == 1 and options.color_fix == "none":
        return model
    return FidelityControl(model, strength=options.strength, color_fix=options.color_fix)


def run(plan: Plan, runner: WindowRunner, report: Report, stop: Stop) -> Result:
    """Carry a plan out, frame after frame, in one go."""
    meter = ProgressMeter(plan, report, spent=runner.warm_seconds)
    detect = CutDetector()
    with (
        Reader(
            plan.info,
            plan.options.read,
            keep_alpha=plan.output.keep_alpha,
            keep_captions=plan.output.captions,
        ) as reader,  # fmt: skip
        Writer(plan.output, plan.info, reader.timeline, reader.relay) as writer,
    ):
        with ThreadedPipeline(stop, queue_depth(plan.options.windows)) as stages:
            put = stages.sink(writer.write)
            frames = stages.source(with_cuts(reader, detect, plan), reader.cancel)
            pictures = restore(frames, plan, reader.spec, runner, stages.stop)
            for planes in to_planes(pictures, plan):
                put(planes)
                meter.tick(stages.limiting())
        stop.check()
        writer.close()
    return meter.done([*reader.report.warnings, *writer.warnings], stages.limiting())


@dataclass(frozen=True, slots=True)
class Seen:
    """A frame, and whether a scene starts with it."""

    frame: Frame
    cut: bool

    @property
    def planes(self) -> Planes:
        """The frame's planes."""
        return self.frame.planes


def with_cuts(frames: Iterable[Frame], detect: CutDetector, plan: Plan) -> Iterator[Seen]:
    """Look for cuts while frames come in."""
    peak = float((1 << plan.info.video.layout.depth) - 1)
    for frame in frames:
        yield Seen(frame, detect(thumbnail(frame.planes[0], peak)))


def restore(
    frames: Iterable[Seen],
    plan: Plan,
    spec: PictureSpec,
    runner: WindowRunner,
    stop: Stop,
    first: int = 0,
) -> Iterator[tuple[int, Tensor]]:
    """Yield (number, picture) for every frame, in order; pictures are (3, H, W) in [-1, 1].

    frames: from number `first` on. spec: what their planes mean.
    """
    deep = plan.output.spec.layout.depth > Compact.depth
    blend = Blend(plan.options.windows.overlap, Copies() if deep else Compact())
    for window in cut(frames, plan.options.windows, lambda seen: seen.cut, first):
        if capabilities(plan.device).host:
            release_freed_memory()  # or what this window leaves adds up with the next one
        with stop.at_once():
            high = runner(frames_to_clip(window.frames, spec, plan.device)).unbind()
        ready = blend.add(window, high)
        del high  # `ready` has it: nothing of this window is alive while the next one is made
        yield from ready
        del ready
    yield from blend.flush()


def to_planes(
    pictures: Iterable[tuple[int, Tensor]],
    plan: Plan,
    wanted: Callable[[int], bool] = lambda number: True,
) -> Iterator[Planes]:
    """Pictures, those whose numbers are `wanted`, -> what the encoder takes.

    Of a GPU's pictures, a window's are on their way at any time: the next window is computed while
    they are fetched and taken.
    """
    coming: deque[Callable[[], Planes]] = deque()
    behind = plan.options.windows.frames if capabilities(plan.device).streams else 0
    for number, picture in pictures:
        if wanted(number):
            coming.append(planes_later(picture, plan.output.spec))
        del picture  # it would keep its whole window alive while the next one is made
        while len(coming) > behind:
            yield coming.popleft()()
    while coming:
        yield coming.popleft()()


def queue_depth(windows: WindowOptions) -> int:
    """Frames that a queue between two threads holds: about one window's output. So the reader and
    the encoder keep working while the model computes the next window. Each slot more costs a
    frame's memory."""
    return max(1, windows.stride - windows.overlap)


def make_runner(plan: Plan, model: Model, report: Report) -> WindowRunner:
    """The model, ready for windows of this plan."""
    return WindowRunner(
        model,
        (plan.size[1], plan.size[0]),
        plan.options.windows,
        tile=plan.options.tile,
        least_tile=plan.least_tile,
        say=lambda text: report({"event": "note", "text": text}),
    )


class ProgressMeter:
    """Counts frames and reports how fast they come."""

    def __init__(
        self,
        plan: Plan,
        report: Report,
        total: int | None = None,
        done: int = 0,
        spent: float = 0.0,
    ) -> None:
        """done: frames that an earlier run made. spent: seconds of work done before now."""
        self.plan, self.report = plan, report
        self.total = total if total is not None else plan.frames
        self.frames = self._before = done
        self._reported = time.monotonic()
        self._began = self._reported - spent

    def tick(self, limiting: str, count: int = 1) -> None:
        """`count` more frames are done."""
        self.frames += count
        now = time.monotonic()
        if now - self._reported >= PROGRESS_EVERY:
            self._reported = now
            self.progress(limiting)

    def progress(self, limiting: str) -> None:
        """Report where we are."""
        made = self.frames - self._before
        fps = made / max(1e-9, time.monotonic() - self._began)
        total = max(self.total, self.frames) if self.total else None
        # A window's frames come all at once: before the first are out there is no rate.
        sure = made >= self.plan.options.windows.stride
        left = (total - self.frames) / fps if total and sure else None
        self.report(
            {
                "event": "progress",
                "frames": self.frames,
                "total": total,
                "fps": round(fps, 3),
                "eta": None if left is None else round(left, 1),
                "limiting": limiting,
            }
        )

    def done(self, warnings: Iterable[str], limiting: str) -> Result:
        """The run is over; the output is in place."""
        self.progress(limiting)
        return Result(
            source=self.plan.source,
            target=self.plan.target,
            frames=self.frames,
            size=self.plan.size,
            seconds=round(time.monotonic() - self._began, 3),
            limiting=limiting,
            warnings=tuple(warnings),
        )
