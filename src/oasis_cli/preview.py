"""Verb: look before you run. One window around a moment, and the seams of a finished run."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from oasis_cli.clips import open_clip, to_pixels
from oasis_cli.compare.run import write_whole
from oasis_cli.enlarge import (
    Enlarger,
    Model,
    choose_devices,
    load_network,
    settle_precision,
)
from oasis_cli.errors import UsageError
from oasis_cli.fidelity import Faithful, Seam, SeamMeter, enlarge
from oasis_cli.media.atomic import check_target
from oasis_cli.media.color import frames_to_clip
from oasis_cli.media.info import MediaInfo
from oasis_cli.media.pictures import encode_picture
from oasis_cli.media.pipes import passes_once
from oasis_cli.media.probe import probe
from oasis_cli.media.reader import Frame, Reader
from oasis_cli.plan import Options, Plan, target_size
from oasis_cli.scenes import CutDetector, thumbnail
from oasis_cli.weights import check_trained
from oasis_cli.windows import spans

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
    say: Callable[[str], None] = lambda text: None,
) -> Preview:
    """Enlarge one window around `at` seconds, or the middle; write (before | after) as a PNG.

    A target of another suffix, such as the video that is to be made, becomes `target`.png.
    """
    if str(target) == "-" or passes_once(source):
        raise UsageError("a preview needs files, not pipes", hint="name a video and a .png")
    target = target.with_suffix(".png")
    check_target(target, str(source), overwrite=options.encode.overwrite)
    info = probe(source, options.raw)
    width, height = target_size(info, options)
    at = _moment(info, at)
    device = choose_devices(options.device)[0]
    precision = settle_precision(options.precision, device)
    if model is None:
        check_trained(options.model)
    network: Model = model or load_network(
        options.model, device, precision, decoder=options.decoder
    )
    faithful = Faithful(network, strength=options.strength, color_fix=options.color_fix)
    frames, place, seconds = _window(info, options, at)
    say(f"enlarging {len(frames)} frames around {seconds:.2f} s to {width}x{height}")
    low = frames.to(device)
    high = Enlarger(faithful, (height, width), options.windows, tile=options.tile)(low)[place]
    before = enlarge(low[place : place + 1], (height, width))[0]
    both = torch.cat([before, high], dim=-1).clamp(-1, 1).cpu()
    both[..., width - LINE // 2 : width + LINE // 2 + 1] = 1
    picture = to_pixels(both)
    png = encode_picture(picture.numpy())
    write_whole(target, png)
    return Preview(picture, png, target, seconds)


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


def _window(info: MediaInfo, options: Options, at: float) -> tuple[Tensor, int, float]:
    """The frames of one scene around a moment, which of them is it, and its time in seconds."""
    wanted, rate = options.windows.frames, info.video.rate
    first = max(Fraction(0), Fraction(at).limit_denominator(10**6) - wanted // 2 / rate)
    read = replace(options.read, start=first, end=None)
    detect = CutDetector()
    kept: list[tuple[Frame, float]] = []
    peak = float((1 << info.video.layout.depth) - 1)
    with Reader(info, read) as reader:
        for frame in reader:
            seconds = float(first + frame.pts * reader.timeline.time_base)
            if detect(thumbnail(frame.planes[0], peak)):
                if seconds > at and kept:
                    break
                kept = []
            kept.append((frame, seconds))
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
    cuts = [spans(a, b, windows) for a, b in zip(bounds, bounds[1:], strict=False)]
    found, own = (meter.seams(cuts, windows.overlap) for meter in (after, before))
    return [replace(seam, natural=its.step) for seam, its in zip(found, own, strict=True)]


def _scene_starts(plan: Plan, meter: SeamMeter) -> Iterator[int]:
    """The first frame of each scene of the input; all its frames go through the meter."""
    detect = CutDetector()
    peak = float((1 << plan.info.video.layout.depth) - 1)
    with Reader(plan.info, plan.options.read) as reader:
        for frame in reader:
            meter.add(frames_to_clip([frame], reader.spec)[0])
            if detect(thumbnail(frame.planes[0], peak)) or frame.index == 0:
                yield frame.index


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
