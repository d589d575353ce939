"""Verb: look before you run. One window around a moment, and the seams of a finished run."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from oasis_cli.errors import UsageError
from oasis_cli.media.atomic import check_target, write_output
from oasis_cli.media.color import frames_to_clip
from oasis_cli.media.info import MediaInfo
from oasis_cli.media.input.pipes import passes_once
from oasis_cli.media.input.probe import probe
from oasis_cli.media.input.reader import Frame, Reader
from oasis_cli.media.pictures import encode_picture
from oasis_cli.model.latent import bicubic_upsample
from oasis_cli.pipeline.clips import open_clip, to_pixels
from oasis_cli.pipeline.fidelity import Seam, SeamMeter
from oasis_cli.pipeline.plan import Options, Plan, make_plan
from oasis_cli.pipeline.run import load, make_runner, with_cuts
from oasis_cli.pipeline.scenes import CutDetector
from oasis_cli.pipeline.windows import window_spans
from oasis_cli.runtime.backend import Model

LINE = 3
"""Width of the line between before and after, in pixels."""


@dataclass(frozen=True, slots=True)
class Preview:
    """Before and after, side by side."""

    picture: Tensor
    """(H, 2W, 3) uint8."""
    png: bytes
    target: Path
    """The file that was written."""
    seconds: float
    """The moment that is shown, from the beginning of the input."""


def preview(
    source: str | Path,
    target: Path,
    options: Options,
    at: float | None = None,
    *,
    model: Model | None = None,
    get_model: Callable[[Plan], Model] = load,
    say: Callable[[str], None] = lambda text: None,
) -> Preview:
    """Enlarge one window around `at` seconds, or the middle; write (before | after) as a PNG.

    target: the video that is to be made, whose PNG is written beside it, or a .png. Everything is
    done as in the run with these options: plan, memory, precision, head table, fidelity. model: as
    for `oasis_cli.pipeline.run.upscale`, taken as it is. get_model: loads it for a plan.
    """
    if str(target) == "-" or passes_once(source):
        raise UsageError("a preview needs files, not pipes", hint="name a video and a .png")
    picture_path = target.with_suffix(".png")
    check_target(picture_path, str(source), overwrite=options.encode.overwrite)
    plan = _plan(source, target, options)
    at = _moment(plan.info, at)
    for note in plan.notes:
        say(note)
    model = model or get_model(plan)
    frames, place, seconds = _window(plan, at)
    width, height = plan.size
    say(f"enlarging {len(frames)} frames around {seconds:.2f} s to {width}x{height}")
    low = frames.to(plan.device)
    high = make_runner(plan, model, lambda event: say(event["text"]))(low)[place]
    before = bicubic_upsample(low[place : place + 1], (height, width))[0]
    both = torch.cat([before, high], dim=-1).clamp(-1, 1).cpu()
    both[..., width - LINE // 2 : width + LINE // 2 + 1] = 1
    picture = to_pixels(both)
    png = encode_picture(picture.numpy())
    write_output(picture_path, png)
    return Preview(picture, png, picture_path, seconds)


def _plan(source: str | Path, target: Path, options: Options) -> Plan:
    """The run that is looked at. It writes nothing, so what is at its target does not matter."""
    if target.suffix.lower() == ".png":
        target = target.with_suffix(".mkv")  # no video was named; this one holds everything
    freely = replace(options, encode=replace(options.encode, overwrite=True))
    return make_plan(probe(source, options.raw), str(target), freely)


def _moment(info: MediaInfo, at: float | None) -> float:
    """A time inside the video, or its middle."""
    if at is None:
        return (info.duration or 0.0) / 2
    if info.duration and at >= info.duration:
        raise UsageError(
            f"there is nothing at {at:g} s: {info.path} is {info.duration:.2f} s long",
            hint=f"choose a time below {info.duration:.2f}",
        )
    return at


def _window(plan: Plan, at: float) -> tuple[Tensor, int, float]:
    """The frames of one scene around a moment, which of them is it, and its time in seconds."""
    wanted, rate = plan.options.windows.frames, plan.info.video.rate
    first = max(Fraction(0), Fraction(at).limit_denominator(10**6) - wanted // 2 / rate)
    read = replace(plan.options.read, start=first, end=None)
    kept: list[tuple[Frame, float]] = []
    with Reader(plan.info, read) as reader:
        for seen in with_cuts(reader, CutDetector(), plan):
            seconds = float(first + seen.frame.pts * reader.timeline.time_base)
            if seen.cut:
                if seconds > at and kept:
                    break
                kept = []
            kept.append((seen.frame, seconds))
            if len(kept) >= wanted and seconds >= at:
                break
        kept = kept[-wanted:]
        times = [seconds for _, seconds in kept]
        place = min(range(len(times)), key=lambda n: abs(times[n] - at))
        clip = frames_to_clip([frame for frame, _ in kept], reader.spec)
    return clip, place, times[place]


def seams(plan: Plan) -> list[Seam]:
    """The seams of a finished run: the change between the output's frames, against the input's."""
    before, after = SeamMeter(), SeamMeter()
    scenes = list(_scene_starts(plan, before))
    for frame in open_clip(Path(plan.target)).frames():
        after.add(frame)
    bounds = [*scenes, len(after.changes)]
    windows = plan.options.windows
    cuts = [window_spans(a, b, windows) for a, b in zip(bounds, bounds[1:], strict=False)]
    found, own = (meter.seams(cuts, windows.overlap) for meter in (after, before))
    return [replace(seam, natural=its.step) for seam, its in zip(found, own, strict=True)]


def _scene_starts(plan: Plan, meter: SeamMeter) -> Iterator[int]:
    """The first frame of each scene of the input; all its frames go through the meter."""
    with Reader(plan.info, plan.options.read) as reader:
        for seen in with_cuts(reader, CutDetector(), plan):
            meter.add(frames_to_clip([seen.frame], reader.spec)[0])
            if seen.cut or seen.frame.index == 0:
                yield seen.frame.index


def seam_lines(found: list[Seam]) -> list[str]:
    """Each border with its numbers, and the worst.

    >>> seam_lines([Seam(17, 3.0, 1.95, natural=1.25)])[0]
    'seam at frame 17: 3.00 across, 1.95 beside: 1.51 times, in the input 1.25: ratio 1.21'
    """
    if not found:
        return ["no seams: no scene is longer than a window"]
    lines = [
        f"seam at frame {s.frame}: {s.jump:.2f} across, {s.inside:.2f} beside: "
        f"{s.step:.2f} times, in the input {s.natural:.2f}: ratio {s.ratio:.2f}"
        for s in found
    ]
    worst = max(s.ratio for s in found)
    count = f"{len(found)} seam{'' if len(found) == 1 else 's'}"
    return [*lines, f"{count}, worst ratio {worst:.2f} (above 1.15 would be seen)"]
